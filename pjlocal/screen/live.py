"""An answer on a terminal while it is written: what is finished is printed for good, the rest drawn again below it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.text import Text

from ..visible import visible
from . import suspend
from .console import take_keys
from .display import Display
from .flows import Flow
from .region import LiveRegion

if TYPE_CHECKING:
    from ..events import TokenEvent

_REDRAW_S = 1 / 15  # at least, from one drawing to the next
_REDRAW_SHARE = 1 / 25  # of the time, at most, is spent on drawing
_SETTLE_S = 0.3  # without a drawing after each resize: tmux has folded its rows up to 0.25 s before it tells the size


class LiveDisplay(Display):
    """An answer as it is written, with a status line below it until it is done.

    Args:
        style: a token's, as Rich writes it.
        status: asked for the status line whenever it is drawn; None for none.
    """

    def __init__(
        self,
        console: Console,
        flow: Flow,
        *,
        style: Callable[[TokenEvent], str] = lambda event: "",
        status: Callable[[], Text] | None = None,
    ) -> None:
        super().__init__(console.file)
        self._console = console
        self._flow = flow
        self._style = style
        self._status = status
        self._region = LiveRegion(console)
        self._next_drawing = 0.0
        self._size = console.size

    def __enter__(self) -> LiveDisplay:
        suspend.add(self)
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._region.close(self._flow.take_finished(everything=True))
        finally:
            suspend.remove(self)

    def show(self, event: TokenEvent) -> None:
        self._flow.add(visible(event.text), self._style(event), event.thought)
        started = time.perf_counter()
        if started < self._next_drawing:
            return
        take_keys()
        if self._console.size != self._size:
            self._size = self._console.size
            self._next_drawing = started + _SETTLE_S
            return
        self._draw()
        now = time.perf_counter()
        self._next_drawing = now + max(_REDRAW_S, (now - started) / _REDRAW_SHARE)

    def suspend(self) -> None:
        self._region.close()

    def resume(self) -> None:
        self._next_drawing = 0.0  # with the next token

    def announce(self, text: Text) -> None:
        """A line that is not of the answer, above what is still being written."""
        self._draw(text)

    def _draw(self, *notices: Text) -> None:
        above = [*self._flow.take_finished(), *notices]
        rows = self._flow.rest()
        if self._status:
            rows.append(self._status())
        if rows or above:
            self._region.draw(Group(*rows), above)
