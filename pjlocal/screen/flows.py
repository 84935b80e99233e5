"""Text in the making: what of it is finished can be printed for good, the rest may still change."""

from __future__ import annotations

from typing import Protocol

from rich.console import RenderableType
from rich.text import Text

from .markdown import finished_blocks, markdown

_THOUGHT = "dim"


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
        return [_unwrapped(line) for line in lines]

    def rest(self) -> list[RenderableType]:
        return [_unwrapped(self._line)] if self._line.plain else []


def _unwrapped(line: Text) -> Text:
    """The line as it is: the terminal itself wraps it, so that a selection of it is one line."""
    line.no_wrap, line.overflow = True, "ignore"
    return line


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
