"""Colour tokens by the view that wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..settings import OF_ONE_VIEW
from ..visible import visible
from .tint import Tint, color_of, number_of

if TYPE_CHECKING:
    from ..events import TokenEvent


_NO_COLOR = ("", "reverse", "italic", "reverse italic", "dim", "reverse dim", "dim italic", "reverse dim italic")
_KIND_STYLES = {"resampled": "underline", "bonus": "bold", "given": "dim", "accepted": "", "plain": ""}


def blame_style(event: TokenEvent, no_color: bool = False) -> str:
    """Rich style of a token: the writer's colour (none if all views wrote it), underlined if resampled, bold if a
    bonus."""
    return written_style(event.writer, event.kind, no_color)


def written_style(writer: str | None, kind: str, no_color: bool = False) -> str:
    """Rich style of a text with this writer and kind."""
    return f"{_view_style(writer, no_color)} {_KIND_STYLES.get(kind, '')}".strip()


def _view_style(name: str | None, no_color: bool) -> str:
    if name is None:
        return ""
    return _NO_COLOR[number_of(name) % len(_NO_COLOR)] if no_color else color_of(name)


def blame(preferences: Mapping[str, Sequence[str]], mode: str | None, no_color: bool = False) -> Tint:
    """The colours of the views with their preferences.  In mode ``both``, the judge's colour means all views."""
    from rich.text import Text

    style = partial(blame_style, no_color=no_color)
    if mode in OF_ONE_VIEW:
        return Tint(Text(f"mode {mode}: one view wrote all tokens"), style)
    line = Text()
    for name, wishes in preferences.items():
        line.append(f"{visible(name)}: {visible(', '.join(wishes)) or 'no preference'}", _view_style(name, no_color))
        line.append("  ")
    if mode == "both":
        line.append("all: what they agree on  ")
    line.append("resampled", "underline").append("  ").append("bonus", "bold")
    return Tint(line, style)
