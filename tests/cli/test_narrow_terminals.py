"""Lists and tables on terminals of any width: nothing is cut off, and no word that fits is broken."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PJLOCAL, PREFER
from terminal import Terminal


@pytest.fixture
def rows(on_terminal: Callable[..., Terminal]) -> Callable[..., list[str]]:
    """The rows that a command itself writes on a terminal."""

    def run(columns: int, *args: str) -> list[str]:
        terminal = on_terminal(*PJLOCAL, *args, columns=columns)
        assert terminal.end() == 0, terminal.text
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.raw.decode()).replace("\r\n", "\n").splitlines()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("args", [("prefs", "list"), ("models", "list")])
def test_rows_fit_and_hold_every_word(rows, pjlocal, args: tuple[str, ...], columns: int) -> None:
    shown = rows(columns, *args)
    assert all(len(row) <= columns or len(row.split()) == 1 for row in shown)
    told = set(re.findall(r"[\w./:-]+", pjlocal(*args).stdout.partition("\n")[2]))  # below the headings
    assert told <= set(re.findall(r"[\w./:-]+", "\n".join(shown)))
    assert "…" not in "".join(shown)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_statistics_break_between_words(rows, tiny, columns: int) -> None:
    shown = rows(columns, "run", "-m", str(tiny("llama")), *PREFER, "-n", "3", "--threads", "2", "--stats", "hi")
    start = next(i for i, row in enumerate(shown) if row.startswith("3 tokens |"))
    assert max(map(len, shown[start:])) <= columns
    assert " ".join(shown[start:]).rstrip().endswith("| views in one batch")


def test_warnings_break_between_words(on_terminal) -> None:
    code = """import logging, sys
from pjlocal.cli.main import main
sys.argv = ["pjlocal", "config", "path"]
import pjlocal.cli.config as config
config.config_path = lambda: logging.getLogger("pjlocal").warning("%s", "seven letters " * 9)
main()"""
    terminal = on_terminal(sys.executable, "-c", code, columns=40, PYTHONPATH=str(Path(__file__).parents[2]))
    assert terminal.end() == 0
    words = terminal.text.split()
    assert words[0] == "pjlocal:" and {*words[1:]} <= {"seven", "letters", "None"} and words.count("letters") == 9


@pytest.mark.slow
def test_a_path_that_does_not_fit_stays_whole(rows, pjlocal) -> None:
    path = next(model["path"] for model in json.loads(pjlocal("models", "list", "--json").stdout))
    assert any(row.endswith(path) for row in rows(40, "models", "info", "smollm2"))


@pytest.mark.parametrize("columns", [40, 80])
def test_messages_break_between_words(on_terminal, pjlocal, columns: int) -> None:
    wrong = ("run", "-p", "sailor", "Why do cats purr?")
    terminal = on_terminal(*PJLOCAL, *wrong, columns=columns)
    assert terminal.end() == 2
    shown = terminal.text.splitlines()
    assert len(shown) > 1 and max(map(len, shown)) <= columns
    assert terminal.text.split() == pjlocal(*wrong).stderr.split()
