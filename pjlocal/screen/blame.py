"""Who wrote which token, told by its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..visible import visible
from .display import Display

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..events import TokenEvent


class BlameDisplay(Display):
    """Every token in the colour of the view that wrote it; resampled and bonus tokens are marked."""

    def __init__(self, console: Console, preferences: dict[str, list[str]]) -> None:
        super().__init__(console.file)
        self._console = console
        self._preferences = preferences
        self._around: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> BlameDisplay:
        self._console.print(legend(self._preferences, self._console.no_color))
        return self

    def show(self, event: TokenEvent) -> None:
        if event.text:
            before, after = self._codes(blame_style(event, self._console.no_color))
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


_VIEW_STYLES = {"a": "cyan", "b": "magenta", None: ""}
_VIEW_STYLES_NO_COLOR = {"a": "", "b": "reverse", None: ""}
_KIND_STYLES = {"resampled": "underline", "bonus": "bold", "accepted": "", "plain": ""}


def blame_style(event: TokenEvent, no_color: bool = False) -> str:
    """Rich style of a token: the colour is its writer, underlined is resampled, bold is bonus."""
    styles = _VIEW_STYLES_NO_COLOR if no_color else _VIEW_STYLES
    return f"{styles[event.writer]} {_KIND_STYLES[event.kind]}".strip()


def legend(preferences: dict[str, list[str]], no_color: bool = False) -> Text:
    """A line that says what the blame view's styles mean."""
    from rich.text import Text

    styles = _VIEW_STYLES_NO_COLOR if no_color else _VIEW_STYLES
    line = Text()
    for name, wishes in preferences.items():
        line.append(f"{name}: {visible(', '.join(wishes)) or 'no preference'}", styles[name])
        line.append("  ")
    line.append("resampled", "underline").append("  ").append("bonus", "bold")
    return line
