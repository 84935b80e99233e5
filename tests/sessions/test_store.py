"""The database of chats: what is kept, hidden, found and survives; and ``pjlocal sessions``."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from pjlocal.cli.sessions import sessions_app
from pjlocal.errors import OutputError, UsageError
from pjlocal.events import RejectedToken, TokenEvent
from pjlocal.sessions import store as store_module
from pjlocal.sessions.schema import MIGRATIONS
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store, StoreError, Summary, store_path


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of a test, not there yet."""
    path = tmp_path / "data" / "chats.db"
    monkeypatch.setenv("PJLOCAL_DATABASE", str(path))
    return path


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with Store(timeout=0.2) as store:
        yield store


def token(position: int, text: str) -> TokenEvent:
    return TokenEvent(position, 100 + position, text, "accepted", position // 4, "a", 0.1, 1 / 3, 0.30000000000000004)


def resampled(position: int, text: str) -> TokenEvent:
    return replace(token(position, text), kind="resampled", rejected=RejectedToken(7, ' "no\n', 0.01, 0.2))


def plain(position: int, text: str) -> TokenEvent:
    return TokenEvent(position, 5, text, "plain", 0, None, 1.0, None, None)


def a_turn(question: str = "Why?", answer: str = "Because.", **values: object) -> Turn:
    """A finished turn, a token a word."""
    tokens = [token(i, text) for i, text in enumerate(re.findall(r"\s*\S+", answer))]
    return Turn(question, tokens, finish_reason="stop", **values)


def saved(store: Store, title: str, *turns: Turn, **values: object) -> Session:
    session = Session(title, list(turns), **values)
    store.add_session(session)
    for turn in turns:
        store.add_turn(session.id, turn)
    return session


def texts(store: Store, session: Session, **options: bool) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in store.load(session.id, **options).turns]


# What is kept.


def test_a_session_comes_back_as_it_was(store) -> None:
    session = Session("Grüße 🎉", settings={"model": "smollm2", "preferences": {"a": ["vivid"], "b": []}}, created=1.5)
    assert store.add_session(session) == session.id
    first = Turn('Say "hi" 👩‍🚀\n\0 now', settings={"seed": 2**63 - 1, "sampling": {"top_p": 0.9}}, created=2.25)
    assert store.add_turn(session.id, first) == first.id
    for event in (token(0, "Hi 👩"), resampled(1, "\u200d🚀"), plain(2, ""), token(3, "\x1b[31m\u202e!")):
        store.add_token(first.id, event)
        first.events.append(event)
    first.finish_reason = "stop"
    first.statistics = {"acceptance_rate": None, "timings": {"load_s": 0.1}}
    store.finish_turn(first)
    second = Turn("And?", [plain(0, "So.")], finish_reason="interrupted")
    assert store.add_turn(session.id, second) == second.id
    session.title = "Greetings"
    store.rename(session.id, session.title)
    session.settings["model"] = "other.gguf"
    store.save_settings(session)
    session.turns = [first, second]
    loaded = store.load(session.id)
    assert loaded == session
    assert loaded.turns[0].answer == "Hi 👩\u200d🚀\x1b[31m\u202e!"


def test_what_was_written_of_an_unfinished_answer_is_there_at_once(store, file) -> None:
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
    store.set_undone(second.id, False)
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


def test_a_chat_that_is_removed_while_it_is_open_does_not_go_on_in_another(store) -> None:
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


# What is said when it cannot be used.


def test_what_is_no_database_is_refused_and_left_alone(file) -> None:
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


def test_a_locked_database_is_an_error_in_good_time_and_works_afterwards(store, file) -> None:
    session, turn = saved(store, "Busy"), Turn("Now?")
    store.add_turn(session.id, turn)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for write in (
            lambda: store.add_token(turn.id, token(0, "x")),
            lambda: store.add_turn(session.id, a_turn()),
            lambda: store.add_session(Session("New")),
        ):
            start = time.monotonic()
            with pytest.raises(StoreError, match=r"chats\.db: database is locked"):
                write()
            assert 0.15 < time.monotonic() - start < 1
        assert texts(store, session) == [("Now?", "")], "reading goes on"
        other.execute("COMMIT")
    turn.events = [token(0, "x")]
    store.finish_turn(turn)
    store.add_turn(session.id, a_turn())
    assert texts(store, session) == [("Now?", "x"), ("Why?", "Because.")]


