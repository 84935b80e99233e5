"""The status line: what matters most stands first, and nothing is cut."""

from __future__ import annotations

import pytest
from talking import Talk

from pjlocal import Generation
from pjlocal.chat.conversation import Progress
from pjlocal.chat.status import status, status_line

VIEWS = {"a": ["vivid"], "b": ["be kind"]}
BEFORE = Progress(0, 8192)
JUDGED = Progress(141, 8192, "a", "b", 0.78, 12.3)
PUSHED = Progress(264, 8192, None, None, 0.64, 11.6, {"a": 0.521, "b": -0.118})
ALONE = Progress(79, 8192, None, None, None, 23.4)
TEXTS = {"a": ["Talk like a pirate who has been at sea for forty years"], "b": ["creative", "concise"]}


@pytest.mark.parametrize(
    ("mode", "generation", "views", "progress", "by_width"),
    [
        (
            "judge",
            Generation(),
            VIEWS,
            JUDGED,
            {
                30: "judge · vivid · be kind",
                40: "judge λ4 · a: vivid · b: be kind",
                60: "judge λ4 · a: vivid · b: be kind · 12 tok/s · 78% accepted",
                80: "judge λ4 · a: vivid · b: be kind · 12 tok/s · 78% accepted · context 141/8192",
                120: "judge λ4 · a drafts: vivid · b judges: be kind · 12 tok/s · 78% accepted · context 141/8192",
            },
        ),
        (
            "both",
            Generation(),
            VIEWS,
            PUSHED,
            {
                30: "both · vivid · be kind",
                40: "both λ4 ×auto · a: vivid · b: be kind",
                59: "both λ4 ×auto · a: vivid · b: be kind · 12 tok/s",
                60: "both λ4 ×auto · a: vivid · b: be kind · push a +0.52 b -0.12",
                80: "both λ4 ×auto · a: vivid · b: be kind · push a +0.52 b -0.12 · 12 tok/s",
                120: "both λ4 ×auto · a: vivid · b: be kind · push a +0.52 b -0.12 · 12 tok/s · 64% accepted · "
                "context 264/8192",
            },
        ),
        (
            "base",
            Generation(strength="1.5", avoid=("formal",)),
            VIEWS,
            BEFORE,
            {
                30: "base · vivid · be kind",
                40: "base · vivid · be kind · avoid: formal",
                60: "base · vivid · be kind · avoid: formal · context 0/8192",
                80: "base λ4 ×1.5 · a: vivid · b: be kind · avoid: formal · context 0/8192",
                120: "base λ4 ×1.5 · a: vivid · b: be kind · avoid: formal · context 0/8192",
            },
        ),
        *(
            (
                mode,
                Generation(),
                VIEWS,
                ALONE,
                {
                    30: f"{mode} · vivid, be kind",
                    40: f"{mode} · vivid, be kind · 23 tok/s",
                    60: f"{mode} · vivid, be kind · 23 tok/s · context 79/8192",
                    80: f"{mode} · vivid, be kind · 23 tok/s · context 79/8192",
                    120: f"{mode} · vivid, be kind · 23 tok/s · context 79/8192",
                },
            )
            for mode in ("prompt", "rewrite")
        ),
        (
            "plain",
            Generation(),
            {"a": [], "b": []},
            ALONE,
            {30: "plain · 23 tok/s", 40: "plain · 23 tok/s · context 79/8192"},
        ),
        (
            "both",
            Generation(),
            {"a": ["vivid"], "b": []},
            BEFORE,
            {30: "both · vivid · context 0/8192", 80: "both λ4 ×auto · a: vivid · b: no preference · context 0/8192"},
        ),
        (
            "judge",
            Generation(),
            TEXTS,
            JUDGED,
            {
                30: "judge · Talk like a…",
                40: "judge · Talk like a… · creative, concise",
                60: "judge λ4 · a: Talk like a pirate who… · b: creative, concise",
                80: "judge λ4 · a: Talk like a pirate who… · b: creative, concise · 12 tok/s",
                120: "judge λ4 · a: Talk like a pirate who… · b: creative, concise · 12 tok/s · 78% accepted · "
                "context 141/8192",
            },
        ),
        (
            "judge",
            Generation(),
            {"a": ["vivid"], "b": ["creative"], "c": ["concise"], "d": ["kind"]},
            JUDGED,
            {
                30: "judge · vivid · creative",
                40: "judge · vivid · creative · concise",
                60: "judge λ4 · a: vivid · b: creative · c: concise · d: kind",
                80: "judge λ4 · a: vivid · b: creative · c: concise · d: kind · 12 tok/s",
            },
        ),
    ],
)
def test_the_most_important_parts_are_first_and_are_left_out_whole(mode, generation, views, progress, by_width) -> None:
    shown = {width: status(mode, generation, views, progress, width) for width in by_width}
    assert shown == by_width
    assert all(len(line) <= width for width, line in shown.items())


def test_wide_characters_and_marks_in_a_preference_keep_the_line_to_one_row() -> None:
    views = {"a": ["猫は喉をゴロゴロと鳴らす生き物です。猫は喉をゴロゴロと鳴らす生き物です。"], "b": ["x\n\x1b[31my"]}
    assert status("judge", Generation(), views, BEFORE, 30) == "judge · 猫は喉をゴ… · x ␛[31my"
    assert status("both", Generation(), views, BEFORE, 120).endswith(" · b: x ␛[31my · context 0/8192")
    assert [status("both", Generation(), views, BEFORE, width) for width in (1, 6)] == ["", "both"]


def test_the_context_of_an_opened_chat_is_left_out_until_an_answer_has_counted_it(chat: Talk) -> None:
    def shown() -> str:
        return status_line(chat.conversation, 200).plain

    assert "context 0/" in shown()
    chat.say("Go")
    assert "context" in shown() and "context 0/" not in shown()
    chat.say("/fork")
    assert "context" not in shown()
    chat.say("Go on")
    assert "context" in shown()
    chat.say("/new")
    assert "context 0/" in shown()


def test_pushes_are_shown_only_while_their_preferences_are_in_force(chat: Talk) -> None:
    def shown() -> str:
        return status_line(chat.conversation, 200).plain

    chat.say("Go")
    assert " · push a " in shown()
    before = shown()
    chat.say("/prefer clear")
    assert "push" not in shown() and "context" in shown()
    chat.say('/prefer "Be brief" "Be kind"')
    assert shown() == before
    chat.say("/prefer b clear")
    assert "push" not in shown()


@pytest.mark.parametrize("change", ["/mode plain", "/mode prompt", "/avoid clear", "/avoid 'Use long words'"])
def test_pushes_are_shown_only_while_their_mode_and_avoided_preferences_are_in_force(chat: Talk, change: str) -> None:
    chat.say("/avoid formal")
    chat.say("Go")
    before = status_line(chat.conversation, 200).plain
    assert " avoid 1 " in before
    chat.say(change)
    assert "push" not in status_line(chat.conversation, 200).plain
    chat.say("/avoid formal" if "avoid" in change else "/mode default")
    assert status_line(chat.conversation, 200).plain == before
