"""Ctrl-C, kill -9 and keys typed meanwhile: what was written is kept, and the chat goes on."""

from __future__ import annotations

import re

import pytest
from terminal import numbered, words

# Interrupted.


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_keeps_it_and_the_chat_continues(start, toy, says, sessions) -> None:
    text = numbered(600)
    chat = start(*toy, *says(text))
    chat.type("Go\r")
    chat.until("word50")
    chat.type("\x03")
    chat.at_prompt()
    (turn,) = sessions()[0].turns
    assert turn.finish_reason == "interrupted"
    assert text.startswith(turn.answer) and len(turn.answer) < len(text)
    assert words(chat.shown("Go")) == words(f"{turn.answer} (stopped)")
    chat.type("/compare\r")
    chat.until(lambda: re.search(r"^\d+ tokens · ", chat.text, re.MULTILINE))
    chat.type("\x03")
    chat.at_prompt()
    shown = chat.shown("/compare")
    assert "─ judge ─" in shown and "─ base ─" not in shown
    chat.say("/set max-tokens 5")
    assert "cut off after 5" in chat.say("Go on")
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go", "Go on"]
    assert b"Traceback" not in chat.raw


@pytest.mark.slow
def test_keys_typed_during_an_answer_wait_for_the_prompt(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(numbered(80)))
    chat.type("Go\r")
    chat.until("word5")
    chat.type("What nxt\x1b[D\x1b[De\x05?\r/title Later\r/title")
    chat.until(lambda: chat.line == "/title")
    first, second = sessions()[0].turns
    assert words(chat.shown("Go").partition("\n> ")[0]) == words(first.answer)
    assert (first.question, second.question) == ("Go", "What next?")
    assert sessions()[0].title == "Later"
