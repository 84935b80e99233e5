"""A database of an older version is brought up to date, and one of a newer or of a stranger is left alone."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from saved_chats import a_turn, saved
from saved_chats import file as file
from saved_chats import store as store

from pjlocal.sessions import store as store_module
from pjlocal.sessions.schema import MIGRATIONS
from pjlocal.sessions.store import Store, StoreError

# Versions of the schema.


def test_a_database_of_the_first_version_gains_the_search(file, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", MIGRATIONS[:1])
        with Store() as store:
            session = saved(store, "Birds", a_turn("What stands there?", "A grey heron."), a_turn("And there?"))
            store.set_undone(session.turns[1].id)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    with Store() as store:
        assert store.load(session.id).turns == session.turns[:1]
        assert [hit.turn_id for hit in store.search("heron")] == [session.turns[0].id]
        assert store.search("and") == []
        store.remove(session.id)
        assert store.search("heron") == []


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_database_of_every_older_version_is_searched_as_a_new_one(file, monkeypatch, version) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", MIGRATIONS[:version])
        with Store() as store:
            session = saved(store, "Old", a_turn("今日の東京の天気は？", "晴れです。"), a_turn("A heron?", "Déjà vu."))
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
    with Store() as store:
        assert store.load(session.id).turns == session.turns
        for query, turn in (("東京", 0), ("晴", 0), ("her", 1), ("deja", 1)):
            assert [hit.turn_id for hit in store.search(query)] == [session.turns[turn].id]
        store.add_turn(session.id, a_turn("また東京？"))
        assert len(store.search("東京")) == 2
        store.remove(session.id)
        assert store.search("東京") == []
        store._db.execute("INSERT INTO turns_text (turns_text, rank) VALUES ('integrity-check', 1)")


@pytest.mark.parametrize("version", [len(MIGRATIONS) + 1, 99])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(file, version) -> None:
    with Store() as store:
        saved(store, "New", a_turn())
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(f"PRAGMA user_version = {version}")
    before = file.read_bytes()
    says = f"^{re.escape(str(file))} was written by a newer pjlocal: update pjlocal, or set PJLOCAL_DATABASE to another"
    with pytest.raises(StoreError, match=says):
        Store()
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["chats.db"]


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_database_of_another_program_is_refused_and_left_alone(file, version) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE sessions (a)")
        db.execute(f"PRAGMA user_version = {version}")
    before = file.read_bytes()
    with pytest.raises(StoreError, match="it belongs to another program: set PJLOCAL_DATABASE to another file"):
        Store()
    assert file.read_bytes() == before


def test_a_migration_that_fails_leaves_the_version_before_it(file, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE new (a)", "CREATE TABLE turns (a)")))
        with pytest.raises(StoreError, match="table turns already exists"):
            Store()
    with Store() as store, closing(sqlite3.connect(file)) as db:
        saved(store, "Still fine", a_turn())
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'new'").fetchone() == (0,)
