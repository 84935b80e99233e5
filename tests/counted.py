"""Count work in function calls instead of seconds, which gives the same number on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable


def n_calls(run: Callable[[], object]) -> int:
    """Return how many functions, Python's and C's, are called while this runs."""
    n = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal n
        n += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return n


def n_lines(run: Callable[[], object]) -> int:
    """Return how many lines of Python are executed while this runs."""
    n = 0

    def count(frame: object, event: str, arg: object) -> object:
        nonlocal n
        n += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        run()
    finally:
        sys.settrace(before)
    return n
