"""What a turn reads and leaves in the cache: what was read once is not read again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_models
from talking import ENDLESS, KINDS, LAYOUTS, QUESTIONS, TEXT_ONLY, Cost, Talk, common, plain_event, talk

from pjlocal import Engine, PersonaJudge, Prompting
from pjlocal.engine.model import Model
from pjlocal.sessions.cache import load_cache, save_cache
from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

# The cache, from turn to turn.

#: With fewer than 64 tokens in a batch llama.cpp rounds alike on a CPU, whatever the batch's shape, where weights are
#: in few bits and no window slides (`ModelViews.start` says more).  From there on its flash attention works in tiles:
#: the same prompt read in other pieces then has logits that differ by up to 1.1 on SmolLM2 Q4_1: another text perhaps.
ROUNDS_ALIKE = 32


def with_fresh_prefills(model: Model, **settings: object) -> list[Cost]:
    """The ten turns where each is read by a judge that has read nothing."""
    session, costs = Session(), []
    for question in QUESTIONS:
        with talk(model, session=session, **settings) as fresh:
            costs.append(fresh.ask(question))
    return costs


@pytest.fixture(scope="module")
def fresh(smollm2: Path) -> list[Cost]:
    engine = Engine(n_batch=ROUNDS_ALIKE, n_threads=1)
    with PersonaJudge(smollm2) as loaded:
        return with_fresh_prefills(loaded.model, engine=engine, max_tokens=6, mode="judge")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_turns_say_the_same_with_reuse_as_with_a_fresh_prefill_each(smollm2, fresh, layout: str) -> None:
    engine = Engine(layout=layout, n_batch=ROUNDS_ALIKE, n_threads=1)
    with talk(smollm2, engine=engine, max_tokens=6, mode="judge") as chat:
        costs = [chat.ask(question) for question in QUESTIONS]
    assert [cost.events for cost in costs] == [cost.events for cost in fresh], "token by token, with their numbers"
    assert len({tuple(cost.ids) for cost in costs}) > 5, "and the answers have to do with the questions"
    assert all(cost.fed == cost.new_to(before.held) for before, cost in pairwise(costs))
    n_fed, n_fed_fresh = (sum(cost.fed for cost in some[1:]) for some in (costs, fresh))
    assert n_fed < n_fed_fresh / 3


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["question", "system"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_turns_read_only_new_tokens_with_every_kind_of_cache(
    tiny, tmp_path: Path, kind: str, layout: str, placement: str
) -> None:
    engine = Engine(n_ctx=2048, n_threads=1, layout=layout, n_batch=ROUNDS_ALIKE)
    settings = {"engine": engine, "max_tokens": 24, "prompting": Prompting(placement=placement)}
    model = tiny_models.write_recurrent(tmp_path / "long.gguf", forgets=0.02) if kind == "recurrent" else tiny(kind)
    with talk(model, **settings) as chat:
        costs = [chat.ask(question) for question in QUESTIONS]
        fresh = with_fresh_prefills(chat.judge.model, **settings)
    assert [cost.ids for cost in costs] == [cost.ids for cost in fresh]
    p, p_fresh = ([event.p for cost in some for event in cost.events] for some in (costs, fresh))
    assert p == pytest.approx(p_fresh, abs=1e-3)
    assert len({cost.events[0].p for cost in costs}) == 10, "and what was asked makes a difference"


@pytest.mark.parametrize(("mode", "layout"), [("judge", "contexts"), ("judge", "batched"), ("both", "batched")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_reads_its_new_tokens_and_nothing_else(tiny, kind: str, mode: str, layout: str) -> None:
    """Also when the views grow meanwhile, and the answers are not the tokens that their texts would be split into."""
    engine, seed = Engine(n_ctx=2048, n_threads=1, layout=layout), 3 if mode == "both" else 1  # no half characters
    with talk(tiny(kind), engine=engine, sampling=TEXT_ONLY, max_tokens=40, mode=mode, seed=seed) as chat:
        costs, sizes = [], set()
        for question in QUESTIONS:
            costs.append(chat.ask(question))
            sizes |= {sequence.lane.n_ctx for sequence in chat.judge.decoder.lanes}
        model = chat.judge.model
        for before, cost, question in zip(costs, costs[1:], QUESTIONS[1:], strict=False):
            around = f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            n_new = len(model.tokenize(around, special=True))
            assert [prompt[: len(held)] for held, prompt in zip(before.held, cost.prompts, strict=True)] == before.held
            assert cost.fed == cost.new_to(before.held)
            assert cost.fed <= len(cost.prompts) * (1 + n_new + len(cost.ids) - 1), (
                "one: the last token of the answer before"
            )
        splits = [model.tokenize(turn.answer, special=False) for turn in chat.turns]
    assert len(sizes) == 3, "the views grew, twice"
    assert any(cost.ids[:-1] != split[: len(cost.ids) - 1] for cost, split in zip(costs, splits, strict=True))


# What commands leave in the cache.

LONG = "Tell me about the sea and the wind"


@pytest.fixture(params=LAYOUTS)
def three_turns(tiny, request) -> Iterator[Talk]:
    """A chat after three turns in mode judge; ``costs`` are theirs."""
    engine = Engine(n_ctx=2048, n_threads=1, layout=request.param)
    with talk(tiny("llama"), engine=engine, sampling=TEXT_ONLY, max_tokens=12, mode="judge") as chat:
        chat.costs = [chat.ask(f"{LONG} {n}") for n in range(3)]
        yield chat


def test_undo_leaves_what_came_before(three_turns: Talk) -> None:
    before = three_turns.costs[-1]
    assert three_turns.say("/undo") == [f"taken back: {LONG} 2"]
    cost = three_turns.ask(f"{LONG} again")
    assert [len(turn.events) for turn in three_turns.turns] == [len(c.ids) for c in (*three_turns.costs[:2], cost)]
    assert cost.fed == cost.new_to(before.held)
    kept = [common(h, p) for h, p in zip(before.held, cost.prompts, strict=True)]
    assert all(k > len(p) - 30 for k, p in zip(kept, before.prompts, strict=True)), "even the question's beginning"


def test_undoing_everything_leaves_the_preferences(three_turns: Talk) -> None:
    for _ in range(3):
        three_turns.say("/undo")
    assert three_turns.say("/undo") == ["this chat has no questions yet"]
    cost = three_turns.ask("Something else")
    assert cost.fed == cost.new_to(three_turns.costs[-1].held) < 2 * (len(cost.prompts[0]) - 20 + len(cost.ids))


def test_regen_reads_one_token_and_answers_again(three_turns: Talk) -> None:
    before = three_turns.costs[-1]
    writing = three_turns.conversation.regenerate()
    cost = three_turns.ask("", writing)
    assert cost.prompts == before.prompts and cost.ids != before.ids
    assert cost.fed == 2 * len(cost.ids)
    assert len(three_turns.turns) == 3 and three_turns.conversation.last is writing.turn


def test_edit_keeps_what_stands_before_the_change(three_turns: Talk, tmp_path: Path, monkeypatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/wind 2/stars/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    fed = three_turns.n_fed()
    three_turns.say("/edit")
    turn = three_turns.conversation.last
    assert turn.question == "Tell me about the sea and the stars" and len(three_turns.turns) == 3
    stars = len(three_turns.judge.model.tokenize("stars<|im_end|>\n<|im_start|>assistant\n", special=True))
    assert three_turns.n_fed() - fed == 2 * (stars + len(turn.events) - 1)
    assert three_turns.say("/edit")[-1] == "the question is unchanged: nothing is asked"


@pytest.mark.parametrize("line", ["/prefer b Be formal", "/prefer add b Be short"])
def test_a_new_preference_makes_only_its_own_view_read_again(three_turns: Talk, line: str) -> None:
    before = three_turns.costs[-1]
    three_turns.say(line)
    cost = three_turns.ask("And?")
    assert cost.fed == cost.new_to(before.held)
    kept = [common(held, prompt) for held, prompt in zip(before.held, cost.prompts, strict=True)]
    assert [n >= 30 for n in kept] == [True, False]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_swap_exchanges_what_the_views_have_read(tiny, layout: str) -> None:
    with talk(tiny("llama"), engine=Engine(n_ctx=2048, n_threads=1, layout=layout), mode="judge") as chat:
        before = [chat.ask(question) for question in QUESTIONS[:3]][-1]
        chat.say("/swap")
        writing = chat.conversation.ask("And?")
        cost = chat.ask("", writing)
        assert cost.fed == cost.new_to(before.held[::-1])
        with PersonaJudge(chat.judge.model, engine=chat.judge.engine) as fresh:
            plan = writing.answer.plan
            plan = replace(plan, request=plan.request.replace(seed=writing.answer.seed))
            assert [event.id for event in fresh.answer(plan)] == cost.ids
        again = chat.ask("So?")
        assert again.fed == again.new_to(cost.held)


def test_a_changed_system_text_costs_only_the_changed_tokens(three_turns: Talk) -> None:
    three_turns.say("/system Answer in verse")
    costs = [three_turns.costs[-1], three_turns.ask("And?")]
    three_turns.say("/system clear")
    costs.append(three_turns.ask("So?"))
    for before, cost in pairwise(costs):
        assert cost.fed == cost.new_to(before.held)


def test_plain_mode_leaves_the_two_views_alone(three_turns: Talk) -> None:
    two_views = three_turns.costs[-1].held
    three_turns.say("/mode plain")
    first = three_turns.ask("What?")
    assert len(first.prompts) == 1 and first.fed == len(first.prompts[0]) + len(first.ids) - 1
    second = three_turns.ask("Why?")
    assert second.fed == second.new_to(first.held)
    three_turns.say("/mode judge")
    back = three_turns.ask("And now?")
    assert back.fed == back.new_to(two_views), "the turns in plain mode, which they have not read, and the new one"
    assert all(prompt[: len(held)] == held for held, prompt in zip(two_views, back.prompts, strict=True))
    three_turns.say("/mode plain")
    again = three_turns.ask("Well?")
    assert again.fed == again.new_to(second.held)


def test_compare_answers_in_every_mode_and_keeps_nothing_but_the_cache(three_turns: Talk) -> None:
    conversation, before = three_turns.conversation, three_turns.costs[-1]
    turns, fed = list(three_turns.turns), three_turns.n_fed()
    three_turns.say("/compare")
    for mode in ("judge", "base", "both", "prompt", "plain"):
        assert mode in three_turns.screen.shown
    assert three_turns.turns == turns
    n_fed = three_turns.n_fed() - fed
    answers = {started.answer.mode: started.answer for started in conversation.compare()}
    ids = {mode: [event.id for event in answer] for mode, answer in answers.items()}
    found = {mode: (answer.plan.prompts, ids[mode]) for mode, answer in answers.items()}
    assert found["judge"] == (before.prompts, before.ids), "the same seed, the same answer"
    assert found["base"][0] == before.prompts
    several = [found[mode] for mode in ("judge", "base", "both")]
    three = sum(len(prompt) - 1 for prompt in found["both"][0])  # in one batch, and caches of their own
    n_several = three + sum(len(said) * len(prompts) for prompts, said in several)
    drafted = [event.id for event in answers["rewrite"].drafted]
    one = [found["prompt"], (found["plain"][0], drafted), found["rewrite"], found["plain"]]
    n_one, held_by_one = 0, [[]]
    for prompts, said in one:
        n_one += Cost(prompts, [plain_event(0)] * len(said), 0).new_to(held_by_one)
        held_by_one = [[*prompts[0], *said[:-1]]]
    assert n_fed == n_several + n_one, "a mode with the same views reads only the last token again"
    cost = three_turns.ask("And?")
    held = [[*prompt, *found["base"][1][:-1]] for prompt in before.prompts]
    assert cost.fed == cost.new_to(held)


def test_an_answer_that_is_stopped_is_read_as_far_as_it_went(three_turns: Talk) -> None:
    three_turns.say("/set max-tokens 100")
    three_turns.judge.request = three_turns.judge.request.with_group(ENDLESS)
    three_turns.screen.on_event = lambda n: n == 30 and three_turns.judge.interrupt.set()
    three_turns.say("Long?")
    stopped = three_turns.conversation.last
    assert stopped.finish_reason == "interrupted" and 31 <= len(stopped.events) <= 33
    writing = three_turns.conversation._answer
    held = [[*prompt, *(event.id for event in stopped.events[:-1])] for prompt in writing.plan.prompts]
    three_turns.screen.on_event = lambda n: None
    cost = three_turns.ask("And?")
    assert 0 <= cost.new_to(held) - cost.fed <= 2, "a view may have read the last token as well"
    assert all(common(h, p) == len(h) for h, p in zip(held, cost.prompts, strict=True))


@pytest.mark.slow
def test_abandoned_and_stopped_answers_do_no_harm(three_turns: Talk) -> None:
    """Their views may still read, in threads in which Python may also collect what is left of them."""
    judge = three_turns.judge
    expected = judge("And?", seed=5).text
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for n in range(60):
            for event in judge.stream("Why?", max_tokens=100, ignore_end=True, seed=n):
                if event.position >= n % 7:
                    if n % 2:
                        break
                    judge.interrupt.set()
            judge.interrupt.clear()
            assert judge("And?", seed=5).text == expected
    finally:
        gc.set_threshold(*threshold)


def test_a_question_stopped_before_the_first_token_leaves_no_trace(three_turns: Talk, store: Store) -> None:
    conversation = three_turns.conversation
    conversation.recorder.store = store
    writing = conversation.ask("Never mind")
    conversation.judge.interrupt.set()
    assert list(writing) == []
    conversation.judge.interrupt.clear()
    assert len(three_turns.turns) == 3
    cost = three_turns.ask("But this")
    assert cost.fed <= cost.new_to(three_turns.costs[-1].held)
    assert [turn.question for turn in store.load(conversation.session.id).turns] == ["But this"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["gemma3", "mamba", "jamba", "lfm2"])
def test_commands_cost_only_new_tokens_if_the_cache_cannot_be_truncated(tiny, kind: str, layout: str) -> None:
    """/undo, /regen and /edit, behind three turns; two turns can be taken back so."""
    engine = Engine(n_ctx=2048, n_threads=1, layout=layout)
    with talk(tiny(kind), engine=engine, sampling=ENDLESS, max_tokens=20) as chat:
        costs = [chat.ask(question) for question in QUESTIONS[:3]]
        chat.say("/undo")
        again = chat.ask(QUESTIONS[2])
        assert again.prompts == costs[2].prompts and again.ids == costs[2].ids
        assert [event.p for event in again.events] == pytest.approx([event.p for event in costs[2].events], abs=1e-3)
        assert again.fed <= again.new_to(costs[1].held)
        anew = chat.ask("", chat.conversation.regenerate())
        assert anew.prompts == again.prompts and anew.ids != again.ids
        assert anew.fed == len(anew.prompts) * len(anew.ids)
        otherwise = chat.ask("", chat.conversation.ask("Name a bush", replacing=chat.conversation.last))
        assert otherwise.fed <= otherwise.new_to(costs[1].held)
        chat.say("/undo")
        chat.say("/undo")
        cost = chat.ask("Something else")
        assert cost.fed <= cost.new_to(costs[0].held)
        with talk(chat.judge.model, engine=engine, sampling=chat.judge.request.sampling, max_tokens=20) as fresh:
            fresh.ask(QUESTIONS[0])
            assert fresh.ask("Something else").ids == cost.ids


def test_a_saved_cache_is_of_every_part_of_a_model(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PJLOCAL_DATABASE", str(tmp_path / "chats.db"))
    parts, session = tiny_models.write_split(tmp_path / "split.gguf"), Session(id=7)

    def asked(question: str) -> Cost:
        with talk(parts[0], session=session) as chat:
            load_cache(chat.judge.decoder, session, chat.judge.roles(chat.judge.request).adapters)
            cost = chat.ask(question)
            save_cache(chat.judge.decoder, session)
            return cost

    first, second = asked(QUESTIONS[0]), asked(QUESTIONS[1])
    assert second.fed == second.new_to(first.held)
    parts[-1].write_bytes(parts[-1].read_bytes())  # as when another model is put in its place
    third = asked(QUESTIONS[2])
    assert third.fed > third.new_to(second.held)


def test_a_saved_cache_holds_as_many_views_as_the_last_answer_had(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PJLOCAL_DATABASE", str(tmp_path / "chats.db"))
    session = Session(id=7)
    with talk(tiny("llama"), session=session, mode="both") as chat:
        before = chat.ask(QUESTIONS[0])
        assert save_cache(chat.judge.decoder, session) > 0
    assert len(before.prompts) == len([*tmp_path.glob("chats.caches/*.kv")]) == 4
    with talk(tiny("llama"), session=session, mode="both") as chat:
        load_cache(chat.judge.decoder, session, chat.judge.roles(chat.judge.request).adapters)
        cost = chat.ask(QUESTIONS[1])
        assert cost.fed == cost.new_to(before.held)
