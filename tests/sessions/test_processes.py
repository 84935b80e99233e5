"""Several processes write to one database without loss, and what they finished outlives them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from saved_chats import file as file
from saved_chats import saved

from pjlocal.sessions.store import Store

# Several processes, and processes that die.

_WRITER = """
import itertools, sys
from pathlib import Path
from pjlocal.events import TokenEvent
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

path, title, session_id, n_turns = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
with Store(path, timeout=10) as store:
    session_id = session_id or store.add_session(Session(title))
    for number in range(n_turns) if n_turns else itertools.count():
        turn = Turn(f"{title} {number}")
        store.add_turn(session_id, turn)
        for position in range(number % 30):
            event = TokenEvent(position, 1, f" {position}", "plain", 0, None, 1.0, None, None)
            turn.events.append(event)
            store.add_token(turn.id, event)
        turn.finish_reason = "stop"
        store.finish_turn(turn)
        print(session_id, turn.id, len(turn.events), flush=True)
assert "llama_cpp" not in sys.modules
"""


def writer(file: Path, title: str, session_id: int = 0, n_turns: int = 0) -> subprocess.Popen[str]:
    """A process that writes turns on request, and prints session, turn and number of tokens of each."""
    args = [sys.executable, "-c", _WRITER, str(file), title, str(session_id), str(n_turns)]
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def reports_of(process: subprocess.Popen[str]) -> list[list[int]]:
    """The reports of a process until its end, without an incomplete line."""
    with process:
        lines = process.stdout.readlines()
    return [list(map(int, line.split())) for line in lines if line.endswith("\n")]


def test_two_processes_open_a_new_database_at_once_and_write_to_one_without_loss(file) -> None:
    two = [writer(file, title, n_turns=40) for title in "xy"]
    for process in two:
        start(process)
    for process in two:
        assert len(reports_of(process)) == 40 and process.returncode == 0
    with Store() as store:
        for title in "xy":
            turns = store.load(store.find(title)).turns
            assert [turn.question for turn in turns] == [f"{title} {i}" for i in range(40)]
            assert [len(turn.events) for turn in turns] == [i % 30 for i in range(40)]


def test_two_processes_write_to_one_session_without_loss(file) -> None:
    with Store() as store:
        session = saved(store, "Shared")
    two = [writer(file, title, session.id, 40) for title in "xy"]
    for process in two:
        start(process)
    for process in two:
        assert len(reports_of(process)) == 40 and process.returncode == 0
    with Store() as store:
        turns = store.load(session.id).turns
    assert sorted(turn.question for turn in turns) == sorted(f"{title} {i}" for title in "xy" for i in range(40))
    assert all(turn.answer == "".join(f" {i}" for i in range(len(turn.events))) for turn in turns)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_finished_turns_survive_kill_9_at_any_moment(file) -> None:
    chance = random.Random(9)
    reported: list[list[int]] = []
    for moment in range(20):
        process = writer(file, f"killed {moment}")
        start(process)
        reported += [list(map(int, process.stdout.readline().split())) for _ in range(chance.randrange(10))]
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        reported += reports_of(process)
        with Store() as store:
            assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert store._db.execute("PRAGMA foreign_key_check").fetchone() is None
            store._db.execute("INSERT INTO turns_text (turns_text, rank) VALUES ('integrity-check', 1)")
    assert len(reported) > 50, len(reported)
    with Store() as store:
        sessions = [store.load(summary.id) for summary in store.summaries()]
    turns = {(session.id, turn.id): turn for session in sessions for turn in session.turns}
    for session_id, turn_id, n_tokens in reported:
        turn = turns.pop((session_id, turn_id))
        assert turn.finish_reason == "stop" and turn.answer == "".join(f" {i}" for i in range(n_tokens))
    assert len(turns) <= 2 * 20, "besides those, of each process one that was begun and one not yet reported"
