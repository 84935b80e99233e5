"""How far something is, on standard error where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..visible import one_line
from .console import make_console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID


class Bars:
    """A bar for each thing that is done, gone at the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def __call__(self, what: str, done: float, total: float = 1.0, bar: str | None = None) -> None:
        """Show how much of something is done.

        Args:
            bar: the name of the bar, where the text changes and the bar stays.
        """
        name, text = bar or what, one_line(what)
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(text)
        self._progress.update(self._bars[name], description=text, completed=done, total=total)


@contextmanager
def progress_bars(*columns: ProgressColumn) -> Iterator[Bars]:
    """Show a text, a bar and these columns while the block lasts; without columns, the count and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = make_console(sys.stderr)
    text = TextColumn("{task.description}", markup=False)
    shown = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(text, BarColumn(), *shown, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bars(bar)
