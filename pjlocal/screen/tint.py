"""Tokens in colours: what they mean is said in a line above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings import PANEL_NAMES
from ..visible import visible
from .display import Display

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..events import TokenEvent


@dataclass(frozen=True)
class Tint:
    """legend: says what the styles mean; style: a token's, as Rich writes it."""

    legend: Text
    style: Callable[[TokenEvent], str]


class TintedDisplay(Display):
    """Every token in its style, below the legend."""

    def __init__(self, console: Console, tint: Tint) -> None:
        super().__init__(console.file)
        self._console = console
        self._tint = tint
        self._around: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> TintedDisplay:
        self._console.print(self._tint.legend)
        return self

    def show(self, event: TokenEvent) -> None:
        if event.text:
            before, after = self._codes(self._tint.style(event))
            self._write(f"{before}{visible(event.text)}{after}")
            self._at_line_start = event.text.endswith("\n")

    def _codes(self, style: str) -> tuple[str, str]:
        """What Rich writes before and after text of that style: asked once, since printing costs it 0.3 ms a token."""
        if style not in self._around:
            from rich.text import Text

            with self._console.capture() as capture:
                self._console.print(Text("|", style), end="")
            before, _, after = capture.get().partition("|")
            self._around[style] = before, after
        return self._around[style]


#: Of the views in turn, on a terminal of 16 colours.  Red is left for what is avoided.
_COLORS = tuple(
    f"{kind}{color}" for kind in ("", "bright_") for color in ("cyan", "magenta", "yellow", "green", "blue")
)


def color_of(name: str) -> str:
    """A view's colour; the prompt that has all preferences is the only one, as if it were the first."""
    if name.startswith("avoid"):
        return "red"
    return _COLORS[number_of(name) % len(_COLORS)]


def number_of(name: str) -> int:
    """Where a view stands among the views."""
    return PANEL_NAMES.index(name) if name in PANEL_NAMES else 0
