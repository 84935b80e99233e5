"""The strength of a preference changes by 0.5, from avoided over absent to preferred."""

from __future__ import annotations

import pytest

from pjlocal.errors import UsageError
from pjlocal.prompting.dials import STEP, adjust
from pjlocal.prompting.plan import by_view
from pjlocal.request import Request

START = Request().replace(mode="judge", views=[["vivid"], ["Talk like a pirate"]])


def turned(request: Request, *steps: tuple[str, float]) -> tuple[object, tuple[str, ...]]:
    for preference, step in steps:
        request = adjust(request, preference, step)
    return [list(view) for view in request.views], request.generation.avoid


def test_a_preference_gets_stronger_and_weaker_and_goes_at_zero() -> None:
    assert turned(START, ("vivid", STEP)) == ([["vivid:1.5"], ["Talk like a pirate"]], ())
    assert turned(START, ("VIVID", -STEP)) == ([["VIVID:0.5"], ["Talk like a pirate"]], ())
    assert turned(START, ("vivid", -STEP), ("vivid", -STEP)) == ([[], ["Talk like a pirate"]], ())
    assert turned(START, ("talk like a pirate", STEP))[0][1] == ["talk like a pirate:1.5"]


def test_an_absent_preference_is_added_or_avoided_and_comes_back() -> None:
    assert turned(START, ("concise", STEP)) == ([["vivid", "concise"], ["Talk like a pirate"]], ())
    assert turned(START, ("formal", -STEP)) == ([["vivid"], ["Talk like a pirate"]], ("formal:0.5",))
    assert turned(START, ("formal", -STEP), ("formal", -STEP))[1] == ("formal:1",)
    assert turned(START, ("formal", -STEP), ("formal", STEP)) == ([["vivid"], ["Talk like a pirate"]], ())


def test_the_usual_strength_is_that_of_the_mode() -> None:
    assert turned(START.replace(mode=None), ("vivid", STEP))[0][0] == ["vivid:2"]  # auto is about 1.5
    assert turned(START.replace(strength="3"), ("vivid", STEP))[0][0] == ["vivid:3.5"]


def test_a_preference_that_shares_a_view_gets_one_of_its_own() -> None:
    three = START.replace(views=[["vivid", "formal"], ["concise"]])
    weaker = adjust(three, "formal", -STEP)
    assert by_view(weaker) == {"a": ["vivid"], "b": ["concise"], "c": ["formal:0.5"]}
    assert by_view(adjust(three, "concise", STEP)) == {"a": ["vivid", "formal"], "b": ["concise:1.5"]}
    assert [*by_view(adjust(three.replace(mode="prompt"), "formal", -STEP))] == ["a", "b"], "that mode has one view"
    assert by_view(adjust(weaker, "formal", -STEP)) == {"a": ["vivid"], "b": ["concise"]}
    assert [*by_view(adjust(weaker, "formal", STEP))] == ["a", "b"], "the strengths are equal again"


def test_an_unknown_word_and_a_strength_beyond_the_limit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown preset 'loving': did you mean warm\?"):
        adjust(START, "loving", STEP)
    with pytest.raises(UsageError, match="a strength is a number from -10 to 10"):
        turned(START, *[("vivid", STEP)] * 19)


def test_composed_and_decomposed_characters_are_the_same() -> None:
    composed, decomposed = "Talk of caf\u00e9s:2", "talk of cafe\u0301s"
    assert turned(START.replace(views=[[composed], []]), (decomposed, STEP))[0] == [[f"{decomposed}:2.5"], []]


def test_a_negative_strength_is_turned_by_half_a_step_too() -> None:
    against = Request().replace(views=[["vivid:-1"], []])
    assert turned(against, ("vivid", STEP))[0] == [["vivid:-0.5"], []]
    assert turned(against, ("vivid", -STEP))[0] == [["vivid:-1.5"], []]
    assert turned(against, ("vivid", STEP), ("vivid", STEP))[0] == [[], []]


@pytest.mark.parametrize("text", ["Explain it to a child of 5", "Answer like this:", "Write like https://example.org"])
def test_a_text_whose_end_would_join_the_strength_gets_none_and_can_be_removed(text: str) -> None:
    assert turned(START, (text, STEP))[0][0] == ["vivid", text]
    preferred, avoided = START.replace(views=[[text], []]), START.replace(avoid=[text])
    for request, stronger in ((preferred, STEP), (avoided, -STEP)):
        with pytest.raises(UsageError, match="cannot take a strength"):
            adjust(request, text, stronger)
    assert turned(preferred, (text, -STEP)) == ([[], []], ())
    assert turned(avoided, (text, STEP))[1] == ()
    with pytest.raises(UsageError, match="cannot take a strength"):
        adjust(START, text, -STEP)
    assert turned(preferred, (f"{text} only", STEP))[0] == [[text], [f"{text} only"]]
