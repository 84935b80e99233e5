"""Stop a running computation: one flag, which Python loops and llama.cpp's own compute loop watch."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit status after Ctrl-C

#: Signals that stop the work like Ctrl-C, and then end the command.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
_ENDING_S = 2.0  # seconds for a command to end; then another such signal kills the process


_paused_s = 0.0


def running_s() -> float:
    """`time.perf_counter` without the time for which Ctrl-Z suspended the process, in seconds."""
    return time.perf_counter() - _paused_s


def add_pause(seconds: float) -> None:
    """Exclude a time for which the process was suspended from `running_s`."""
    global _paused_s
    _paused_s += seconds


class Interrupted(Exception):
    """A computation was stopped on request; not a failure."""

    status = INTERRUPTED


class Ended(Interrupted):
    """A signal ended the command; ``status`` is the exit status for that signal."""

    def __init__(self, signum: int) -> None:
        self.status = 128 + signum


class Interrupt:
    """A flag, and the C function with which llama.cpp polls it without taking Python's lock.

    llama.cpp calls its abort callback between graph nodes, hundreds of times a token.  A Python callback would take
    longer than the arithmetic of a small model.  So the callback is C's ``strlen`` on the flag's buffer, which is zero
    while the buffer is the empty string.
    """

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self.is_requested = False  # whether a stop was requested, by Ctrl-C or by a caller of `set`
        self._stopping: list[None] = []  # one entry for each active `stopping`
        self.raises_at_once = False  # whether Ctrl-C raises an error, because nothing checks the flag
        self.is_ignored = False  # whether Ctrl-C has no effect
        self.ended_by = 0  # the first signal of `ENDING` that arrived
        #: Called first for each signal that `on_sigint` handles; it returns True if nothing else must be done.
        self.on_signal: Callable[[int], bool] = lambda signum: False
        libc = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        self.abort_callback = ctypes.cast(libc.strlen, ctypes.c_void_p)
        self.abort_data = ctypes.addressof(self._flag)

    def set(self) -> None:
        """Request a stop.  Callable from any thread and from signal handlers."""
        self.is_requested = True
        self._write_flag()

    def clear(self) -> None:
        self.is_requested = False
        self._write_flag()

    def is_set(self) -> bool:
        """True if the computation must end: a stop was requested, or a thread waits in `stopping`."""
        return self._flag[0] != b"\0"

    def _write_flag(self) -> None:
        """Set the flag from the requests.

        A lock would deadlock when a signal handler interrupts its holder.  Instead, the requests are read again after
        the flag is written: a request that came in between is not lost.
        """
        while True:
            stops = self.is_requested or bool(self._stopping)
            self._flag[0] = b"x" if stops else b"\0"
            if stops == (self.is_requested or bool(self._stopping)):
                return

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop the computation, while the body waits for its end.

        A stop requested meanwhile stays requested.
        """
        self._stopping.append(None)
        try:
            self._write_flag()
            yield
        finally:
            self._stopping.pop()
            self._write_flag()

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Ignore Ctrl-C in the body."""
        self.clear()
        self.is_ignored = True
        try:
            yield
        finally:
            self.is_ignored = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let Ctrl-C raise an error in the body, for code that runs long without checking the flag.

        In the body it raises KeyboardInterrupt, not an Exception: handlers there, as those of `threading.Thread.start`,
        would take that for a failure of what they called.

        Raises:
            Interrupted: Ctrl-C was pressed in the body or before, and `on_sigint` is active.
            KeyboardInterrupt: Ctrl-C was pressed, and `on_sigint` is not active.
        """
        try:  # around `finally` too, where Ctrl-C may still raise
            try:
                self.raises_at_once = True
                if self.is_set():
                    raise Interrupted
                yield
            finally:
                self.raises_at_once = False
        except KeyboardInterrupt:
            if self.is_set():
                raise Interrupted from None
            raise


@contextmanager
def on_sigint(
    interrupt: Interrupt, patience: float = 0.0, ending: tuple[signal.Signals, ...] = ENDING
) -> Iterator[None]:
    """Let Ctrl-C set the flag, so that work ends at a clean point; code in `Interrupt.at_once` ends immediately.

    Args:
        patience: seconds after the first Ctrl-C from which another one raises KeyboardInterrupt.
        ending: signals that also set the flag, and end the command.

    Raises:
        Ended: at the end, if a signal of ``ending`` arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first = 0.0

    def handle(signum: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if signum in ending:
            if not interrupt.ended_by:
                interrupt.ended_by, first = signum, now
            elif now - first >= _ENDING_S:
                signal.signal(signum, signal.SIG_DFL)
                signal.raise_signal(signum)
        if interrupt.on_signal(signum) or interrupt.is_ignored:
            return
        was_requested = interrupt.is_requested
        interrupt.set()
        if interrupt.raises_at_once:
            interrupt.raises_at_once = False  # so that another Ctrl-C does not stop the clean-up
            raise KeyboardInterrupt
        if not was_requested:
            first = now
        elif signum == signal.SIGINT and now - first >= patience:
            raise KeyboardInterrupt

    previous = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, *ending)}
    taken = [signum for signum, before in previous.items() if signum == signal.SIGINT or before != signal.SIG_IGN]
    for signum in taken:
        signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum in taken:
            signal.signal(signum, previous[signum])
        if interrupt.ended_by:
            raise Ended(interrupt.ended_by) from None


@contextmanager
def child_in_front(command: str, *arguments: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program that uses the terminal, such as an editor or a pager, and wait for it at the end of the body.

    Ctrl-C is left to the program.  A signal of `ENDING` that is handled here ends it, too: it runs without a shell,
    which would not pass signals on.

    Args:
        command: the program and its options, as in $EDITOR.
        options: those of `subprocess.Popen`.

    Raises:
        OSError, ValueError: the program cannot be started.
    """
    program, *given = _words(command, os.name == "posix")
    program = os.path.expanduser(program)
    child: subprocess.Popen[str] | None = None
    arrived = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if signum != signal.SIGINT:
            arrived.append(signum)
            if child:
                child.send_signal(signum)
            before[signum](signum, frame)

    watched = (signal.SIGINT, *ENDING) if threading.current_thread() is threading.main_thread() else ()
    before: dict[int, Any] = {signum: was for signum in watched if callable(was := signal.getsignal(signum))}
    try:
        for each in before:
            signal.signal(each, handle)  # the program would inherit SIG_IGN
        with subprocess.Popen([shutil.which(program) or program, *given, *arguments], **options) as child:
            for signum in arrived:
                child.send_signal(signum)
            yield child
    finally:
        for each, was in before.items():
            signal.signal(each, was)


def _words(command: str, is_posix: bool) -> list[str]:
    """Split a command as the system's shell does: on Windows a backslash is part of a path."""
    if is_posix:
        return shlex.split(command)
    return [re.sub('^"(.*)"$', r"\1", word) for word in shlex.split(command, posix=False)]
