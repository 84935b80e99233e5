"""Show tokens in colours, with a legend in a line above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from ..settings import VIEW_LETTERS, Thoughts
from .display import THOUGHT, Display, thinking_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..events import TokenEvent


@dataclass(frozen=True)
class Tint:
    """The colours of an answer.

    legend: explains the styles.
    style: returns a token's Rich style.
    """

    legend: Text
    style: Callable[[TokenEvent], str]


class TintedDisplay(Display):
    """Text on a terminal, every token in its style, below the legend.

    If thoughts are not shown, one line counts their tokens.

    Args:
        tint: the colours; None for text without colours.
    """

    def __init__(self, console: Console, tint: Tint | None, thoughts: Thoughts = "show") -> None:
        super().__init__(console.file, thoughts)
        self._console = console
        self._tint = tint
        self._folds = thoughts != "show"
        self._n_thoughts = 0  # tokens, of thoughts that are not over
        self._around: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> TintedDisplay:
        if self._tint:
            self._console.print(self._tint.legend)
        return self

    def show(self, event: TokenEvent) -> None:
        if event.thought and self._folds:
            self._n_thoughts += 1
            self._write(f"\r{thinking_line(self._n_thoughts)}", THOUGHT)
        self._add(*self._texts.push(event), self._tint.style(event) if self._tint else "")

    def _end_thoughts(self, gap: str = "") -> None:
        if self._n_thoughts:
            self._write(f"\r{thinking_line(self._n_thoughts, is_over=True)}\n", THOUGHT)
        self._n_thoughts = 0
        super()._end_thoughts(gap)

    def _write(self, text: str, style: str = "", file: IO[str] | None = None) -> None:
        before, after = self._codes(style) if file in (None, self._file) else ("", "")
        super()._write(f"{before}{text}{after}", file=file)

    def _codes(self, style: str) -> tuple[str, str]:
        """Rich's escape codes before and after a style, cached: printing with Rich takes 0.3 ms a token."""
        if style not in self._around:
            from rich.text import Text

            with self._console.capture() as capture:
                self._console.print(Text("|", style), end="")
            before, _, after = capture.get().partition("|")
            self._around[style] = before, after
        return self._around[style]


#: Colours of the views in turn, for terminals with 16 colours.  Red is for avoided preferences.
_COLORS = tuple(
    f"{kind}{color}" for kind in ("", "bright_") for color in ("cyan", "magenta", "yellow", "green", "blue")
)


def color_of(name: str) -> str:
    """A view's colour.  A single view with all preferences has the first colour."""
    if name.startswith("avoid"):
        return "red"
    return _COLORS[number_of(name) % len(_COLORS)]


def number_of(name: str) -> int:
    """The index of a view."""
    return VIEW_LETTERS.index(name) if name in VIEW_LETTERS else 0
