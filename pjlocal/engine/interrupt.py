"""Stopping what is under way: one flag that Python loops and llama.cpp's own compute loop both watch."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status after Ctrl-C


class Interrupted(Exception):
    """The work was stopped on request; nothing is wrong."""


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
        self.taken_over = False  # whether Ctrl-C sets the flag
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
        except KeyboardInterrupt:
            if not self.taken_over:
                raise
            raise Interrupted from None
        finally:
            self.nobody_looks = False


@contextmanager
def on_sigint(interrupt: Interrupt, patience: float = 0.0) -> Iterator[None]:
    """Let Ctrl-C set the flag, so that work ends at a clean point; one that comes more than ``patience`` seconds
    after it raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first = 0.0

    def handle(signum: int, frame: object) -> None:
        nonlocal first
        if interrupt.nobody_looks:
            raise KeyboardInterrupt
        if not interrupt.is_requested:
            first = time.monotonic()
            interrupt.set()
        elif time.monotonic() - first >= patience:
            raise KeyboardInterrupt

    previous, was_taken_over = signal.signal(signal.SIGINT, handle), interrupt.taken_over
    interrupt.taken_over = True
    try:
        yield
    finally:
        interrupt.taken_over = was_taken_over
        signal.signal(signal.SIGINT, previous)
