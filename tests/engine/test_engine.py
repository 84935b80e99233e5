"""Answers that are written side by side equal those written alone, and do not disturb each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from pjlocal import Engine as EngineSettings
from pjlocal import Generation, PersonaJudge, Prompting
from pjlocal.answer import Answer, SingleAnswer
from pjlocal.engine.context import Context
from pjlocal.engine.engine import Engine
from pjlocal.engine.lanes import Capacity, needs
from pjlocal.engine.prefix import WORTH_COPYING, common_prefix, shared_prefix
from pjlocal.engine.slot import Slot
from pjlocal.errors import ModelError, UsageError
from pjlocal.events import TokenEvent

QUESTIONS = [
    f"Tell me {n} things about {what}." for n in ("two", "many") for what in ("cats", "the rain", "a long walk")
]
MODES = ("plain", "prompt", "judge", "both", "base")  # of one, two and four views
ONE_THREAD = EngineSettings(n_threads=1)
TWO_LANES = EngineSettings(n_threads=2, layout="contexts")


def generations(n: int = len(QUESTIONS), **changes: object) -> list[Generation]:
    return [
        Generation(mode=MODES[i % len(MODES)], seed=i, max_tokens=12 + 5 * (i % 3), ignore_end=True).replace(**changes)  # type: ignore[arg-type]
        for i in range(n)
    ]


def answer(judge: PersonaJudge, engine: Engine, question: str, generation: Generation) -> Answer:
    return judge.answer(judge.plan_request(question, judge.request.with_group(generation)), engine)


def answers(judge: PersonaJudge, engine: Engine, wanted: Sequence[Generation]) -> list[Answer]:
    return [answer(judge, engine, *each) for each in zip(QUESTIONS, wanted, strict=False)]


@contextmanager
def sharing(
    judge: PersonaJudge, n_seq: int, *, n_views: int = 1, n_ctx: int = 256, n_rows: int = 1, **capacity: Any
) -> Iterator[Engine]:
    """An engine with room for a number of views in all, for answers with ``n_views`` each."""
    of_it = Capacity(n_seq // n_views, n_views, n_ctx, n_rows, **capacity)
    with closing(Engine(judge.model, judge.engine, judge.interrupt, of_it)) as engine:
        yield engine


def written(engine: Engine, wanted: Sequence[Answer]) -> list[str]:
    """Write answers to their ends, and return the texts of their events."""
    texts = dict.fromkeys(wanted, "")
    for one in wanted:
        engine.submit(one)
    while not engine.is_idle:
        for one, events in engine.step():
            texts[one] += "".join(event.text for event in events)
    for one in wanted:
        assert one.error is None, one.error
        assert texts[one] == one.result.text
    return list(texts.values())


def finish(engine: Engine) -> None:
    while not engine.is_idle:
        engine.step()


def n_free(engine: Engine) -> int:
    return sum(sequence.is_free for sequence in engine.lanes)


def n_read(*wanted: Answer) -> tuple[int, int]:
    """Tokens that are read of the prompts of answers that come one after the other, and those held already.

    What an earlier prompt begins with is copied, but for the last token of each; so is what an answer's views share.
    """
    n, n_held = 0, 0
    before: list[Sequence[int]] = []
    for prompts in (one.plan.prompts for one in wanted):
        common = [max((common_prefix(other, prompt[:-1]) for other in before), default=0) for prompt in prompts]
        held = [each if each >= WORTH_COPYING else 0 for each in common]
        n_held += sum(held)
        n_shared = shared_prefix(prompts)
        if len(prompts) > 1 and n_shared - min(held) >= WORTH_COPYING:
            n += n_shared - min(max(held), n_shared)
            held = [max(n_shared, each) for each in held]
        n += sum(map(len, prompts)) - sum(held)
        before += prompts
    return n, n_held


@pytest.fixture
def judge(tiny: Callable[[str], Path]) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=ONE_THREAD) as made:
        yield made


Share = Callable[..., Any]  # makes an engine with room for a number of views in all, as `sharing` does


@pytest.fixture(params=[(ONE_THREAD, 1), (TWO_LANES, 2)], ids=["one lane", "two lanes"])
def shared(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Iterator[tuple[PersonaJudge, Share]]:
    engine, n_views = request.param
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as made:
        yield made, partial(sharing, made, n_views=n_views)


@pytest.fixture
def two_lanes(tiny: Callable[[str], Path]) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=TWO_LANES) as made:
        yield made


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize("n_seq", [3, 7, 16])
def test_every_answer_is_what_its_seed_gives_alone(tiny: Callable[[str], Path], kind: str, n_seq: int) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=ONE_THREAD) as judge:
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(), strict=True)]
        with sharing(judge, n_seq) as engine:
            assert written(engine, answers(judge, engine, generations())) == alone


def test_one_batch_decodes_the_tokens_of_all_answers(tiny: Callable[[str], Path]) -> None:
    settings = EngineSettings(n_threads=1, n_batch=1024)  # of which one reads all prompts
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=settings) as judge,
        sharing(judge, 8) as engine,
    ):
        wanted = answers(judge, engine, generations(4, mode="judge", max_tokens=10))
        written(engine, wanted)
        assert engine.lanes.n_decodes == 2 * 4 + 10, "each answer's shared beginning and its ends, then a batch a token"
        assert engine.lanes.n_fed == n_read(*wanted)[0] + 8 * 9


def test_the_end_of_an_answer_frees_its_sequences_and_keeps_their_caches(judge: PersonaJudge) -> None:
    generation = Generation(mode="judge", seed=1, max_tokens=5, ignore_end=True)
    with sharing(judge, 2, n_views=2) as engine:
        free = n_free(engine)
        first, again = (answer(judge, engine, QUESTIONS[0], generation) for _ in range(2))
        texts = written(engine, [first, again])
        assert texts[0] == texts[1]
        assert n_free(engine) == free and engine.is_idle
        n_fed = n_read(first)[0] + 2 * 2 * 4 + 2  # of the second's prompts the last tokens alone
        assert engine.lanes.n_fed == n_fed


def test_a_capacity_of_one_answer_is_enough(judge: PersonaJudge) -> None:
    generation = Generation(mode="both", seed=1, max_tokens=5, ignore_end=True)
    alone = [judge(question, **generation.as_dict()).text for question in QUESTIONS[:3]]
    with sharing(judge, 3, n_views=3) as engine:
        wanted = [answer(judge, engine, question, generation) for question in QUESTIONS[:3]]
        assert written(engine, wanted) == alone


def test_a_shared_beginning_of_prompts_is_read_once(tiny: Callable[[str], Path]) -> None:
    """Of an answer's views, and of answers that are written at the same time."""
    generation = Generation(mode="both", seed=1, max_tokens=5, ignore_end=True)
    questions = ["word " * 30 + ending for ending in ("one", "two")]
    settings = EngineSettings(n_threads=1, n_batch=32)  # wider batches round otherwise
    with PersonaJudge(
        tiny("llama"), prefer=["vivid", "creative"], prompting=Prompting(placement="question"), engine=settings
    ) as judge:
        alone = [judge(question, **generation.as_dict()).text for question in questions]
        with sharing(judge, 6) as engine:
            wanted = [answer(judge, engine, question, generation) for question in questions]
            assert written(engine, wanted) == alone
            read, held = n_read(*wanted)
            assert engine.lanes.n_fed == read + 8 * 4 < 0.4 * sum(sum(map(len, one.plan.prompts)) for one in wanted)
            assert wanted[0].n_held + wanted[1].n_held == held > 0


