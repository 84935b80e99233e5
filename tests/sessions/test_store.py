"""The database of chats: what is kept and hidden, where it is, and what is said when it cannot be used."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from saved_chats import a_turn, plain, resampled, saved, texts, token
from saved_chats import file as file
from saved_chats import store as store

from pjlocal.errors import OutputError, UsageError
from pjlocal.sessions.database import store_path
from pjlocal.sessions.faults import StoreError
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

# What is kept.


def test_a_session_whose_commit_fails_has_no_id(store) -> None:
    class Full:
        """A connection to a full disk."""

        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def __getattr__(self, name: str) -> object:
            return getattr(self._db, name)

        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return self._db.execute(statement, *values)

    session, other, db = Session("one"), Session("other"), store._db
    store._db = Full(db)
    with pytest.raises(StoreError, match="full"):
        store.add_session(session)
    store._db = db
    assert session.id is None, "the next session gets that id"
    assert store.add_session(other) != store.add_session(session)


def test_a_session_comes_back_as_it_was(store) -> None:
    session = Session("Grüße 🎉", settings={"model": "smollm2", "preferences": {"a": ["vivid"], "b": []}}, created=1.5)
    assert store.add_session(session) == session.id
    first = Turn('Say "hi" 👩‍🚀\n\0 now', settings={"seed": 2**63 - 1, "sampling": {"top_p": 0.9}}, created=2.25)
    store.add_turn(session.id, first)
    for event in (token(0, "Hi 👩"), resampled(1, "\u200d🚀"), plain(2, ""), token(3, "\x1b[31m\u202e!")):
        store.add_token(first.id, event)
        first.events.append(event)
    first.finish_reason = "stop"
    first.statistics = {"acceptance_rate": None, "timings": {"load_s": 0.1}}
    store.finish_turn(first)
    second = Turn("And?", [plain(0, "So.")], finish_reason="interrupted")
    store.add_turn(session.id, second)
    session.title = "Greetings"
    store.rename(session.id, session.title)
    session.settings["model"] = "other.gguf"
    store.save_settings(session)
    session.turns = [first, second]
    loaded = store.load(session.id)
    assert loaded == session
    assert loaded.turns[0].answer == "Hi 👩\u200d🚀\x1b[31m\u202e!"


def test_the_text_of_an_unfinished_answer_is_saved_at_once(store, file) -> None:
    session = saved(store, "Story")
    turn = Turn("Tell me")
    store.add_turn(session.id, turn)
    store.add_token(turn.id, token(0, "Once"))
    store.add_token(turn.id, token(1, " upon"))
    with Store(file) as other:
        (seen,) = other.load(session.id).turns
    assert seen.answer == "Once upon" and seen.finish_reason is None and seen.statistics == {}


def test_finishing_adds_the_tokens_that_are_missing(store) -> None:
    session = saved(store, "Story")
    turn = Turn("Tell me")
    store.add_turn(session.id, turn)
    turn.events = [token(0, "Once"), resampled(1, " upon"), token(2, " a"), token(3, " time")]
    store.add_token(turn.id, turn.events[1])
    turn.finish_reason = "length"
    store.finish_turn(turn)
    assert store.load(session.id).turns == [turn]


def test_a_question_that_is_not_utf_8_can_be_kept(store) -> None:
    session = saved(store, "caf\udce9", a_turn("caf\udce9?"))
    assert texts(store, session) == [("caf??", "Because.")]
    assert store.search("caf\udce9") == store.search("caf?") != []


def test_undone_turns_are_hidden_but_kept(store) -> None:
    first, second = a_turn("One?"), a_turn("Two?")
    session = saved(store, "Count", first, second)
    store.set_undone(second.id)
    assert texts(store, session) == [("One?", "Because.")]
    assert store.search("two") == [] and store.summaries()[0].n_turns == 1
    assert texts(store, session, with_undone=True) == [("One?", "Because."), ("Two?", "Because.")]
    store.put_in_force(second.id)
    assert texts(store, session) == [("One?", "Because."), ("Two?", "Because.")]
    assert len(store.search("two")) == 1


def test_a_removed_session_is_gone_with_its_tokens_and_its_words(store, file) -> None:
    removed, kept = saved(store, "Old", a_turn("A heron?")), saved(store, "New", a_turn("A heron!"))
    store.remove(removed.id)
    with pytest.raises(UsageError, match=f"there is no saved chat {removed.id}"):
        store.load(removed.id)
    assert [hit.session_id for hit in store.search("heron")] == [kept.id]
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
        db.execute("INSERT INTO turns_text (turns_text, rank) VALUES ('integrity-check', 1)")


def test_a_chat_removed_while_open_does_not_continue_in_another(store) -> None:
    session, turn = Session("Open"), Turn("Who?")
    store.add_turn(store.add_session(session), turn)
    store.remove(session.id)
    other = saved(store, "Another", a_turn())
    assert other.id != session.id and other.turns[0].id != turn.id
    for write in (
        lambda: store.add_token(turn.id, token(0, "x")),
        lambda: store.finish_turn(turn),
        lambda: store.add_turn(session.id, a_turn()),
        lambda: store.save_settings(session),
        lambda: store.set_undone(turn.id),
    ):
        with pytest.raises(StoreError, match="the chat was removed"):
            write()
    assert texts(store, other) == [("Why?", "Because.")]


def test_a_write_that_fails_leaves_nothing_behind(store, file) -> None:
    session, turn = saved(store, "Chat"), a_turn()
    turn.events.append(replace(token(9, "x"), p=None))
    with pytest.raises(StoreError, match="NOT NULL"):
        store.add_turn(session.id, turn)
    assert turn.id is None and store.load(session.id).turns == []
    saved(store, "Next", a_turn())


# Where it is.


def test_the_database_is_in_the_users_folder_unless_the_environment_names_another(file, monkeypatch, tmp_path) -> None:
    assert store_path() == file
    monkeypatch.setenv("PJLOCAL_DATABASE", "~/my.db")
    assert store_path() == Path.home() / "my.db"
    monkeypatch.delenv("PJLOCAL_DATABASE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert store_path() == tmp_path / "pjlocal" / "chats.db"
    assert store_path().name == "chats.db"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_files_are_the_owners_alone(file) -> None:
    before = os.umask(0)
    try:
        with Store() as store:
            saved(store, "Secret", a_turn())
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"chats.db": 0o600, "chats.db-wal": 0o600, "chats.db-shm": 0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_reading_a_list_of_chats_needs_no_numpy_and_no_llama_cpp() -> None:
    code = (
        "import sys, pjlocal.sessions.store, pjlocal.cli.sessions; print({'numpy', 'llama_cpp'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# What is said when it cannot be used.


def test_a_file_that_is_not_a_database_is_refused_and_left_alone(file) -> None:
    file.parent.mkdir()
    file.write_text("Dear diary, this is not a database.\n" * 100)
    says = f"^cannot use the saved chats in {re.escape(str(file))}: file is not a database .set PJLOCAL_DATABASE"
    with pytest.raises(StoreError, match=says):
        Store()
    assert file.read_text().startswith("Dear diary") and [path.name for path in file.parent.iterdir()] == ["chats.db"]
    file.write_bytes(b"")
    with Store() as store:
        assert store.summaries() == []  # an empty file is an empty database to SQLite


@pytest.mark.parametrize("where", ["/dev/null/chats.db", "/proc/no/chats.db", "."])
def test_a_place_that_cannot_be_written_is_named(where, monkeypatch) -> None:
    monkeypatch.setenv("PJLOCAL_DATABASE", where)
    with pytest.raises(StoreError, match=f"^cannot use the saved chats in {re.escape(where)}: .+"):
        Store()


def test_a_locked_database_is_an_error_after_the_time_that_was_given_and_works_afterwards(store, file) -> None:
    assert store._db.execute("PRAGMA busy_timeout").fetchone()[0] == 200, "as the fixture has it, in milliseconds"
    session, turn = saved(store, "Busy"), Turn("Now?")
    store.add_turn(session.id, turn)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for write in (
            lambda: store.add_token(turn.id, token(0, "x")),
            lambda: store.add_turn(session.id, a_turn()),
            lambda: store.add_session(Session("New")),
        ):
            with pytest.raises(StoreError, match=r"chats\.db: database is locked"):
                write()
        assert texts(store, session) == [("Now?", "")], "reading goes on"
        other.execute("COMMIT")
    turn.events = [token(0, "x")]
    store.finish_turn(turn)
    store.add_turn(session.id, a_turn())
    assert texts(store, session) == [("Now?", "x"), ("Why?", "Because.")]


def test_a_new_file_that_another_process_holds_is_an_error(file) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="database is locked"):
            Store(timeout=0.05)
        other.execute("COMMIT")
    Store().close()


def test_a_full_disk_is_an_error_and_what_was_saved_stays(store) -> None:
    session, turn = saved(store, "Long", a_turn()), Turn("More?")
    store.add_turn(session.id, turn)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")

    def fill() -> None:
        for position in range(10_000):
            turn.events.append(token(position, "word " * 20))
            store.add_token(turn.id, turn.events[-1])

    with pytest.raises(StoreError, match=r"chats\.db: database or disk is full"):
        fill()
    written = "".join(event.text for event in turn.events[:-1])
    assert texts(store, session)[1] == ("More?", written)
    with pytest.raises(StoreError, match="full"):
        store.add_turn(session.id, a_turn("x" * 50_000))
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    store.finish_turn(turn)
    assert texts(store, session) == [("Why?", "Because."), ("More?", turn.answer)]


def test_a_store_error_is_an_output_error_of_one_line(file) -> None:
    file.parent.mkdir()
    file.write_text("no " * 1000)
    with pytest.raises(OutputError) as caught:
        Store()
    assert caught.value.exit_status == 1 and "\n" not in str(caught.value)


def test_the_words_of_a_removed_session_are_in_no_file_any_more(store: Store, file: Path) -> None:
    kept = saved(store, "Kept", a_turn("Which?", "This one."))
    secret = saved(store, "Xylophone", *(a_turn(f"Xylophone {n}?", "Xylophones " * 300) for n in range(20)))
    with Store() as other:  # a server that goes on
        assert other.search("xylophone")
        store._db.execute("PRAGMA wal_checkpoint")  # so that the words are in the database itself too
        store.remove(secret.id)
        store.purge()
        assert [path.name for path in file.parent.iterdir() if b"ylophone" in path.read_bytes().lower()] == []
        assert other.search("xylophone") == [] and len(other.search("one")) == len(texts(other, kept))
