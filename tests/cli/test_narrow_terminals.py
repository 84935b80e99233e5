"""Lists and tables on terminals of any width: nothing is cut off, and no word that fits is broken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

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


@pytest.mark.slow
def test_a_path_that_does_not_fit_stays_whole(rows, pjlocal) -> None:
    path = next(model["path"] for model in json.loads(pjlocal("models", "list", "--json").stdout))
    assert any(row.endswith(path) for row in rows(40, "models", "info", "smollm2"))
