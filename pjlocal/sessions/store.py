"""Every chat in one SQLite database: written token by token, so that what was on the screen is there after a crash.

A session is a list of turns in the order of their ids.  Turns that were undone are hidden, not deleted.  Several
processes may write at once, to one session too: its turns then interleave.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import OutputError, UsageError
from ..folders import data_folder
from ..textfile import user_path
from . import words
from .schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:  # `events` brings NumPy, which a list of chats need not wait for
    from ..events import TokenEvent
    from .session import Session, Turn


class StoreError(OutputError):
    """The database of chats cannot be used, now or at all; names the file and the reason."""


class RemovedError(StoreError):
    """The session was removed, by another process."""


class UnwritableError(StoreError):
    """Nothing can be written where it is."""


class ForeignStoreError(StoreError):
    """The file is a newer pjlocal's, or another program's."""


@dataclass(frozen=True)
class Summary:
    """A session in a list.

    n_turns: those that were not undone.
    model: by its lasting name (older versions: as the user named it, or None).
    updated: seconds since the epoch.
    """

    id: int
    title: str
    n_turns: int
    model: str | None
    updated: float


@dataclass(frozen=True)
class Hit:
    """A turn that a search found.

    snippet: the words around the match, in the question or the answer.
    created: seconds since the epoch.
    """

    session_id: int
    title: str
    turn_id: int
    question: str
    snippet: str
    created: float


_EVENT = "position, id, text, kind, round, draft, p, q, accept_probability, rejected, judge, pushes"
_ADD_TOKEN = f"INSERT INTO tokens (turn_id, {_EVENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SNIPPET_WORDS, _SNIPPET_CHARACTERS = 16, 48  # of a hit, where words or single characters are counted
# Not INSERT OR IGNORE, which would pass over a token that breaks any constraint in silence.
_ADD_MISSING_TOKEN = f"{_ADD_TOKEN} ON CONFLICT (turn_id, position) DO NOTHING"


def store_path() -> Path:
    """The database: what PJLOCAL_DATABASE names, or ``chats.db`` in the user's folder for data.

    Raises:
        StoreError: there is no such folder.
    """
    if named := os.environ.get("PJLOCAL_DATABASE"):
        return user_path(named)
    folder = data_folder()
    if folder is None:
        raise StoreError("there is no home folder to save chats in: set HOME, or PJLOCAL_DATABASE to a file")
    return folder / "chats.db"


_LONGEST_TITLE = 200


def check_title(title: str) -> None:
    """Refuse what would not name a session.

    Raises:
        UsageError: it is empty, long, or a number, which means the session of that number.
    """
    if not title.strip():
        raise UsageError("a chat's title must not be empty")
    if len(title) > _LONGEST_TITLE:
        raise UsageError(f"a chat's title has at most {_LONGEST_TITLE} characters, and this has {len(title)}")
    if title.strip().isdecimal():
        raise UsageError(f"a number cannot be a title: {title.strip()} means the chat of that number")


class Store:
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
        self._files: dict[str, _Identity] = {}  # those that are open, by what their names end in
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
                self._schema_version()  # refuses a file that is not ours before anything is written
                self._use_wal(self._timeout)
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._migrate()
            self._files = {end: _identity(file + end) for end in ("", "-wal", "-shm")}

    def _open_read_only(self) -> None:
        """Where SQLite cannot make its -shm file: with the -wal where that can be read too, else without."""
        with self._named_errors():
            file = os.path.realpath(self.path)
            uri = f"file:{quote(os.fsencode(file))}"
            try:
                with self._connected(f"{uri}?mode=ro", uri=True):
                    version = self._schema_version()
            except sqlite3.OperationalError:
                if os.path.exists(f"{file}-wal") and os.path.getsize(f"{file}-wal"):
                    self.unread = (
                        f"what was said last is in {self.path}-wal, which cannot be read where nothing can be written: "
                        "copy both files to where it can, and set PJLOCAL_DATABASE to the copy"
                    )
                with self._connected(f"{uri}?immutable=1", uri=True):
                    version = self._schema_version()
            if version < len(MIGRATIONS):
                self._db.close()
                raise self._error(
                    self.unread
                    or "an older pjlocal wrote it, and it cannot be brought up to date where nothing can be written: "
                    "copy it to where it can, and set PJLOCAL_DATABASE to the copy"
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
        """Whether the file that is open is no longer the one at the path: it was deleted, or another put there."""
        return not self._files or _identity(os.path.realpath(self.path)) != self._files[""]

    def reopen(self) -> None:
        """Go on with the file that is at the path now, or with a new one.

        What was open is finished.  Its -wal and -shm files are still at the path, and SQLite would take what is in them
        for a part of the file that is there now.
        """
        with suppress(sqlite3.Error):  # no room, say; or it is closed, as this was tried before
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.close()
        for end in ("-wal", "-shm"):
            file = os.path.realpath(self.path) + end
            if self._files and _identity(file) == self._files[end]:
                with suppress(OSError):
                    os.unlink(file)
        self._files = {}
        self._open()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        with self._named_errors():
            self._db.close()

    # Writing.

    def add_session(self, session: Session) -> int:
        """Add the session itself, not its turns; sets ``session.id``."""
        with self._transaction() as db:
            added = db.execute(
                "INSERT INTO sessions (title, settings, created, updated) VALUES (?, ?, ?, ?)",
                (_storable(session.title), json.dumps(session.settings), session.created, session.updated),
            )
        session.id = _row_id(added)
        return session.id

    def save_settings(self, session: Session) -> None:
        """Save the settings, and that the session was updated now; another chat may have changed its title."""
        session.updated = time.time()
        with self._named_errors():
            self._changed(
                "UPDATE sessions SET settings = ?, updated = ? WHERE id = ?",
                (json.dumps(session.settings), session.updated, session.id),
            )

    def rename(self, session_id: int, title: str) -> None:
        """Change the title and nothing else: where the session stands in the list, and its settings, stay."""
        with self._named_errors():
            self._changed("UPDATE sessions SET title = ? WHERE id = ?", (_storable(title), session_id))

    def add_token(self, turn_id: int, event: TokenEvent) -> None:
        """Add one token of the answer."""
        with self._named_errors():
            self._db.execute(_ADD_TOKEN, _token_row(turn_id, event))

    def finish_turn(self, turn: Turn) -> None:
        """Save the whole answer with how it ended, and the tokens that `add_token` did not get."""
        assert turn.id is not None
        with self._transaction():
            self._changed(
                "UPDATE turns SET finish_reason = ?, statistics = ?, answer = ? WHERE id = ?",
                (turn.finish_reason, json.dumps(turn.statistics), _storable(turn.answer), turn.id),
            )
            self._insert_tokens(turn.id, turn)

    def add_turn(self, session_id: int, turn: Turn) -> int:
        """Add a turn with as much of its answer as there is; sets ``turn.id``."""
        with self._transaction():
            turn_id = self._insert_turn(session_id, turn)
            self._insert_tokens(turn_id, turn)
        turn.id = turn_id
        return turn_id

    def set_undone(self, turn_id: int, undone: bool = True) -> None:
        """Hide a turn, or show it again."""
        with self._named_errors():
            self._changed("UPDATE turns SET undone = ? WHERE id = ?", (undone, turn_id))

    def remove(self, session_id: int) -> None:
        """Delete a session with all its turns, the undone ones too."""
        with self._named_errors():
            self._changed("DELETE FROM sessions WHERE id = ?", (session_id,))

    # Reading.

    def load(self, session_id: int, with_undone: bool = False) -> Session:
        """A session with its turns; of an answer that was never finished, the tokens that were written.

        Raises:
            UsageError: there is no such session.
        """
        from ..events import TokenEvent
        from .session import Session, Turn

        with self._transaction("DEFERRED") as db:
            row = db.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
            if row is None:
                raise UsageError(f"there is no saved chat {session_id}: pjlocal sessions list shows them")
            session = Session(
                row["title"],
                settings=json.loads(row["settings"]),
                created=row["created"],
                updated=row["updated"],
                id=session_id,
            )
            turns: dict[int, Turn] = {}
            which = (session_id, with_undone)
            for row in db.execute("SELECT * FROM turns WHERE session_id = ? AND undone <= ? ORDER BY id", which):
                turns[row["id"]] = Turn(
                    row["question"],
                    settings=json.loads(row["settings"]),
                    finish_reason=row["finish_reason"],
                    statistics=json.loads(row["statistics"]),
                    created=row["created"],
                    id=row["id"],
                )
            for turn_id, turn in turns.items():
                sql = f"SELECT {_EVENT} FROM tokens WHERE turn_id = ? ORDER BY position"
                for row in db.execute(sql, (turn_id,)):
                    turn.events.append(TokenEvent.from_dict(dict(row) | _token_json(row)))
        session.turns = list(turns.values())
        return session

    def summaries(self) -> list[Summary]:
        """Every session, the newest first."""
        with self._named_errors():
            rows = self._db.execute(
                "SELECT id, title, settings, updated, "
                "(SELECT count(*) FROM turns WHERE session_id = sessions.id AND NOT undone) AS n_turns "
                "FROM sessions ORDER BY updated DESC, id DESC"
            ).fetchall()
        return [
            Summary(row["id"], row["title"], row["n_turns"], json.loads(row["settings"]).get("model"), row["updated"])
            for row in rows
        ]

    def latest(self) -> int | None:
        """The session that was updated last; None where there is none."""
        with self._named_errors():
            row = self._db.execute("SELECT id FROM sessions ORDER BY updated DESC, id DESC LIMIT 1").fetchone()
        return row and int(row["id"])

    def find(self, name: str) -> int:
        """The session that ``name`` means: an id, a title (of several, the newest), or how only one title begins.

        Case makes no difference.

        Raises:
            UsageError: no session, or several, are called so; names the nearest.
        """
        return find_summary(self.summaries(), name)

    def search(self, query: str) -> list[Hit]:
        """The turns in which every word of ``query`` occurs, the newest first; the last word may be a beginning.

        Undone turns are left out, and of an answer that was never finished only the question is searched.
        """
        wanted = words.match(_storable(query))
        if not wanted:
            return []
        n_words = _SNIPPET_CHARACTERS if words.apart(query) != query else _SNIPPET_WORDS
        with self._named_errors():
            rows = self._db.execute(
                "SELECT session_id, title, turns.id AS turn_id, turns.question, "
                "snippet(turns_text, -1, '', '', '…', ?) AS snippet, turns.created "
                "FROM turns_text JOIN turns ON turns.id = turns_text.rowid JOIN sessions ON sessions.id = session_id "
                "WHERE turns_text MATCH ? AND NOT undone ORDER BY turns.id DESC",
                (n_words, wanted),
            ).fetchall()
        return [Hit(**dict(row) | {"snippet": words.together(row["snippet"])}) for row in rows]

    # How it is done.

    def _insert_turn(self, session_id: int, turn: Turn) -> int:
        added = self._db.execute(
            "INSERT INTO turns (session_id, question, answer, settings, finish_reason, statistics, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                session_id,
                _storable(turn.question),
                _storable(turn.answer),
                json.dumps(turn.settings),
                turn.finish_reason,
                json.dumps(turn.statistics),
                turn.created,
            ),
        )
        self._db.execute("UPDATE sessions SET updated = ? WHERE id = ?", (time.time(), session_id))
        return _row_id(added)

    def _insert_tokens(self, turn_id: int, turn: Turn) -> None:
        self._db.executemany(_ADD_MISSING_TOKEN, (_token_row(turn_id, event) for event in turn.events))

    def _changed(self, sql: str, values: tuple[Any, ...]) -> None:
        """Change the one row that must be there."""
        if self._db.execute(sql, values).rowcount == 0:
            raise self._error(_REMOVED)

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
            raise self._error(getattr(error, "strerror", None) or str(error)) from None

    def _error(self, reason: str) -> StoreError:
        said = next((text for part, text in _REASONS.items() if part in reason), reason)
        unwritable = any(part in reason for part in _UNWRITABLE)
        kind = RemovedError if said == _REMOVED else UnwritableError if unwritable else StoreError
        return kind(f"cannot use the saved chats in {self.path}: {said}")

    def _schema_version(self) -> int:
        """How many migrations the file has had.

        Raises:
            StoreError: more than are known here, or it is another program's database.
        """
        version, application, empty = self._db.execute(
            "SELECT user_version, application_id, NOT EXISTS (SELECT 1 FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if application != APPLICATION_ID and not empty:
            raise ForeignStoreError(
                f"cannot use the saved chats in {self.path}: it belongs to another program: set PJLOCAL_DATABASE to "
                "another file"
            )
        if version > len(MIGRATIONS):
            raise ForeignStoreError(
                f"{self.path} was written by a newer pjlocal: update pjlocal, or set PJLOCAL_DATABASE to another file"
            )
        return int(version)

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

    def _migrate(self) -> None:
        while (version := self._schema_version()) < len(MIGRATIONS):
            with self._transaction() as db:
                if self._schema_version() == version:  # else another process was faster
                    for statement in MIGRATIONS[version]:
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {version + 1}")


_REMOVED = "the chat was removed"

#: What to say, by a part of what SQLite says.
_REASONS = {
    "is locked": "database is locked (another program is writing to it: try again)",
    "is full": "database or disk is full (make room, or set PJLOCAL_DATABASE to a file on another disk)",
    "not a database": "file is not a database (set PJLOCAL_DATABASE to another file)",
    "no such module": "this Python's SQLite has no full-text search (FTS5): use another build of Python",
    "FOREIGN KEY": _REMOVED,
    "closed database": "another file has taken its place",
    "readonly database": "nothing can be written there (set PJLOCAL_DATABASE to another file)",
    "unable to open": "unable to open database file (may you read and write it, and its folder?)",
}
#: What of it means that nothing can be written.
_UNWRITABLE = ("readonly database", "unable to open database file", os.strerror(errno.EROFS), os.strerror(errno.EACCES))


def _create(path: str) -> None:
    """An empty file for SQLite to fill; its -wal and -shm files then get the same mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        # Only a new file may be opened here: closing it would drop the locks of another connection in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass


