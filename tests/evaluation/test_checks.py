"""Scores from an answer's text alone: known answers, and texts with few or no words."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from evaluated import make_answer

from pjlocal.errors import UsageError
from pjlocal.evaluation import checks
from pjlocal.evaluation.suite import Check, Objectives
from pjlocal.prompting import preferences

EGG = "How do I boil an egg?"


def scores_of(text: str, *required: Check, prompt: str = EGG, plain: str | None = None, **changes) -> dict:
    beside = None if plain is None else make_answer(plain)
    objectives = Objectives("o", ("Answer as a pirate",), required)
    return {s.metric: s.value for s in checks.scores(make_answer(text, prompt=prompt, **changes), objectives, beside)}


def test_words_and_their_variety_are_as_counted_by_hand() -> None:
    found = scores_of("The cat, the cat, the cat sat. Don't!")  # the cat the cat the cat sat don't
    assert found["words"] == 8
    assert found["distinct1"] == 4 / 8
    assert found["distinct2"] == 4 / 7  # the-cat, cat-the, cat-sat, sat-don't
    assert found["repetition"] == pytest.approx(1 - 4 / 6)  # the-cat-the, cat-the-cat twice; the-cat-sat, cat-sat-don't
    assert found["finished"] == 1 and scores_of("Cut", finish_reason="length")["finished"] == 0


@pytest.mark.parametrize("text", ["", "  \n", "?!", "🎉🎉", "---"])
def test_an_answer_without_words_has_no_words_and_no_shares_of_them(text: str) -> None:
    found = scores_of(text)
    nothing = {"repetition": 0, "question copied": 0, "preferences copied": 0}
    assert found == {"words": 0, "finished": 1} | nothing


def test_what_is_copied_of_the_question_and_of_the_preferences_is_counted_in_runs_of_three_words() -> None:
    found = scores_of("How do I BOIL it? Answer, as a ship!")  # of how-do-I, do-I-boil, I-boil-an, boil-an-egg: two
    assert found["question copied"] == 2 / 4
    assert found["preferences copied"] == 1 / 2  # of answer-as-a and as-a-pirate
    assert "question copied" not in scores_of("Boil an egg", prompt="An egg?"), "two words have no run of three"


def test_a_preset_is_copied_if_its_text_is() -> None:
    preset = preferences.PRESETS["concise"]
    of = Objectives("o", ("concise:1.5",))
    assert {s.metric: s.value for s in checks.scores(make_answer(preset), of)}["preferences copied"] == 1


@pytest.mark.parametrize("gone", ["mine", "@gone.txt"])
def test_without_the_preset_or_file_of_a_preference_the_other_metrics_remain(gone: str) -> None:
    metrics = {s.metric for s in checks.scores(make_answer("Ahoy!"), Objectives("o", ("concise", gone)))}
    assert "preferences copied" not in metrics and {"words", "question copied", "finished"} <= metrics


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("two words", 2),
        ("one—two…three", 3),
        ("- a list:\n- of 2 points", 5),
        ("猫は可愛い。", 5),  # each character, and not the mark
        ("GPUで速い", 4),
        ("नमस्ते दुनिया", 2),  # vowel signs are no letters to Python, and do not part words
        ("Привет, мир!", 2),
        ("สวัสดี", 4),  # without the vowel signs above
    ],
)
def test_words_are_counted_in_other_scripts_too(text: str, count: int) -> None:
    assert scores_of(text)["words"] == count


def test_plain_words_in_short_sentences_read_easier() -> None:
    easy, hard = (
        "The cat sat on the mat. It was glad.",
        "Sophisticated methodologies necessitate understanding thereof.",
    )
    assert scores_of(easy)["readability"] == 100 - 4.5  # 9 words in 2 sentences, none of more than six letters
    assert scores_of(hard)["readability"] == 100 - (5 + 100 * 5 / 5)
    listed = "- Boil the water\n- Put the egg in\n- Wait for six minutes"
    assert scores_of(listed)["readability"] > scores_of(listed.replace("\n-", ""))["readability"], (
        "a point of a list is a sentence"
    )
    assert "readability" in scores_of("Мама мыла раму. Кошка спит.")
    assert "readability" not in scores_of("猫は可愛い。とても。"), "words cannot be separated there"


@pytest.mark.parametrize(
    ("required", "text", "met"),
    [
        ({"regex": r"(?i)\bye\b"}, "Ye be warned", True),
        ({"regex": r"(?i)\bye\b"}, "Yes", False),
        ({"regex": r"(?i)\bда\b"}, "Ну ДА!", True),
        ({"not_regex": "please"}, "Boil it", True),
        ({"not_regex": "please"}, "please boil it", False),
        ({"max_words": 3}, "one two three", True),
        ({"max_words": 3}, "one two three four", False),
        ({"min_words": 3}, "one two", False),
        ({"max_sentences": 2}, "It costs 3.50 euros today! Yes.", True),
        ({"max_sentences": 2}, "One. Two? Three!", False),
        ({"max_sentences": 2}, "一。二。三。", False),
        ({"max_sentences": 1}, "Ahoy matey!🏴‍☠️ The cold be kept inside.", False),
        ({"max_sentences": 1}, "_Boil it._ Eat it.", False),
        ({"max_sentences": 1}, "Boil it, e.g., in a pan.🍳", True),
        ({"max_sentences": 2}, "1. First\n2. Second", True),
        ({"finished": True}, "Boil it", True),
        ({"lowercase": True}, "all small, ça va 42", True),
        ({"lowercase": True}, "not Quite", False),
        ({"regex": "b", "max_words": 1}, "a b", False),
        ({"regex": "^[!?]+$"}, "?!", True),
        ({"regex": ".*", "not_regex": "x", "finished": True}, " ", False),  # an empty answer meets no check
        ({"max_words": 5}, "", False),
        ({"max_words": 5}, "...", False),
        ({"lowercase": True}, "...", False),
    ],
)
def test_a_check_is_met_if_all_its_requirements_are(required: dict, text: str, met: bool) -> None:
    found = scores_of(text, Check("mine", **required))
    assert found["check:mine"] == found["check:all"] == met


def test_an_answer_is_compared_with_the_plain_one_and_left_out_where_there_is_none() -> None:
    shorter, simpler = Check("shorter", shorter_than=0.8), Check("simpler", simpler_than_plain=True)
    plain = "Considerable preparation precedes everything, naturally, but afterwards it is simple indeed."
    found = scores_of("First boil the egg. Then eat it.", shorter, simpler, plain=plain)
    assert found["check:shorter"] == found["check:simpler"] == found["check:all"] == 1
    assert scores_of(plain, shorter, simpler, plain=plain)["check:shorter"] == 0
    assert scores_of(plain, shorter, simpler, plain=plain)["check:simpler"] == 0, "as easy is not easier"

    alone = scores_of("First boil the egg.", shorter, Check("b", regex="egg"))
    assert "check:shorter" not in alone and "check:all" not in alone and alone["check:b"] == 1
    failing = scores_of("First boil the egg.", shorter, Check("b", regex="ham"))
    assert failing["check:b"] == 0 and "check:all" not in failing, "or only failures would be counted"
    assert "check:shorter" not in scores_of("", shorter)
    assert "check:shorter" not in scores_of("Boil it.", shorter, plain="?"), "nothing is shorter than nothing"
    assert scores_of("", shorter, plain="Boil it.")["check:shorter"] == 0


def test_presets_and_frequent_preferences_have_checks_of_their_own() -> None:
    names = [check.name for check in checks.checks_of(Objectives("o", ("Concise:1.5", "vivid", "simple")))]
    assert names == ["concise", "simple"]
    names = [check.name for check in checks.checks_of(Objectives("o", ("talk like a pirate:2", "Use emoji")))]
    assert names == ["pirate", "emoji"]
    pirate = Check("pirate", regex="Arr")
    assert checks.checks_of(Objectives("o", ("Talk like a pirate",), (pirate,))) == (pirate,)
    own = Check("brief", of="concise", max_words=20)
    assert checks.checks_of(Objectives("o", ("concise",), (own,))) == (own,), "the suite knows better"
    strong = Check("brief", of="Concise:1.5", max_words=20)
    stronger = Objectives("o", ("Concise:1.5",), (strong,))
    assert checks.checks_of(stronger) == (strong,) and not checks.unchecked(stronger)
    preferences.use_own({"simple": "Answer like Hemingway."})
    try:
        assert checks.checks_of(Objectives("o", ("simple",))) == ()
    finally:
        preferences.use_own({})


NUMBERED = (
    "**1.** Boil.\n**2.** Add.",
    "**Step 1:** Boil.\n**Step 2:** Add.",
    "1: Boil.\n2: Add.",
    "Step 1. Boil.",
    "### Step 1: Boil.",
    "_1._ Boil.",
)


EMOJI = ("⭐", "🇮🇹", "⏰", "✨", "☀", "😎", "🏴‍☠️", "1️⃣", "⬆️", "▶️", "‼️", "↔️", "❤", "✔")


@pytest.mark.parametrize(
    ("preset", "meets", "misses"),
    [
        ("step-by-step", "**Step 1:** Boil it.", "Boil 1.5 litres of water first."),
        ("step-by-step", "**Step 1**: Boil water.", "1.5 litres is enough."),
        ("step-by-step", "Easy:\n\n1. Boil it.\n2. Eat it.", "- Boil it."),
        ("lists", "* Eggs\n* Ham", "* Eggs are good."),
        ("lists", "- **Milk**\n  from the shop\n- **Eggs**", "- **Milk**\n  from the shop"),
        ("no-lists", "Eggs - or ham.", "Take:\n- eggs"),
        ("no-lists", "In 2024. Eggs.", "1. Eggs"),
        ("no-lists", "2024. A year.", "10) Eggs"),
        ("no-lists", "42.", "1. **Eggs**"),
        ("no-lists", "The answer is\n42.", "It is\n42. Or 43."),
        ("step-by-step", "1. Boil it.", "1."),
        *(("no-lists", "1.5 eggs, at\n10:30 sharp.", text) for text in NUMBERED),
        *(("step-by-step", text, "- Boil it.") for text in NUMBERED),
        ("emoji", "Eggs \N{COOKING}!", "Eggs :-)"),
        *(("emoji", f"Eggs {emoji}", "Eggs :-)") for emoji in EMOJI),
        *(("emoji", "Eggs 🍳", f"Eggs {sign}") for sign in "✓★☆✗♪❝➤☐→©™1#▪"),
    ],
)
def test_the_form_of_a_preset_is_checked(preset: str, meets: str, misses: str) -> None:
    (check,) = checks.checks_of(Objectives("o", (preset,)))
    assert scores_of(meets, check)[f"check:{preset}"] == 1
    assert scores_of(misses, check)[f"check:{preset}"] == 0


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", r"\p{Klingon}", "a{2,1}", "\\", "(?P<x", "(?<n>a)(?<n"])
def test_a_bad_expression_is_refused_before_answers_are_written(pattern: str) -> None:
    for key in ("regex", "not_regex"):
        with pytest.raises(UsageError, match=rf"^{key}: .* is not a regular expression") as error:
            Check("arr", **{key: pattern})
        assert "\n" not in str(error.value)


def test_an_expression_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PATIENCE_S", 0.05)
    with pytest.raises(UsageError, match=r"the check 'arr': .* takes longer than 0\.05 s on one answer"):
        scores_of("a" * 60 + "b", Check("arr", regex="(a|aa)+$"))


def test_the_key_of_a_score_contains_all_its_inputs() -> None:
    def keys(text_key: str, check: Check, plain_key: str | None, text="Boil it", longer="indeed", **changes):
        beside = make_answer(f"Boil it for a very long time {longer}", key=plain_key) if plain_key else None
        one = make_answer(text, key=text_key, **changes)
        return {s.metric: s.key for s in checks.scores(one, Objectives("o", ("x y",), (check,)), beside)}

    check = Check("c", max_words=5)
    first = keys("a", check, "p")
    assert keys("a", check, "p") == first
    assert not set(keys("b", check, "p").values()) & set(first.values())
    changed = keys("a", replace(check, max_words=6), "p")
    assert {name for name in first if first[name] != changed[name]} == {"check:c", "check:all"}
    assert keys("a", check, "other") == first, "this check does not look at the plain answer"
    compared = replace(check, shorter_than=0.5)
    assert keys("a", compared, "p")["check:c"] != keys("a", compared, "other")["check:c"]
    assert keys("a", compared, "p")["check:c"] != keys("a", compared, "p", longer="again")["check:c"]
    assert len(set(first.values())) == len(first)
    for again in ({"text": "Fry it"}, {"finish_reason": "length"}, {"prompt": "Why?"}):
        other = keys("a", check, "p", **again)
        assert not set(other.values()) & set(first.values()), "the answer was written again under its key"


@pytest.mark.parametrize(("package", "required"), [("textstat", {}), ("regex", {"regex": "a"})])
def test_a_missing_package_of_the_extra_gives_an_error_with_advice(package: str, required: dict, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs the package {package}: pip install 'pjlocal\[eval\]'"):
        scores_of("Boil it.", Check(f"without {package}", **required))
