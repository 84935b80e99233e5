"""What is drawn while an answer is written ends as what is drawn of it at once."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from terminal import MARKDOWN, Tmux

from pjlocal.screen.flows import MarkdownFlow
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
            flow.add(text[at : at + n], "", False)
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
