"""Detect that the database file was replaced."""

from __future__ import annotations

import os
from contextlib import suppress

_Identity = tuple[int, int] | None
_ENDS = ("", "-wal", "-shm")


class OpenFiles:
    """The identities of an open database and of its -wal and -shm files."""

    def __init__(self, path: str) -> None:
        self._identities = {end: _identity(path + end) for end in _ENDS}

    def differ_from(self, path: str) -> bool:
        """True if there is another database at the path, or none."""
        return _identity(path) != self._identities[""]

    def remove_leftovers(self, path: str) -> None:
        """Remove the -wal and -shm files of the closed database, unless they were replaced.

        SQLite would read them as part of the new database.
        """
        for end in _ENDS[1:]:
            if _identity(path + end) == self._identities[end]:
                with suppress(OSError):
                    os.unlink(path + end)


def _identity(file: str) -> _Identity:
    """The device and inode of a file, which identify it; None if it does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