_Identity = tuple[int, int] | None


def _identity(file: str) -> _Identity:
    """What tells a file from another that has or had its name; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _token_row(turn_id: int, event: TokenEvent) -> tuple[Any, ...]:
    return (
        turn_id,
        event.position,
        event.id,
        _storable(event.text),
        event.kind,
        event.round,
        event.draft,
        event.p,
        event.q,
        event.accept_probability,
        event.rejected and json.dumps(asdict(event.rejected)),
        event.judge,
        json.dumps(event.pushes) if event.pushes else None,
    )


def _token_json(row: sqlite3.Row) -> dict[str, Any]:
    """What of a token stands in its row as JSON."""
    return {
        "rejected": row["rejected"] and json.loads(row["rejected"]),
        "pushes": json.loads(row["pushes"] or "{}"),
    }


def _storable(text: str) -> str:
    """The text with ``?`` for halves of surrogate pairs (bytes of the command line that are not UTF-8)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _row_id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def find_summary(sessions: Sequence[Summary], name: str) -> int:
    """The session that ``name`` means, of those in a list, the newest first; see `Store.find`."""
    name = name.strip()
    for session in sessions:
        if str(session.id) == name:
            return session.id
    wanted = name.casefold()
    titles = [(session.title.casefold(), session) for session in sessions if session.title]
    for title, session in titles:
        if title == wanted:
            return session.id
    begin = [session for title, session in titles if wanted and title.startswith(wanted)]
    if len(begin) == 1:
        return begin[0].id
    if begin:
        raise UsageError(f"several saved chats begin with {name!r}: {_listed(begin[:3])}")
    near = difflib.get_close_matches(wanted, [title for title, _ in titles], n=3)
    nearest = [next(session for title, session in titles if title == found) for found in dict.fromkeys(near)]
    hint = f"did you mean {_listed(nearest)}?" if nearest else "pjlocal sessions list shows them"
    raise UsageError(f"there is no saved chat {name!r}: {hint}")


def _listed(sessions: list[Summary]) -> str:
    return ", ".join(f"{session.title} ({session.id})" for session in sessions)
