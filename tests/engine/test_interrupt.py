"""A request to stop is never lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from pjlocal.engine.interrupt import Interrupt, Interrupted, on_sigint


def ended(interrupt: Interrupt) -> bool:
    """True if llama.cpp would stop; it reads the flag in C."""
    return interrupt._flag[0] != b"\0"


def test_a_request_during_stopping_is_kept() -> None:
    interrupt = Interrupt()
    with interrupt.stopping():
        assert interrupt.is_set() and ended(interrupt) and not interrupt.is_requested
        interrupt.set()
    assert interrupt.is_set() and ended(interrupt) and interrupt.is_requested
    interrupt.clear()
    with interrupt.stopping():
        pass
    assert not interrupt.is_set() and not ended(interrupt)


def test_a_request_before_stopping_is_kept() -> None:
    interrupt = Interrupt()
    interrupt.set()
    with interrupt.stopping(), interrupt.stopping():
        pass
    assert interrupt.is_requested and ended(interrupt)


def test_clearing_does_not_undo_stopping() -> None:
    interrupt = Interrupt()
    with interrupt.stopping():
        interrupt.clear()
        assert ended(interrupt)
    assert not ended(interrupt)


def test_code_that_handles_exceptions_does_not_take_ctrl_c_for_one() -> None:
    """As `threading.Thread.start` does, which then broke the thread that it had started."""
    interrupt = Interrupt()

    def press() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except Exception:
            pytest.fail("Ctrl-C was taken for a failure")

    with on_sigint(interrupt), pytest.raises(Interrupted), interrupt.at_once():
        press()


def lines_of(function: Callable[..., Any], act: Callable[[], None], at: int) -> Callable[..., Any]:
    """A trace that acts before the at-th line of a function, as a signal handler may."""
    n = 0

    def of_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal n
        if event == "line":
            n += 1
            if n == at:
                act()
        return of_line

    return lambda frame, event, argument: of_line if frame.f_code is function.__code__ else None


@pytest.mark.parametrize("at", range(1, 12))
def test_a_request_is_kept_at_every_line(at: int) -> None:
    interrupt = Interrupt()
    function = interrupt._write_flag
    asked = threading.Event()

    def act() -> None:
        sys.settrace(None)
        asked.set()
        interrupt.set()

    with interrupt.stopping():
        sys.settrace(lines_of(function, act, at))  # type: ignore[arg-type]
    sys.settrace(None)
    assert ended(interrupt) == interrupt.is_requested == asked.is_set()


def test_ctrl_c_during_stopping_only_requests_a_stop() -> None:
    interrupt = Interrupt()
    with on_sigint(interrupt, patience=60):
        with interrupt.stopping():
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_requested
        os.kill(os.getpid(), signal.SIGINT)  # within the patience of the first
    with pytest.raises(KeyboardInterrupt), on_sigint(interrupt):
        os.kill(os.getpid(), signal.SIGINT)