@pytest.mark.parametrize("kind", ["sliding_window", "recurrent"])
def test_a_cache_that_cannot_be_truncated_is_not_copied(tiny: Callable[[str], Path], kind: str) -> None:
    """But for what an answer's views share, which is copied as a whole when it is read."""
    generation = Generation(mode="judge", seed=1, max_tokens=5, ignore_end=True)
    with (
        PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=ONE_THREAD) as judge,
        sharing(judge, 4) as engine,
    ):
        wanted = [answer(judge, engine, "word " * 30, generation) for _ in range(2)]
        written(engine, wanted)
        prompts = wanted[0].plan.prompts
        assert engine.lanes.n_fed == 2 * (sum(map(len, prompts)) - shared_prefix(prompts) + 2 * 4)
        assert wanted[0].n_held == wanted[1].n_held == 0


def test_look_ahead_changes_no_text(judge: PersonaJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    from pjlocal.decoding.guess import Lookahead

    guessed = 0

    def widest(self: Lookahead, most: int) -> int:
        nonlocal guessed
        guessed = max(guessed, most - 1)
        return most

    monkeypatch.setattr(Lookahead, "_best_width", widest)
    for n_rows in (1, 3, 5):  # where the lanes have room for fewer, an answer guesses fewer
        with sharing(judge, 6, n_rows=n_rows) as engine:
            plain = written(engine, answers(judge, engine, generations()))
            assert written(engine, answers(judge, engine, generations(lookahead=4))) == plain
            assert guessed == n_rows - 1


def test_an_error_in_one_answer_ends_only_that_answer(shared: tuple[PersonaJudge, Share]) -> None:
    judge, share = shared
    alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(3), strict=False)]
    with share(8) as engine:
        free = n_free(engine)
        wanted = answers(judge, engine, generations(3))
        never, breaks, unfinished = answers(judge, engine, generations(3, mode="judge"))

        def broken(slot: Slot) -> None:
            raise UsageError("a fault of its own")

        decide, left = breaks.decide, [1, 2, 3]

        def breaking() -> list[TokenEvent]:
            if not left:
                raise ModelError("a fault in the middle")
            left.pop()
            return decide()

        def finishing(slot: Slot) -> list[TokenEvent]:
            raise ModelError("a fault at the end")

        never.begin, breaks.decide, unfinished.finish = broken, breaking, finishing  # type: ignore[method-assign]
        faulty = [never, breaks, unfinished]
        for one in (*faulty, *wanted):
            engine.submit(one)
        finish(engine)
        errors = ["a fault of its own", "a fault in the middle", "a fault at the end"]
        assert [str(one.error) for one in faulty] == errors
        assert [one.result.text for one in wanted] == alone
        assert n_free(engine) == free


