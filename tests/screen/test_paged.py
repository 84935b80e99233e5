"""Long output is shown in the user's pager."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from terminal import Terminal

PAGED = """
import sys
from pjlocal.screen.console import make_console, paged
console = make_console(sys.stdout)
with paged(console):
    for i in range(int(sys.argv[1])):
        console.print(f"[row {i}]", style="red")
print("afterwards")
"""


@pytest.fixture
def show(on_terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    path = str(Path(__file__).parents[2])
    return partial(on_terminal, sys.executable, "-c", PAGED, columns=60, lines=11, PYTHONPATH=path)


@pytest.mark.skipif(not shutil.which("less"), reason="less is not installed")
@pytest.mark.parametrize("less", [{}, {"PAGER": "less"}])
def test_less_shows_colours_and_ctrl_c_does_not_end_it(show: Callable[..., Terminal], less: dict[str, str]) -> None:
    terminal = show("40", **less)
    terminal.until("[row 9]")
    assert set(terminal.colors("[row 9]")) == {"red"} and "[row 10]" not in terminal.text
    terminal.type("\x03")
    terminal.until(lambda: terminal.type("G") or "[row 39]" in terminal.text)  # less drops keys right behind Ctrl-C
    terminal.type("q")
    assert terminal.end() == 0
    assert terminal.text.endswith("afterwards") and "Traceback" not in terminal.text


@pytest.mark.parametrize("pager", ["false", "head -1", "nowhere"])
def test_a_pager_that_ends_early_is_no_failure_and_a_missing_one_loses_nothing(
    show: Callable[..., Terminal], pager: str
) -> None:
    terminal = show("4000", PAGER=pager)
    assert terminal.end() == 0
    assert terminal.text.endswith("afterwards")
    assert "Traceback" not in terminal.text and "roken pipe" not in terminal.text
    assert ("[row 3999]" in terminal.text) == (pager == "nowhere")


def test_what_fits_on_the_screen_needs_no_pager(show: Callable[..., Terminal]) -> None:
    terminal = show("10", PAGER="false")
    assert terminal.end() == 0 and "[row 9]" in terminal.text
