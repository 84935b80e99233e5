"""Show an answer on a terminal while it is written: finished parts are printed permanently, the rest is redrawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..settings import Thoughts
from ..visible import visible
from . import suspend
from .console import keys_unseen, take_keys
from .display import THOUGHT, Display
from .flows import Flow, ThoughtsFlow
from .region import LiveRegion

if TYPE_CHECKING:
    from ..events import TokenEvent

_REDRAW_S = 1 / 15  # least time from one drawing to the next
_REDRAW_SHARE = 1 / 25  # the largest share of the time that is spent on drawing
_SETTLE_S = 0.3  # pause after a resize: tmux wraps its rows up to 0.25 s before it reports the size


class LiveDisplay(Display):
    """An answer while it is written, with a status line below it until it is done.

    Args:
        flow: the flow of the answer's text.
        thoughts: whether the thoughts are shown above it.  If not, one line counts their tokens.
        style: returns the Rich style of a token.
        status: returns the status line when it is drawn; None for no status line.
    """

    def __init__(
        self,
        console: Console,
        flow: Flow,
        *,
        thoughts: Thoughts = "hide",
        style: Callable[[TokenEvent], str] = lambda event: "",
        status: Callable[[], Text] | None = None,
    ) -> None:
        super().__init__(console.file, thoughts)
        self._console = console
        self._flow = flow
        self._above = ThoughtsFlow(shown=thoughts == "show")
        self._has_answered = False
        self._style = style
        self._status = status
        self._region = LiveRegion(console)
        self._next_drawing = 0.0
        self._size = console.size

    def __enter__(self) -> LiveDisplay:
        with ExitStack() as stack:
            stack.enter_context(keys_unseen())  # keys that are echoed would move rows that are drawn again
            stack.enter_context(suspend.in_force(self))
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._add(*self._texts.finish(), "")
            self._end_thoughts()
            self._region.close(self._take_finished(everything=True))
        finally:
            self._closing.close()

    def show(self, event: TokenEvent) -> None:
        self._above.n_tokens += event.thought
        self._add(*self._texts.push(event), self._style(event))
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
        """Print a line that does not belong to the answer, above the unfinished part."""
        self._draw(text)

    def _draw(self, *notices: Text) -> None:
        above = [*self._take_finished(), *notices]
        rows = [*self._above.rest(), *self._flow.rest()]
        if self._status:
            rows.append(self._status())
        if rows or above:
            self._region.draw(Group(*rows), above)

    def _add(self, thinking: str, answer: str, style: str) -> None:
        if self._thoughts is not self._file:  # they go to another one
            super()._add(thinking, "", style)
        self._above.add(visible(thinking), f"{THOUGHT} {style}")
        self._flow.add(visible(answer), style)
        self._has_answered = self._has_answered or bool(answer)

    def _take_finished(self, everything: bool = False) -> list[RenderableType]:
        thoughts = self._above.take_finished(everything or self._has_answered)
        return [*thoughts, *self._flow.take_finished(everything)]
