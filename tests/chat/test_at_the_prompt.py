"""A conversation on a terminal: the line that is typed, and the status line below it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from commandline import PREFER
from terminal import database, numbered, words

from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

# A conversation.


@pytest.mark.slow
def test_a_conversation_of_several_turns(start, sessions) -> None:
    chat = start(*PREFER, "-n", "20", "--ignore-end", columns=120)
    assert "SmolLM2-135M-Instruct" in chat.text
    first, small, notice = chat.say("My name is Ada. What is yours?").partition("The small model")
    assert small and "pjlocal models pull" in " ".join(notice.split())
    second = chat.say("Why?")
    chat.leave()
    (session,) = sessions()
    assert session.title == "My name is Ada. What is yours?"
    assert [turn.question for turn in session.turns] == ["My name is Ada. What is yours?", "Why?"]
    cut = " (cut off after 20 tokens: /continue goes on, /set max-tokens allows more)"
    for shown, turn in zip((first, second), session.turns, strict=True):
        assert len(turn.events) == 20
        assert words(shown) == words(turn.answer + cut)
    read = [turn.statistics["usage"]["prompt_tokens"] for turn in session.turns]
    assert read[1] > read[0], "the second answer has read the first"


@pytest.mark.slow
def test_the_status_line_shows_roles_acceptance_rate_speed_and_context(start, slow_toy, says) -> None:
    line = (
        rb"judge \xce\xbb4 \xc2\xb7 a (drafts|judges): vivid \xc2\xb7 b (drafts|judges): creative \xc2\xb7 "
        rb"\d+ tok/s \xc2\xb7 \d+% accepted \xc2\xb7 context \d+/8192"
    )
    chat = start(*slow_toy, *says(numbered(200)), "--mode", "judge", columns=120)
    assert "context 0/8192" in chat.text
    before = len(chat.raw)
    chat.say("Count")
    found = [match.group() for match in re.finditer(line, chat.raw[before:])]
    assert len(found) > 3, "while it is written, and at the prompt"
    assert len({match.split()[4] for match in found}) == 2, "the roles swap"
    assert re.search(line, chat.screen.display[-1].encode())
    context = [int(match.split()[-1].split(b"/")[0]) for match in found]
    assert context == sorted(context)


# The line that is typed.


@pytest.mark.slow
def test_lines_sent_while_the_command_starts_are_asked(start, toy, says) -> None:
    chat = start(*toy, *says("Rain."), ready=False)
    chat.type("Why?\rAnd then?\rNot yet")
    chat.at_prompt("Not yet")
    assert chat.shown("Why?").startswith("Rain.") and chat.shown("And then?").startswith("Rain.")


@pytest.mark.slow
def test_the_line_can_be_edited(start, toy, sessions) -> None:
    chat = start(*toy, "-n", "2")
    chat.type("Wht is thiss?")
    chat.type("\x1b[D" * 2 + "\x7f" + "\x1b[D" * 8 + "a")
    chat.at_prompt("Wha")
    chat.type("\x05\r")  # Ctrl-E: to the end
    chat.at_prompt()
    chat.type("never mind")
    chat.at_prompt("never mind")
    chat.type("\x03")
    chat.at_prompt()
    chat.type("ok")
    chat.at_prompt("ok")
    chat.type("\x1b[A\x1b[A")  # up and up: at "ok", then the question before
    chat.at_prompt("What is this?")
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["What is this?"]


@pytest.mark.slow
def test_the_arrow_up_brings_back_what_was_typed_in_an_earlier_run(start, toy, environment) -> None:
    chat = start(*toy, "-n", "2")
    chat.say("an earlier question")
    chat.leave()
    assert (database(environment).with_suffix(".history").stat().st_mode & 0o777) == 0o600
    chat = start(*toy, "-n", "2")
    chat.type("\x1b[A")
    chat.at_prompt("an earlier question")


@pytest.mark.slow
def test_tab_completes_commands_presets_models_and_titles(start, toy, environment) -> None:
    with Store(database(environment)) as store:
        store.add_session(Session("Cats and dogs"))
    config = Path(environment["XDG_CONFIG_HOME"]) / "pjlocal" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[personas.pirate-brief]\nlam = 3\n")
    chat = start(*toy, "-n", "2")
    for typed, completed in (
        ("/sw", "/swap"),
        ("/prefer a viv", "/prefer a vivid"),
        ("/mode pl", "/mode plain"),
        ("/set typ", "/set typical-p"),
        ("/view bl", "/view blame"),
        ("/view pu", "/view push"),
        ("/mode bo", "/mode both"),
        ("/strength a", "/strength auto"),
        ("/avoid viv", "/avoid vivid"),
        ("/set flo", "/set floor"),
        ("/persona pi", "/persona pirate-brief"),
        ("/model to", "/model toy.gguf"),
        ("/load cats", "/load Cats and dogs"),
        ("/export h", "/export html"),
    ):
        chat.type(typed)
        offered = completed if " " not in typed else completed.split(" ", typed.count(" "))[-1]
        chat.until(lambda: offered in chat.menu)
        chat.type("\t")
        chat.at_prompt(completed)
        chat.type("\x03")
        chat.at_prompt()
    chat.type("not /sw\t!")
    chat.at_prompt("not /sw!")


@pytest.mark.slow
def test_several_lines_arrive_as_one_question(start, toy, sessions) -> None:
    chat = start(*toy, "-n", "2")
    chat.type("one\x1b\rtwo\nthree")  # Alt-Enter, Ctrl-J
    chat.until("three")
    chat.send()
    chat.type('"""four\r\rfive"""')
    chat.until('five"""')
    chat.send()
    pasted = "\n".join(f"line {i}: /swap" for i in range(200))
    chat.type(f"\x1b[200~{pasted}\n\x1b[201~")
    chat.until("line 199")
    chat.send()
    chat.leave()
    questions = [turn.question for turn in sessions()[0].turns]
    assert questions == ["one\ntwo\nthree", "four\n\nfive", pasted + "\n"]


@pytest.mark.slow
def test_a_model_whose_name_is_not_utf8_is_completed_and_taken(start, toy, tmp_path) -> None:
    (tmp_path / "models" / os.fsdecode(b"caf\xe9.gguf")).symlink_to((tmp_path / "models" / "toy.gguf").resolve())
    chat = start(*toy, "-n", "2")
    chat.type("/model caf")
    chat.until(lambda: "caf" in chat.menu)
    chat.type("\t")
    chat.at_prompt("/model caf?.gguf")
    chat.type("\r\r")  # takes the choice, and sends it
    chat.until(": llama")
    chat.at_prompt()
    assert "caf\\udce9.gguf: llama" in chat.text
    chat.leave()
