"""Handle Ctrl-Z: undo changes to the terminal before the process is suspended, and make them again afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ..engine.interrupt import add_pause

_SIGTSTP: signal.Signals | None = getattr(signal, "SIGTSTP", None)  # not on Windows


class Change(Protocol):
    """A change to the terminal, such as a hidden cursor, other modes, or rows that are redrawn."""

    def suspend(self) -> None:
        """Undo the change, before the process is suspended."""

    def resume(self) -> None:
        """Make the change again when the process continues; other programs may have written to the screen."""


_changes: list[Change] = []  # the registered changes, the oldest first
_previous: Any = None  # the handler of SIGTSTP while there are no changes
_n_busy = 0
_is_requested = False
#: Suspends the current prompt, which restores the terminal by itself; None without a prompt.
_prompt: Callable[[], None] | None = None


def add(change: Change) -> None:
    """Register a change that was made."""
    global _previous
    if _SIGTSTP is None or threading.current_thread() is not threading.main_thread():
        return
    _changes.append(change)
    if len(_changes) == 1:
        _previous = signal.getsignal(_SIGTSTP)
        if _previous != signal.SIG_IGN:
            signal.signal(_SIGTSTP, _handle)


def remove(change: Change) -> None:
    """Remove a change that was undone."""
    if change in _changes:
        _changes.remove(change)
        if not _changes and _SIGTSTP is not None:
            signal.signal(_SIGTSTP, _previous)


@contextmanager
def in_force(change: Change) -> Iterator[None]:
    """Register a change in the body."""
    add(change)
    try:
        yield
    finally:
        remove(change)


def has_changes() -> bool:
    """True if any change is registered."""
    return bool(_changes)


@contextmanager
def undone() -> Iterator[None]:
    """Undo all changes in the body, for another program."""
    changes = _changes[:]
    _changes.clear()
    for change in reversed(changes):
        change.suspend()
    try:
        yield
    finally:
        for change in changes:
            change.resume()
        _changes[:0] = changes


@contextmanager
def busy() -> Iterator[None]:
    """Delay a Ctrl-Z until the end of the body, which changes the terminal."""
    global _n_busy, _is_requested
    _n_busy += 1
    try:
        yield
    finally:
        _n_busy -= 1
        if _is_requested and not _n_busy:
            _is_requested = False
            stop()


@contextmanager
def at_prompt(suspend: Callable[[], None]) -> Iterator[None]:
    """Register a function that suspends the prompt in the body."""
    global _prompt
    _prompt = suspend
    try:
        yield
    finally:
        _prompt = None


def stop() -> None:
    """Undo all changes, suspend the process, and make them again after SIGCONT."""
    assert _SIGTSTP is not None
    for change in reversed(_changes):
        with suppress(OSError):
            change.suspend()
    before = signal.signal(_SIGTSTP, signal.SIG_DFL)
    stopped = time.monotonic()
    signal.raise_signal(_SIGTSTP)  # returns when the process continues
    add_pause(time.monotonic() - stopped)
    signal.signal(_SIGTSTP, before)
    for change in _changes:
        with suppress(OSError):
            change.resume()


def stop_all() -> None:
    """Suspend all processes of the group, like Ctrl-Z on a terminal in its usual modes; see `stop`."""
    assert _SIGTSTP is not None
    before = signal.signal(_SIGTSTP, signal.SIG_IGN)
    os.kill(0, _SIGTSTP)
    signal.signal(_SIGTSTP, before)
    stop()


def _handle(signum: int, frame: object) -> None:
    global _is_requested
    if _prompt:
        _prompt()
    elif _n_busy:
        _is_requested = True
    else:
        stop()
