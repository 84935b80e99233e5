"""The schema of the database of chats, as migrations from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from .faults import ForeignStoreError

#: Marks a file as pjlocal's (PRAGMA application_id): "pjlc".
APPLICATION_ID = 0x706A6C63

#: The statements from each version of the schema (PRAGMA user_version) to the next.  AUTOINCREMENT never reuses an id,
#: so a chat that was removed while it was open cannot continue inside another.  ``apart`` is `words.apart`,
#: and ``name_judge`` is `request.name_judge` of JSON.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """CREATE TABLE sessions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL,
            settings TEXT NOT NULL,  -- JSON
            created REAL NOT NULL,
            updated REAL NOT NULL
        )""",
        """CREATE TABLE turns (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            question TEXT NOT NULL,
            answer TEXT NOT NULL,  -- for the search: while it is written, only the tokens have it
            settings TEXT NOT NULL,  -- JSON
            finish_reason TEXT,  -- NULL while the answer is written
            statistics TEXT NOT NULL,  -- JSON
            created REAL NOT NULL,
            undone INTEGER NOT NULL DEFAULT 0
        )""",
        "CREATE INDEX turns_by_session ON turns (session_id)",
        """CREATE TABLE tokens (
            turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            id INTEGER NOT NULL,
            text TEXT NOT NULL,
            kind TEXT NOT NULL,
            round INTEGER NOT NULL,
            draft TEXT,
            p REAL NOT NULL,
            q REAL,
            accept_probability REAL,
            rejected TEXT,  -- JSON
            PRIMARY KEY (turn_id, position)
        ) WITHOUT ROWID""",
    ),
    (
        """CREATE VIRTUAL TABLE turns_text USING fts5 (
            question, answer, content = 'turns', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
        )""",
        """CREATE TRIGGER turns_text_insert AFTER INSERT ON turns BEGIN
            INSERT INTO turns_text (rowid, question, answer) VALUES (new.id, new.question, new.answer);
        END""",
        """CREATE TRIGGER turns_text_delete AFTER DELETE ON turns BEGIN
            INSERT INTO turns_text (turns_text, rowid, question, answer)
                VALUES ('delete', old.id, old.question, old.answer);
        END""",
        """CREATE TRIGGER turns_text_update AFTER UPDATE OF question, answer ON turns BEGIN
            INSERT INTO turns_text (turns_text, rowid, question, answer)
                VALUES ('delete', old.id, old.question, old.answer);
            INSERT INTO turns_text (rowid, question, answer) VALUES (new.id, new.question, new.answer);
        END""",
        "INSERT INTO turns_text (turns_text) VALUES ('rebuild')",
    ),
    (
        # The search has its own copy of the text, changed by `words.apart`: FTS5 must read the text that it indexed.
        "DROP TRIGGER turns_text_insert",
        "DROP TRIGGER turns_text_delete",
        "DROP TRIGGER turns_text_update",
        "DROP TABLE turns_text",
        "CREATE VIRTUAL TABLE turns_text USING fts5 (question, answer, tokenize = 'unicode61 remove_diacritics 2')",
        """CREATE TRIGGER turns_text_insert AFTER INSERT ON turns BEGIN
            INSERT INTO turns_text (rowid, question, answer) VALUES (new.id, apart(new.question), apart(new.answer));
        END""",
        """CREATE TRIGGER turns_text_delete AFTER DELETE ON turns BEGIN
            DELETE FROM turns_text WHERE rowid = old.id;
        END""",
        """CREATE TRIGGER turns_text_update AFTER UPDATE OF question, answer ON turns BEGIN
            UPDATE turns_text SET question = apart(new.question), answer = apart(new.answer) WHERE rowid = new.id;
        END""",
        "INSERT INTO turns_text (rowid, question, answer) SELECT id, apart(question), apart(answer) FROM turns",
    ),
    (
        # The judging view.  In older versions, with two views, it was the one that did not draft.
        "ALTER TABLE tokens ADD COLUMN judge TEXT",
        "ALTER TABLE tokens ADD COLUMN pushes TEXT",  # JSON; NULL without a neutral view
        "UPDATE tokens SET judge = CASE draft WHEN 'a' THEN 'b' ELSE 'a' END WHERE draft IS NOT NULL",
    ),
    (
        # NULL in rows of older versions, whose thinking is found when they are loaded.
        "ALTER TABLE tokens ADD COLUMN thought INTEGER",
    ),
    (
        # The id of a turn's first draft, in the rows of its other drafts.  All drafts except one are undone.  Older
        # versions did not record which turn replaced which, so answers that were replaced there stay hidden.
        "ALTER TABLE turns ADD COLUMN draft_of INTEGER REFERENCES turns (id) ON DELETE CASCADE",
        "CREATE INDEX turns_by_draft ON turns (draft_of)",
    ),
    (
        # Mode judge was the default: a chat goes on in the mode in which it was written.
        "UPDATE sessions SET settings = name_judge(settings)",
        "UPDATE turns SET settings = name_judge(settings)",
    ),
)


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The number of migrations applied to the file.

    Raises:
        StoreError: the file is of a newer version, or of another program.
    """
    version, application, empty = db.execute(
        "SELECT user_version, application_id, NOT EXISTS (SELECT 1 FROM sqlite_master) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if application != APPLICATION_ID and not empty:
        raise ForeignStoreError(
            f"cannot use the saved chats in {path}: it belongs to another program: set PJLOCAL_DATABASE to another file"
        )
    if version > len(MIGRATIONS):
        raise ForeignStoreError(
            f"{path} was written by a newer pjlocal: update pjlocal, or set PJLOCAL_DATABASE to another file"
        )
    return int(version)


def migrate(
    db: sqlite3.Connection, path: Path, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]
) -> None:
    """Upgrade the schema, one version at a time."""
    while (version := version_of(db, path)) < len(MIGRATIONS):
        with transaction():
            if version_of(db, path) == version:  # otherwise another process was faster
                for statement in MIGRATIONS[version]:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version + 1}")
