"""Choose a display for an output, and the colours for a view of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from ..settings import Thoughts, View
from .blame import blame
from .console import make_console
from .display import Display, thoughts_on_terminal
from .push import push
from .tint import Tint, TintedDisplay

if TYPE_CHECKING:
    from ..answer import Answer
    from ..client import RemoteAnswer


def make_tint(
    view: View, preferences: Mapping[str, Sequence[str]], mode: str | None, pushing: Sequence[str], no_color: bool
) -> Tint | None:
    """The colours of the views ``blame`` and ``push``; None for other views."""
    if view == "blame":
        return blame(preferences, mode, no_color)
    return push(preferences, pushing, no_color) if view == "push" else None


def answer_tint(view: View, answer: Answer | RemoteAnswer, no_color: bool) -> Tint | None:
    """The colours in which an answer is shown while it is written."""
    return make_tint(view, answer.labels, answer.mode, answer.pushing, no_color)


def make_display(view: View, file: IO[str], answer: Answer | RemoteAnswer, thoughts: Thoughts) -> Display:
    """The display for an output: pipes and dumb terminals get text without styles."""
    if not file.isatty():
        return Display(file, thoughts)
    console = make_console(file)
    if console.is_dumb_terminal:
        return Display(file, thoughts)
    thoughts = thoughts_on_terminal(thoughts)
    if view != "markdown":
        return TintedDisplay(console, answer_tint(view, answer, console.no_color), thoughts)
    from .flows import MarkdownFlow
    from .live import LiveDisplay

    return LiveDisplay(console, MarkdownFlow(), thoughts=thoughts)
