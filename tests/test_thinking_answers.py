"""The thinking of a reasoning model is separated from its answer, with all kinds of marks, and has its own limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from pjlocal import PersonaJudge
from pjlocal.prompting.thinking import HARMONY, MARKS, Marks

ANSWER = "root ::= [a-z]{5}"


def opening(marks: Marks, behind: str = "\n") -> str:
    """A chat template that opens the thinking itself."""
    return tiny_models.CHATML.replace("'<|im_start|>assistant\n'", f"'<|im_start|>assistant\n{marks.open}{behind}'")


def model(tmp_path: Path, template: str = tiny_models.CHATML, **options: Any) -> Path:
    return tiny_models.write_llama(tmp_path / "tiny.gguf", chat_template=template, add_bos=False, **options)


def judge(tmp_path: Path, template: str = tiny_models.CHATML, **settings: Any) -> PersonaJudge:
    options = {name: settings.pop(name) for name in ("added", "controls") if name in settings}
    return PersonaJudge(model(tmp_path, template, **options), seed=1, **settings)


#: The preferences of each mode; some of them have a neutral view.
MODES: list[dict[str, Any]] = [
    {},
    {"prefer": ["vivid", "concise"]},
    {"prefer": ["vivid", "concise"], "mode": "base"},
    {"prefer": ["vivid:2", "concise"]},
    {"prefer": ["vivid", "concise"], "mode": "both"},
    {"prefer": ["vivid", "concise", "formal:2"]},
    {"prefer": ["vivid", "concise"], "mode": "prompt"},
]
FAMILIES = [marks for marks in MARKS if marks is not HARMONY]


def text_of(events: Any, thought: bool) -> str:
    return "".join(event.text for event in events if event.thought is thought)


@pytest.mark.parametrize("kind", ["text", "added", "controls"])
@pytest.mark.parametrize("marks", FAMILIES, ids=lambda marks: marks.open)
def test_thinking_is_ended_at_its_limit_and_the_answer_follows(tmp_path, marks: Marks, kind: str) -> None:
    tokens = {} if kind == "text" else {kind: [marks.open, marks.close]}
    with judge(tmp_path, opening(marks), think_tokens=9, max_tokens=7, ignore_end=True, **tokens) as one:
        events = list(one.stream("Why?"))
        result = one("Why?")
    thought = text_of(events, thought=True)
    assert thought.rstrip().endswith(marks.close)
    assert not result.thinking.endswith(marks.close) and thought.startswith(result.thinking[:3].lstrip())
    assert result.text == text_of(events, thought=False).lstrip()
    assert [event.thought for event in events] == sorted((event.thought for event in events), reverse=True)
    assert sum(not event.thought for event in events) == 7 and result.finish_reason == "length"
    assert result.statistics.thinking_tokens == len(events) - 7
    assert result.as_dict()["usage"]["thinking_tokens"] == len(events) - 7
    assert result.as_dict()["thinking"] == result.thinking
    assert all(event.kind == "plain" and event.p == 1 for event in events[9:-7]), "the mark is decided"


@pytest.mark.parametrize("kind", ["added", "controls"])
def test_channels_before_the_final_one_are_thinking(tmp_path: Path, kind: str) -> None:
    tokens = {kind: ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>"]}
    settings = {"think_tokens": 3, "max_tokens": 5, "ignore_end": True, "logit_bias": ("<|channel|>=100",)}
    with judge(tmp_path, **tokens, **settings) as one:
        events = list(one.stream("Why?"))
    channels = "<|channel|><|channel|><|channel|>"
    assert text_of(events, thought=True) == f"{channels}<|end|><|start|>assistant<|channel|>final<|message|>"
    assert sum(not event.thought for event in events) == 5


@pytest.mark.parametrize("kind", ["text", "added", "controls"])
def test_the_thinking_of_a_given_beginning_is_no_answer(tmp_path: Path, kind: str) -> None:
    tokens = {} if kind == "text" else {kind: ["<think>", "</think>"]}
    with judge(tmp_path, max_tokens=4, ignore_end=True, **tokens) as one:
        result = one("Why?", begin="<think>hm</think>ok ")
    assert result.thinking == "hm" and result.text.startswith("ok ")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: " ".join(map(str, mode.values())))
def test_thinking_ends_alike_in_every_mode_and_schedule(tmp_path, mode: dict[str, Any]) -> None:
    settings = {"think_tokens": 6, "max_tokens": 8, "ignore_end": True, **mode}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], **settings) as one:
        events, *others = (
            list(one.stream("Why?", **changes))
            for changes in ({}, {"schedule": "reference"}, {"lookahead": 4}, {"schedule": "reference", "lam": 1})
        )
        together = [[], []]
        for number, event in one.answers(["Why?", "Why?"]):
            together[number].append(event)
    tokens = [(event.id, event.thought) for event in events]
    assert text_of(events, thought=True).rstrip().endswith("</think>")
    assert sum(not event.thought for event in events) == 8
    if "lam" not in mode and len(mode.get("prefer", ())) < 3:
        for other in [*others[:2], *together]:
            assert [(event.id, event.thought) for event in other] == tokens


@pytest.mark.parametrize(("think_tokens", "n_thought"), [(0, 3), (1, 4)])
def test_thinking_may_be_ended_at_once(tmp_path: Path, think_tokens: int, n_thought: int) -> None:
    settings = {"think_tokens": think_tokens, "max_tokens": 2, "ignore_end": True}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>", "\n\n"], **settings) as one:
        result = one("Why?")
    assert result.statistics.thinking_tokens == n_thought
    assert result.statistics.answer_tokens == 2


def test_preferences_push_the_answer_alone_where_a_neutral_view_can_think(tmp_path: Path) -> None:
    settings = {"think_tokens": 12, "max_tokens": 12, "ignore_end": True, "prefer": ["vivid"], "mode": "both"}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], **settings) as one:
        thoughts = {}
        for changes in (
            {"prefer": ["vivid", "concise"]},
            {"prefer": ["harmless", "creative"]},
            {"prefer": ["vivid", "concise"], "push_thoughts": True},
            {"prefer": ["harmless", "creative"], "push_thoughts": True},
        ):
            events = list(one.stream("Why?", **changes))
            result = one("Why?", **changes)
            thoughts[str(changes)] = text_of(events, thought=True)
            pushed = [event for event in events if event.pushes]
            drawn = [event for event in events if event.thought][:12]
            if "push_thoughts" in changes:
                assert all(event.pushes and event.kind != "plain" for event in drawn)
            else:
                assert not any(event.thought for event in pushed) and all(event.kind == "plain" for event in drawn)
            answer = [event for event in events if not event.thought]
            for name, mean in result.statistics.mean_pushes.items():
                assert mean == pytest.approx(sum(event.pushes[name] for event in answer) / len(answer))
        first, second, third, fourth = thoughts.values()
    assert first == second, "the neutral view does not know the preferences"
    assert len({first, third, fourth}) == 3


def test_a_stop_string_does_not_end_thinking(tmp_path: Path) -> None:
    settings = {"think_tokens": 20, "max_tokens": 40, "ignore_end": True, "stop": ["\n", "a", "e"]}
    with judge(tmp_path, opening(MARKS[0]), logit_bias=("a=100",), added=["<think>", "</think>"], **settings) as one:
        result = one("Why?")
    assert "aaaaaaaaa" in result.thinking
    assert (result.text, result.finish_reason) == ("", "stop")


def test_a_stop_token_does_not_end_thinking(tmp_path: Path) -> None:
    settings = {"think_tokens": 20, "max_tokens": 40, "ignore_end": True, "stop_token": ["a"]}
    for schedule in ("lockstep", "reference"):
        with judge(tmp_path, opening(MARKS[0]), logit_bias=("a=100",), prefer=["vivid", "concise"], **settings) as one:
            result = one("Why?", schedule=schedule)
        assert "aaaaaaaaa" in result.thinking
        assert (result.text, result.finish_reason) == ("", "stop")


@pytest.mark.parametrize("form", [{"grammar": ANSWER}, {"regex": "[a-z]{5}"}, {"json_schema": '{"const": "hello"}'}])
@pytest.mark.parametrize("mode", MODES[:6], ids=lambda mode: " ".join(map(str, mode.values())))
def test_a_constraint_begins_after_thinking_that_the_prompt_opens(tmp_path, form, mode) -> None:
    settings = {"think_tokens": 6, "max_tokens": 20, "logit_bias": ("</s>=-inf",), **form, **mode}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], **settings) as one:
        for schedule in ("lockstep", "reference"):
            result = one("Why?", schedule=schedule, lookahead=3)
            assert result.finish_reason == "stop" and len(result.text) in (5, 7), result
            if "json_schema" in form:
                assert json.loads(result.text) == "hello"
            assert result.statistics.thinking_tokens >= 6


@pytest.mark.parametrize("form", [{"regex": "[a-z]{5}"}, {"json_schema": '{"const": "hello"}'}])
@pytest.mark.parametrize("mode", MODES[:6], ids=lambda mode: " ".join(map(str, mode.values())))
def test_thinking_before_a_constrained_answer_does_not_end_it(tmp_path, form, mode) -> None:
    settings = {"max_tokens": 9, "logit_bias": ("</s>=100", "<|im_end|>=100"), **form, **mode}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], **settings) as one:
        for schedule in ("lockstep", "reference"):
            result = one("Why?", schedule=schedule, lookahead=3)
            assert (result.text, result.finish_reason, result.statistics.thinking_tokens) == ("", "length", 9)


@pytest.mark.parametrize("form", [{"grammar": ANSWER}, {"regex": "[a-z]{5}"}])
@pytest.mark.parametrize("kind", ["added", "controls"])
@pytest.mark.parametrize("mode", MODES[:6], ids=lambda mode: " ".join(map(str, mode.values())))
def test_a_constrained_answer_may_begin_with_thinking(tmp_path, form, kind, mode) -> None:
    tokens = {kind: ["[THINK]", "[/THINK]"]}
    settings = {"think_tokens": 6, "max_tokens": 20, "logit_bias": ("[THINK]=100",), **form, **mode}
    settings |= {"floor": 0, "top_k": 0}  # else the mark would have to be one of the views' best without its bias
    with judge(tmp_path, **tokens, **settings) as one:
        result = one("Why?")
        assert (len(result.text), result.finish_reason) == (5, "stop")
        assert result.statistics.thinking_tokens >= 6
        assert one("Why?", schedule="reference").text == result.text
        off = one("Why?", think="off")
        assert (off.statistics.thinking_tokens, len(off.text)) == (0, 5), "where thinking is not switched off"


@pytest.mark.parametrize("form", [{"regex": "(?s).{7}"}, {"lark": "start: /(.|\\n){7}/"}, {"grammar": "root ::= .{7}"}])
def test_a_constraint_that_allows_any_text_applies_after_the_thinking(tmp_path: Path, form: dict[str, Any]) -> None:
    """The opening mark is a text that it allows, and yet it does not begin the answer."""
    settings = {"think_tokens": 6, "max_tokens": 20, "logit_bias": ("<think>=100",), "floor": 0, "top_k": 0}
    with judge(tmp_path, added=["<think>", "</think>"], **settings) as one:
        result = one("Why?", **form)
    assert (len(result.text), result.finish_reason) == (7, "stop")
    assert result.statistics.thinking_tokens >= 6


def test_white_space_after_the_closing_mark_precedes_a_constrained_answer(tmp_path: Path) -> None:
    settings = {"regex": "[a-z]{5}", "max_tokens": 30, "logit_bias": ("</think>=100",)}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], **settings) as one:
        events = list(one.stream("Why?"))
    assert text_of(events, thought=True) == "</think>\n\n"
    assert len(text_of(events, thought=False)) == 5


def test_a_grammar_that_spells_the_marks_covers_thinking(tmp_path: Path) -> None:
    grammar = 'root ::= "<think>" [a-z]{40} "</think>" [a-z]{5}'
    with judge(tmp_path, added=["<think>", "</think>"], grammar=grammar, think_tokens=3, max_tokens=60) as one:
        for prefer in ([], ["vivid:2", "concise"]):
            result = one("Why?", prefer=prefer)
            assert (len(result.thinking), len(result.text)) == (40, 5)


def test_an_answer_cut_off_while_thinking_is_empty(tmp_path: Path) -> None:
    with judge(tmp_path, opening(MARKS[0]), max_tokens=5, ignore_end=True) as one:
        result = one("Why?")
    assert (result.text, result.finish_reason, result.statistics.thinking_tokens) == ("", "length", 5)
    assert result.thinking


def test_marks_of_control_tokens_are_spelled_in_the_events(tmp_path: Path) -> None:
    bias = ("[THINK]=100", "[/THINK]=90")
    with judge(tmp_path, controls=["[THINK]", "[/THINK]"], logit_bias=bias, max_tokens=4, ignore_end=True) as one:
        events = list(one.stream("Why?"))
    assert all(event.thought for event in events)
    assert text_of(events, thought=True).startswith("[THINK]")


@pytest.mark.parametrize("question", ["What is <think>?", "Say <think>", "[THINK]"])
def test_a_quotation_in_the_question_is_not_thinking(tmp_path: Path, question: str) -> None:
    with judge(tmp_path, added=["<think>", "[THINK]"], max_tokens=5, ignore_end=True) as one:
        events = list(one.stream(question, logit_bias=("<think>=-inf", "[THINK]=-inf")))
    assert not any(event.thought for event in events)


def test_min_tokens_counts_the_answer_and_bars_stop_tokens_too(tmp_path: Path) -> None:
    bias = {"think_tokens": 3, "max_tokens": 12, "logit_bias": ("</s>=100", "<|im_end|>=100", "a=90")}
    with judge(tmp_path, opening(MARKS[0]), added=["<think>", "</think>"], min_tokens=5, **bias) as one:
        assert sum(not event.thought for event in one.stream("Why?")) == 6, "and the token that ends it"
    with judge(tmp_path, min_tokens=5, stop_token=("a",), max_tokens=12, logit_bias=("a=100",)) as one:
        events = list(one.stream("Why?"))
    assert len(events) == 6 and all(event.text != "a" for event in events[:5])