def test_an_interrupt_ends_all_answers_and_keeps_their_texts(shared: tuple[PersonaJudge, Share]) -> None:
    judge, share = shared
    alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(4), strict=False)]
    with share(6) as engine:
        wanted = answers(judge, engine, generations(3, max_tokens=50))
        for one in wanted:
            engine.submit(one)
        while not all(one.statistics.completion_tokens > 2 for one in wanted):
            engine.step()
        judge.interrupt.set()
        finish(engine)
        judge.interrupt.clear()
        for one in wanted:
            assert one.result.finish_reason == "interrupted" and one.result.text and one.error is None
        assert written(engine, answers(judge, engine, generations(4))) == alone, "the caches are sound"


def test_cancelling_frees_the_sequences(judge: PersonaJudge) -> None:
    with sharing(judge, 4) as engine:
        wanted = answers(judge, engine, generations(3, mode="judge", max_tokens=50))
        for one in wanted:
            engine.submit(one)
        engine.step()
        assert n_free(engine) == 0 and engine.n_waiting == 1
        engine.cancel(wanted[0])
        engine.step()
        assert engine.n_waiting == 0 and engine.is_writing(wanted[2]) and not engine.is_writing(wanted[0])
        for one in wanted:
            engine.cancel(one)
        assert engine.is_idle and n_free(engine) == 4


def test_cancelling_in_the_middle_changes_no_other_text(shared: tuple[PersonaJudge, Share]) -> None:
    """Cancel at every point: waiting, while its prompts are read, and after one to four tokens."""
    judge, share = shared
    alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(3), strict=False)]
    for n_steps in range(6):
        with share(8) as engine:
            free = n_free(engine)
            wanted = answers(judge, engine, generations(3))
            gone = answers(judge, engine, generations(4, mode="judge", max_tokens=50))[3]
            for one in (wanted[0], gone, *wanted[1:]):
                engine.submit(one)
            for _ in range(n_steps):
                engine.step()
            engine.cancel(gone)
            n_tokens = gone.statistics.completion_tokens
            finish(engine)
            assert [one.result.text for one in wanted] == alone
            assert gone.statistics.completion_tokens == n_tokens, "nothing more was written of it"
            assert n_free(engine) == free


