"""An answer drawn while it is written ends up the same as one drawn at once."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import pyte
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from talking import plain_event
from terminal import MARKDOWN, Screen, Tmux

from pjlocal.screen import live
from pjlocal.screen.flows import LineFlow, MarkdownFlow
from pjlocal.screen.live import LiveDisplay
from pjlocal.screen.markdown import markdown
from pjlocal.screen.region import LiveRegion


def test_an_answer_looks_the_same_however_its_tokens_are_cut() -> None:
    text = MARKDOWN.replace("- another", "- another\n  goes on\n\n  on and on\n- third\n\n---")
    listed = "1. one\n2. two\n   - deep\n3. three\n\n   ```\n   a\n\n   b\n   ```\n4. four\n\n"
    text = text.replace("The end.", f"{listed}2024\n\n```\nx\n\n\ny\n```\n\n**x**")
    whole = drawn(markdown(text))
    random = Random(1)
    for _ in range(50):
        flow, shown, at = MarkdownFlow(), [], 0
        while at < len(text):
            n = random.choice([1, 1, 2, 3, 20])
            flow.add(text[at : at + n], "")
            shown += flow.take_finished()
            at += n
        assert drawn(*shown, *flow.take_finished(everything=True)) == whole


def drawn(*renderables: Any) -> str:
    console = Console(width=60, color_system=None, force_terminal=True)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get()


def test_a_screen_that_gets_narrower_during_a_drawing_cuts_nothing_off() -> None:
    class Narrowing:
        def __rich_console__(self, console: Console, options: Any) -> Iterator[Text]:
            yield Text("x" * 80)
            console.width = 40

    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    LiveRegion(console).draw(Narrowing())
    assert console.file.getvalue().count("x") == 80


def test_no_row_with_an_emoji_of_two_characters_is_wider_than_the_screen() -> None:
    console = Console(file=io.StringIO(), width=10, height=30, force_terminal=True, color_system=None)
    LiveRegion(console).draw("a" + "\u2600\ufe0f" * 12)
    rows = re.sub(r"\x1b\[[?\d]*\w", "", console.file.getvalue()).split("\n")
    assert "".join(rows) == "a" + "\u2600\ufe0f" * 12 and max(map(cell_len, rows)) <= 10


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_tmux_keeps_no_copies_of_what_is_drawn_again_at_the_top_of_the_screen(environment, tmp_path) -> None:
    code = """
from rich.console import Console
from pjlocal.screen.region import LiveRegion
region = LiveRegion(Console())
for i in range(5):
    region.draw(f"first\\nsecond {i}")
region.close(["done"])
input()"""
    with Tmux(environment, tmp_path, [sys.executable, "-c", code], columns=80, lines=30) as tmux:
        tmux.until("done")
        assert tmux.text.split() == ["done"]


STREAMED = {
    "words": "Cats purr because a rhythm of the larynx makes the air in their throat tremble, in and out. " * 3,
    "one long word": "x" * 400,
    "wide": "猫は喉をゴロゴロと鳴らす生き物です。" * 12,
    "wide, one cell shifted": "a" + "猫は喉をゴロゴロと鳴らす生き物です。" * 12,
    "lines": "first\nsecond line that is a little longer\n\n    fourth\n",
    "a full row": "y" * 80 + "\n" + "z" * 40 + "\n" + "w" * 30,
}


def drawn_at_every_token(monkeypatch: pytest.MonkeyPatch, columns: int) -> tuple[Screen, Console]:
    """A screen, and a console that draws on it."""
    monkeypatch.setattr(live, "_REDRAW_S", 0)
    monkeypatch.setattr(live, "_REDRAW_SHARE", 1e9)
    screen = Screen(columns, 30, lambda reply: None)
    terminal = pyte.Stream(screen)
    console = Console(file=io.StringIO(), width=columns, height=30, force_terminal=True, color_system=None)
    console.file.write = lambda written: terminal.feed(written.replace("\n", "\r\n"))  # type: ignore[method-assign]
    return screen, console


@pytest.mark.parametrize("columns", [30, 40, 80, 200])
@pytest.mark.parametrize("text", STREAMED.values(), ids=STREAMED)
@pytest.mark.parametrize("kind", ["text", "thoughts", "markdown"])
def test_the_status_line_has_a_row_of_its_own_while_an_answer_streams(monkeypatch, kind, text, columns) -> None:
    screen, console = drawn_at_every_token(monkeypatch, columns)
    flow = LineFlow() if kind == "text" else MarkdownFlow()
    display = LiveDisplay(console, flow, thoughts="show", status=lambda: Text("judge · 5 tokens/s"))
    with display:
        for at in range(0, len(text), 61):
            display.show(plain_event(at, text[at : at + 61], thought=kind == "thoughts"))
            *above, status = screen.text.split("\n")
            assert status == "judge · 5 tokens/s"
            shown = without_spaces("".join(above))
            assert without_spaces(text[: at + 61]).startswith(shown)
            assert len(shown) >= len(without_spaces(text[:at])) - 9, "it is shown as it comes"
    assert without_spaces(screen.text) == without_spaces(text)


def test_hidden_thinking_is_counted_in_one_row(monkeypatch) -> None:
    screen, console = drawn_at_every_token(monkeypatch, 40)
    with LiveDisplay(console, MarkdownFlow(), status=lambda: Text("judge")) as display:
        for n in range(1, 1200):
            display.show(plain_event(n, "<think>" if n == 1 else f"so{n}\n", thought=True))
            assert screen.text == f"Thinking… {n:,} token{'' if n == 1 else 's'}\njudge"
        for n, text in enumerate(["</think>", "\n\n", " It"], 1200):
            display.show(plain_event(n, text, thought=n < 1202))
        assert screen.text == "Thought for 1,201 tokens\nIt\njudge"
        display.show(plain_event(1203, " *rains*"))
    assert screen.text == "Thought for 1,201 tokens\nIt rains"


def without_spaces(text: str) -> str:
    return "".join(text.split())
