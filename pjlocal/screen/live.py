"""Answers on a terminal while they are written: what is finished is printed for good, the rest drawn again below it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rich.console import Console, Group, RenderableType
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.segment import Segment, SegmentLines
from rich.syntax import Syntax
from rich.text import Text

from ..prompting.thinking import Thinking
from .display import Display, blame_style, visible

if TYPE_CHECKING:
    from ..events import TokenEvent

_REDRAW_S = 1 / 15  # at least, from one drawing to the next
_REDRAW_SHARE = 1 / 25  # of the time, at most, is spent on drawing
_SETTLE_S = 0.3  # without a drawing after each resize: tmux has folded its rows up to 0.25 s before it tells the size
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
        lines = console.render_lines(live, pad=False)[-max(1, console.height - 1) :] or [[]]
        with console.capture() as capture:
            for renderable in above:
                console.print(renderable, crop=False)
            console.print(SegmentLines(lines, new_lines=True), end="", crop=False)
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
        # The first row by itself: tmux takes clearing from the top left corner on for a new page and keeps the old one.
        return f"\r\x1b[{up}A\x1b[K\x1b[B\x1b[J\x1b[A" if up else "\r\x1b[K"

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
        done, gap, rest = (self._block, 0, "") if everything else finished_blocks(self._block)
        if done.strip():
            finished += [markdown(done), *[""] * gap]
        self._block = rest
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
        self._size = console.size

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
        if self._console.size != self._size:
            self._size = self._console.size
            self._next_drawing = started + _SETTLE_S
            return
        self._draw()
        now = time.perf_counter()
        self._next_drawing = now + max(_REDRAW_S, (now - started) / _REDRAW_SHARE)

    def announce(self, text: Text) -> None:
        """A line that is not of the answer, above what is still being written."""
        self._draw(text)

    def _draw(self, *notices: Text) -> None:
        above = [*self._flow.take_finished(), *notices]
        rows = self._flow.rest()
        if self._status:
            rows.append(self._status())
        if rows or above:
            self._region.draw(Group(*rows), above)

    def _add(self, pieces: Iterator[tuple[TokenEvent, bool]]) -> None:
        for event, thought in pieces:
            style = blame_style(event, self._console.no_color) if self._styled else ""
            self._flow.add(visible(event.text), style, thought)


def markdown(text: str) -> RenderableType:
    """Untrusted Markdown as a renderable: links show their address, and HTML is text like any other."""
    renderable = _Markdown("", code_theme="ansi_dark", hyperlinks=False)
    renderable.parsed = _parser().parse(text)
    return renderable


class _Heading(Heading):
    LEVEL_ALIGN: ClassVar[Any] = {}


class _CodeBlock(CodeBlock):
    """Code as it can be copied: nothing stands around it."""

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True)


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        segments: Any = super().__rich_console__(console, options)
        for table in segments:
            table.show_edge = False
            yield table


class _Markdown(Markdown):
    """Rich's, but without empty rows at its ends, and its rows end where their text ends: spaces up to the edge of the
    screen would become rows of their own once that gets narrower."""

    elements: ClassVar[Any] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        segments: Any = super().__rich_console__(console, options)
        begun, empty = False, 0  # rows since the last that is not
        for line in Segment.split_lines(segments):
            while line and not line[-1].text.strip():
                line.pop()
            if not line:
                empty += begun
                continue
            last = line.pop()
            yield from [Segment.line()] * empty
            yield from (*line, Segment(last.text.rstrip(), last.style), Segment.line())
            begun, empty = True, 0


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")


def finished_blocks(text: str) -> tuple[str, int, str]:
    """The head of a Markdown text that what is still to come cannot change, the blank rows to show below it, and the
    rest.

    The rest begins with a block, with an item of a list, or with what stands in code behind a blank line; then the
    fence stands before it again.
    """
    fence = opening = again = ""
    done = gap = at = blanks = 0
    in_list = in_code = False
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n") and not re.search(r"\S\s", line):
            break  # it may become anything
        stripped, flush = line.strip(), not line[0].isspace()
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
            elif in_code and blanks and flush:
                done, gap, again = at, blanks, opening
            in_code = in_code or bool(stripped)
        else:
            item = re.match(r"([-*+]|\d{1,9}[.)])\s", line) is not None
            if (item and in_list) or (blanks and flush):
                done, gap, again = at, 0 if item and in_list else 1, ""
                in_list = False
            in_list = in_list or item
            if mark := re.match(r" {0,3}(```+|~~~+)", line):
                fence, opening, in_code = mark[1], line, False
        blanks = 0 if stripped else blanks + 1
        at += len(line)
    return text[:done], gap, again + text[done:]


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """What is typed while an answer streams is not echoed into it; it waits for the next prompt, as it was typed."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal, or Windows
        yield
        return
    quiet = [*before]
    quiet[0] &= ~termios.ICRNL  # or Enter would come as Ctrl-J
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
