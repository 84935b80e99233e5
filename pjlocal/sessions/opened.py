"""Noticing that another file took the place of the database that is open."""

from __future__ import annotations

import os
from contextlib import suppress

_Identity = tuple[int, int] | None
_ENDS = ("", "-wal", "-shm")


class OpenFiles:
    """The database that is open at a path, with the two files that SQLite keeps beside it."""

    def __init__(self, path: str) -> None:
        self._identities = {end: _identity(path + end) for end in _ENDS}

    def differ_from(self, path: str) -> bool:
        """True if another database is at the path, or none."""
        return _identity(path) != self._identities[""]

    def remove_leftovers(self, path: str) -> None:
        """Remove the -wal and -shm files if they are still those that were open, once the database is closed.

        SQLite would take what is in them for a part of the file that is there now.
        """
        for end in _ENDS[1:]:
            if _identity(path + end) == self._identities[end]:
                with suppress(OSError):
                    os.unlink(path + end)


def _identity(file: str) -> _Identity:
    """The device and number of a file, by which it differs from another of its name; None where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