def test_a_new_file_that_another_process_holds_is_an_error_in_good_time(file) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        with pytest.raises(StoreError, match="database is locked"):
            Store(timeout=0.2)
        assert time.monotonic() - start < 1
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
    """A process that writes turns, once it is told to, and prints session, turn and number of tokens of each."""
    args = [sys.executable, "-c", _WRITER, str(file), title, str(session_id), str(n_turns)]
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> list[list[int]]:
    """What the process reported until its end; a line that the kill has cut in the middle is no report."""
    lines = process.communicate()[0].splitlines(keepends=True)
    return [list(map(int, line.split())) for line in lines if line.endswith("\n")]


def test_two_processes_open_a_new_database_at_once_and_write_to_one_without_loss(file) -> None:
    two = [writer(file, title, n_turns=40) for title in "xy"]
    for process in two:
        start(process)
    for process in two:
        assert len(told(process)) == 40 and process.returncode == 0
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
        assert len(told(process)) == 40 and process.returncode == 0
    with Store() as store:
        turns = store.load(session.id).turns
    assert sorted(turn.question for turn in turns) == sorted(f"{title} {i}" for title in "xy" for i in range(40))
    assert all(turn.answer == "".join(f" {i}" for i in range(len(turn.events))) for turn in turns)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_whatever_was_finished_survives_kill_9_at_any_moment(file) -> None:
    chance = random.Random(9)
    reported: list[list[int]] = []
    for moment in range(20):
        process = writer(file, f"killed {moment}")
        start(process)
        time.sleep(chance.uniform(0, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        reported += told(process)
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


# Finding a session.


def test_the_summaries_are_newest_first(store) -> None:
    old = saved(store, "Old", settings={"model": "smollm2"}, updated=10.0)
    new = saved(store, "New", updated=20.0)
    assert store.summaries() == [Summary(new.id, "New", 0, None, 20.0), Summary(old.id, "Old", 0, "smollm2", 10.0)]
    assert store.latest() == new.id
    store.add_turn(old.id, a_turn())
    assert store.latest() == old.id and store.summaries()[0].updated == pytest.approx(time.time(), abs=5)
    store.add_turn(new.id, Turn("And?"))
    assert store.latest() == new.id


def test_without_sessions_there_is_no_latest(store) -> None:
    assert store.latest() is None and store.summaries() == []


def test_a_session_is_found_by_id_title_or_how_only_one_title_begins(store) -> None:
    story = saved(store, "A story of the sea", updated=1)
    older, newer = saved(store, "Straße", updated=2), saved(store, "STRASSE", updated=3)
    number = saved(store, "2024", updated=4)
    saved(store, "", updated=5)
    assert store.find(f" {story.id} ") == story.id
    assert store.find("a Story Of the sea") == store.find("a st") == story.id
    assert store.find("straße") == newer.id != older.id
    assert store.find("2024") == number.id, "no session has this id"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("coking", r"there is no saved chat 'coking': did you mean Cooking \(3\)\?"),
        ("Story", r"several saved chats begin with 'Story': Story of the land \(2\), Story of the sea \(1\)"),
        ("zzz", "there is no saved chat 'zzz': pjlocal sessions list shows them"),
        ("", "there is no saved chat '': pjlocal sessions list"),
        ("99", "there is no saved chat '99'"),
        ("9" * 5000, "there is no saved chat"),
        ("²", "there is no saved chat"),
        ("-1", "there is no saved chat"),
        ("%", "there is no saved chat"),
    ],
)
def test_a_name_that_no_session_has_is_refused(store, name, says) -> None:
    for title in ("Story of the sea", "Story of the land", "Cooking"):
        saved(store, title)
    with pytest.raises(UsageError, match=says):
        store.find(name)


# The search.


