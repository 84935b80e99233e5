"""`judge.answers`: several prompts answered side by side, each as it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_lora

from pjlocal import Engine, PersonaJudge
from pjlocal.answer import Answer
from pjlocal.engine import lanes
from pjlocal.errors import ModelError, UsageError
from pjlocal.events import TokenEvent

PROMPTS = [f"Tell me about {what}." for what in ("cats", "the rain", "a very long walk home", "tea", "the sea")]
HOW: dict[str, Any] = {"seed": 2, "max_tokens": 12, "ignore_end": True}
#: In which nothing is rounded otherwise in batches of other widths.
FLOAT32 = Engine(n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")

Make = Callable[..., PersonaJudge]


@pytest.fixture
def make(tiny: Callable[[str], Path]) -> Iterator[Make]:
    made = []

    def make(kind: str = "llama", engine: Engine = FLOAT32, **changes: Any) -> PersonaJudge:
        made.append(PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=engine, **HOW | changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def judge(make: Make) -> PersonaJudge:
    return make()


def texts_of(events: Iterable[tuple[int, TokenEvent]]) -> list[str]:
    """The texts by the prompts' numbers."""
    texts: dict[int, str] = {}
    for number, event in events:
        texts[number] = texts.get(number, "") + event.text
    return [texts[number] for number in sorted(texts)]


def alone(judge: PersonaJudge, **changes: Any) -> list[str]:
    return [judge(prompt, **changes).text for prompt in PROMPTS]


def is_interleaved(numbers: Iterable[int]) -> bool:
    """Whether an answer goes on behind an event of another."""
    runs = [number for number, _ in groupby(numbers)]
    return len(runs) > len({*runs})


@pytest.mark.parametrize("mode", ["plain", "prompt", "judge", "both", "base", "rewrite"])
@pytest.mark.parametrize("layout", ["batched", "contexts"])
def test_every_prompt_gets_the_answer_that_it_gets_alone(make: Make, mode: str, layout: Any) -> None:
    judge = make(engine=FLOAT32.replace(n_threads=2, layout=layout), mode=mode)
    expected = alone(judge)
    assert texts_of(judge.answers(PROMPTS, parallel=3)) == expected
    assert len({*expected}) > 2


def test_events_are_those_of_a_single_answer_with_the_prompts_number(judge: PersonaJudge) -> None:
    events: dict[int, list[TokenEvent]] = {}
    order = []
    for number, event in judge.answers(PROMPTS, parallel=3):
        events.setdefault(number, []).append(event)
        order.append(number)
    assert [event.id for event in events[2]] == [event.id for event in judge.stream(PROMPTS[2])]
    for of_one in events.values():
        assert [event.position for event in of_one] == [*range(12)]
    assert sorted(events) == [*range(5)] and is_interleaved(order)


@pytest.mark.parametrize("parallel", [1, 2, 5, 50])
def test_the_number_of_concurrent_answers_changes_no_text(judge: PersonaJudge, parallel: int) -> None:
    order: list[int] = []
    in_flight: set[int] = set()
    texts = dict.fromkeys(range(5), "")
    for number, event in judge.answers(iter(PROMPTS), parallel=parallel):
        in_flight.add(number)
        assert len(in_flight) <= parallel
        if event.position == 11:
            in_flight.remove(number)
        texts[number] += event.text
        order.append(number)
    assert [*texts.values()] == alone(judge)
    assert is_interleaved(order) == (parallel > 1)


def test_no_prompts_have_no_answers(judge: PersonaJudge) -> None:
    assert list(judge.answers([])) == []


def test_settings_and_preferences_may_be_changed_for_all_of_them(judge: PersonaJudge) -> None:
    changes = {"temperature": 0.5, "prefer": ["concise"], "mode": "prompt", "max_tokens": 5}
    assert texts_of(judge.answers(PROMPTS, **changes)) == alone(judge, **changes)
    before = judge.request
    messages = [[{"role": "system", "content": "Be nice."}, {"role": "user", "content": PROMPTS[0]}], PROMPTS[1]]
    expected = [judge(PROMPTS[0], system="Be nice.").text, judge(PROMPTS[1]).text]
    assert texts_of(judge.answers(messages)) == expected and judge.request == before


