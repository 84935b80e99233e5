"""How an answer is shown: live on a terminal, or bare in a pipe.  Consumes token events; knows nothing of models."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from ..events import Statistics, TokenEvent

View = Literal["text", "blame", "markdown"]

# C0 and C1 controls but tab and newline, DEL, and the marks that reorder or hide text on a terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """The text with control characters, escape sequences and direction marks as visible marks.

    Whatever a model writes, or a file that is loaded holds, the terminal takes no orders from it.
    """
    return _UNSAFE.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def one_line(text: str) -> str:
    """Text that anyone may have written, fit for a line of a terminal."""
    return visible(" ".join(text.split()))


def local_time(seconds: float) -> str:
    """Seconds since the epoch as a date and a time, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def when_ready(events: Iterable[TokenEvent]) -> Iterator[TokenEvent]:
    """The same events; returns once the first of them is there."""
    rest = iter(events)
    return itertools.chain(list(itertools.islice(rest, 1)), rest)


class Display:
    """Bare text, streamed: what a pipe gets.  Use as a context manager and `show` each event."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._at_line_start = True

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """End the last line."""
        if not self._at_line_start and kind is None:
            self._write("\n")

    def show(self, event: TokenEvent) -> None:
        if event.text:
            self._write(visible(event.text))
            self._at_line_start = event.text.endswith("\n")

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class Silent(Display):
    """Shows nothing: the answer goes elsewhere."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def show(self, event: TokenEvent) -> None:
        pass


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


def make_display(view: View, file: IO[str], preferences: dict[str, list[str]]) -> Display:
    """The display that suits where the text goes: a pipe and a dumb terminal get it bare."""
    if not file.isatty():
        return Display(file)
    console = make_console(file)
    if console.is_dumb_terminal or view == "text":
        return Display(file)
    if view == "blame":
        return BlameDisplay(console, preferences)
    from .live import LiveDisplay, MarkdownFlow

    return LiveDisplay(console, MarkdownFlow())


def make_console(file: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False)


class Spinner:
    """Says on standard error what is being waited for, where that is a terminal; gone once text comes."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Spinner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        if not sys.stderr.isatty():
            return
        if self._status:
            self._status.update(text)
            return
        console = make_console(sys.stderr)
        if not console.is_dumb_terminal:
            self._status = console.status(text)
            self._status.start()

    def stop(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None


def statistics_line(statistics: Statistics) -> str:
    """What ``--stats`` prints: one line."""
    s = statistics

    def number(value: float | None, form: Callable[[float], str]) -> str:
        return "-" if value is None else form(value)

    return " | ".join(
        [
            f"{s.completion_tokens} tokens",
            f"{number(s.tokens_per_second, '{:.1f}'.format)} tokens/s",
            f"load {s.load_s:.2f} s",
            f"prefill {s.prefill_s:.2f} s ({' + '.join(map(str, s.prompt_tokens))} tokens)",
            f"acceptance rate {number(s.acceptance_rate, '{:.0%}'.format)}",
            f"{s.rounds} rounds",
            f"mean accepted run {number(s.mean_accepted_run, '{:.2f}'.format)}",
        ]
    )
