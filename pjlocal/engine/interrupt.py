"""Stop work under way: one flag, which Python loops and llama.cpp's own compute loop watch."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status after Ctrl-C

#: Signals that stop the work like Ctrl-C, and then end the command.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
_ENDING_S = 2.0  # time for an ending command; another such signal then kills the process


_paused_s = 0.0


def running_s() -> float:
    """Seconds, as by `time.perf_counter`, without the time for which Ctrl-Z stopped the process."""
    return time.perf_counter() - _paused_s


def add_pause(seconds: float) -> None:
    """Subtract a time for which the process was stopped."""
    global _paused_s
    _paused_s += seconds


class Interrupted(Exception):
    """The work was stopped on request; it is not a failure."""

    status = INTERRUPTED


class Ended(Interrupted):
    """A signal ended the command; ``status`` is the exit status for that signal."""

    def __init__(self, signum: int) -> None:
        self.status = 128 + signum


class Interrupt:
    """A flag, and the C function with which llama.cpp polls it without taking Python's lock.

    llama.cpp calls its abort callback between graph nodes, hundreds of times a token.  A Python callback would cost
    more than the arithmetic of a small model, so the callback is C's ``strlen`` on the flag's buffer: zero while the
    buffer is the empty string, not zero once it contains a character.
    """

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self._requested = False
        self._stopping: list[None] = []  # one entry for each `stopping` under way
        self.nobody_looks = False
        self.is_ignored = False  # whether Ctrl-C has no effect now
        self.ended_by = 0  # the first signal of `ENDING` that arrived
        #: Called first for each signal that `on_sigint` handles; it returns True if nothing else must be done.
        self.on_signal: Callable[[int], bool] = lambda signum: False
        libc = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        self.abort_callback = ctypes.cast(libc.strlen, ctypes.c_void_p)
        self.abort_data = ctypes.addressof(self._flag)

    def set(self) -> None:
        """Request a stop.  Callable from any thread and from signal handlers."""
        self._requested = True
        self._write_flag()

    def clear(self) -> None:
        self._requested = False
        self._write_flag()

    def is_set(self) -> bool:
        """True if the work under way must end: a stop was requested, or a thread waits in `stopping`."""
        return self._flag[0] != b"\0"

    @property
    def is_requested(self) -> bool:
        """True if a stop was requested, by Ctrl-C or by a caller of `set`."""
        return self._requested

    def _write_flag(self) -> None:
        """Set the flag from the requests.

        A lock would deadlock when a signal handler interrupts its holder.  So the requests are read again afterwards:
        the flag of a request that came meanwhile, overwritten here, is then set again.
        """
        while True:
            stops = self._requested or bool(self._stopping)
            self._flag[0] = b"x" if stops else b"\0"
            if stops == (self._requested or bool(self._stopping)):
                return

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """End the work under way, while the caller waits for its end within.

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
        """Ignore Ctrl-C within."""
        self.clear()
        self.is_ignored = True
        try:
            yield
        finally:
            self.is_ignored = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let Ctrl-C raise an error within, in code that does not check the flag for long.

        Raises:
            Interrupted: Ctrl-C was pressed within or before, under `on_sigint`.
            KeyboardInterrupt: Ctrl-C was pressed elsewhere.
        """
        self.nobody_looks = True
        try:
            if self.is_set():
                raise Interrupted
            yield
        finally:
            self.nobody_looks = False


@contextmanager
def on_sigint(
    interrupt: Interrupt, patience: float = 0.0, ending: tuple[signal.Signals, ...] = ENDING
) -> Iterator[None]:
    """Let Ctrl-C set the flag, so that work ends at a clean point; within `Interrupt.at_once` it raises Interrupted.

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
        if interrupt.nobody_looks:
            interrupt.nobody_looks = False  # the clean-up afterwards is not stopped
            raise Interrupted
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
