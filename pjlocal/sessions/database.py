"""The SQLite file of chats: opening it, also where nothing can be written, and transactions.

Schema versions are in `schema`, and noticing that another file took its place in `opened`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..folders import data_folder
from ..textfile import user_path
from . import schema, words
from .faults import StoreError, UnwritableError, fault
from .opened import OpenFiles

if TYPE_CHECKING:
    from typing_extensions import Self


def store_path() -> Path:
    """The database: what PJLOCAL_DATABASE names, or ``chats.db`` in the user's folder for data.

    Raises:
        StoreError: there is no such folder.
    """
    if named := os.environ.get("PJLOCAL_DATABASE"):
        return user_path(named)
    folder = data_folder()
    if folder is None:
        raise StoreError("no home folder for saved chats is known: set HOME, or PJLOCAL_DATABASE to a file")
    return folder / "chats.db"


class Database:
    """The database of chats; made when it is missing, its owner's alone (0600).  Close it, or use it in ``with``.

    Whatever is written is there once the method returns, though the process be killed the next moment.  For one thread.

    Args:
        path: the file; `store_path` when not given.
        timeout: seconds to wait for another process that is writing.
        reading: nothing will be written, and where nothing can be, it will do as it is.

    Raises:
        StoreError: here and from every method, what SQLite or the file system refuses.
    """

    def __init__(self, path: Path | None = None, timeout: float = 1.0, *, reading: bool = False) -> None:
        self.path = path or store_path()
        #: What cannot be read of it, and what to do about it; empty where all can.
        self.unread = ""
        self._timeout = timeout
        self._files: OpenFiles | None = None
        try:
            self._open()
        except UnwritableError:
            if not reading:
                raise
            self._open_read_only()

    def _open(self) -> None:
        with self._named_errors():
            file = os.path.realpath(self.path)
            _create(file)
            with self._connected(file, timeout=self._timeout):
                schema.version_of(self._db, self.path)  # refuses a file that is not ours before anything is written
                self._use_wal(self._timeout)
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA foreign_keys = ON")
                schema.migrate(self._db, self.path, self._transaction)
            self._files = OpenFiles(file)

    def _open_read_only(self) -> None:
        """Where SQLite cannot make its -shm file: with the -wal where that can be read too, else without."""
        with self._named_errors():
            file = os.path.realpath(self.path)
            uri = f"file:{quote(os.fsencode(file))}"
            try:
                with self._connected(f"{uri}?mode=ro", uri=True):
                    version = schema.version_of(self._db, self.path)
            except sqlite3.OperationalError:
                if os.path.exists(f"{file}-wal") and os.path.getsize(f"{file}-wal"):
                    self.unread = (
                        f"the latest messages are in {self.path}-wal, which cannot be read in a read-only folder: "
                        "copy both files to a writable folder, and set PJLOCAL_DATABASE to the copy"
                    )
                with self._connected(f"{uri}?immutable=1", uri=True):
                    version = schema.version_of(self._db, self.path)
            if version < len(schema.MIGRATIONS):
                self._db.close()
                raise fault(
                    self.path,
                    self.unread
                    or "an older pjlocal wrote it, and it cannot be upgraded in a read-only folder: copy it to a "
                    "writable folder, and set PJLOCAL_DATABASE to the copy",
                )

    @contextmanager
    def _connected(self, database: str, **options: Any) -> Iterator[None]:
        """A connection that stays open unless it turns out to be of no use."""
        self._db = sqlite3.connect(database, isolation_level=None, **options)
        self._db.row_factory = sqlite3.Row
        self._db.create_function("apart", 1, words.apart, deterministic=True)
        try:
            yield
        except BaseException:
            self._db.close()
            raise

    @property
    def replaced(self) -> bool:
        """True if the file that is open was deleted, or another put in its place."""
        return not self._files or self._files.differ_from(os.path.realpath(self.path))

    def reopen(self) -> None:
        """Write out and close the file that was open, and go on with the one at the path now, or with a new one."""
        with suppress(sqlite3.Error):  # no room, say; or it is closed, as this was tried before
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.close()
        if self._files:
            self._files.remove_leftovers(os.path.realpath(self.path))
        self._files = None
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        with self._named_errors():
            self._db.close()

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All of it or nothing.  IMMEDIATE takes the lock for writing first: waiting works only there."""
        with self._named_errors():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back on some errors
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise fault(self.path, getattr(error, "strerror", None) or str(error)) from None

    def _use_wal(self, timeout: float) -> None:
        """Readers and a writer side by side; a commit without fsync, which a killed process survives all the same."""
        until = time.monotonic() + timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Two that open a new file at once are in each other's way here, and SQLite does not wait by itself.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.005)


def _create(path: str) -> None:
    """An empty file for SQLite to fill; its -wal and -shm files then get the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        # Only a new file may be opened here: closing it would drop the locks of another connection in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
