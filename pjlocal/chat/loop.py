"""The loop of a chat: reads lines from a terminal or a pipe, and handles commands, questions and errors."""

from __future__ import annotations

import codecs
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..engine.interrupt import Interrupt, Interrupted
from ..errors import UsageError, explain
from ..screen import suspend
from ..screen.console import WIDE, keys_kept, make_console
from ..settings import in_chat_words
from ..textfile import MOST_BYTES
from .chat import Chat
from .commands.table import is_command, run
from .screen import ERROR, HOW_TO_LEAVE, Screen, TerminalScreen


def make_screen() -> Screen:
    """The screen for standard output."""
    if on_terminal():
        return TerminalScreen(sys.stdout)
    return Screen(make_console(sys.stdout, width=WIDE, no_color=True))


def on_terminal() -> bool:
    """True if standard input and output are terminals."""
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return sys.stdin.isatty() and sys.stdout.isatty() and not is_dumb


def talk(chat: Chat, history: Path | None) -> int:
    """Handle lines until the input ends or the user leaves.  Returns the exit status.

    On a terminal the status is 0, because the user saw the errors; in a pipe it is that of the last error.

    Raises:
        Interrupted: Ctrl-C, if the input is not a terminal.
    """
    if not on_terminal():
        _read_all(chat)
        return chat.status
    from .line import Line

    with keys_kept() as keys, closing(Line(chat, history, keys)) as line, suspend.in_force(line):
        while not chat.done and not chat.conversation.judge.interrupt.ended_by:
            try:
                text = line.read()
            except EOFError:
                break
            handle(chat, text)
            chat.screen.gap()
    return 0


@contextmanager
def _warnings_in_chat_words() -> Iterator[None]:
    """Change the warnings that are logged within to the words of a chat; see `in_chat_words`."""

    def change(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            record.msg, record.args = in_chat_words(record.getMessage()), ()
        return True

    log = logging.getLogger("pjlocal")
    log.addFilter(change)
    try:
        yield
    finally:
        log.removeFilter(change)


@_warnings_in_chat_words()
def handle(chat: Chat, line: str) -> bool:
    """Run the command or ask the question of a line.  Errors are shown, and the conversation continues.

    Returns True if Ctrl-C was pressed meanwhile.

    Raises:
        OSError: the screen is lost, so nobody would see the answers.
    """
    if not line.strip():
        return False
    interrupt = chat.conversation.judge.interrupt
    try:
        if is_command(line):
            run(chat, line)
        else:
            _check_text(line)  # a command may contain a file name that is not UTF-8
            chat.ask(line[1:] if line.startswith("//") else line)
    # A started answer handles Ctrl-C itself.  It may raise KeyboardInterrupt just outside a body of `at_once`.
    except KeyboardInterrupt:
        chat.screen.say("(stopped)")
    except Interrupted:
        if not is_command(line):
            chat.screen.say("(stopped before the first word: the question was not saved)")
        elif line.lower().split() in (["/regen"], ["/edit"], ["/edit", "question"]):
            chat.screen.say("(stopped before the first word: the earlier answer stays)")
        else:
            chat.screen.say("(stopped)")
    except Exception as error:
        if chat.screen.lost:
            raise
        message, chat.status = explain(error, "a file")
        chat.screen.say(_in_the_chat(message, chat), ERROR)
    stopped = interrupt.is_set()
    if stopped:
        interrupt.clear()
    return stopped


def _check_text(line: str) -> None:
    """Raises UsageError: the line contains bytes that are not UTF-8, as surrogates."""
    try:
        line.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text (byte {error.start} of a line)") from None


def _in_the_chat(line: str, chat: Chat) -> str:
    """The message with the chat's commands instead of those of the command line and the page."""
    commands = {
        "pjlocal sessions list shows": "/sessions shows",
        "pjlocal models list shows": "/model shows",
        ", or give --force": "",
        "use -P": "use /persona",
        "load the chat again": f"/load {chat.conversation.session.id} shows it",
    }
    for elsewhere, here in commands.items():
        line = line.replace(elsewhere, here)
    return in_chat_words(line)


def _read_all(chat: Chat) -> None:
    """Handle all lines of a pipe.  Raises Interrupted: Ctrl-C, if the input is not a terminal."""
    interrupt = chat.conversation.judge.interrupt
    types = sys.stdin.isatty()
    for line in _lines(interrupt, types):
        if handle(chat, line) and not types:
            raise Interrupted
        if chat.done or interrupt.ended_by:
            return


def _lines(interrupt: Interrupt, types: bool) -> Iterable[str]:
    """The lines of standard input, as they arrive.

    Args:
        types: the input is a dumb terminal: show a prompt.

    Raises:
        UsageError: a line is too large.
    """
    while True:
        if types:
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            with interrupt.at_once():
                raw = sys.stdin.buffer.readline(MOST_BYTES + 1)
        except Interrupted:
            if not types or interrupt.ended_by:
                raise
            interrupt.clear()
            print(f"\n{HOW_TO_LEAVE}", file=sys.stderr)
            continue
        if not raw:
            return
        if len(raw) > MOST_BYTES:
            raise UsageError(f"a line of standard input is larger than {MOST_BYTES >> 20} MiB")
        # Windows begins a file with a byte order mark, and a pipe may contain several files.
        raw = raw.removeprefix(codecs.BOM_UTF8)
        yield raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