@pytest.mark.parametrize("best", [1, 2])
@pytest.mark.parametrize("kind", ["llama", "recurrent"])
def test_the_caches_of_a_cancelled_answer_can_be_used_though_its_decode_was_stopped(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, kind: str, best: int
) -> None:
    """A client can hang up between two steps, while the second lane decodes."""
    with PersonaJudge(tiny(kind), ["vivid"], engine=TWO_LANES) as judge, sharing(judge, 4, n_views=2) as one:
        (wanted,) = generations(1, mode="both", max_tokens=9, best=best)
        gone = answer(judge, one, "Why?", wanted)
        one.submit(gone)
        while gone.parts[0].statistics.completion_tokens < 4:
            one.step()
        cancel_while_decoding(judge, one, gone, monkeypatch)
        for sequence in one.lanes:
            assert len(sequence.cached) == sequence.lane.context.length(sequence.number)
            assert not sequence.is_being_decoded
        text = [event.id for event in gone.parts[0].emitted]
        plan = judge.plan_request("Why?", judge.request.with_group(wanted.replace(best=1)))
        longer = replace(plan, prompts=[[*prompt, *text, 99] for prompt in plan.prompts])
        alone = judge.answer(longer)
        list(alone)
        assert written(one, [judge.answer(longer, one)]) == [alone.result.text]


