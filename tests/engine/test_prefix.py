"""The choice of a KV cache for a prompt, and of a prefix to copy: plain lists of tokens, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pjlocal import Engine, PersonaJudge
from pjlocal.engine.prefix import WORTH_COPYING, Cache, assign, common_prefix, fresh, shared_prefix, source
from pjlocal.engine.sequence import Sequence as CacheSequence

SYSTEM = [*range(100, 140)]
QUESTION = [*range(200, 260)]
ANSWER = [*range(300, 320)]
NEXT = [*range(400, 410)]
VIVID, CREATIVE, FORMAL, CONCISE = ([start, start + 1, start + 2] for start in (1, 4, 7, 10))


def placed(
    prompts: Sequence[Sequence[int]],
    caches: Sequence[Sequence[int] | Cache],
    adapters: Sequence[object] = (),
    *,
    separate: bool = False,
) -> list[int]:
    """The caches' numbers by prompt; a list of tokens is a cache in lane 0 that was never used."""
    made = [each if isinstance(each, Cache) else Cache(each) for each in caches]
    return assign(prompts, adapters or [None] * len(prompts), made, separate=separate)


def test_a_common_prefix_ends_where_tokens_differ_or_one_text_ends() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == common_prefix([1, 2, 3], [1, 2]) == 2
    assert common_prefix([], [1]) == common_prefix([2], [1]) == 0


def test_a_conversation_continues_in_the_caches_of_its_last_turn() -> None:
    views = [[*VIVID, *QUESTION, *ANSWER], [*CREATIVE, *QUESTION, *ANSWER]]
    assert placed([view + NEXT for view in views], views) == [0, 1]


def test_a_new_model_gives_the_views_its_caches_in_order() -> None:
    assert placed([VIVID, CREATIVE, FORMAL], [[], [], []]) == [0, 1, 2]


def test_swapped_preferences_swap_their_caches() -> None:
    views = [[*VIVID, *QUESTION], [*CREATIVE, *QUESTION]]
    assert placed([view + NEXT for view in reversed(views)], views) == [1, 0]


def test_rotated_preferences_keep_their_caches() -> None:
    views = [[*each, *QUESTION] for each in (VIVID, CREATIVE, FORMAL, CONCISE)]
    assert placed([views[i] + NEXT for i in (1, 2, 3, 0)], views) == [1, 2, 3, 0]


def test_views_with_equal_prefixes_keep_their_caches() -> None:
    """Both caches contain the common prefix of the prompts."""
    caches = [[*SYSTEM, *VIVID], [*SYSTEM, *CREATIVE]]
    assert placed([[*SYSTEM, *FORMAL], [*SYSTEM, *CONCISE]], caches) == [0, 1]


def test_an_unchanged_view_keeps_its_cache_and_the_new_view_gets_the_other() -> None:
    caches = [[*SYSTEM, *VIVID], [*SYSTEM, *CREATIVE]]
    assert placed([[*SYSTEM, *FORMAL], [*SYSTEM, *VIVID, *NEXT]], caches) == [1, 0]


def test_caches_are_assigned_for_the_greatest_sum() -> None:
    """Cache 0 holds one token more of the first prompt than cache 1, and all of the second."""
    caches = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 9]]
    prompts = [[1, 2, 3, 4, 7], [1, 2, 3, 4, 5, 6, 8]]
    assert placed(prompts, caches) == [1, 0]


def test_fewer_views_take_the_caches_that_hold_them() -> None:
    caches = [[*each, *QUESTION] for each in (VIVID, CREATIVE, FORMAL)]
    assert placed([[*FORMAL, *QUESTION, *NEXT]], caches) == [2]
    assert placed([[*FORMAL, *QUESTION, *NEXT], [*VIVID, *QUESTION, *NEXT]], caches) == [2, 0]


def test_more_views_take_empty_caches_besides() -> None:
    caches = [[*VIVID, *QUESTION], [*CREATIVE, *QUESTION], []]
    prompts = [[*each, *QUESTION, *NEXT] for each in (VIVID, FORMAL, CREATIVE)]
    assert placed(prompts, caches) == [0, 2, 1]


