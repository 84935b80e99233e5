"""What was shown is saved, also where saving fails for a while or the process is killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import PJLOCAL
from talking import ENDLESS, Talk, talk

from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store
from pjlocal.visible import visible

# What is written down, and when that fails.


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Another program writes to the database, for long."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(store: Store) -> Iterator[None]:
    """The disk is full, but for a few pages."""
    (n_pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {n_pages}")
    yield
    store._db.execute("PRAGMA max_page_count = 1000000")


def kept(chat: Talk, store: Store) -> bool:
    """Whether the database has the session as it is, token by token."""
    session = chat.conversation.session
    if session.id is None:
        return False
    stored = store.load(session.id)
    return stored == replace(session, updated=stored.updated)


TROUBLES = [(locked, "database is locked"), (full, "database or disk is full")]


def test_every_token_is_in_the_database_before_it_is_shown(chat: Talk, store: Store) -> None:
    found = []

    def look(n: int) -> None:
        with Store(store.path) as other:
            (turn,) = other.load(other.latest()).turns
        found.append(len(turn.events) == n + 1 and turn.finish_reason is None and turn.question == "Why?")

    chat.screen.on_event = look
    chat.say("Why?")
    assert len(found) == 8 and all(found)
    assert kept(chat, store) and chat.turns[0].finish_reason == "length"


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
@pytest.mark.parametrize("begins", ["before the first turn", "before a turn", "in an answer"])
def test_turns_that_cannot_be_saved_now_are_saved_later(chat: Talk, store: Store, trouble, reason, begins: str) -> None:
    """One line says so, one when all is there; the chat goes on meanwhile, with all that it can."""
    chat.judge.request = chat.judge.request.with_group(ENDLESS)
    if begins != "before the first turn":
        chat.say("Before?")
    before = len(chat.screen.said)
    with ExitStack() as troubles:

        def make_trouble(n: int = 3) -> None:
            if n == 3:
                chat.screen.on_event = lambda n: None
                troubles.enter_context(trouble(store))

        if begins == "in an answer":
            chat.screen.on_event = make_trouble
        else:
            make_trouble()
        chat.judge.request = chat.judge.request.with_group(chat.judge.request.generation.replace(max_tokens=100))
        for line in ("Why " + "indeed " * 30, "How " + "so " * 30, "/undo", "And " + "then " * 30, "/title Trouble"):
            chat.say(line)
        said = [line for line in chat.screen.said[before:] if not line.startswith(("taken back", "title"))]
        assert len(said) == 1 and reason in said[0]
        assert said[0].startswith(f"cannot use the saved chats in {store.path}: ")
        assert said[0].endswith(". The chat continues; saving is tried again with the next message")
        assert not kept(chat, store)
    assert chat.say("At last?") == ["the whole chat is saved again"]
    assert kept(chat, store)
    turns = store.load(chat.conversation.session.id, with_undone=True).turns
    assert [turn.question[:3] for turn in turns[-4:]] == ["Why", "How", "And", "At "]
    assert [len(turn.events) for turn in turns[-4:]] == [100] * 4
    assert chat.say("Still?") == [] and kept(chat, store)


def test_a_short_trouble_within_an_answer_is_over_at_its_end(chat: Talk, store: Store) -> None:
    troubles = ExitStack()

    def make_trouble(n: int) -> None:
        if n == 2:
            troubles.enter_context(locked(store))
        elif n == 5:
            troubles.close()

    chat.screen.on_event = make_trouble
    said = chat.say("Why?")
    assert len(said) == 2 and "locked" in said[0] and said[1] == "the whole chat is saved again"
    assert kept(chat, store)


def test_at_the_end_of_a_chat_all_is_written_or_a_line_says_that_it_is_not(tiny, store: Store) -> None:
    lock = ExitStack()
    with talk(tiny("llama"), store=store) as chat:
        lock.enter_context(locked(store))
        chat.say("Why?")
        lock.close()
    assert chat.screen.said[-1] == "the whole chat is saved again" and kept(chat, store)
    with locked(store), talk(tiny("llama"), store=store) as chat:
        chat.say("Why?")
    assert chat.screen.said[-1] == "the messages since then are not saved" and not kept(chat, store)


def test_turns_saved_late_stay_in_their_session(chat: Talk, store: Store) -> None:
    with locked(store):
        chat.say("Why?")
        first = chat.conversation.session
        chat.say("/new")
        chat.say("How?")
    chat.say("And?")
    sessions = [store.load(summary.id) for summary in store.summaries()]
    assert [[turn.question for turn in session.turns] for session in sessions] == [["How?", "And?"], ["Why?"]]
    assert first.id == sessions[1].id and first.title == "Why?"


def stopped_question(chat: Talk, question: str) -> None:
    """Ask, and stop before the first word."""
    writing = chat.conversation.ask(question)
    chat.judge.interrupt.set()
    assert list(writing) == []
    chat.judge.interrupt.clear()


def test_a_question_that_is_stopped_at_once_removes_no_chat_that_could_not_be_saved(chat: Talk, store: Store) -> None:
    with locked(store):
        chat.say("Why?")
    stopped_question(chat, "And how?")
    assert kept(chat, store) and [turn.question for turn in chat.turns] == ["Why?"]


def test_a_first_question_that_is_stopped_while_nothing_can_be_saved_is_not_saved_later(
    chat: Talk, store: Store
) -> None:
    with locked(store):
        stopped_question(chat, "Why?")
    chat.say("And how?")
    assert kept(chat, store) and [turn.question for turn in chat.turns] == ["And how?"]


def test_a_session_removed_by_another_program_continues_as_a_new_one(chat: Talk, store: Store) -> None:
    chat.say("Why?")
    store.remove(chat.conversation.session.id)
    assert len(said := chat.say("How?")) == 1 and "new messages are saved as a new chat" in said[0]
    assert chat.say("And?") == []
    assert [turn.question for turn in store.load(store.latest()).turns] == ["How?", "And?"]
    chat.say("/new")
    assert chat.say("Anew?") == [] and kept(chat, store)


def test_no_save_writes_nothing(pjlocal, tiny, tmp_path: Path, environment: dict[str, str]) -> None:
    result = pjlocal("chat", "-m", tiny("llama"), "--threads", "1", "-n", "8", "--no-save", stdin="Why?\nHow?\n")
    assert result.returncode == 0 and result.stdout and result.stderr.count("cut off") == result.stderr.count("\n")
    assert not (tmp_path / "data").exists()
    assert pjlocal("chat", "-m", tiny("llama"), "--threads", "1", "-n", "8", stdin="Why?\nHow?\n").returncode == 0
    assert (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_9_at_any_moment_loses_nothing_that_was_shown(tiny, environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    command = [*PJLOCAL, "chat", "-m", str(tiny("llama")), "-n", "120", "--ctx", "4096", "--threads", "1"]
    command += ["-p", "vivid", "-p", "creative", "--ignore-end"]
    questions = tmp_path / "questions"
    questions.write_text("".join(f"Question {n}?\n" for n in range(200)))
    chance = random.Random(4)

    def kill_one(n_bytes: int, moment: float) -> str:
        """A chat's standard output up to a moment: seconds after so many bytes of it."""
        with questions.open() as stdin:
            process = subprocess.Popen(
                command, env=environment | {"PJLOCAL_DATABASE": str(path)}, stdin=stdin, stdout=subprocess.PIPE
            )
        with process:
            first = process.stdout.read(n_bytes)
            time.sleep(moment)
            os.kill(process.pid, signal.SIGKILL)
            return (first + process.stdout.read()).decode()

    with ThreadPoolExecutor(2) as pool:
        moments = [(chance.randint(1, 1200), chance.uniform(0, 0.05)) for _ in range(20)]
        shown = list(pool.map(lambda moment: kill_one(*moment), moments))
    with Store(path) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        sessions = [store.load(summary.id) for summary in store.summaries()]
    assert len(sessions) == 20
    n_finished = 0
    for text in shown:
        (session,) = [s for s in sessions if as_shown(s.turns).startswith(text)]
        sessions.remove(session)
        *finished, last = session.turns
        assert [turn.question for turn in session.turns] == [f"Question {n}?" for n in range(len(session.turns))]
        assert all(turn.finish_reason == "length" and len(turn.events) == 120 for turn in finished)
        assert [event.position for event in last.events] == list(range(len(last.events)))
        assert len(as_shown(session.turns)) - len(text) < 20, "and at most the token that was about to be shown more"
        n_finished += len(finished)
    assert n_finished > 15


def as_shown(turns: list[Turn]) -> str:
    """What a pipe gets of answers, those that are finished ended with a line."""
    texts = [visible(turn.answer) for turn in turns]
    return "".join(
        text if turn.finish_reason is None or text.endswith("\n") else f"{text}\n"
        for turn, text in zip(turns, texts, strict=True)
    )