def test_the_search_finds_all_words_in_question_or_answer_newest_first(store) -> None:
    first = a_turn("What stands in the reeds?", "A grey heron, fishing.")
    second = a_turn("Déjà vu: the HERON?", "Still there.")
    session = saved(store, "Birds", first, second)
    assert [hit.turn_id for hit in store.search("heron")] == [second.id, first.id]
    assert [hit.turn_id for hit in store.search("reeds heron")] == [first.id], "one in each"
    assert [hit.turn_id for hit in store.search("deja  her")] == [second.id], "the last word may be a beginning"
    assert store.search("her deja") == [] and store.search("heron stork") == []
    hit = store.search("fishing")[0]
    assert (hit.session_id, hit.title, hit.question, hit.created) == (
        session.id,
        "Birds",
        first.question,
        first.created,
    )
    assert hit.snippet == "A grey heron, fishing."


def test_the_search_follows_an_answer_as_it_is_finished(store) -> None:
    session, turn = saved(store, "Birds"), Turn("A bird?")
    store.add_turn(session.id, turn)
    assert len(store.search("bird")) == 1
    turn.events = [token(0, "An"), token(1, " egret")]
    store.finish_turn(turn)
    assert len(store.search("egret")) == len(store.search("bird egret")) == 1


@pytest.mark.parametrize(
    "query",
    [
        *("cats AND", "NOT cats", "cats OR", "NEAR(cats", "cats*", '"cats', "question: cats", "(cats)", "^cats"),
        *("ca\0ts", "-cats", "{cats}:", "cats + AND", "'cats", "cats; DROP TABLE turns"),
        *('"', '""', "*", "?", "\0", " ", "", "🎉"),
    ],
)
def test_the_search_takes_operators_and_quotes_as_plain_text(store, query) -> None:
    wanted = a_turn(f"Here: {query}!".replace("\0", " "))
    saved(store, "Plain", wanted, a_turn("Only dogs"))
    letters = re.search(r"\w", query)
    assert [hit.turn_id for hit in store.search(query)] == ([wanted.id] if letters else [])


# pjlocal sessions


