"""Explain missing packages of the extra ``eval``, which only evaluations need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UsageError


@contextmanager
def extra() -> Iterator[None]:
    """Raise an error with advice if an import in the body fails.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"pjlocal eval needs the package {error.name}: pip install 'pjlocal[eval]' (or '.[eval]' in a checkout)"
        ) from None
