"""Open the SQLite database of chats, also read-only, and run transactions."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..folders import user_folder
from ..request import name_judge
from ..textfile import user_path
from . import schema, words
from .faults import StoreError, UnwritableError, fault

if TYPE_CHECKING:
    from typing_extensions import Self


_Identity = tuple[int, int] | None
_OTHERS = ("-wal", "-shm")  # the ends of the names of SQLite's other files


def store_path() -> Path:
    """The path of the database: PJLOCAL_DATABASE, or ``chats.db`` in the user's data folder.

    Raises:
        StoreError: no home folder is known.
    """
    if named := os.environ.get("PJLOCAL_DATABASE"):
        return user_path(named)
    folder = user_folder("data")
    if folder is None:
        raise StoreError("no home folder for saved chats is known: set HOME, or PJLOCAL_DATABASE to a file")
    return folder / "chats.db"


class Database:
    """The database of chats, created if missing, for its owner only (0600).  Close it, or use it in ``with``.

    When a method returns, its data survives a kill of the process.  Use it in one thread.

    Args:
        path: the file; by default `store_path`.
        timeout: seconds to wait for another process that is writing.
        reading: whether reading is enough, so that a file is accepted that is read-only, or on a full disk.

    Raises:
        StoreError: from the constructor and every method: an error of SQLite or the file system.
    """

    def __init__(self, path: Path | None = None, timeout: float = 1.0, *, reading: bool = False) -> None:
        self.path = path or store_path()
        #: A message about data that cannot be read, with the remedy; empty if all data can be read.
        self.unread = ""
        #: Why nothing can be written; None if it can.
        self.unwritable: UnwritableError | None = None
        self._timeout = timeout
        self._files: dict[str, _Identity] | None = None  # those that are open, by the ends of their names
        try:
            self._open()
        except UnwritableError as error:
            if not reading:
                raise
            self.unwritable = error
            self._open_read_only(error)

    def _open(self) -> None:
        with self._named_errors():
            file = os.path.realpath(self.path)
            _create(file)
            with self._connected(file, timeout=self._timeout):
                schema.version_of(self._db, self.path)  # refuses another program's file before anything is written
                self._use_wal()
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute("PRAGMA secure_delete = ON")  # overwrite deleted content
                schema.migrate(self._db, self.path, self._transaction)
            self._files = {end: _identity(file + end) for end in ("", *_OTHERS)}

    def _open_read_only(self, error: UnwritableError) -> None:
        """Open the file without creating SQLite's -shm file; with the -wal file if possible, else without it.

        Raises:
            UnwritableError: ``error``, if nothing is in the file yet.
        """
        with self._named_errors():
            file = os.path.realpath(self.path)
            uri = f"file:{quote(os.fsencode(file))}"
            try:
                with self._connected(f"{uri}?mode=ro", uri=True):
                    version = schema.version_of(self._db, self.path)
            except sqlite3.OperationalError:
                if os.path.exists(f"{file}-wal") and os.path.getsize(f"{file}-wal"):
                    self.unread = (
                        f"the latest messages are in {self.path}-wal, which cannot be read in a folder that cannot be "
                        "written: copy both files to a writable folder, and set PJLOCAL_DATABASE to the copy"
                    )
                with self._connected(f"{uri}?immutable=1", uri=True):
                    version = schema.version_of(self._db, self.path)
            if version < len(schema.MIGRATIONS):
                self._db.close()
                if not version and not self.unread:
                    raise error
                raise fault(
                    self.path,
                    self.unread
                    or "an older pjlocal wrote it, and it cannot be upgraded in a folder that cannot be written: copy "
                    "it to a writable folder, and set PJLOCAL_DATABASE to the copy",
                )

    @contextmanager
    def _connected(self, database: str, **options: Any) -> Iterator[None]:
        """Connect.  If the body fails, close the connection."""
        self._db = sqlite3.connect(database, isolation_level=None, **options)
        self._db.row_factory = sqlite3.Row
        self._db.create_function("apart", 1, words.apart, deterministic=True)
        self._db.create_function("name_judge", 1, lambda saved: json.dumps(name_judge(json.loads(saved))))
        try:
            yield
        except BaseException:
            self._db.close()
            raise

    @property
    def replaced(self) -> bool:
        """True if the open file was deleted or replaced."""
        return not self._files or _identity(os.path.realpath(self.path)) != self._files[""]

    def reopen(self) -> None:
        """Close the open file, and open the one that is now at the path, or create one."""
        with suppress(sqlite3.Error):  # such as a full disk, or a connection that an earlier attempt closed
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.close()
        for end in _OTHERS if self._files else ():  # SQLite would read them as part of the new database
            file = os.path.realpath(self.path) + end
            if self._files and _identity(file) == self._files[end]:
                with suppress(OSError):
                    os.unlink(file)
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
        """Run the body in a transaction.  IMMEDIATE acquires the write lock at BEGIN, the only place where SQLite waits
        for it."""
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

    def _use_wal(self) -> None:
        """Use WAL mode: readers do not block a writer, and commits survive a kill of the process without fsync."""
        until = time.monotonic() + self._timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Two processes that open a new file at once conflict here, and SQLite does not wait by itself.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.005)


def _create(path: str) -> None:
    """Create an empty file for SQLite.  Its -wal and -shm files get the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        # Only a new file may be opened here: closing it would drop the locks of another connection in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass


def _identity(file: str) -> _Identity:
    """The device and inode of a file, which identify it; None if it does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