def call(*args: str) -> tuple[str, str]:
    """What a command prints to standard output and standard error; its errors are raised here."""
    result = CliRunner().invoke(sessions_app, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.mark.parametrize("args", [("list",), ("list", "--json"), ("search", "x"), ("path",)])
def test_reading_makes_no_database(file, args) -> None:
    out, err = call(*args)
    assert (out, err) == {
        ("list", "--json"): ("[]\n", ""),
        ("path",): (f"{file}\n", ""),
    }.get(args, ("", "pjlocal: there are no saved chats yet\n"))
    assert not file.parent.exists()


@pytest.mark.parametrize(
    "args", [("show", "x"), ("export", "x"), ("export", "x", "x.md"), ("rename", "x", "y"), ("rm", "x", "-y")]
)
def test_a_name_without_a_database_is_refused_and_makes_none(file, args) -> None:
    with pytest.raises(UsageError, match="there is no saved chat 'x': none is saved yet"):
        call(*args)
    assert not file.parent.exists()


def test_an_emptied_database_has_no_chats_either(store) -> None:
    assert call("list") == call("search", "x") == ("", "pjlocal: there are no saved chats yet\n")


def test_list_prints_a_line_a_chat(store) -> None:
    created = time.mktime((2025, 3, 4, 5, 6, 7, 0, 0, -1))
    saved(store, "Long\n\x1b[31m ago", settings={"model": "/models/big\nfile.gguf"}, updated=created)
    saved(store, "", a_turn())
    lines = call("list")[0].splitlines()
    assert lines[1] == "   1  2025-03-04 05:06    0 turns  big file.gguf     Long ␛[31m ago"
    assert re.fullmatch(r"   2  \S+ \S+    1 turn   -                 untitled", lines[0]), lines[0]
    listed = json.loads(call("list", "--json")[0])
    assert listed[1] == {
        "id": 1,
        "title": "Long\n\x1b[31m ago",
        "n_turns": 0,
        "model": "/models/big\nfile.gguf",
        "updated": created,
    }


def on_terminal(*args: str, width: int = 80) -> pexpect.spawn:
    code = "from pjlocal.cli.sessions import sessions_app; sessions_app()"
    child = pexpect.spawn(
        sys.executable,
        ["-c", code, *args],
        env=dict(os.environ),  # without the COLUMNS that readline, which pytest imports, sets past Python
        encoding="utf-8",
        timeout=30,
        dimensions=(24, width),
        echo=False,
    )
    return child


def test_list_is_no_wider_than_the_terminal(store, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    saved(store, "日本" * 50, a_turn())
    child = on_terminal("list", width=70)
    lines = child.read().splitlines()
    assert len(lines) == 1 and lines[0].endswith("…") and 60 < cell_len(lines[0]) <= 70, lines
    assert "日本" * 50 in call("list")[0], "a pipe gets all of it"


def test_show_prints_the_chat(store) -> None:
    session = saved(store, "Birds", a_turn("A \x1b[31m bird?", "A heron."), a_turn("Undone?", "Indeed."))
    store.set_undone(session.turns[1].id)
    out, _ = call("show", "bir")
    assert "Birds" in out and "␛[31m bird?" in out and "A heron." in out
    assert "\x1b" not in out and "Undone?" not in out
    assert "Indeed." in call("show", "--all", "1")[0]
    with pytest.raises(UsageError, match=r"there is no saved chat 'brds': did you mean Birds|birds"):
        call("show", "brds")


def test_search_prints_where_the_words_are(store) -> None:
    saved(store, "Birds", a_turn("A bird?", "A grey \x1b[31m heron\n\nstands AND waits."), created=1.0)
    out, err = call("search", "AND", "waits")
    assert err == ""
    assert re.fullmatch(r"   1  [\d-]+ [\d:]+  Birds\n      A grey ␛\[31m heron stands AND waits\.\n", out), out
    assert call("search", "OR", "waits") == ("", "pjlocal: nothing found\n")


def test_export_writes_to_standard_output_or_a_file(store, tmp_path) -> None:
    saved(store, "Birds", a_turn("A bird?", "A heron."))
    assert "A heron." in call("export", "Birds")[0]
    assert json.loads(call("export", "Birds", "--format", "json")[0])
    assert "<html" in call("export", "Birds", "--format", "html")[0]
    for form in ("md", "json", "html"):
        target = tmp_path / f"birds.{form}"
        assert call("export", "Birds", str(target)) == ("", "")
        assert target.read_text(encoding="utf-8") == call("export", "Birds", "--format", form)[0]
        with pytest.raises(UsageError, match="exists"):
            call("export", "Birds", str(target))
        call("export", "Birds", str(target), "--force", "--format", form)
    with pytest.raises(UsageError):
        call("export", "Birds", str(tmp_path / "birds.txt"))
    with pytest.raises(UsageError, match=r"birds\.md does not end in \.html: leave --format out, or name the file so"):
        call("export", "Birds", str(tmp_path / "birds.md"), "--format", "html", "--force")
    with pytest.raises(OutputError):
        call("export", "Birds", "/dev/null/birds.md")


def test_rename_changes_the_title_and_nothing_else(store) -> None:
    session = saved(store, "Birds", updated=5.0, settings={"model": "m"})
    call("rename", "birds", " Herons\n and more ")
    assert store.load(session.id) == replace(session, title="Herons and more")
    with pytest.raises(UsageError, match="must not be empty"):
        call("rename", "herons", " ")


def test_rm_wants_a_yes(store) -> None:
    saved(store, "Birds", a_turn())
    with pytest.raises(UsageError, match="nobody can be asked here whether to remove 'Birds': give --yes"):
        call("rm", "birds")
    for answer, left in (("n", 1), ("y", 0)):
        child = on_terminal("rm", "birds")
        child.expect_exact("Remove 'Birds' (1) for good? [y/N]: ")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0 and len(store.summaries()) == left
    saved(store, "Birds")
    assert call("rm", "-y", "Birds") == ("", "")
    assert store.summaries() == []
