"""Untrusted Markdown on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

from rich.console import Console, RenderableType
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.segment import Segment
from rich.syntax import Syntax


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
