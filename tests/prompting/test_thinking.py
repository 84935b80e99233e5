"""The thinking is separated from the answer, however the text is split into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pjlocal.prompting.thinking import (
    HARMONY,
    MARKS,
    Marks,
    Thinking,
    ThinkingPhase,
    ThinkingText,
    answer_start,
    find_thoughts,
    opened_by,
    split,
)


@dataclass(frozen=True)
class Token:
    text: str
    thought: bool


def marked(tokens: Sequence[str], opened: Marks | None = None, may_begin: bool = True) -> list[Token]:
    """Tokens, each with whether it is thought, as an answer finds out one by one."""
    thinking, flags, n_known = Thinking(opened, may_begin), [], 0
    for number, token in enumerate(tokens, 1):
        thinking.accept(token.encode())
        if thinking.is_thought is not None:
            flags += [thinking.is_thought] * (number - n_known)
            n_known = number
    flags += [False] * (len(tokens) - n_known)
    assert thinking.n_tokens == sum(flags) or n_known < len(tokens)
    return [Token(*pair) for pair in zip(tokens, flags, strict=True)]


def separated(*tokens: str, opened: Marks | None = None) -> tuple[str, str]:
    """The thinking and the answer in the tokens, with all marks."""
    found = marked(tokens, opened)
    thought, answer = ("".join(token.text for token in found if token.thought is which) for which in (True, False))
    assert thought + answer == "".join(tokens), "nothing is lost, and the order stays"
    return thought, answer


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.open)
def test_text_between_the_marks_is_thinking_however_it_is_split(marks: Marks) -> None:
    mark, end = marks.open, marks.close
    thought, answer = f"{mark}Hm, <b> </b>.\n{end}", "Yes <think> so."
    assert separated(*thought, *answer) == (thought, answer)
    assert separated(mark, "Hm, <b> </b>.\n", end, answer) == (thought, answer)
    for cut in range(1, len(mark)):
        assert separated(mark[:cut], f"{mark[cut:]}Hm, <b> </b>.\n{end[:cut]}", end[cut:], answer) == (thought, answer)
    assert separated("\n", " ", thought, answer) == (f"\n {thought}", answer), "white space before it"
    assert separated(thought, "\n", "\n", answer, "\n") == (f"{thought}\n\n", f"{answer}\n"), "and behind it"


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("marks", [marks for marks in MARKS if marks is not HARMONY], ids=lambda marks: marks.open)
def test_the_texts_come_without_marks_as_soon_as_they_are_known(marks: Marks, n: int) -> None:
    text = f"\n{marks.open}\nHm </thin\n\n x. \n{marks.close}\n\nYes </think> so.\n"
    tokens = marked([text[at : at + n] for at in range(0, len(text), n)])
    assert split(tokens) == ("Hm </thin\n\n x.", "Yes </think> so.\n")
    texts, shown = ThinkingText(), ""
    for number, token in enumerate(tokens):
        shown += texts.push(token)[0]
        so_far = "".join(token.text for token in tokens[: number + 1])
        assert "Hm </thin\n\n x.".startswith(shown)
        if n == 1 and so_far.endswith("Hm </thin\n\n x"):
            assert shown.endswith("x"), "nothing waits that cannot be part of a mark"


@pytest.mark.parametrize(
    ("thought", "thinking", "answer"),
    [
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>", "Hm.", "Yes."),
        ("<|channel|>analysis<|message|>Hm.<|start|>assistant<|channel|>final<|message|>", "Hm.", "Yes."),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
         "<|start|>assistant<|channel|>final<|message|>", "a\n\nb", "c"),
        ("<|channel|>final<|message|>", "", "Yes."),
        ("<|channel|>analysis<|message|>Hm", "Hm", ""),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assis", "Hm", ""),
        ("<|channel>thought\nHm\n<channel|>", "Hm", "Yes."),
        ("\n<seed:think>Hm</seed:think>", "Hm", "Yes."),
        ("", "", "What <|channel|>final<|message|> means"),
    ],
)  # fmt: skip
def test_the_answer_begins_after_all_channels_before_the_final_one(thought: str, thinking: str, answer: str) -> None:
    assert separated(*(thought + answer)) == (thought, answer)
    assert answer_start(thought + answer) == len(thought)
    for n in (1, 2, 3, 4, 5, 11, 1000):
        text = thought + answer
        assert split(marked([text[at : at + n] for at in range(0, len(text), n)])) == (thinking, answer)


def test_a_token_that_ends_thinking_belongs_to_it_and_its_text_to_the_answer() -> None:
    assert separated("<think>", "Hm", ".</think>\n\n", "Yes.") == ("<think>Hm.</think>\n\n", "Yes.")
    assert split(marked(["<think>", "Hm", ".</think>\n\nYe", "s."])) == ("Hm.", "Yes.")
    assert split(marked(["<think>", "Hm", ".</think>\n\nYes."])) == ("Hm.", "Yes.")
    kimi = next(marks for marks in MARKS if marks.open == "◁think▷")
    pieces = ["x\n[x[", "\n◁/th", "in", "k▷\n\nA", "\n ", "B"]
    assert split(marked(pieces, kimi)) == ("x\n[x[", "A\n B"), "white space in the answer, not behind the mark"


def test_the_prompt_may_have_opened_thinking() -> None:
    think, magistral = opened_by("<|im_start|>assistant\n<think>\n"), opened_by("...[THINK]")
    assert think and think.open == "<think>" and magistral and magistral.open == "[THINK]"
    assert not opened_by("<think>\n\n</think>\n\n") and not opened_by("assistant\n")
    assert separated("Hm", ".", "</", "think", ">", "Yes.", opened=think) == ("Hm.</think>", "Yes.")
    assert separated("Hm </think>", "[/THINK]", "Yes.", opened=magistral) == ("Hm </think>[/THINK]", "Yes.")
    assert separated("<think>", "Hm", "</think>", "Yes.", opened=think)[1] == "Yes."
    assert split(marked(["<think>", "Hm", "</think>", "Yes."], think)) == ("Hm", "Yes.")


@pytest.mark.parametrize("answer", ["Yes.", "<b>Yes</b>", "<thin ice", "", "  ", "a <think>b</think>", "<thi"])
def test_an_answer_without_thinking_is_an_answer(answer: str) -> None:
    assert separated(*answer) == ("", answer)
    assert separated(answer) == ("", answer)
    assert split(marked([*answer])) == ("", answer)


def test_a_completion_has_no_thinking_unless_its_prompt_opens_it() -> None:
    assert not any(token.thought for token in marked(["<think>", "Hm"], may_begin=False))
    assert all(token.thought for token in marked(["Hm", "."], MARKS[0], may_begin=False))


def test_unfinished_thinking_is_thinking() -> None:
    assert separated("<think>", "Hm, ", "or", " </thin") == ("<think>Hm, or </thin", "")
    assert separated("Hm", opened=MARKS[0]) == ("Hm", "")
    assert split(marked(["<think>", "Hm, or", " </thin"])) == ("Hm, or </thin", "")


def test_marks_of_other_families_are_text_if_the_prompt_opened_thinking() -> None:
    tokens = marked(["Not ", "[/THINK]", " or ", "</thinking>", ".", "</think>", "\n\n", "Yes"], MARKS[0])
    assert split(tokens) == ("Not [/THINK] or </thinking>.", "Yes")
    texts = ThinkingText()
    assert [texts.push(token)[0] for token in tokens[:3]] == ["Not", "", " [/THINK] or"]


def test_only_what_may_become_a_mark_is_held_back() -> None:
    thinking = Thinking()
    for token, known in (("<thi", None), ("ng", False), ("<think>", False)):
        thinking.accept(token.encode())
        assert thinking.is_thought is known


def test_thinking_in_unmarked_texts_is_found() -> None:
    assert find_thoughts(["<thi", "nk>", "Hm", "</think>", "\n", "Yes"]) == [True] * 5 + [False]
    assert find_thoughts(["Hm", "</think>", "Yes"]) == [True, True, False]
    assert find_thoughts(["Yes, ", "<think>", "</think>"]) == [False] * 3
    assert find_thoughts(["<thi"]) == [False] and find_thoughts([]) == []


@pytest.mark.parametrize(
    ("pieces", "starts"), [(["<think>"], [None, None, 3, 4, 4]), (["<th", "ink>"], [0, None, None, 4, 5, 5])]
)
def test_the_answer_starts_after_the_thinking_that_the_model_opens(pieces: list[str], starts: list[int | None]) -> None:
    """There mode both begins to count what the answer repeats, so that it may quote the thinking."""
    spelled = [*pieces, "why", "</think>", "\n\n", "because"]
    phase = ThinkingPhase(Thinking(), lambda n: spelled[n].encode(), lambda text: [], str, None, 100)
    found = []
    for token in range(len(spelled)):
        phase.accept(token)
        found.append(phase.answer.start)
    assert found == starts
