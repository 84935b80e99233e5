"""A page that fills the terminal: it scrolls, and words are found in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import Terminal

PAGE = """
from rich.text import Text
from pjlocal.screen.pager import Pager
rows = [f"row {i} {'here' if i in (3, 38, 39) else ''}" for i in range(40)]
Pager(lambda width, no_color: Text("\\n".join(rows)), lambda: "a page", "q quit", {}).run()
"""


@pytest.fixture
def terminal(on_terminal: Callable[..., Terminal]) -> Terminal:
    path = str(Path(__file__).parents[2])
    return on_terminal(sys.executable, "-c", PAGE, columns=60, lines=11, PYTHONPATH=path)


def test_keys_of_less_go_to_the_end_and_to_the_beginning(terminal: Terminal) -> None:
    terminal.until("row 9")
    terminal.type("G")
    terminal.until("row 39 here")
    terminal.type("g")
    terminal.until("row 0")
    terminal.type("q")
    assert terminal.end() == 0


def marked(terminal: Terminal) -> list[str]:
    screen = terminal.screen
    return [screen.row(y).strip() for y in range(screen.lines) if screen.buffer[y][0].reverse]


def test_a_search_goes_to_the_next_row_and_from_the_last_to_the_first(terminal: Terminal) -> None:
    terminal.until("row 9")
    terminal.type("/HERE\r")
    terminal.until(lambda: marked(terminal) == ["row 3 here"])
    for row in ("row 38 here", "row 39 here", "row 3 here"):
        terminal.type("n")
        terminal.until(lambda row=row: marked(terminal) == [row])
    terminal.type("/nowhere\r")
    terminal.until("nothing found: nowhere")
    assert not marked(terminal)
    terminal.type("q")
    assert terminal.end() == 0
