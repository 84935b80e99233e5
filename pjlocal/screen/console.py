"""The terminal: Rich's console, the spinner, and the keys typed while an answer is written."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from ..engine.interrupt import child_in_front
from ..visible import one_line
from . import suspend

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

WIDE = 200  # columns of a table in a pipe


def make_console(file: IO[str], **options: Any) -> Console:
    """A console that shows texts as they are.  ``options`` are more of Rich's."""
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False, **options)


def say(text: str) -> None:
    """Print a message of the program on standard error, as one line: a command in it can be copied whole."""
    print(f"pjlocal: {one_line(text)}", file=sys.stderr, flush=True)


class Spinner:
    """A spinner with a text on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Spinner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        if not sys.stderr.isatty():
            return
        from rich.text import Text

        take_keys()
        with suspend.busy():
            shown = Text(one_line(text))  # a server may have written it
            if self._status:
                self._status.update(shown)
                return
            console = make_console(sys.stderr)
            if not console.is_dumb_terminal:
                self._status = console.status(shown)
                self._status.start()
                suspend.add(self)

    def stop(self) -> None:
        with suspend.busy():
            if self._status:
                suspend.remove(self)
                self._status.stop()
                self._status = None

    def suspend(self) -> None:
        if self._status:
            self._status.stop()

    def resume(self) -> None:
        if self._status:
            # A new status has drawn no rows, so it erases none.
            self._status = make_console(sys.stderr).status(self._status.status)
            self._status.start()


@contextlib.contextmanager
def paged(console: Console) -> Iterator[None]:
    """Show the output of the body in the user's pager if it is longer than the screen."""
    if not (sys.stdin.isatty() and console.file.isatty()) or console.is_dumb_terminal:
        yield
        return
    with console.capture() as captured:
        yield
    text = captured.get()
    if text.count("\n") < console.height or not _in_pager(text):
        console.file.write(text)
        console.file.flush()


def _in_pager(text: str) -> bool:
    """Show a text in $PAGER, else in less or more.  Returns False if it cannot be started."""
    command = os.environ.get("PAGER", "").strip() or ("less -R" if shutil.which("less") else "more")
    environment = {"LESS": "-R", **os.environ}  # -R shows colours
    options = {"stdin": subprocess.PIPE, "text": True, "errors": "replace", "env": environment}
    try:
        with suspend.undone(), child_in_front(command, **options) as child:
            child.communicate(text)
    except (OSError, ValueError):
        return False
    return True


_CTRL_C = b"\x03"


class KeysUnseen:
    """Terminal modes in which keys are not echoed, and wait unchanged until they are read.

    Args:
        keeps_typed: whether Ctrl-C keeps the keys typed before it.

    Raises:
        OSError, ValueError, AttributeError: standard input is not a terminal.
    """

    def __init__(self, keeps_typed: bool) -> None:
        import termios

        self.taken: list[bytes] = []
        self._is_taking = False
        self._termios = termios
        self._descriptor = sys.stdin.fileno()
        try:
            self._before = termios.tcgetattr(self._descriptor)
        except termios.error as error:
            raise OSError(*error.args) from None
        self._now = [*self._before]
        self._now[0] &= ~termios.ICRNL  # keeps Enter from becoming Ctrl-J
        self._now[3] &= ~(termios.ECHO | termios.ICANON)
        self._now[3] |= termios.NOFLSH if keeps_typed else 0
        self._set(self._now)

    def _set(self, modes: list[Any]) -> None:
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                return  # a job in the background would be stopped
        with contextlib.suppress(self._termios.error):  # the terminal is gone
            self._termios.tcsetattr(self._descriptor, self._termios.TCSANOW, modes)

    def take(self) -> None:
        """Read the keys typed so far into ``taken``.

        It must be called often: while 4 KiB of keys wait, as after a paste, the terminal does not see Ctrl-C.
        """
        if self._is_taking or not suspend.has_changes():  # without changes, an editor uses the terminal
            return
        self._is_taking = True
        try:
            with contextlib.suppress(OSError):
                while select.select([self._descriptor], [], [], 0)[0] and (part := os.read(self._descriptor, 4096)):
                    self.taken.append(part.replace(_CTRL_C, b""))
                    if _CTRL_C in part:  # typed in a moment in which the terminal did not make it a signal
                        signal.raise_signal(signal.SIGINT)
        finally:
            self._is_taking = False

    def close(self) -> None:
        self._set(self._before)

    def suspend(self) -> None:
        with contextlib.suppress(self._termios.error):
            self._now = self._termios.tcgetattr(self._descriptor)
        self._set(self._before)

    def resume(self) -> None:
        self._set(self._now)


_keeper: KeysUnseen | None = None  # the modes of a chat


def take_keys() -> None:
    """Keep the keys typed so far for the chat's next prompt; does nothing outside a chat."""
    if _keeper:
        _keeper.take()


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """Do not echo keys typed in the body; they wait unchanged for the next prompt."""
    try:
        modes = KeysUnseen(keeps_typed=False)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal, or Windows
        yield
        return
    with suspend.in_force(modes):
        try:
            yield
        finally:
            modes.close()


@contextlib.contextmanager
def keys_kept() -> Iterator[list[bytes]]:
    """Do not echo keys typed in the body, a whole chat.  `take_keys` appends them to the list; Ctrl-C drops none."""
    global _keeper
    try:
        _keeper = KeysUnseen(keeps_typed=True)
    except (ImportError, OSError, ValueError, AttributeError):
        yield []
        return
    with suspend.in_force(_keeper):
        try:
            take_keys()
            # The terminal turned Enter into a line feed before its modes were changed.
            _keeper.taken[:] = [part.replace(b"\n", b"\r") for part in _keeper.taken]
            yield _keeper.taken
        finally:
            _keeper.close()
            _keeper = None
