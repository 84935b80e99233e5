"""Lines come in, from a person or a pipe, are commands or questions, and never end the chat by what goes wrong."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..engine.interrupt import Interrupt, Interrupted
from ..errors import UsageError, explain
from ..screen.console import keys_kept
from .chat import Chat
from .commands.table import is_command, run
from .screen import ERROR, HOW_TO_LEAVE, PipeScreen, Screen, TerminalScreen


def make_screen() -> Screen:
    """What suits where the answers go."""
    return TerminalScreen(sys.stdout) if on_terminal() else PipeScreen(sys.stdout)


def on_terminal() -> bool:
    """Whether there is a person at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not _dumb()


def _dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def talk(chat: Chat, history: Path | None) -> int:
    """Handle lines until there are no more, or the user leaves; returns the exit status.

    On a terminal what went wrong was seen and is over; in a pipe the status tells of the last failure.

    Raises:
        Interrupted: Ctrl-C came where nobody types.
    """
    if not on_terminal():
        _read_all(chat)
        return chat.status
    from .line import Line

    with keys_kept() as keys:
        line = Line(chat, history, keys)
        while not chat.done and not chat.conversation.judge.interrupt.ended_by:
            try:
                text = line.read()
            except EOFError:
                break
            handle(chat, text)
            chat.screen.gap()
    return 0


def handle(chat: Chat, line: str) -> bool:
    """A line: run the command, or ask the question.  What goes wrong is said in a line, and nothing that was said lost.

    Returns whether Ctrl-C came meanwhile.

    Raises:
        OSError: the screen is lost: nobody sees the answers.
    """
    if not line.strip():
        return False
    interrupt = chat.conversation.judge.interrupt
    try:
        if is_command(line):
            run(chat, line)
        else:
            chat.ask(line[1:] if line.startswith("//") else line)
    except Interrupted:  # an answer that has begun ends by itself
        message = "(stopped)" if is_command(line) else "(stopped before the first word: the question was not saved)"
        chat.screen.say(message)
    except Exception as error:
        if chat.screen.lost:
            raise
        message, chat.status = explain(error, "a file")
        chat.screen.say(_in_the_chat(message, chat), ERROR)
    stopped = interrupt.is_set()
    if stopped:
        interrupt.clear()
    return stopped


def _in_the_chat(line: str, chat: Chat) -> str:
    """A line about an error, with the chat's own commands instead of those of the command line and of the page."""
    commands = {
        "pjlocal sessions list shows": "/sessions shows",
        "pjlocal models list shows": "/model shows",
        "load the chat again": f"/load {chat.conversation.session.id} shows it",
    }
    for elsewhere, here in commands.items():
        line = line.replace(elsewhere, here)
    return line


def _read_all(chat: Chat) -> None:
    """Raises Interrupted: Ctrl-C came, and nobody types who could go on."""
    interrupt = chat.conversation.judge.interrupt
    types = sys.stdin.isatty()
    for line in _lines(interrupt, types):
        if handle(chat, line) and not types:
            raise Interrupted
        if chat.done or interrupt.ended_by:
            return


def _lines(interrupt: Interrupt, types: bool) -> Iterable[str]:
    """Lines of standard input, one at a time as they come.

    Args:
        types: somebody types them, on a terminal that cannot do more: there is a prompt.
    """
    while True:
        if types:
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            with interrupt.at_once():
                raw = sys.stdin.buffer.readline()
        except Interrupted:
            if not types or interrupt.ended_by:
                raise
            interrupt.clear()
            print(f"\n{HOW_TO_LEAVE}", file=sys.stderr)
            continue
        if not raw:
            return
        # Windows begins a file with a mark of its encoding, and files may follow each other in a pipe.
        raw = raw.removeprefix(codecs.BOM_UTF8)
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            if not is_command(line):  # a command may name a file whose name is not UTF-8
                raw.decode("utf-8")
            yield line
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not UTF-8 text (byte {error.start} of a line)") from None
