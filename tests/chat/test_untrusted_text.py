"""Text of a model, a file or a saved session gives the terminal no orders."""

from __future__ import annotations

import re

import pytest
from terminal import database

from pjlocal.events import TokenEvent
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

# Untrusted text.

EVIL = "a[bold red]b[/x]\x1b[2J\x1b]0;title\x07c\x9b31md\u202egpj\u2066e"
SHOWN = "a[bold red]b[/x]␛[2J␛]0;title␇c<U+009B>31md<U+202E>gpj<U+2066>e"


def gives_no_orders(raw: bytes) -> bool:
    text = raw.decode(errors="replace")
    return not re.search("\x1b\\]0|\x1b\\[2J|\x1b\\[31m|[\x9b\u202e\u2066\x07]", text)


@pytest.mark.slow
def test_a_models_text_stays_inert_in_every_view(start, toy, tmp_path) -> None:
    escaped = EVIL.encode("unicode_escape").decode().replace("\\x9b", "\\x9B")
    (tmp_path / "evil.gbnf").write_text(f'root ::= "{escaped}"\n')
    chat = start(*toy, "--grammar", "evil.gbnf", columns=150, lines=60)
    for view in ("markdown", "text", "blame"):
        chat.say(f"/view {view}")
        assert chat.say("Go").splitlines()[-1] == SHOWN
        assert SHOWN in chat.say("/why").splitlines()
    assert "[bold" in chat.say("/compare")
    assert gives_no_orders(chat.raw)


@pytest.mark.slow
def test_a_saved_session_and_a_file_name_stay_inert(start, toy, environment, tmp_path) -> None:
    session = Session(title=f"T {EVIL}", settings={"preferences": {"a": [f"P {EVIL}"], "b": []}})
    event = TokenEvent(
        0, 5, f"A {EVIL}\n\n# Title {EVIL}", "accepted", 0, f"V {EVIL}", 1.0, 1.0, 1.0, pushes={f"W {EVIL}": 1.0}
    )
    turn = Turn(f"Q {EVIL}", [event], settings={"preferences": session.settings["preferences"], "mode": f"M {EVIL}"})
    with Store(database(environment)) as store:
        store.add_turn(store.add_session(session), turn)
    (tmp_path / "models" / f"N {EVIL.replace('/', '')}.gguf").touch()
    chat = start("--continue", "-m", "toy.gguf", columns=250, lines=60)
    assert f"T {SHOWN}: 1 turn" in chat.text
    assert f"> Q {SHOWN}" in chat.text and f"A {SHOWN}" in chat.text
    for line, expected in (
        ("/prefer", f"a: P {SHOWN}"),
        ("/why", f"a: P {SHOWN}"),
        ("/why", f"V {SHOWN}"),
        ("/drafts", f"M {SHOWN}"),
        ("/stats", f"M {SHOWN}"),
        ("/sessions", f"T {SHOWN}"),
        ("/title", f"title: T {SHOWN}"),
        ("/load 1", f"T {SHOWN}: 1 turn"),
        ("/model", f"N {SHOWN.replace('/', '')}.gguf"),
        ("/undo", f"taken back: Q {SHOWN}"),
    ):
        assert expected in chat.say(line), line
    assert f"a: P {SHOWN}" in chat.screen.display[-1]
    for typed in ("/load T", "/model N"):
        chat.type(f"{typed}\t\t!")
        chat.at_prompt(f"{typed}!")
        chat.type("\x03")
        chat.at_prompt()
    assert gives_no_orders(chat.raw)


@pytest.mark.slow
def test_a_very_long_line_without_spaces(start, toy, says, sessions) -> None:
    chat = start(*toy, *says("x" * 500))
    for view in ("markdown", "text"):
        chat.say(f"/view {view}")
        shown = chat.say("Go")
        assert shown.replace("\n", "") == "x" * 500
    chat.type("z" * 500)
    chat.until(lambda: chat.text.count("z") == 500)
    chat.type("\r")
    chat.at_prompt()
    assert chat.text.count("z") == 500
    assert sessions()[0].turns[-1].question == "z" * 500
