"""Redraw rows at the end of the screen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate

from rich.cells import chop_cells
from rich.console import Console, RenderableType
from rich.segment import Segment, SegmentLines

from . import suspend


def reflows() -> bool:
    """True if the terminal wraps its rows again when it gets narrower.

    Most terminals do; xterm, GNU screen and the Linux console cut rows off."""
    term = os.environ.get("TERM", "")
    cuts = term == "linux" or term.startswith("screen") or "XTERM_VERSION" in os.environ
    return "TMUX" in os.environ or not cuts


def print_permanently(console: Console, renderable: RenderableType) -> None:
    """Print text that stays on the screen.

    The terminal wraps long rows, so that a selection has no line breaks except those of the text."""
    console.print(renderable, crop=False, overflow="ignore")


def _rows(console: Console, live: RenderableType) -> list[list[Segment]]:
    """The last rows in which the result of `print_permanently` would appear on the screen."""
    options = console.options.update(overflow="ignore")
    most = max(1, console.height - 1)
    lines = list(Segment.split_lines(console.render(live, options)))[-most:]
    return [row for line in lines for row in _wrapped(line, options.max_width)][-most:]


def _wrapped(line: list[Segment], width: int) -> Iterator[list[Segment]]:
    """Split a line at the width of the screen, as a terminal does."""
    *ends, _ = accumulate(map(len, chop_cells("".join(segment.text for segment in line), width) or [""]))
    row: list[Segment] = []
    begin = 0
    for text, style, _ in line:
        while ends and begin + len(text) > ends[0]:
            end = ends.pop(0) - begin
            yield [*row, Segment(text[:end], style)]
            row, text, begin = [], text[end:], begin + end
        row.append(Segment(text, style))
        begin += len(text)
    yield row


class LiveRegion:
    """Rows at the end of the screen that are erased and drawn again, each time in one write.

    If the terminal got narrower between two drawings, a row may take several rows of the screen.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths: list[int] = []  # of the rows on the screen, in cells

    @suspend.busy()
    def draw(self, live: RenderableType, above: Sequence[RenderableType] = ()) -> None:
        """Print ``above`` permanently, and below it the end of ``live`` that fits on the screen."""
        console = self._console
        lines = _rows(console, live) or [[]]
        with console.capture() as capture:
            for renderable in above:
                print_permanently(console, renderable)
            console.print(SegmentLines(lines, new_lines=True), end="", crop=False)
        # Terminals that support synchronized updates (mode 2026) show no half-drawn rows.
        text = capture.get().removesuffix("\n")
        self._write(f"\x1b[?2026h\x1b[?25l{self._erase()}{text}\x1b[?2026l")
        self._widths = [Segment.get_line_length(line) for line in lines]

    @suspend.busy()
    def close(self, last: Sequence[RenderableType] = ()) -> None:
        """Erase the rows, and print ``last`` in their place."""
        with self._console.capture() as capture:
            for renderable in last:
                print_permanently(self._console, renderable)
        self._write(f"{self._erase()}\x1b[?25h{capture.get()}")
        self._widths = []

    def _erase(self) -> str:
        """The escape codes that move from the end of the last row to the start of the first, and clear the rest."""
        if not self._widths:
            return ""
        columns = self._console.width
        rows = sum(max(1, -(-width // columns)) for width in self._widths) if reflows() else len(self._widths)
        up = min(rows, self._console.height) - 1
        # Clear the first row by itself: if all is cleared from the top left corner, tmux keeps the old page.
        return f"\r\x1b[{up}A\x1b[K\x1b[B\x1b[J\x1b[A" if up else "\r\x1b[K"

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()
