"""Progress bars on standard error, if that is a terminal."""

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
    """Progress bars by name, which disappear at the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def __call__(self, what: str, done: float, total: float = 1.0, bar: str | None = None) -> None:
        """Show the progress of some work.

        Args:
            bar: the name of the bar, if its text changes.
        """
        name, text = bar or what, one_line(what)
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(text, total=total)
        self._progress.update(self._bars[name], description=text, completed=done, total=total)


@contextmanager
def progress_bars(*columns: ProgressColumn) -> Iterator[Bars]:
    """Show progress bars in the body.  Each has a text and these columns, by default the count and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = make_console(sys.stderr)
    text = TextColumn("{task.description}", markup=False)
    shown = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(text, BarColumn(), *shown, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Bars(bar)
