"""Growing texts, whose finished parts can be printed permanently while the rest may still change."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from .display import THOUGHT, thinking_line
from .markdown import finished_blocks, markdown


class LineFlow:
    """Plain text with a style for each token.  A line is finished at its line break; the terminal wraps it."""

    def __init__(self) -> None:
        self._lines: list[Text] = []
        self._line = Text()

    def add(self, text: str, style: str) -> None:
        first, *others = text.split("\n")
        self._line.append(first, style)
        for other in others:
            self._lines.append(self._line)
            self._line = Text()
            self._line.append(other, style)

    def take_finished(self, everything: bool = False) -> list[RenderableType]:
        lines, self._lines = self._lines, []
        if everything and self._line.plain:
            lines.append(self._line)
            self._line = Text()
        return [_unwrapped(line) for line in lines]

    def rest(self) -> list[RenderableType]:
        return [_unwrapped(self._line)] if self._line.plain else []


def _unwrapped(line: Text) -> Text:
    """The line without wrapping: the terminal wraps it, so that it can be selected as one line."""
    line.no_wrap, line.overflow = True, "ignore"
    return line


class MarkdownFlow:
    """Markdown, finished a block at a time."""

    def __init__(self) -> None:
        self._block = ""

    def add(self, text: str, style: str) -> None:
        self._block += text

    def take_finished(self, everything: bool = False) -> list[RenderableType]:
        done, gap, rest = (self._block, 0, "") if everything else finished_blocks(self._block)
        self._block = rest
        return [markdown(done), *[""] * gap] if done.strip() else []

    def rest(self) -> list[RenderableType]:
        return [markdown(self._block)] if self._block.strip() else []


#: The flow of an answer's text.
Flow = LineFlow | MarkdownFlow


class ThoughtsFlow:
    """The thoughts, or one line that counts their tokens."""

    def __init__(self, *, shown: bool) -> None:
        self._lines = LineFlow() if shown else None
        self.n_tokens = 0  # of thoughts that are not over

    def add(self, text: str, style: str) -> None:
        if self._lines:
            self._lines.add(text, style)

    def take_finished(self, everything: bool = False) -> list[RenderableType]:
        lines = self._lines.take_finished(everything) if self._lines else []
        if not everything or not self.n_tokens:
            return lines
        n_tokens, self.n_tokens = self.n_tokens, 0
        return [*lines, ""] if self._lines else [Text(thinking_line(n_tokens, is_over=True), THOUGHT)]

    def rest(self) -> list[RenderableType]:
        if self._lines:
            return self._lines.rest()
        return [Text(thinking_line(self.n_tokens), THOUGHT)] if self.n_tokens else []
