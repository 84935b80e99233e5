"""Answers with a given beginning: text from `begin` is part of the answer, text at the end of the messages is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pjlocal import PersonaJudge
from pjlocal.errors import UsageError

HI = {"role": "user", "content": "Hi"}
LONG = {"max_tokens": 8, "ignore_end": True, "seed": 1}


@pytest.fixture(scope="module")
def judge(tiny: Callable[[str], Path]) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "concise"], n_threads=1) as made:
        yield made


@pytest.mark.parametrize("mode", ["judge", "base", "both", "prompt", "plain"])
@pytest.mark.parametrize("schedule", ["lockstep", "reference"])
def test_begin_is_part_of_the_answer_and_of_its_tokens(judge: PersonaJudge, mode: str, schedule: str) -> None:
    answer = judge.stream("Hi", begin="the cat sees", mode=mode, schedule=schedule, **LONG)
    events = list(answer)
    given = [event for event in events if event.kind == "given"]
    assert "".join(event.text for event in given) == " the cat sees".removeprefix(" ")
    assert events[: len(given)] == given and [event.position for event in events] == list(range(len(events)))
    assert answer.result.text == "".join(event.text for event in events)
    assert answer.result.statistics.completion_tokens == 8 == len(events) - len(given), "others count"
    assert [event.id for event in given] == answer.plan.prompts[0][-len(given) :]


def test_an_answer_at_the_end_of_the_messages_is_continued_and_not_repeated(judge: PersonaJudge) -> None:
    whole = judge.stream("Hi", begin="the cat", **LONG)
    with_begin = [event for event in whole if event.kind != "given"]
    continued = judge.stream([HI, {"role": "assistant", "content": "the cat"}], **LONG)
    assert [(event.id, event.text) for event in continued] == [(event.id, event.text) for event in with_begin]
    assert continued.plan.prompts == whole.plan.prompts
    assert whole.result.text == "the cat" + continued.result.text


def test_begin_for_one_answer_excludes_an_answer_to_continue_and_a_default_rests(judge: PersonaJudge) -> None:
    begun = [HI, {"role": "assistant", "content": "the cat"}]
    with pytest.raises(UsageError, match=r"^begin is for a new answer"):
        judge.plan(begun, begin="Ahoy")
    continued = judge(begun, **LONG).text
    request = judge.request
    judge.request = request.replace(begin="Ahoy")
    assert judge(begun, **LONG).text == continued and judge("Hi", **LONG).text.startswith("Ahoy")
    judge.request = request


def test_many_at_once_begin_too(judge: PersonaJudge) -> None:
    texts = ["", ""]
    for number, event in judge.answers(["Hi", "Ho"], parallel=2, begin="the cat", **LONG):
        texts[number] += event.text
    assert all(text.startswith("the cat") and text != "the cat" for text in texts)


def test_mode_rewrite_begins_both_answers_and_continues_none(judge: PersonaJudge) -> None:
    result = judge("Hi", begin="the cat", mode="rewrite", **LONG)
    assert result.text.startswith("the cat") and result.draft and result.draft.text.startswith("the cat")
    with pytest.raises(UsageError, match="mode rewrite corrects a whole answer and cannot continue one"):
        judge([HI, {"role": "assistant", "content": "the cat"}], mode="rewrite")


def test_a_form_holds_for_the_answer_with_its_beginning(judge: PersonaJudge) -> None:
    assert judge("Hi", begin="a3", regex="a(1|22|333)b", max_tokens=20).text == "a333b"
    schema = {"enum": ["cat"]}
    assert json.loads(judge("Hi", begin='"c', json_schema=schema, max_tokens=20).text) == "cat"
    with pytest.raises(UsageError, match="the answer cannot begin with 'Ahoy'"):
        judge("Hi", begin="Ahoy", json_schema=schema)
    grammar = 'root ::= "Ahoy" [xy]+'
    text = judge("Hi", begin="Ahoy", grammar=grammar, max_tokens=3).text
    assert text.startswith("Ahoy") and {*text[4:]} <= {*"xy"} and len(text) > 4
    with pytest.raises(UsageError, match="the answer cannot begin with 'Avast'"):
        judge("Hi", begin="Avast", grammar=grammar)
    assert judge("Hi", max_tokens=2).text is not None, "the judge goes on"


def test_a_stop_string_is_searched_after_the_beginning(judge: PersonaJudge) -> None:
    result = judge("Hi", begin="STOP here", stop=["STOP"], **LONG)
    assert result.statistics.completion_tokens == 8
