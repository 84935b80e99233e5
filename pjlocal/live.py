"""Answers on a terminal while they are written: what is finished is printed for good, the rest drawn again below it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.segment import Segment, SegmentLines
from rich.text import Text

from .display import Display, blame_style, visible
from .thinking import Thinking

if TYPE_CHECKING:
    from .events import TokenEvent

_REDRAW_S = 1 / 15  # at least, from one drawing to the next
_REDRAW_SHARE = 1 / 25  # of the time, at most, is spent on drawing
_THOUGHT = "dim"


def reflows() -> bool:
    """Whether the terminal breaks its rows anew when it gets narrower.  Nearly all do; xterm itself, GNU screen and
    the Linux console cut them off."""
    term = os.environ.get("TERM", "")
    cuts = term == "linux" or term.startswith("screen") or "XTERM_VERSION" in os.environ
    return "TMUX" in os.environ or not cuts


class LiveRegion:
    """Rows at the end of the screen that are erased and drawn again, each time in one write.

    Between two drawings the terminal may have been resized: rows that have become too long for it then take several.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths: list[int] = []  # of the rows on the screen, in cells

    def draw(self, live: RenderableType, above: Sequence[RenderableType] = ()) -> None:
        """Print ``above`` for good, and show the end of ``live`` below it, as much as the screen has room for."""
        console = self._console
        lines = console.render_lines(live, pad=False)[-max(1, console.height - 1) :]
        with console.capture() as capture:
            for renderable in above:
                console.print(renderable, crop=False)
            console.print(SegmentLines(lines, new_lines=True), end="")
        # A synchronized update (mode 2026), where the terminal knows it, shows nothing half drawn.
        text = capture.get().removesuffix("\n")
        self._write(f"\x1b[?2026h\x1b[?25l{self._erase()}{text}\x1b[?2026l")
        self._widths = [Segment.get_line_length(line) for line in lines]

    def close(self, last: Sequence[RenderableType] = ()) -> None:
        """Take the rows away, and print ``last`` in their place."""
        with self._console.capture() as capture:
            for renderable in last:
                self._console.print(renderable, crop=False)
        self._write(f"{self._erase()}\x1b[?25h{capture.get()}")
        self._widths = []

    def _erase(self) -> str:
        """To the beginning of the first row, and clear from there on; the cursor stands at the end of the last one."""
        if not self._widths:
            return ""
        columns = self._console.width
        rows = sum(max(1, -(-width // columns)) for width in self._widths) if reflows() else len(self._widths)
        up = min(rows, self._console.height) - 1
        return "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J"

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


class Flow(Protocol):
    """Text in the making: what is finished can be taken, the rest may still change."""

    def add(self, text: str, style: str, thought: bool) -> None: ...

    def take_finished(self, everything: bool = False) -> list[RenderableType]: ...

    def rest(self) -> list[RenderableType]: ...


class LineFlow:
    """Text as it is, each token in its style; finished a line at a time, which the terminal itself wraps."""

    def __init__(self) -> None:
        self._lines: list[Text] = []
        self._line = Text()

    def add(self, text: str, style: str, thought: bool) -> None:
        first, *others = text.split("\n")
        self._line.append(first, f"{_THOUGHT} {style}" if thought else style)
        for other in others:
            self._lines.append(self._line)
            self._line = Text()
            self._line.append(other, f"{_THOUGHT} {style}" if thought else style)

    def take_finished(self, everything: bool = False) -> list[RenderableType]:
        lines, self._lines = self._lines, []
        if everything and self._line.plain:
            lines.append(self._line)
            self._line = Text()
        for line in lines:
            line.no_wrap, line.overflow = True, "ignore"
        return list(lines)

    def rest(self) -> list[RenderableType]:
        return [_Folded(self._line)] if self._line.plain else []


class _Folded:
    """A line cut where the screen ends, as a terminal does it."""

    def __init__(self, line: Text) -> None:
        self._line = line

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        row: list[Segment] = []
        width = 0
        for segment in self._line.render(console):
            for character in segment.text:
                cells = Segment(character).cell_length
                if width + cells > options.max_width:
                    yield from (*row, Segment.line())
                    row, width = [], 0
                row.append(Segment(character, segment.style))
                width += cells
        yield from row


class MarkdownFlow:
    """Markdown, finished a block at a time; what is thought comes before it as dimmed text."""

    def __init__(self) -> None:
        self._thoughts = LineFlow()
        self._thinking = False
        self._block = ""

    def add(self, text: str, style: str, thought: bool) -> None:
        if thought:
            self._thinking = True
            self._thoughts.add(text, "", thought)
        else:
            self._block += text

    def take_finished(self, everything: bool = False) -> list[RenderableType]:
        answering = bool(self._block.strip())
        finished = self._thoughts.take_finished(everything or answering)
        if self._thinking and answering:
            finished.append("")
            self._thinking = False
        done = len(self._block) if everything else finished_blocks(self._block) if "\n" in self._block else 0
        if done and self._block[:done].strip():
            finished.append(markdown(self._block[:done]))
            if not everything:
                finished.append("")
            self._block = self._block[done:].lstrip("\n")
        return finished

    def rest(self) -> list[RenderableType]:
        block = [markdown(self._block)] if self._block.strip() else []
        return [*self._thoughts.rest(), *block]


class LiveDisplay(Display):
    """An answer as it is written, with a status line below it until it is done.

    Args:
        styled: whether tokens get the colours of who wrote them.
        status: asked for the status line whenever it is drawn; None for none.
        opened_thinking: the prompt itself opens the thinking.
    """

    def __init__(
        self,
        console: Console,
        flow: Flow,
        *,
        styled: bool = False,
        status: Callable[[], Text] | None = None,
        opened_thinking: bool = False,
    ) -> None:
        super().__init__(console.file)
        self._console = console
        self._flow = flow
        self._styled = styled
        self._status = status
        self._thinking: Thinking[TokenEvent] = Thinking(opened_thinking)
        self._region = LiveRegion(console)
        self._next_drawing = 0.0

    def __enter__(self) -> LiveDisplay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._add(self._thinking.finish())
        self._region.close(self._flow.take_finished(everything=True))

    def show(self, event: TokenEvent) -> None:
        self._add(self._thinking.push(event, event.text))
        started = time.perf_counter()
        if started < self._next_drawing:
            return
        finished = self._flow.take_finished()
        rows = self._flow.rest()
        if self._status:
            rows.append(self._status())
        if rows or finished:
            self._region.draw(Group(*rows), finished)
        now = time.perf_counter()
        self._next_drawing = now + max(_REDRAW_S, (now - started) / _REDRAW_SHARE)

    def _add(self, pieces: Iterator[tuple[TokenEvent, bool]]) -> None:
        for event, thought in pieces:
            style = blame_style(event, self._console.no_color) if self._styled else ""
            self._flow.add(visible(event.text), style, thought)


def markdown(text: str) -> RenderableType:
    """Untrusted Markdown as a renderable: links show their address, and HTML is text like any other."""
    renderable = Markdown("", hyperlinks=False)
    renderable.parsed = _parser().parse(text)
    return renderable


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")


def finished_blocks(text: str) -> int:
    """Length of the Markdown at the head of ``text`` that later text cannot change: up to a blank line outside a
    code fence with an unindented line, that continues no list, behind it."""
    fence = ""
    done = at = 0
    blank = False
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
        elif mark := re.match(r" {0,3}(```+|~~~+)", line):
            if blank:
                done = at
            fence = mark[1]
        elif blank and stripped and not re.match(r"\s|[-*+>] |\d+[.)] |\|", line) and len(stripped) > 1:
            done = at
        blank = not stripped and not fence
        at += len(line)
    return done


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """What is typed while an answer streams is not echoed into it; it waits for the next prompt."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal, or Windows
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
