"""Errors of the database of chats."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import OutputError

GONE_ON = "the chat has new turns from elsewhere: load the chat again"


class StoreError(OutputError):
    """The database of chats cannot be used.  The message names the file and the reason."""


class RemovedError(StoreError):
    """The session was removed by another process."""


class UnwritableError(StoreError):
    """The database cannot be written: it is read-only, or the disk is full."""


class ForeignStoreError(StoreError):
    """The file was written by a newer pjlocal or another program."""


REMOVED = "the chat was removed"

#: pjlocal's messages, by a part of SQLite's message.
_REASONS = {
    "is locked": "database is locked (another program is writing to it: try again)",
    "is full": "database or disk is full (make room, or set PJLOCAL_DATABASE to a file on another disk)",
    # SQLite says this if the disk has no room for its -shm file.
    "disk I/O error": "the disk is full or broken (make room, or set PJLOCAL_DATABASE to a file on another disk)",
    "not a database": "file is not a database (set PJLOCAL_DATABASE to another file)",
    "no such module": "this Python's SQLite has no full-text search (FTS5): use another build of Python",
    "FOREIGN KEY": REMOVED,
    "closed database": "another file has replaced it",
    "readonly database": "it is read-only (set PJLOCAL_DATABASE to another file)",
    "unable to open": "unable to open database file (check the permissions of the file and its folder)",
}
#: Parts of messages that mean a read-only database or a full disk.
_UNWRITABLE = (
    *("readonly database", "unable to open database file", "is full", "disk I/O error"),
    *map(os.strerror, (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT)),
)


def fault(path: Path, reason: str) -> StoreError:
    """The error for a message of SQLite or the file system."""
    message = next((text for part, text in _REASONS.items() if part in reason), reason)
    unwritable = any(part in reason for part in _UNWRITABLE)
    kind = RemovedError if message == REMOVED else UnwritableError if unwritable else StoreError
    return kind(f"cannot use the saved chats in {path}: {message}")
