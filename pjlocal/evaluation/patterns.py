"""Regular expressions of suites.  They use the package ``regex``, because Python's ``re`` has no time limit."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..errors import UsageError
from .extra import extra


@cache
def compiled(pattern: str) -> Any:
    """Compile a regular expression.

    Raises:
        UsageError: the pattern is invalid, or the package is missing.
    """
    with extra():
        import regex
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None
