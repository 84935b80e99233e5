"""Progress bars on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..visible import one_line
from .console import make_console

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID


@contextmanager
def progress_bars(*columns: ProgressColumn) -> Iterator[Callable[..., None]]:
    """Show progress bars in the body.  Each has a text and these columns, by default the count and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = make_console(sys.stderr)
    text = TextColumn("{task.description}", markup=False)
    shown = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}

    def show(what: str, done: float, total: float = 1.0, bar: str | None = None) -> None:
        """Show the progress of some work, in the bar of that name if its text changes."""
        name, line = bar or what, one_line(what)
        if name not in bars:
            bars[name] = progress.add_task(line, total=total)
        progress.update(bars[name], description=line, completed=done, total=total)

    is_hidden = not sys.stderr.isatty()  # Rich takes a file for a terminal if FORCE_COLOR is set
    with Progress(text, BarColumn(), *shown, console=console, transient=True, disable=is_hidden) as progress:
        yield show
