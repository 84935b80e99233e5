"""Which display suits where the text goes."""

from __future__ import annotations

from typing import IO

from ..settings import View
from .blame import BlameDisplay
from .console import make_console
from .display import Display


def make_display(view: View, file: IO[str], preferences: dict[str, list[str]]) -> Display:
    """The display that suits where the text goes: a pipe and a dumb terminal get it bare."""
    if not file.isatty():
        return Display(file)
    console = make_console(file)
    if console.is_dumb_terminal or view == "text":
        return Display(file)
    if view == "blame":
        return BlameDisplay(console, preferences)
    from .flows import MarkdownFlow
    from .live import LiveDisplay

    return LiveDisplay(console, MarkdownFlow())