def test_the_other_answers_are_interrupted_too_if_the_decode_of_a_cancelled_one_was_stopped(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PersonaJudge(tiny("recurrent"), ["vivid"], engine=TWO_LANES) as judge, sharing(judge, 4, n_views=2) as one:
        gone, other = answers(judge, one, generations(2, mode="both", max_tokens=9))
        one.submit(gone)
        one.submit(other)
        while gone.parts[0].statistics.completion_tokens < 4:
            one.step()
        cancel_while_decoding(judge, one, gone, monkeypatch)
        finish(one)
        assert other.error is None and other.finish_reason == "interrupted" and other.result.text


def cancel_while_decoding(judge: PersonaJudge, engine: Engine, gone: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel an answer after a step, while the decode for the next one is stopped."""
    decode, launch = Context.decode, engine._launch

    def stopped(*args: Any) -> None:
        judge.interrupt.set()
        try:
            decode(*args)
        finally:
            judge.interrupt.clear()

    def stopped_launch() -> None:
        patch.setattr(Context, "decode", stopped)
        launch()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_launch", stopped_launch)
        engine.step()
        engine.cancel(gone)


def test_right_guesses_in_one_answer_change_no_other_text(judge: PersonaJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tokens of an answer are decided after the others' next tokens are computed."""
    wanted = generations(2, mode="both", max_tokens=24)
    with sharing(judge, 8, n_views=4) as engine:
        alone = answers(judge, engine, wanted)
        written(engine, alone)
        n_alone = engine.lanes.n_decodes
    guessers = iter([Knowing(alone[0], 24), Knowing(alone[1], 9)])
    monkeypatch.setattr(SingleAnswer, "_guesser", lambda *_: next(guessers))
    with sharing(judge, 8, n_views=4, n_rows=5) as engine:
        guessed = answers(judge, engine, [one.replace(lookahead=4) for one in wanted])
        assert written(engine, guessed) == [one.result.text for one in alone]
        assert engine.lanes.n_decodes < n_alone, "no guess was used"


class Knowing:
    """Guesses the first ``n`` tokens of an answer, four at a time."""

    def __init__(self, answer: Answer, n: int) -> None:
        self._tokens = [event.id for event in answer.emitted[:n]]
        self._at = 0

    def accept(self, token: int) -> None:
        self._at += 1

    def guess(self) -> list[int]:
        return self._tokens[self._at : self._at + 4]


def test_an_answer_in_the_place_of_a_cancelled_one_changes_no_other_text(judge: PersonaJudge) -> None:
    def text(is_disturbed: bool) -> str:
        with sharing(judge, 12, n_views=4) as engine:
            first, second, third = answers(judge, engine, generations(3, mode="both", max_tokens=20))
            written(engine, [answer(judge, engine, QUESTIONS[2], Generation(mode="both", max_tokens=1))])
            engine.submit(first)
            engine.submit(second)
            while len(second.emitted) < 5:
                engine.step()
            if is_disturbed:
                engine.cancel(second)
                engine.submit(third)  # its prompt is read already, so it is decoded at once
            finish(engine)
            return first.result.text

    assert text(is_disturbed=True) == text(is_disturbed=False)


def test_a_prompt_longer_than_a_batch_is_read_in_several(tiny: Callable[[str], Path]) -> None:
    settings = EngineSettings(n_threads=1, n_batch=16)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=settings) as judge:
        generation = Generation(mode="judge", seed=3, max_tokens=8, ignore_end=True)
        alone = judge(QUESTIONS[0], **generation.as_dict()).text
        with sharing(judge, 4) as engine:
            wanted = [answer(judge, engine, QUESTIONS[0], generation) for _ in range(2)]
            assert written(engine, wanted) == [alone, alone]


def test_answers_with_and_without_look_ahead_can_be_written_together(judge: PersonaJudge) -> None:
    plain, ahead = (Generation(mode="judge", seed=3, max_tokens=30, ignore_end=True, lookahead=n) for n in (0, 7))
    alone = judge(QUESTIONS[0], **plain.as_dict()).text
    with sharing(judge, 4, n_rows=8) as engine:
        first, second = (answer(judge, engine, QUESTIONS[0], generation) for generation in (plain, ahead))
        engine.submit(first)
        engine.step()
        engine.step()
        read = engine.lanes.n_fed
        engine.submit(second)
        engine.step()
        assert engine.lanes.n_fed < 2.2 * read, "the prompts of the second, and a token of each"
        finish(engine)
        assert [one.result.text for one in (first, second)] == [alone, alone]


def started(engine: Engine, one: Answer) -> None:
    """Submit an answer, and step until it has a token."""
    engine.submit(one)
    while not one.statistics.completion_tokens:
        engine.step()


def test_a_long_prompt_does_not_delay_other_answers(tiny: Callable[[str], Path]) -> None:
    settings = EngineSettings(n_threads=1, n_batch=8)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=settings) as judge:
        generation = Generation(mode="judge", seed=3, max_tokens=8, ignore_end=True)
        alone = [judge(question, **generation.as_dict()).text for question in ("Hello.", "word " * 30)]
        with sharing(judge, 4, prompt_piece=None) as engine:
            short = answer(judge, engine, "Hello.", generation)
            long = answer(judge, engine, "word " * 30, generation)
            started(engine, short)
            engine.submit(long)
            while not short.is_done:
                fed = engine.lanes.n_fed
                engine.step()
                assert engine.lanes.n_fed - fed <= 2 * 8 + 4
            assert not long.statistics.completion_tokens
            finish(engine)
            assert [one.result.text for one in (short, long)] == alone


@contextmanager
def in_pieces(tiny: Callable[[str], Path], n_seq: int = 4) -> Iterator[tuple[PersonaJudge, Engine]]:
    """An engine that reads 8 prompt tokens in a step while several answers are in flight."""
    settings = EngineSettings(n_threads=1, n_batch=32)  # wider batches round otherwise
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=settings) as judge,
        sharing(judge, n_seq, n_ctx=512, prompt_piece=8) as engine,
    ):
        yield judge, engine


def test_a_long_prompt_is_read_in_pieces_while_others_are_written(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="judge", seed=3, max_tokens=50, ignore_end=True)
    with in_pieces(tiny) as (judge, engine):
        alone = [judge(question, **generation.as_dict()).text for question in ("Hello.", "word " * 40)]
        short = answer(judge, engine, "Hello.", generation)
        long = answer(judge, engine, "word " * 40, generation)
        started(engine, short)
        engine.submit(long)
        while not long.statistics.completion_tokens:
            fed, n = engine.lanes.n_fed, short.statistics.completion_tokens
            engine.step()
            assert engine.lanes.n_fed - fed <= 8 + 4, "a piece, and a token of each view"
            assert short.statistics.completion_tokens == n + 1
        finish(engine)
        assert [one.result.text for one in (short, long)] == alone