def test_more_than_four_views_have_separate_caches() -> None:
    """Five have too many orders to try all, so each view takes the best remaining cache."""
    views = [[number, *QUESTION] for number in range(6)]
    assert placed([views[i] + NEXT for i in (5, 4, 3, 2, 1, 0)], views) == [5, 4, 3, 2, 1, 0]
    assert placed(views, [[]] * 6) == [0, 1, 2, 3, 4, 5]


def test_requests_that_begin_alike_do_not_take_each_others_conversations() -> None:
    """Both conversations begin with the same system text, which is less than half of the cache."""
    conversation = [*SYSTEM, *QUESTION]
    assert placed([[*SYSTEM, *NEXT]], [conversation, []]) == [1], "an empty cache, and the beginning is copied"
    assert placed([[*SYSTEM, *QUESTION, *NEXT]], [[], conversation]) == [1], "its own conversation"


def test_a_cache_that_is_half_useful_is_preferred_to_an_empty_one() -> None:
    cache = [*range(10)]
    assert placed([[*range(5), 99]], [[], cache]) == [1]
    assert placed([[*range(4), 99]], [[], cache]) == [0]


def test_the_useful_cache_with_the_longest_prefix_is_chosen() -> None:
    caches = [[*SYSTEM, *QUESTION], [*SYSTEM, *QUESTION, *ANSWER], SYSTEM]
    assert placed([[*SYSTEM, *QUESTION, *ANSWER, *NEXT]], caches) == [1]


def test_among_useless_caches_the_one_released_longest_ago_is_evicted() -> None:
    caches = [Cache([1, *QUESTION], released=7), Cache([2, *QUESTION], released=3), Cache([3, *QUESTION], released=5)]
    assert placed([NEXT], caches) == [1]
    assert sorted(placed([NEXT, ANSWER], caches)) == [1, 2]


def test_a_cache_with_a_little_of_the_prompt_is_preferred_to_one_without() -> None:
    caches = [Cache([9, *QUESTION], released=1), Cache([*SYSTEM[:5], *QUESTION], released=2)]
    assert placed([SYSTEM], caches) == [1]


def test_every_view_has_its_own_lane_in_contexts() -> None:
    caches = [Cache([*VIVID, *QUESTION], lane=0), Cache([*CREATIVE, *QUESTION], lane=0), Cache([], lane=1)]
    prompts = [[*VIVID, *QUESTION, *NEXT], [*CREATIVE, *QUESTION, *NEXT]]
    assert placed(prompts, caches) == [0, 1]
    assert placed(prompts, caches, separate=True) == [0, 2]


def test_swapped_preferences_swap_their_lanes() -> None:
    views = [[*VIVID, *QUESTION], [*CREATIVE, *QUESTION]]
    caches = [Cache([], lane=0), Cache(views[0], lane=0), Cache(views[1], lane=1), Cache([], lane=1)]
    assert placed([view + NEXT for view in reversed(views)], caches, separate=True) == [2, 1]


def test_views_that_are_decoded_together_go_to_one_lane_that_has_room_for_all() -> None:
    """The only free cache of lane 0 holds the first prompt, but the lane has no room for the others."""
    caches = [Cache([*VIVID, *QUESTION], lane=0), *(Cache([], lane=1) for _ in range(3))]
    prompts = [[*each, *QUESTION] for each in (VIVID, CREATIVE, FORMAL)]
    assert placed(prompts, caches) == [1, 2, 3]
    assert placed(prompts[:1], caches) == [0], "one view alone goes where it was"
    roomy = [*caches, Cache([], lane=0), Cache([], lane=0)]
    assert placed(prompts, roomy) == [0, 4, 5]


def test_views_are_spread_over_lanes_if_none_has_room_for_all() -> None:
    caches = [Cache([], lane=0), Cache([], lane=0), Cache([], lane=1), Cache([], lane=1)]
    assert sorted(placed([VIVID, CREATIVE, FORMAL], caches)) == [0, 1, 2]


