"""A database of an older version is brought up to date, and one of a newer or of a stranger is left alone."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from saved_chats import a_turn, plain, resampled, saved, token
from saved_chats import file as file
from saved_chats import store as store

from pjlocal.events import TokenEvent
from pjlocal.prompting.plan import resolve_mode
from pjlocal.request import Request
from pjlocal.sessions import schema
from pjlocal.sessions import store as store_module
from pjlocal.sessions.asking import written_under
from pjlocal.sessions.faults import StoreError
from pjlocal.sessions.recorder import Recorder
from pjlocal.sessions.schema import MIGRATIONS
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store
from pjlocal.settings import Generation

# Versions of the schema.


def saved_by_version(version: int, monkeypatch: pytest.MonkeyPatch, session: Session) -> Session:
    """Make a database of an older version's tables, with that session in it as that version wrote it."""
    columns = "position, id, text, kind, round, draft, p, q, accept_probability, rejected"
    columns += ", judge" if version >= 4 else ""
    sql = f"INSERT INTO tokens (turn_id, {columns}) VALUES (?{', ?' * len(columns.split(', '))})"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:version])
        patch.setattr(store_module, "_ADD_MISSING_TOKEN", sql)
        patch.setattr(store_module, "_token_row", lambda turn_id, event: (turn_id, *_old_values(event, columns)))
        with Store() as store:
            return saved(store, session.title, *session.turns, settings=session.settings)


def _old_values(event: TokenEvent, columns: str) -> list[object]:
    values = event.as_dict() | {"rejected": event.rejected and json.dumps(event.as_dict()["rejected"])}
    return [values[name] for name in columns.split(", ")]


def test_a_database_of_the_first_version_gains_the_search(file, monkeypatch) -> None:
    session = Session("Birds", [a_turn("What stands there?", "A grey heron."), a_turn("And there?")])
    saved_by_version(1, monkeypatch, session)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:1])
        with Store() as store:
            session.id = store.latest()
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
    turns = [a_turn("今日の東京の天気は？", "晴れです。"), a_turn("A heron?", "Déjà vu.")]
    session = saved_by_version(version, monkeypatch, Session("Old", turns))
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


def test_tokens_of_the_first_version_learn_who_judged_them(file, monkeypatch) -> None:
    events = [token(0, "A"), replace(resampled(1, " b"), draft="b", judge="a"), plain(2, "c")]
    saved_by_version(1, monkeypatch, Session("Who?", [Turn("Why?", events, finish_reason="stop")]))
    with Store() as store:
        (turn,) = store.load(store.latest()).turns
    assert [event.judge for event in turn.events] == ["b", "a", None]
    assert turn.events == events, "and no pushes are made up"


def test_answers_that_an_older_version_replaced_stay_hidden_and_new_ones_become_drafts(file, monkeypatch) -> None:
    session = saved_by_version(5, monkeypatch, Session("Old", [a_turn("Why?", "One"), a_turn("Why?", "Two")]))
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE turns SET undone = 1 WHERE id = ?", (session.turns[0].id,))
        db.commit()
    with Store() as store:
        loaded = store.load(session.id)
        assert [turn.answer for turn in loaded.turns] == ["Two"] and len(loaded.turns[0].drafts) == 1
        Recorder(store, loaded, None).replace(a_turn("Why?", "Three"), loaded.turns[0])
        (turn,) = store.load(session.id).turns
        assert [draft.answer for draft in turn.drafts] == ["Two", "Three"] and turn is turn.drafts[1]
        assert len(store.load(session.id, with_undone=True).turns) == 3


@pytest.mark.parametrize(
    ("texts", "thinking", "answer"),
    [
        (["<think>", "\nHm", "\n", "</think>", "\n\n", "Yes"], "Hm", "Yes"),
        (["\n", "<thi", "nk>Hm", "</think>", "Yes"], "Hm", "Yes"),
        (["Hm", "</thi", "nk>\n\n", "Yes"], "Hm", "Yes"),  # opened by the prompt
        (["<think>", "Hm"], "Hm", ""),
        (["The mark ", "<think>", " says so"], "", "The mark <think> says so"),
    ],
)
def test_thinking_in_an_older_database_is_found_when_it_is_read(file, monkeypatch, texts, thinking, answer) -> None:
    events = [plain(number, text) for number, text in enumerate(texts)]
    saved_by_version(4, monkeypatch, Session("Hm?", [Turn("Why?", events, finish_reason="stop")]))
    with Store() as store:
        (turn,) = store.load(store.latest()).turns
    assert (turn.thinking, turn.answer) == (thinking, answer)
    assert turn.text == "".join(texts), "what a later turn reads is what was written"


@pytest.mark.parametrize(
    ("settings", "written_in", "next_in"),
    [
        (Request((("vivid",), ("formal",))), "judge", "judge"),
        (Request(((), ("formal",))), "judge", "judge"),
        (Request(generation=Generation(lora_b=("/pirate.gguf",))), "judge", "judge"),
        (Request((("vivid",), ())).replace(mode="prompt"), "prompt", "prompt"),
        (Request((("vivid",), ())).replace(mode="both"), "both", "both"),
        (Request(), "plain", "plain"),
    ],
)
def test_a_chat_that_names_no_mode_goes_on_in_judge_which_was_the_default(
    file, monkeypatch, settings: Request, written_in: str, next_in: str
) -> None:
    turn = a_turn(settings=settings.as_dict() | {"mode": written_in, "seed": 3})
    session = saved_by_version(6, monkeypatch, Session("Old", [turn], settings.as_dict() | {"model": "m"}))
    with Store() as store:
        loaded = store.load(session.id)
    resumed = Request().restore(loaded.settings)
    assert resolve_mode(resumed) == next_in and resolve_mode(written_under(Request(), loaded.turns[0])) == written_in
    assert resumed.replace(mode=settings.generation.mode).generation == settings.generation, "all else is as it was"
    assert loaded.settings["model"] == "m" and loaded.turns[0].settings["seed"] == 3
    if next_in == "plain":
        assert resolve_mode(resumed.replace(views=(("vivid",), ()))) == "both"


def test_a_chat_of_this_version_that_names_no_mode_keeps_the_default(file) -> None:
    settings = Request((("vivid",), ("formal",))).as_dict()
    with Store() as store:
        session = saved(store, "New", a_turn(settings=settings | {"mode": "both"}), settings=settings)
    with Store() as store:
        assert store.load(session.id).settings == settings


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
        patch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE new (a)", "CREATE TABLE turns (a)")))
        with pytest.raises(StoreError, match="table turns already exists"):
            Store()
    with Store() as store, closing(sqlite3.connect(file)) as db:
        saved(store, "Still fine", a_turn())
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'new'").fetchone() == (0,)
