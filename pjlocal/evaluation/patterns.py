"""Regular expressions of a suite's author: the package regex's, since Python's own cannot be told to give up."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..errors import UsageError
from .extra import extra


@cache
def compiled(pattern: str) -> Any:
    """The expression.

    Raises:
        UsageError: it is none, or the package is missing.
    """
    with extra():
        import regex
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None
