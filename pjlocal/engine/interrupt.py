"""Stopping what is under way: one flag that Python loops and llama.cpp's own compute loop both watch."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status after Ctrl-C

#: Signals that end a command: as Ctrl-C does, and then for good.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
_ENDING_S = 2.0  # seconds that an ending command has; another such signal then kills the process


_paused_s = 0.0


def running_s() -> float:
    """Seconds, as by `time.perf_counter`, on a clock that stands still while Ctrl-Z has stopped the process."""
    return time.perf_counter() - _paused_s


def add_pause(seconds: float) -> None:
    """The process was stopped for so long."""
    global _paused_s
    _paused_s += seconds


class Interrupted(Exception):
    """The work was stopped on request; nothing is wrong."""

    status = INTERRUPTED


class Ended(Interrupted):
    """A signal ended the command; ``status`` is the exit status that says which."""

    def __init__(self, signum: int) -> None:
        self.status = 128 + signum


class Interrupt:
    """A flag, and the C function by which llama.cpp polls it without taking Python's lock.

    llama.cpp asks its abort callback between graph nodes, hundreds of times a token.  A Python callback there would
    cost more than the arithmetic of a small model, so the callback is C's own ``strlen`` on the flag's buffer: zero
    while the buffer is the empty string, not zero once a character stands in it.
    """

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self._requested = False
        self._stopping: list[None] = []  # one entry for each `stopping` under way
        self.nobody_looks = False
        self.is_ignored = False  # whether Ctrl-C changes nothing now
        self.ended_by = 0  # the first signal of `ENDING` that came
        #: Asked first about each signal that `on_sigint` handles; True where nothing else is to be done.
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
        """Whether the work under way is to end: a stop was requested, or somebody waits in `stopping`."""
        return self._flag[0] != b"\0"

    @property
    def is_requested(self) -> bool:
        """Whether a stop was requested, by Ctrl-C or by a caller of `set`."""
        return self._requested

    def _write_flag(self) -> None:
        """Set the flag as the requests say.

        A lock would deadlock where a signal handler interrupts its holder.  So the requests are read again afterwards:
        a request that came meanwhile, whose flag was overwritten here, is then written here.
        """
        while True:
            stops = self._requested or bool(self._stopping)
            self._flag[0] = b"x" if stops else b"\0"
            if stops == (self._requested or bool(self._stopping)):
                return

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Have the work under way end while the caller waits for that within.

        A stop that is requested meanwhile stays requested.
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
        """Within, nothing stops, however often Ctrl-C is pressed."""
        self.clear()
        self.is_ignored = True
        try:
            yield
        finally:
            self.is_ignored = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nobody looks at the flag for long: Ctrl-C stops what runs within, wherever it is.

        Raises:
            Interrupted: by Ctrl-C, within or before, under `on_sigint`.
            KeyboardInterrupt: by Ctrl-C elsewhere.
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
    """Let Ctrl-C set the flag, so that work ends at a clean point; within `Interrupt.at_once`, raise Interrupted.

    Args:
        patience: another Ctrl-C that comes more seconds after the first one raises KeyboardInterrupt.
        ending: signals that set the flag too, and end the command.

    Raises:
        Ended: at the end, where a signal of ``ending`` came.
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
            interrupt.nobody_looks = False  # what cleans up behind it is not stopped
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
