"""What nobody foresaw is told in a line, and the chat goes on: nothing that was said is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest
from commandline import PJLOCAL, one_line
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from talking import Talk, talk

from pjlocal import Engine
from pjlocal.chat import line as line_module
from pjlocal.chat.commands.command import Command
from pjlocal.chat.commands.table import COMMANDS
from pjlocal.chat.conversation import Conversation
from pjlocal.chat.status import status_line
from pjlocal.engine.filters import FilterChain
from pjlocal.engine.interrupt import Interrupted
from pjlocal.engine.policies import Row
from pjlocal.sessions.store import Store


def fail_with(error: BaseException):
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


def breaks(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Make a command fail."""
    monkeypatch.setitem(COMMANDS, name, Command(name, "", fail_with(error), lambda chat: ()))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("no such thing"), "this is a bug in pjlocal: TypeError: no such thing (in "),
        (RecursionError("too deep"), "this is a bug in pjlocal: RecursionError: too deep (in "),
        (MemoryError(), "not enough memory: "),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "cannot write a file: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "cannot use /x: Permission denied"),
    ],
)
def test_a_command_that_fails_does_not_end_the_chat(
    chat: Talk, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    breaks(monkeypatch, "/swap", error)
    (line,) = chat.say("/swap")
    assert line.startswith(said) and "\n" not in line
    assert chat.chat.status == 1
    assert chat.say("hello") == [] and len(chat.turns) == 1


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()])
def test_the_model_stays_if_another_one_cannot_be_loaded(chat: Talk, tiny, error: BaseException) -> None:
    load, chat.conversation.model = chat.conversation.load, str(tiny("llama"))
    chat.conversation.load = lambda name, finds: (
        load(name, finds) if name == chat.conversation.model else fail_with(error)()
    )
    assert len(chat.say(f"/model {tiny('qwen2')}")) == 1
    assert chat.say("hello") == [] and len(chat.turns) == 1


def test_a_question_stopped_before_the_answer_is_not_saved_and_a_line_says_so(
    chat: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, "/swap", Interrupted())
    assert chat.say("/swap") == ["(stopped)"]
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "ask", fail_with(Interrupted()))
        assert chat.say("hello") == ["(stopped before the first word: the question was not saved)"]
        patch.setattr(Conversation, "regenerate", fail_with(Interrupted()))
        assert chat.say("/regen") == ["(stopped before the first word: the earlier answer stays)"]
    assert chat.turns == [] and chat.say("hello") == []
    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "edit_answer", fail_with(Interrupted()))
        patch.setattr("pjlocal.chat.commands.answers.edit_text", lambda before: "another")
        assert chat.say("/edit answer") == ["(stopped)"]


@pytest.mark.parametrize("line", ["again", "/regen"])
def test_a_second_ctrl_c_after_the_first_word_does_not_say_that_nothing_was_saved(chat: Talk, line: str) -> None:
    chat.say("hello")
    chat.screen.on_event = lambda n: fail_with(KeyboardInterrupt())() if n == 3 else None
    assert chat.say(line) == ["(stopped)"] and len(chat.turns[-1].events) == 4


def test_the_line_says_where_and_how_to_report_it(chat: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilterChain, "accept", fail_with(ValueError("[" + "x" * 1000 + "]\n")))
    (line,) = chat.say("hello")
    assert "ValueError: [xxx" in line and "… (in policies.py:" in line and len(line) < 400
    assert "pjlocal --debug" in line and "report it" in line


@pytest.mark.parametrize(
    ("owner", "method", "thread"),
    [
        (FilterChain, "accept", "MainThread"),
        (FilterChain, "__call__", "MainThread"),
        (Row, "__init__", "MainThread"),
        (Row, "__init__", "pjlocal-decode"),
    ],
)
def test_the_text_so_far_is_saved_and_the_next_question_answered(
    tiny, store: Store, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, thread: str
) -> None:
    """Also if a row of logits fails in a worker thread."""
    original = getattr(owner, method)
    calls: list[str] = []

    def fails_later(self: object, *args: object) -> object:
        calls.append(threading.current_thread().name)
        if calls[-1] == thread and calls.count(thread) == 7:
            raise KeyError("late")
        return original(self, *args)

    with talk(tiny("llama"), store=store, engine=Engine(n_threads=2, layout="contexts"), mode="judge") as chat:
        chat.say("first")
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fails_later)
            (line,) = chat.say("second")
        assert "KeyError" in line
        assert [turn.question for turn in chat.turns] == ["first", "second"]
        saved = chat.chat.store.load(chat.conversation.session.id)
        assert [turn.answer for turn in saved.turns] == [turn.answer for turn in chat.turns]
        assert chat.say("third") == [] and len(chat.turns) == 3


def test_a_screen_that_fails_while_an_answer_is_shown_keeps_the_answer(chat: Talk) -> None:
    chat.screen.on_event = lambda n: fail_with(ZeroDivisionError())() if n == 3 else None
    (line,) = chat.say("hello")
    assert "ZeroDivisionError" in line
    chat.screen.on_event = lambda n: None
    assert len(chat.turns[0].events) == 4
    assert chat.say("again") == [] and len(chat.turns) == 2


def test_a_status_line_that_fails_is_empty(chat: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_line(chat.conversation, 80).plain
    monkeypatch.setattr(type(chat.conversation), "progress", fail_with(AttributeError("x")))
    assert status_line(chat.conversation, 80).plain == ""


def test_completions_that_fail_are_not_offered(chat: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def choices(chat: object):
        yield "one"
        raise RuntimeError("late")

    completer = line_module._Completer(chat.chat)
    monkeypatch.setitem(COMMANDS, "/swap", Command("/swap", "", fail_with(TypeError()), choices))
    assert list(completer.get_completions(Document("/swap o"), CompleteEvent())) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_chat_on_a_full_output_ends(
    toy: tuple[str, ...], environment: dict[str, str], tmp_path: Path, unbuffered: str
) -> None:
    """As one whose reader has gone: nobody sees the answers."""
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*PJLOCAL, "chat", *toy, "-n", "4"],
            input="q1\nq2\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONUNBUFFERED": unbuffered},
            cwd=tmp_path,
        )
    assert result.returncode == 1
    assert one_line(result.stderr) == "pjlocal: cannot write the output: No space left on device"