def test_caches_of_other_adapters_are_useless() -> None:
    caches = [Cache([*VIVID, *QUESTION], "pirate"), Cache([*CREATIVE, *QUESTION], "calm")]
    prompts = [[*VIVID, *QUESTION, *NEXT], [*CREATIVE, *QUESTION, *NEXT]]
    assert placed(prompts, caches, ["pirate", "calm"]) == [0, 1]
    assert placed(prompts[::-1], caches, ["calm", "pirate"]) == [1, 0], "swapped with their adapters"
    assert placed(prompts[:1], caches, ["calm"]) == [0], "neither is of use, and the order stays"
    assert placed(prompts[:1], [*caches, Cache([], "calm")], ["calm"]) == [2], "an empty one goes first"


# Answers that use nothing of what was read.


def lane(*released: int, first: int = 0, lane: int = 0) -> list[Cache]:
    """Sequences of a lane by when they were released; those of 0 are empty."""
    return [Cache([1] * bool(n), lane=lane, number=number, released=n) for number, n in enumerate(released, first)]


def test_an_answer_that_reuses_nothing_takes_empty_sequences_before_evicting_a_chat() -> None:
    assert fresh(2, lane(3, 3, 0, 0)) == [2, 3]
    assert fresh(1, lane(2, 3, 0)) == [2]
    assert fresh(2, lane(0, 0, 0, 0)) == [0, 1], "as in a lane that was just made"


def test_without_empty_sequences_those_released_longest_ago_are_chosen() -> None:
    assert fresh(2, lane(3, 3, 2, 2, 5, 5)) == [2, 3]
    assert fresh(2, lane(4, 4, 0, 7)) == [1, 2], "one of a chat is less than two"


def test_consecutive_sequences_are_chosen_so_that_they_are_decoded_together() -> None:
    assert fresh(2, lane(0, 5, 0, 4, 3)) == [2, 3]
    in_use = [*lane(0), *lane(9, 8, first=2)]  # number 1 is in use
    assert fresh(2, in_use) == [1, 2]
    assert fresh(2, [*lane(0, lane=0), *lane(7, 0, lane=1)]) == [1, 2]
    assert sorted(fresh(2, [*lane(5), *lane(0, first=2), *lane(4, first=4)])) == [1, 2], "where any do; else the oldest"


def test_in_contexts_each_view_gets_the_oldest_sequence_of_its_lane() -> None:
    assert fresh(2, [*lane(3, 0, lane=0), *lane(2, 4, lane=1)], separate=True) == [1, 2]


# Beginnings.


def test_a_shared_prefix_excludes_the_last_token_of_every_prompt() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3, 4]]) == 2
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 1, "the last token of a prompt is read by itself"
    assert shared_prefix([[1, 2], [1, 2]]) == 1
    assert shared_prefix([[1], [2]]) == 0


def test_a_beginning_is_copied_from_the_cache_that_holds_most_of_it() -> None:
    prompt = [*SYSTEM, *QUESTION]
    assert source(prompt, 0, [[*SYSTEM, 1], [*SYSTEM, *QUESTION[:30], 1], [1]]) == (1, 70)
    assert source(prompt, 0, [prompt]) == (0, 99), "all but the last token, which is read for its logits"
    assert source(prompt, 0, []) is None


@pytest.mark.parametrize("held", [0, 5])
def test_a_short_prefix_is_read_and_not_copied(held: int) -> None:
    prompt = [*range(1000)]

    def copied(n: int) -> bool:
        return source(prompt, held, [[*range(n), -1]]) is not None

    assert copied(held + WORTH_COPYING) and not copied(held + WORTH_COPYING - 1)


def test_a_long_cache_is_not_copied_for_a_tenth_of_it() -> None:
    """A copied token takes up to a tenth of the time of one that is read."""
    prompt = [*range(50), -1]
    assert source(prompt, 0, [[*range(500)]]) == (0, 50)
    assert source(prompt, 0, [[*range(501)]]) is None


def test_progress_does_not_fall_back_while_the_shared_beginning_is_copied(tiny, monkeypatch) -> None:
    seen = []
    fill = CacheSequence.fill
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(n_threads=1, n_ctx=4096)) as judge:
        answer = judge.stream("word " * 200, max_tokens=1)

        def noting(sequence: CacheSequence, state: object) -> None:
            seen.append(judge.decoder.reading(answer))
            fill(sequence, state)

        monkeypatch.setattr(CacheSequence, "fill", noting)
        list(answer)
    assert seen and all(n > 0.8 * n_all for n, n_all in seen)