def test_in_mode_rewrite_the_events_are_those_of_the_corrections(judge: PersonaJudge) -> None:
    results = [judge(prompt, mode="rewrite") for prompt in PROMPTS]
    plans = [judge.plan(prompt, mode="rewrite") for prompt in PROMPTS]
    written: dict[int, tuple[Answer, list[TokenEvent]]] = {}
    for number, answer, events in judge.write(plans, 3):
        written.setdefault(number, (answer, []))[1].extend(events)
    for result, (answer, events) in zip(results, (written[number] for number in range(5)), strict=True):
        assert answer.result.draft and result.draft
        assert answer.result.draft.text == result.draft.text
        assert answer.result.text == result.text == "".join(event.text for event in events)


def test_rewritten_answers_take_no_larger_contexts_than_they_need(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's whole context for each of eight would be gigabytes."""
    judge, made = make(mode="rewrite", engine=FLOAT32.replace(n_ctx=4096)), []
    of_lanes = lanes.LaneSet.__init__

    def spy(of_set: lanes.LaneSet, *given: Any) -> None:
        of_lanes(of_set, *given)
        made.append(of_set.n_ctx)

    expected = alone(judge)
    monkeypatch.setattr(lanes.LaneSet, "__init__", spy)
    assert texts_of(judge.answers(PROMPTS)) == expected
    assert len(made) == 1 and made[0] <= 512


def test_the_schedule_reference_is_written_one_at_a_time(judge: PersonaJudge) -> None:
    events = list(judge.answers(PROMPTS, schedule="reference"))
    assert texts_of(events) == alone(judge)
    assert not is_interleaved(number for number, _ in events)


def test_answers_with_adapters_are_written_one_at_a_time(judge: PersonaJudge, tmp_path: Path) -> None:
    lora = (str(write_lora(tmp_path / "pirate.gguf")),)
    expected, plain = alone(judge, lora_a=lora), alone(judge)
    events = list(judge.answers(PROMPTS, lora_a=lora))
    assert texts_of(events) == expected != plain
    assert not is_interleaved(number for number, _ in events)


def test_answers_that_can_share_are_written_first_and_each_ends_once(judge: PersonaJudge) -> None:
    schedules = ["reference", "lockstep", "reference", "lockstep", "lockstep"]
    plans = [judge.plan_request(q, judge.request.replace(schedule=s)) for q, s in zip(PROMPTS, schedules, strict=True)]
    expected = alone(judge)
    for parallel in (1, 2):
        ended: list[int] = []
        begun: list[int] = []
        texts = dict.fromkeys(range(5), "")
        for number, answer, events in judge.write(plans, parallel):
            assert number not in ended, "nothing comes behind the last events"
            begun += [number] if events and number not in begun else []
            texts[number] += "".join(event.text for event in events)
            if answer.is_done:
                ended.append(number)
        assert sorted(ended) == [*range(5)] and [*texts.values()] == expected
        assert begun == ([*range(5)] if parallel == 1 else [1, 3, 4, 0, 2])


def test_an_answer_whose_last_events_come_together_ends_once(judge: PersonaJudge) -> None:
    """A text that might be the beginning of a stop string is held back until the end."""
    whole = judge(PROMPTS[0]).text
    plans = [judge.plan_request(PROMPTS[0], judge.request.replace(stop=(whole[-4:] + "and more",)))]
    for parallel in (1, 2):
        last = [events for _, answer, events in judge.write(plans, parallel) if answer.is_done]
        assert len(last) == 1 and len(last[0]) > 1


@pytest.mark.parametrize(
    ("prompts", "changes", "error", "says"),
    [
        ([*PROMPTS, "word " * 9000], {}, UsageError, "the prompt is too long"),
        ([*PROMPTS, ""], {}, UsageError, "the prompt is empty"),
        ([*PROMPTS, 5], {}, TypeError, "a prompt must be a text or a list of messages, not int"),
        (PROMPTS, {"parallel": 0}, UsageError, "parallel must be a whole number of at least 1"),
        (PROMPTS, {"parallel": "x"}, UsageError, "parallel must be a whole number of at least 1"),
        ("Hello", {}, TypeError, "prompts must be a list"),
        (PROMPTS, {"temprature": 0}, TypeError, "did you mean temperature?"),
        (PROMPTS, {"mode": "best"}, UsageError, "mode must be one of judge, base"),
        (PROMPTS, {"regex": "a("}, UsageError, "the regular expression cannot be used"),
    ],
)
def test_invalid_prompts_are_refused_before_any_answer_is_written(judge, prompts, changes, error, says) -> None:
    with pytest.raises(error, match=says.replace("?", r"\?")):
        list(judge.answers(prompts, **changes))
    assert judge.decoder.n_steps == 0 and judge.layouts == {}


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_error_in_one_answer_ends_all_and_the_judge_stays_usable(make: Make, parallel: int) -> None:
    judge = make("broken_word", engine=Engine(n_threads=1))
    with pytest.raises(ModelError, match="invalid logits"):
        list(judge.answers(["hello", "a Q", "good bye"], parallel=parallel))
    again = make("broken_word", engine=Engine(n_threads=1))
    assert judge("hello").text == again("hello").text


@pytest.mark.parametrize("layout", ["batched", "contexts"])
@pytest.mark.parametrize("changes", [{}, {"schedule": "reference"}, {"mode": "rewrite"}, {"mode": "both"}], ids=str)
def test_an_interrupt_ends_them_all(make: Make, layout: Any, changes: dict[str, Any]) -> None:
    judge = make(engine=FLOAT32.replace(n_threads=2, layout=layout), **changes)
    expected = alone(judge)
    plans = [judge.plan_request(prompt, judge.request) for prompt in PROMPTS]
    ended: dict[int, Answer] = {}
    for number, answer, events in judge.write(plans, 2):
        if answer.is_done:
            ended[number] = answer
        elif events and events[-1].position >= 3:
            judge.interrupt.set()
    assert [answer.result.finish_reason for answer in ended.values()] == ["interrupted"] * 5
    assert max(len(answer.result.text) for answer in ended.values()) > 0
    judge.interrupt.clear()
    assert texts_of(judge.answers(PROMPTS)) == expected


def test_ctrl_c_as_python_has_it_leaves_the_judge_as_it_was(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    judge = make()
    long = [f"{prompt} {'word ' * 30}" for prompt in PROMPTS]
    expected = [judge(prompt).text for prompt in long]
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "in_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(judge.answers(long))
    assert texts_of(judge.answers(long)) == [judge(prompt).text for prompt in long] == expected


def test_closing_the_iterator_ends_the_answers(judge: PersonaJudge) -> None:
    events = judge.answers(PROMPTS)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert list(events) == []
    assert texts_of(judge.answers(PROMPTS)) == alone(judge)


def test_the_judge_may_answer_another_prompt_at_the_same_time(judge: PersonaJudge) -> None:
    expected, other = alone(judge), judge("Hello").text
    events = judge.answers(PROMPTS)
    first = [next(events) for _ in range(7)]
    assert judge("Hello").text == other
    assert texts_of([*first, *events]) == expected


@pytest.mark.parametrize("changes", [{}, {"schedule": "reference"}], ids=str)
def test_closing_the_judge_ends_them_all(judge: PersonaJudge, changes: dict[str, Any]) -> None:
    events = judge.answers(PROMPTS, parallel=2, **changes)
    for _ in range(5):
        next(events)
    judge.close()
    assert len(list(events)) <= 2, "what was written already"
    with pytest.raises(UsageError, match="closed"):
        list(judge.answers(PROMPTS))


def test_wrong_arguments_are_refused_at_the_call_in_python_s_words(make: Make) -> None:
    with pytest.raises(UsageError, match="n_ctx") as raised:
        make().answers(["word " * 4000])
    assert "--ctx" not in str(raised.value)