def test_a_prompt_that_is_alone_is_read_in_whole_batches(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="plain", seed=3, max_tokens=2, ignore_end=True)
    with in_pieces(tiny) as (judge, engine):
        engine.submit(answer(judge, engine, "word " * 40, generation))
        engine.step()
        assert engine.lanes.n_fed >= 32
        finish(engine)


def test_a_short_prompt_goes_before_a_long_one_and_none_waits_for_ever(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="plain", seed=3, max_tokens=1, ignore_end=True)
    questions = iter(f"{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" * 9)
    with in_pieces(tiny, n_seq=3) as (judge, engine):
        long = answer(judge, engine, "word " * 40, generation)
        engine.submit(long)
        first = answer(judge, engine, "hello", generation)
        engine.submit(first)
        while not first.is_done:
            engine.step()
        n_fed = engine.lanes.n_fed
        assert not long.is_done and n_fed < 3 * len(first.plan.prompts[0])
        n_steps = 0
        while not long.is_done:  # however many come behind it
            for _ in range(max(0, 2 - engine.n_waiting)):
                engine.submit(answer(judge, engine, next(questions), generation))
            engine.step()
            n_steps += 1
        assert n_steps < len(long.plan.prompts[0])
        finish(engine)


def test_a_conversation_finds_its_caches_after_other_conversations(judge: PersonaJudge) -> None:
    questions = [letter * 60 for letter in "xyz"]  # which begin as the template has them begin
    generation = Generation(mode="plain", seed=1, max_tokens=5, ignore_end=True)
    with sharing(judge, 3) as engine:
        written(engine, [answer(judge, engine, question, generation) for question in questions[:1]])
        written(engine, [answer(judge, engine, question, generation) for question in questions[1:]])
        for question in questions:
            again, fed = answer(judge, engine, question, generation), engine.lanes.n_fed
            written(engine, [again])
            assert engine.lanes.n_fed - fed == 1 + 4  # of the prompt the last token alone
            assert again.n_held == len(again.plan.prompts[0]) - 1


def test_more_views_than_there_is_room_for_are_refused(judge: PersonaJudge) -> None:
    generation = generations(1, mode="both", avoid=("formal",))[0]
    with sharing(judge, 1) as engine:
        with pytest.raises(UsageError, match=r"5 views, and the server has room for 4: .* --parallel 5"):
            engine.submit(answer(judge, engine, QUESTIONS[0], generation))
        assert engine.is_idle
    with sharing(judge, 5) as engine:
        assert written(engine, [answer(judge, engine, QUESTIONS[0], generation)])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["batched", "contexts"])
def test_the_real_model_writes_answers_side_by_side_too(smollm2: Path, layout: Any) -> None:
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], engine=EngineSettings(layout=layout)) as judge:
        wanted = generations(max_tokens=24, ignore_end=False)
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, wanted, strict=True)]
        with sharing(judge, 12, n_views=2) as engine:
            assert written(engine, answers(judge, engine, wanted)) == alone


# In contexts: a lane for each of two views.


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize("n_answers", [1, 2, 4])
def test_in_two_lanes_every_answer_is_what_its_seed_gives_alone(
    tiny: Callable[[str], Path], kind: str, n_answers: int
) -> None:
    """Of one, two and four views: four have no lane each, and go to one lane together."""
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=TWO_LANES) as judge:
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(), strict=True)]
        with sharing(judge, 2 * n_answers, n_views=2) as engine:
            wanted = answers(judge, engine, generations())
            assert written(engine, wanted) == alone
        layouts = {one.mode: one.layout for one in wanted}
        expected = {"judge": "contexts", "base": "contexts", "both": "batched", "plain": None, "prompt": None}
        assert layouts == expected


