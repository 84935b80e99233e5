"""The database is deleted or replaced while a chat runs: the whole chat is saved again where it was."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from talking import ENDLESS, Talk, plain_event, talk

from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store


def another(path: Path) -> Path:
    """A database of another chat, beside."""
    with Store(path) as store:
        session, turn = Session("Another"), Turn("Who?", [plain_event(0)], finish_reason="stop")
        store.add_turn(store.add_session(session), turn)
    return path


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def put_another_there(path: Path) -> None:
    os.replace(another(path.with_name("another.db")), path)


TROUBLES = [remove, remove_all, move_away, put_another_there]


def as_saved(path: Path) -> tuple[Session, list[str], list[str]]:
    """The session used last, its questions, and those that were taken back."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Store(path) as store:
        session = store.load(store.latest())
        every = [turn.question for turn in store.load(session.id, with_undone=True).turns]
    questions = [turn.question for turn in session.turns]
    return session, questions, [question for question in every if question not in questions]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_between_turns(chat: Talk, store: Store, trouble) -> None:
    for line in ("Why?", "Back?", "/undo", "How?", "/title Mine", "/set temperature 0.3"):
        chat.say(line)
    trouble(store.path)
    assert chat.say("And?") == [f"{store.path} was deleted or replaced: the whole chat is saved there again"]
    assert chat.say("Then?") == []
    saved, questions, hidden = as_saved(store.path)
    assert saved == replace(chat.conversation.session, updated=saved.updated)
    assert (saved.title, questions, hidden) == ("Mine", ["Why?", "How?", "And?", "Then?"], ["Back?"])
    assert saved.settings["sampling"]["temperature"] == 0.3 and saved.turns[0].events
    with Store(store.path) as now:
        assert [summary.title for summary in now.summaries()] == ["Mine", "Another"][
            : 1 + (trouble is put_another_there)
        ]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("line", ["And?", "/regen"])
def test_within_an_answer(chat: Talk, store: Store, trouble, line: str) -> None:
    chat.judge.request = chat.judge.request.with_group(ENDLESS)  # no answer ends early
    chat.say("Why?")
    chat.say("How?")
    chat.screen.on_event = lambda n: trouble(store.path) if n == 3 else None
    assert len(chat.say(line)) == 1
    chat.screen.on_event = lambda n: None
    saved, questions, _ = as_saved(store.path)
    assert saved == replace(chat.conversation.session, updated=saved.updated)
    assert questions == (["Why?", "How?", "And?"] if line == "And?" else ["Why?", "How?"])
    assert len(saved.turns[-1].events) == 8 and saved.turns[-1].finish_reason == "length"
    assert chat.say("Then?") == [] and as_saved(store.path)[1] == [*questions, "Then?"]


def test_at_the_end_of_a_chat(tiny, store: Store) -> None:
    with talk(tiny("llama"), store=store) as chat:
        chat.say("Why?")
        store.path.unlink()
    assert len(chat.screen.said) == 1 and as_saved(store.path)[1] == ["Why?"]


def test_a_database_removed_before_the_first_turn_is_created_again(chat: Talk, store: Store) -> None:
    store.path.unlink()
    assert chat.say("/sessions") == ["there are no saved chats yet"]
    assert chat.say("Why?") == [] and as_saved(store.path)[1] == ["Why?"]


def test_an_unusable_file_in_the_databases_place_is_left_alone(chat: Talk, store: Store) -> None:
    """Another program's file, or a folder; it is left alone."""
    chat.say("Why?")
    store.path.unlink()
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("CREATE TABLE theirs (a)")
        db.execute("PRAGMA user_version = 3")
    before = store.path.read_bytes()
    (said,) = chat.say("How?")
    assert "it belongs to another program" in said
    assert said.endswith(". The chat continues; saving is tried again with the next message")
    assert chat.say("And?") == [] and store.path.read_bytes() == before
    store.path.unlink()
    store.path.mkdir()
    (said,) = chat.say("Or?")
    assert said.startswith(f"cannot use the saved chats in {store.path}: unable to open database file")
    assert "another file has replaced it" in chat.say("/sessions")[-1]
    store.path.rmdir()
    assert chat.say("Then?") == ["the whole chat is saved again"]
    saved, questions, _ = as_saved(store.path)
    assert questions == ["Why?", "How?", "And?", "Or?", "Then?"] and chat.say("Still?") == []
    assert len(saved.turns[1].events) == 8


def test_the_last_turns_of_other_chats_stay_in_the_moved_file(chat: Talk, store: Store) -> None:
    """Not in the -wal file at the old path, which SQLite would read into whatever is put there."""
    with Store(store.path) as other:
        number = other.add_session(Session("Other"))
        other.add_turn(number, Turn("Who?", [plain_event(0)], finish_reason="stop"))
        chat.say("Why?")
        move_away(store.path)
        chat.say("How?")
    with Store(store.path.with_name("moved.db")) as moved:
        assert {summary.title: summary.n_turns for summary in moved.summaries()} == {"Other": 1, "Why?": 1}
    assert as_saved(store.path)[1] == ["Why?", "How?"]


def test_two_chats_notice_one_after_the_other(chat: Talk, tiny, store: Store) -> None:
    with Store(store.path) as second_store, talk(tiny("llama"), store=second_store) as second:
        chat.say("Why?")
        second.say("Who?")
        store.path.unlink()
        for question in ("And?", "Then?"):
            chat.say(question)
            second.say(question)
    with Store(store.path) as now:
        titles = {summary.title: summary.n_turns for summary in now.summaries()}
        assert now._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert titles == {"Why?": 3, "Who?": 3}
