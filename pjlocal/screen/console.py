"""The terminal itself: Rich's console on it, what is waited for, and keys that are typed meanwhile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


def make_console(file: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False)


class Spinner:
    """Says on standard error what is being waited for, where that is a terminal; gone once text comes."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Spinner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        if not sys.stderr.isatty():
            return
        if self._status:
            self._status.update(text)
            return
        console = make_console(sys.stderr)
        if not console.is_dumb_terminal:
            self._status = console.status(text)
            self._status.start()

    def stop(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """What is typed while an answer streams is not echoed into it; it waits for the next prompt, as it was typed."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal, or Windows
        yield
        return
    quiet = [*before]
    quiet[0] &= ~termios.ICRNL  # or Enter would come as Ctrl-J
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
