"""Packages that nothing but an evaluation needs: the extra ``eval``.  Each is imported where it acts, and told of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UsageError


@contextmanager
def extra() -> Iterator[None]:
    """Goes around the import of such a package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"pjlocal eval needs the package {error.name}: pip install 'pjlocal[eval]' (or '.[eval]' in a checkout)"
        ) from None
