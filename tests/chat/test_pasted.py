"""What is pasted is text: slashes and quotation marks at its beginning are no commands, and nothing is taken away."""

from __future__ import annotations

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from talking import talk
from terminal import numbered

from pjlocal.chat.line import Line

pytestmark = pytest.mark.slow  # each starts a chat on a terminal

NOTICE = "pasted: sent as text"


def paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


@pytest.fixture
def chat(start, toy):
    return start(*toy, "-n", "2", columns=120)


@pytest.fixture
def asked(sessions):
    return lambda: [turn.question for turn in sessions()[0].turns]


BLOCKS = [
    "// adds one\nint f(int n) { return n + 1; }",
    "/model is a path\nand this a line",
    "/quit\nnow",
    '"""A docstring."""\nimport os',
    '"""\nA docstring.\n"""',
    '"""An open one\nthat never ends',
    "// one line",
    "//",
]


def test_pasted_text_is_asked_as_it_is_and_says_so(chat, asked) -> None:
    for text in BLOCKS:
        chat.type(paste(text.replace("\n", "\r")))
        chat.until(lambda shown=text.splitlines()[-1]: shown in chat.screen.row(chat.screen.cursor.y))
        chat.until(NOTICE)
        chat.send()
        assert NOTICE not in chat.screen.display[-1]
    chat.leave()
    assert asked() == BLOCKS


def test_other_text_needs_no_notice(chat, asked) -> None:
    for text in ("Why?\nAnd how?", "  // indented\nx", "one line"):
        chat.type(paste(text))
        chat.until(text.splitlines()[-1])
        assert NOTICE not in chat.screen.display[-1]
        chat.send()
    chat.leave()
    assert asked() == ["Why?\nAnd how?", "  // indented\nx", "one line"]


def test_pasted_text_recalled_from_the_history_is_text(chat, start, toy, asked) -> None:
    for text in BLOCKS[:4]:
        chat.type(paste(text))
        chat.until(text.splitlines()[-1])
        chat.send()
    chat.type("\x1b[A")
    chat.until("import os")
    chat.send()
    chat.leave()
    assert asked() == [*BLOCKS[:4], BLOCKS[3]]
    chat = start(*toy, "-n", "2", "--continue", columns=120)
    chat.type("\x1b[A")
    chat.until(lambda: chat.text.count("import os") == 2)
    chat.send()
    chat.leave()
    assert asked() == [*BLOCKS[:4], BLOCKS[3], BLOCKS[3]]


def test_a_command_pasted_on_one_line_is_a_command(chat) -> None:
    chat.type(paste("/view blame\n"))
    chat.until("/view blame")
    assert NOTICE not in chat.screen.display[-1]
    chat.send()
    assert chat.shown("/view blame") == "view blame"
    chat.type(paste("\ufeff/title One"))
    chat.until("/title One")
    chat.type("\r")
    chat.until("title: One")


def test_keys_typed_before_a_paste_keep_their_meaning(chat, asked) -> None:
    chat.type("/system ")
    chat.type(paste("// be brief\n/quit"))
    chat.until("/quit")
    chat.type("\r")
    chat.until("system text: // be brief")
    chat.type("//")
    chat.type(paste("usr/bin\n/etc"))
    chat.until("/etc")
    chat.send()
    chat.leave()
    assert asked() == ["/usr/bin\n/etc"]


def test_a_line_that_is_emptied_is_typed_by_hand_again(chat, asked) -> None:
    for clear in ("\x03", "\x15", "\x7f" * 8):  # Ctrl-C, Ctrl-U, backspaces
        chat.type(paste("//a\n//b"))
        chat.until(NOTICE)
        chat.type(clear)
        if clear == "\x15":
            chat.type("\x7f" * 8)
        chat.at_prompt()
        chat.until(lambda: NOTICE not in chat.screen.display[-1])
        chat.type("//typed")
        chat.send()
    chat.leave()
    assert asked() == ["/typed"] * 3


def test_code_in_a_block_keeps_its_slashes(chat, asked) -> None:
    chat.type('"""\r')
    chat.type(paste("// adds one\n/quit"))
    chat.until("/quit")
    chat.type('\r"""')
    chat.send()
    chat.leave()
    assert asked() == ["// adds one\n/quit"]


def test_what_is_pasted_while_an_answer_is_written_is_one_question(start, slow_toy, says, sessions) -> None:
    chat = start(*slow_toy, *says(numbered(80)), columns=120)
    chat.type("Go\r")
    chat.until("word5 ")
    chat.type(paste("one\r/undo\rtwo"))
    chat.until(lambda: "two" in chat.screen.row(chat.screen.cursor.y))
    chat.send()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go", "one\n/undo\ntwo"]


def test_a_paste_that_is_not_over_when_the_answer_is_goes_on_at_the_prompt(tiny) -> None:
    with talk(tiny("llama")) as chat, create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):
        line = Line(chat.chat, None, [paste("one\rtwo\rthree").encode()[:12]])
        keyboard.send_bytes(paste("one\rtwo\rthree").encode()[12:] + b"\r")
        assert line.read() == "one\ntwo\nthree"


def test_what_is_pasted_and_not_sent_comes_back_as_it_was_pasted(tiny) -> None:
    with talk(tiny("llama")) as chat, create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):
        line = Line(chat.chat, None, [f"{paste('/undo' + chr(13) + 'two')}\r".encode()])
        line._is_stopped, line._n_before = True, 1
        chat.chat.unsent = "/quit now"
        keyboard.send_bytes(b"\x1b[A\r")
        assert line.read() == "//undo\ntwo"
        keyboard.send_bytes(b"\x1b[A\x1b[A\x1b[A\r")
        assert line.read() == "//quit now"


def test_ctrl_c_right_behind_enter_stops_what_enter_started(tiny) -> None:
    with talk(tiny("llama")) as chat, create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):
        line = Line(chat.chat, None, [])
        keyboard.send_bytes(b"Why?\r\x03And")
        assert line.read() == "Why?" and chat.judge.interrupt.is_set()
        keyboard.send_bytes(b" how?\r")
        assert line.read() == "And how?" and not chat.judge.interrupt.is_set()
