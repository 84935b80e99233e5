"""`pjlocal sessions` lists, shows, finds, exports, renames and removes saved chats."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest
from commandline import PJLOCAL
from rich.cells import cell_len
from saved_chats import a_turn, saved
from saved_chats import file as file
from saved_chats import store as store
from typer.testing import CliRunner

from pjlocal.cli.sessions import sessions_app
from pjlocal.errors import OutputError, UsageError

# pjlocal sessions


def call(*args: str) -> tuple[str, str]:
    """The standard output and standard error of a command; raises its errors."""
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


def test_list_is_no_wider_than_the_terminal(store, file, on_terminal) -> None:
    saved(store, "日本" * 50, a_turn())
    terminal = on_terminal(*PJLOCAL, "sessions", "list", columns=70, PJLOCAL_DATABASE=str(file))
    assert terminal.end() == 0
    lines = terminal.raw.decode().splitlines()
    assert len(lines) == 1 and lines[0].endswith("…") and 60 < cell_len(lines[0]) <= 70, lines
    assert "日本" * 50 in call("list")[0], "a pipe gets all of it"


@pytest.mark.parametrize(
    ("columns", "begins"),
    [
        (80, r"   1  \S+ \d\d:\d\d    1 turn   big {15}Why"),
        (60, r"   1  \S+ \d\d:\d\d    1 turn   Why"),
        (40, r"   1    1 turn   Why"),
    ],
)
def test_a_narrow_list_leaves_out_the_model_and_then_the_date(store, file, on_terminal, columns, begins) -> None:
    saved(store, "Why do cats purr at night?", a_turn(), settings={"model": "big"})
    terminal = on_terminal(*PJLOCAL, "sessions", "list", columns=columns, PJLOCAL_DATABASE=str(file))
    assert terminal.end() == 0
    (line,) = terminal.raw.decode().splitlines()
    assert re.match(f"{begins} do cats purr", line) and cell_len(line) <= columns


def test_show_prints_the_chat(store) -> None:
    session = saved(store, "Birds", a_turn("A \x1b[31m bird?", "A heron."), a_turn("Undone?", "Indeed."))
    store.set_undone(session.turns[1].id)
    out, _ = call("show", "bir")
    assert "Birds" in out and "␛[31m bird?" in out and "A heron." in out
    assert "\x1b" not in out and "Undone?" not in out
    assert "Indeed." in call("show", "--all", "1")[0]
    with pytest.raises(UsageError, match=r"there is no saved chat 'brds': did you mean Birds|birds"):
        call("show", "brds")


def test_show_all_numbers_questions_as_show_does(store) -> None:
    first, egret = a_turn("A bird?", "A heron."), a_turn("A bird?", "An egret.")
    session = saved(store, "Birds", first)
    egret.join(first)
    egret.put_in_force()
    undone, last = a_turn("A fish?", "A pike.", undone=True), a_turn("A tree?", "An oak.")
    for turn in (egret, undone, last):
        store.add_turn(session.id, turn)
    headings = re.findall("### (.*)", call("show", "Birds", "--all")[0])
    assert headings == [
        *("Question 1", "Answer 1", "Answer 1, draft 1", "Question (undone)", "Answer (undone)"),
        *("Question 2", "Answer 2"),
    ]
    assert [each for each in headings if "un" not in each] == re.findall("### (.*)", call("export", "1", "--drafts")[0])


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
    with pytest.raises(
        UsageError, match=r"birds\.md does not end in \.html: leave --format out, or change the file's ending"
    ):
        call("export", "Birds", str(tmp_path / "birds.md"), "--format", "html", "--force")
    with pytest.raises(OutputError):
        call("export", "Birds", "/dev/null/birds.md")
    with pytest.raises(OutputError, match=r"nowhere/birds\.md: the folder .*nowhere does not exist"):
        call("export", "Birds", str(tmp_path / "nowhere" / "birds.md"))
    assert not (tmp_path / "nowhere").exists()


def test_rename_changes_the_title_and_nothing_else(store) -> None:
    session = saved(store, "Birds", updated=5.0, settings={"model": "m"})
    call("rename", "birds", " Herons\n and more ")
    assert store.load(session.id) == replace(session, title="Herons and more")
    with pytest.raises(UsageError, match="must not be empty"):
        call("rename", "herons", " ")


@pytest.mark.slow
def test_rm_wants_a_yes(store, file, on_terminal) -> None:
    saved(store, "Birds", a_turn())
    with pytest.raises(
        UsageError, match="cannot ask for confirmation without a terminal: give --yes to remove 'Birds'"
    ):
        call("rm", "birds")
    for answer, left in (("n", 1), ("y", 0)):
        terminal = on_terminal(*PJLOCAL, "sessions", "rm", "birds", PJLOCAL_DATABASE=str(file))
        terminal.until("Remove 'Birds' (1) for good? [y/N]: ")
        terminal.type(f"{answer}\r")
        assert terminal.end() == 0 and len(store.summaries()) == left
    saved(store, "Birds")
    assert call("rm", "-y", "Birds") == ("", "")
    assert store.summaries() == []
