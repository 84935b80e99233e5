"""All chats in one SQLite database, written token by token, so that a crash loses nothing that was shown.

A session is a list of turns in the order of their ids.  Turns that were undone, and drafts that are not in force, are
hidden, not deleted.  Several processes may write at once, also to one session, whose turns then interleave.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .database import Database
from .faults import REMOVED, StoreError, fault
from .finding import ChatList, Hit, Summary, search

if TYPE_CHECKING:  # `events` imports NumPy, which a list of chats does not need
    from ..events import TokenEvent
    from .session import Session, Turn

_EVENT = "position, id, text, kind, round, draft, p, q, accept_probability, rejected, judge, pushes, thought"
_ADD_TOKEN = f"INSERT INTO tokens (turn_id, {_EVENT}) VALUES ({', '.join('?' * 14)})"
# Not INSERT OR IGNORE, which would silently drop a token that violates any constraint.
_ADD_MISSING_TOKEN = f"{_ADD_TOKEN} ON CONFLICT (turn_id, position) DO NOTHING"


_PAGES = 500  # of the search index that are merged at once: about 2 MB


class Store(Database, ChatList):
    """The database of chats: its sessions, turns and tokens."""

    # Writing.

    def add_session(self, session: Session) -> int:
        """Add the session itself, not its turns; sets ``session.id``."""
        with self._transaction():
            session_id = self._insert_session(session)
        session.id = session_id  # not before the commit, or after a failed one it could be another chat's
        return session_id

    def add_whole(self, session: Session) -> int:
        """Add a session with its turns and their drafts in one step; sets all ids."""
        with self._transaction():
            session.id = self._insert_session(session)
            for turn in session.turns:
                for draft in turn.drafts:
                    draft.id = self._insert_turn(session.id, draft)
                    self._insert_tokens(draft.id, draft)
        return session.id

    def save_settings(self, session: Session) -> None:
        """Save the settings and the time of the update.

        The title is saved only if there is none, because another process may have changed it.
        """
        session.updated = time.time()
        with self._named_errors():
            self._changed(
                "UPDATE sessions SET title = CASE title WHEN '' THEN ? ELSE title END, settings = ?, updated = ? "
                "WHERE id = ?",
                (_storable(session.title), json.dumps(session.settings), session.updated, session.id),
            )

    def rename(self, session_id: int, title: str) -> None:
        """Change the title.  The settings, and the session's position in the list, stay."""
        with self._named_errors():
            self._changed("UPDATE sessions SET title = ? WHERE id = ?", (_storable(title), session_id))

    def add_token(self, turn_id: int, event: TokenEvent) -> None:
        """Add one token of the answer."""
        with self._named_errors():
            self._db.execute(_ADD_TOKEN, _token_row(turn_id, event))

    def finish_turn(self, turn: Turn) -> None:
        """Save the whole answer with its finish reason and settings, and the tokens that are not saved yet."""
        assert turn.id is not None
        with self._transaction():
            self._changed(
                "UPDATE turns SET finish_reason = ?, settings = ?, statistics = ?, answer = ? WHERE id = ?",
                (
                    turn.finish_reason,
                    json.dumps(turn.settings),
                    json.dumps(turn.statistics),
                    _storable(turn.answer),
                    turn.id,
                ),
            )
            self._insert_tokens(turn.id, turn)

    def add_turn(self, session_id: int, turn: Turn) -> None:
        """Add a turn with its answer so far; sets ``turn.id``.  If it is in force, its other drafts are hidden."""
        with self._transaction():
            turn_id = self._insert_turn(session_id, turn)
            self._insert_tokens(turn_id, turn)
        turn.id = turn_id

    def set_undone(self, turn_id: int) -> None:
        """Hide a turn."""
        with self._named_errors():
            self._changed("UPDATE turns SET undone = 1 WHERE id = ?", (turn_id,))

    def put_in_force(self, turn_id: int) -> None:
        """Show a draft of a turn, and hide the others."""
        with self._named_errors():
            row = self._db.execute(
                "SELECT coalesce(draft_of, id) AS first FROM turns WHERE id = ?", (turn_id,)
            ).fetchone()
            first = row and row["first"]
            self._changed("UPDATE turns SET undone = (id <> ?) WHERE id = ? OR draft_of = ?", (turn_id, first, first))

    def drop_draft(self, turn_id: int) -> None:
        """Hide a turn, and remove it from the drafts of another turn."""
        with self._named_errors():
            self._changed("UPDATE turns SET undone = TRUE, draft_of = NULL WHERE id = ?", (turn_id,))

    def remove(self, session_id: int) -> None:
        """Delete a session with all its turns, including undone ones; `purge` overwrites their words."""
        with self._named_errors():
            self._changed("DELETE FROM sessions WHERE id = ?", (session_id,))

    def purge(self) -> None:
        """Overwrite the words of deleted sessions in the search index and in the -wal file.

        FTS5 only marks words as deleted.  Its parts are merged in small steps, because other connections wait for the
        write lock at most a second.  An error ends this early, and the next call continues.
        """
        n_pages = -_PAGES  # a negative number begins the merge of all parts
        with suppress(StoreError):
            while True:
                with self._transaction() as db:
                    before = db.total_changes
                    db.execute("INSERT INTO turns_text (turns_text, rank) VALUES ('merge', ?)", (n_pages,))
                    is_merged = db.total_changes - before < 2
                if is_merged:
                    break
                n_pages = _PAGES
            with self._named_errors():
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Reading.

    def load(self, session_id: int, with_undone: bool = False) -> Session:
        """Load a session with its turns and drafts.  An unfinished answer has the tokens that were saved.

        Raises:
            UsageError: the session does not exist.
        """
        from ..events import TokenEvent
        from ..prompting.thinking import find_thoughts
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
            for row in db.execute("SELECT * FROM turns WHERE session_id = ? ORDER BY id", (session_id,)):
                turn = turns[row["id"]] = Turn(
                    row["question"],
                    settings=json.loads(row["settings"]),
                    finish_reason=row["finish_reason"],
                    statistics=json.loads(row["statistics"]),
                    created=row["created"],
                    id=row["id"],
                    undone=bool(row["undone"]),
                )
                if row["draft_of"] in turns:
                    turn.join(turns[row["draft_of"]])
            for turn_id, turn in turns.items():
                if not with_undone and all(draft.undone for draft in turn.drafts):
                    continue
                sql = f"SELECT {_EVENT} FROM tokens WHERE turn_id = ? ORDER BY position"
                rows = db.execute(sql, (turn_id,)).fetchall()
                thoughts = [row["thought"] for row in rows]
                if None in thoughts:
                    thoughts = find_thoughts([row["text"] for row in rows])
                for row, thought in zip(rows, thoughts, strict=True):
                    values = dict(row) | _token_json(row) | {"thought": bool(thought)}
                    turn.events.append(TokenEvent.from_dict(values))
        session.turns = [turn for turn in turns.values() if with_undone or not turn.undone]
        return session

    def summaries(self) -> list[Summary]:
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
        with self._named_errors():
            row = self._db.execute("SELECT id FROM sessions ORDER BY updated DESC, id DESC LIMIT 1").fetchone()
        return row and int(row["id"])

    def last_turn(self, session_id: int) -> int | None:
        """The last turn of a session that is not undone; 0 without any, and None if there is no such session."""
        with self._named_errors():
            row = self._db.execute(
                "SELECT (SELECT max(id) FROM turns WHERE session_id = sessions.id AND NOT undone) AS id "
                "FROM sessions WHERE id = ?",
                (session_id,),
            ).fetchone()
        return row and (row["id"] or 0)

    def search(self, query: str) -> list[Hit]:
        """The turns that contain these words; see `finding.search`."""
        with self._named_errors():
            return search(self._db, _storable(query))

    # Rows.

    def _insert_session(self, session: Session) -> int:
        added = self._db.execute(
            "INSERT INTO sessions (title, settings, created, updated) VALUES (?, ?, ?, ?)",
            (_storable(session.title), json.dumps(session.settings), session.created, session.updated),
        )
        return _row_id(added)

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
        turn_id = _row_id(added)
        if turn.undone or turn.draft_of:
            hidden = (turn.undone, turn.draft_of, turn_id)
            self._db.execute("UPDATE turns SET undone = ?, draft_of = ? WHERE id = ?", hidden)
        if turn.draft_of and not turn.undone:
            self.put_in_force(turn_id)
        return turn_id

    def _insert_tokens(self, turn_id: int, turn: Turn) -> None:
        self._db.executemany(_ADD_MISSING_TOKEN, (_token_row(turn_id, event) for event in turn.events))

    def _changed(self, sql: str, values: tuple[Any, ...]) -> None:
        """Run a statement that must change a row.  Raises RemovedError if it changes none."""
        if self._db.execute(sql, values).rowcount == 0:
            raise fault(self.path, REMOVED)


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
        event.thought,
    )


def _token_json(row: sqlite3.Row) -> dict[str, Any]:
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