def test_in_two_lanes_the_views_of_every_answer_are_decoded_side_by_side(two_lanes: PersonaJudge) -> None:
    """And those of other answers with them: each lane reads a token of every answer in one batch."""
    with sharing(two_lanes, 6, n_views=2) as engine:
        wanted = answers(two_lanes, engine, generations(3, mode="judge", max_tokens=10))
        for one in wanted:
            engine.submit(one)
        while not all(one.statistics.completion_tokens for one in wanted):
            engine.step()
        assert all(len({sequence.lane for sequence in engine._in_flight[one].sequences}) == 2 for one in wanted)
        n_decodes = engine.lanes.n_decodes
        left = max(10 - one.statistics.completion_tokens for one in wanted)
        finish(engine)
        assert n_decodes + 2 * left >= engine.lanes.n_decodes > n_decodes + 2 * (left - 2)


def test_mode_both_beside_judge_answers_in_two_lanes(two_lanes: PersonaJudge) -> None:
    """An answer of four views is in one lane, whose others go on, and its neighbours in both."""
    wanted = [
        Generation(mode=mode, seed=i, max_tokens=12, ignore_end=True)  # type: ignore[arg-type]
        for i, mode in enumerate(("judge", "both", "judge", "both", "judge", "judge"))
    ]
    alone = [two_lanes(q, **g.as_dict()).text for q, g in zip(QUESTIONS, wanted, strict=True)]
    with sharing(two_lanes, 12, n_views=2) as engine:
        made = answers(two_lanes, engine, wanted)
        for one in made:
            engine.submit(one)
        while not all(one.statistics.completion_tokens for one in made[:4]):
            engine.step()
        lanes = [len({sequence.lane for sequence in engine._in_flight[one].sequences}) for one in made[:4]]
        assert lanes == [2, 1, 2, 1]
        finish(engine)
        assert [one.result.text for one in made] == alone


def test_an_answer_with_many_views_waits_for_room_and_later_answers_wait_for_it(
    two_lanes: PersonaJudge,
) -> None:
    with sharing(two_lanes, 4, n_views=2) as engine:  # four sequences in each of two lanes
        first = answers(two_lanes, engine, generations(4, mode="judge", max_tokens=20))
        both, last = answers(two_lanes, engine, generations(2, mode="both", max_tokens=4))
        for one in (*first, both, last):
            engine.submit(one)
        engine.step()
        assert n_free(engine) == 0 and engine.n_waiting == 2
        finish(engine)
        assert all(one.result.finish_reason == "length" for one in (*first, both, last))


@pytest.mark.parametrize("layout", ["batched", "contexts"])
def test_closing_in_another_thread_ends_the_answers_and_frees_nothing_during_a_step(
    tiny: Callable[[str], Path], layout: Any
) -> None:
    """A program may end while a daemon thread writes answers."""
    settings = EngineSettings(n_threads=2, layout=layout)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=settings) as judge:
        engine = Engine(judge.model, settings, judge.interrupt, Capacity(4, 2, 512))
        wanted = answers(judge, engine, generations(5, mode="judge", max_tokens=400))
        begun = threading.Event()

        def write() -> None:
            for one in wanted:
                engine.submit(one)
            while not engine.is_idle:
                if any(events for _, events in engine.step()):
                    begun.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert begun.wait(PATIENCE_S)
        engine.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert [one.finish_reason for one in wanted] == ["interrupted"] * 5
        assert engine.step() == [] and not judge.interrupt.is_set()
        with pytest.raises(UsageError, match="closed"):
            engine.submit(wanted[0])


# A slot without an answer.


def test_a_slot_is_read_without_an_answer(judge: PersonaJudge) -> None:
    engine = judge.decoder
    with engine.direct(needs(2, 256)) as slot:
        slot.start([[5, 6, 7], [5, 6, 8]])
        first = [slot.logits(view).copy() for view in range(2)]
        slot.feed([9])
        assert engine.lanes.n_fed == 6, "nothing is decoded before it is asked for"
        assert slot.logits(0).shape == first[0].shape and engine.lanes.n_fed == 8
    assert judge("Hello", max_tokens=3, ignore_end=True).statistics.completion_tokens == 3
    with engine.direct(needs(2, 256, reuses=False)) as slot:
        slot.start([[5, 6, 7], [5, 6, 8]])
        again = [slot.logits(view) for view in range(2)]
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
