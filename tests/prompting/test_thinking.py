"""What a model thinks is told apart from what it answers, however its tokens are cut."""

from __future__ import annotations

import pytest

from pjlocal.prompting.thinking import MARKS, Thinking, answer_start, opened_by

# Thinking.


def told_apart(*tokens: str, opened: bool = False) -> tuple[str, str]:
    """What was thought and what was answered, of tokens one by one."""
    thinking: Thinking[str] = Thinking(opened)
    told = [pair for token in tokens for pair in thinking.push(token, token)] + list(thinking.finish())
    assert "".join(text for text, _ in told) == "".join(tokens), "nothing is lost, and the order stays"
    thought, answer = ("".join(text for text, is_thought in told if is_thought is which) for which in (True, False))
    return thought, answer


@pytest.mark.parametrize(("mark", "end"), MARKS.items())
def test_what_stands_between_the_marks_is_thought_however_they_are_split(mark: str, end: str) -> None:
    thought, answer = f"{mark}Hm, <b> </b>.\n{end}", "\n\nYes <think> so."
    assert told_apart(*thought, *answer) == (thought, answer)
    assert told_apart(mark, "Hm, <b> </b>.\n", end, answer) == (thought, answer)
    for cut in range(1, len(mark)):
        assert told_apart(mark[:cut], f"{mark[cut:]}Hm, <b> </b>.\n{end[:cut]}", end[cut:], answer) == (thought, answer)
    assert told_apart("\n", " ", thought, answer) == (f"\n {thought}", answer), "white space before it"


@pytest.mark.parametrize(
    ("thought", "answer"),
    [
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>", "Yes."),
        ("<|channel|>analysis<|message|>Hm.<|start|>assistant<|channel|>final<|message|>", "Yes."),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
         "<|start|>assistant<|channel|>final<|message|>", "c"),
        ("<|channel|>final<|message|>", "Yes."),
        ("<|channel|>analysis<|message|>Hm", ""),
        ("<|channel>thought\nHm\n<channel|>", "Yes."),
        ("\n<seed:think>Hm</seed:think>", "\nYes."),
        ("", "What <|channel|>final<|message|> means"),
    ],
)  # fmt: skip
def test_the_answer_begins_behind_every_channel_but_the_final_one(thought: str, answer: str) -> None:
    assert told_apart(*(thought + answer)) == (thought, answer)
    assert answer_start(thought + answer) == len(thought)


def test_a_token_that_ends_the_thought_belongs_to_it() -> None:
    assert told_apart("<think>", "Hm", ".</think>\n\n", "Yes.") == ("<think>Hm.</think>\n\n", "Yes.")


def test_the_prompt_may_have_opened_the_thought() -> None:
    assert opened_by("<|im_start|>assistant\n<think>\n") and opened_by("...[THINK]")
    assert not opened_by("<think>\n\n</think>\n\n") and not opened_by("assistant\n")
    assert told_apart("Hm", ".", "</", "think", ">", "Yes.", opened=True) == ("Hm.</think>", "Yes.")
    assert told_apart("Hm", "[/THINK]", "Yes.", opened=True) == ("Hm[/THINK]", "Yes.")


@pytest.mark.parametrize("answer", ["Yes.", "<b>Yes</b>", "<thin ice", "", "  ", "a <think>b</think>", "<thi"])
def test_an_answer_without_thought_is_an_answer(answer: str) -> None:
    assert told_apart(*answer) == ("", answer)
    assert told_apart(answer) == ("", answer)


def test_a_thought_that_is_never_finished_is_a_thought() -> None:
    assert told_apart("<think>", "Hm, ", "or", " </thin") == ("<think>Hm, or </thin", "")
    assert told_apart("Hm", opened=True) == ("Hm", "")


def test_only_what_may_become_a_mark_is_held_back() -> None:
    thinking: Thinking[int] = Thinking()
    assert list(thinking.push(0, "<thi")) == []
    assert list(thinking.push(1, "ng")) == [(0, False), (1, False)]
    assert list(thinking.push(2, "<think>")) == [(2, False)]
