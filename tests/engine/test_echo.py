"""A preference does not push its own words into the answer."""

from __future__ import annotations

import pytest

from pjlocal import PersonaJudge
from pjlocal.engine.echo import Echo
from pjlocal.engine.model import Model

COWBOY = "Talk like a cowboy."


@pytest.fixture
def model(vivid_and_creative: PersonaJudge) -> Model:
    return vivid_and_creative.model


def copies(model: Model, preference: str, begun: str) -> set[str]:
    """The texts of the tokens that would copy a preference after an answer's beginning."""
    echo = Echo(model, {0: preference})
    for token in model.tokenize(begun, special=True, continues=True):
        echo.accept(token)
    assert not echo.copies(1)
    return {model.text([token]) for token in echo.copies(0)}


def test_a_copy_begins_with_the_first_word_of_a_line_in_any_spelling(model: Model) -> None:
    spelled = {"Talk", " Talk", " talk"}
    for begun in ("", '"', "1. ", "**", "Well, partner.\n", "Well<|im_end|>"):
        assert copies(model, COWBOY, begun) >= spelled, begun
    for begun in ("Well", "I", "Well, partner. "):
        assert not copies(model, COWBOY, begun)


@pytest.mark.parametrize(
    ("begun", "word"),
    [
        ("Talk", " like"),
        ("*talk", " like"),
        ("I talk", " like"),
        ("They all talk like", " a"),
        ("Talk like a", " cow"),
        ("Talk talk like", " a"),
        ("Talk, like: a", " cow"),
        ("Talk like a cow", "boy"),
    ],
)
def test_it_continues_from_word_to_word(model: Model, begun: str, word: str) -> None:
    assert word in copies(model, COWBOY, begun)
    assert word not in copies(model, "Answer in French.", begun)


@pytest.mark.parametrize("begun", ["Act like a", "I like a", "Talk like the", "Talk like a cowboy", "Talk\nlike a"])
def test_words_of_a_preference_elsewhere_are_free(model: Model, begun: str) -> None:
    assert " cow" not in copies(model, COWBOY, begun)


@pytest.mark.parametrize("begun", ["Talk 🎉", "Talk 🐳🌈"])
def test_a_part_of_a_character_does_not_begin_a_line(model: Model, begun: str) -> None:
    pieces = [model.piece(token) for token in model.tokenize(begun, special=False)]
    assert any(not piece.decode(errors="ignore") for piece in pieces), "a token has only a part of a character"
    assert " like" in copies(model, COWBOY, begun)
    assert not copies(model, COWBOY, begun.replace("Talk", "Well"))


def test_each_sentence_of_a_preference_can_be_copied(model: Model) -> None:
    two = f"{COWBOY} Use few words."
    assert {"Talk", "Use"} <= copies(model, two, "")
    assert " few" in copies(model, two, "Use") and " use" not in copies(model, two, "Talk like a cowboy")


def test_each_line_is_a_preference(model: Model) -> None:
    both = f"{COWBOY}\nUse few words."
    assert {"Talk", "Use"} <= copies(model, both, "")
    assert " few" in copies(model, both, "Use") and " few" not in copies(model, both, "Talk like a cowboy use no")


@pytest.mark.parametrize(
    "preference", ['End with "good luck".', "End with “good luck”.", "End with 'good luck'.", "End with «good luck»."]
)
def test_a_quoted_text_may_be_copied(model: Model, preference: str) -> None:
    assert " with" in copies(model, preference, "End")
    assert not copies(model, preference, "End with") and not copies(model, preference, "End with good")


def test_an_apostrophe_is_not_a_quote(model: Model) -> None:
    assert " lists" in copies(model, "Don't use lists.", "Don't use")


def test_a_copy_of_the_state_is_independent(model: Model) -> None:
    echo = Echo(model, {0: COWBOY})
    (talk,) = model.tokenize("Talk", special=False, continues=True)
    twin = echo.clone()
    twin.accept(talk)
    assert talk in echo.copies(0) and talk not in twin.copies(0)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["lockstep", "reference"])
def test_no_preference_pushes_its_own_copy(smollm2, schedule: str) -> None:
    wishes = [COWBOY, "Use at most ten words."]
    settings = {"mode": "both", "schedule": schedule, "max_tokens": 3, "begin": "Talk like"}
    found = 0
    with PersonaJudge(smollm2, prefer=wishes) as judge:
        for seed in range(3):
            echo = Echo(judge.model, dict(enumerate(wishes)))
            for event in judge.stream("Say hello to the class.", seed=seed, **settings):
                for view, push in enumerate(event.pushes.values()):
                    if event.id in echo.copies(view):
                        found += 1
                        assert push <= 0, event
                echo.accept(event.id)
    assert found


@pytest.mark.slow
def test_the_push_of_a_view_alone_is_the_one_it_has(smollm2) -> None:
    """At strength 1 a view writes its own distribution, in which it may copy its preference."""
    with PersonaJudge(smollm2, prefer=[COWBOY, "Use at most ten words.:2"]) as judge:
        (copy,) = judge.model.tokenize(" a", special=False, continues=True)
        pushes = [
            event.pushes["a"]
            for seed in range(3)
            for event in judge.stream("Say hello.", mode="judge", begin="Talk like", seed=seed, max_tokens=1)
            if event.id == copy
        ]
    assert pushes and min(pushes) > 0
