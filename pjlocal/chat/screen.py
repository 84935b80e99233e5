"""What a chat shows: answers live on a terminal, bare in a pipe; notices; tables that were asked for."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, ParamSpec, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

from ..engine.interrupt import Interrupted
from ..events import pushes_text
from ..prompting.plan import strength_in_force
from ..request import in_turn
from ..screen.choose import answer_tint
from ..screen.console import Spinner, keys_unseen, make_console
from ..screen.display import Display, when_ready
from ..screen.flows import LineFlow, MarkdownFlow
from ..screen.live import LiveDisplay
from ..settings import ADAPTERS, JUDGED, Generation, View
from ..visible import one_line, visible
from .conversation import Conversation, Progress, Writing

log = logging.getLogger("pjlocal")

P = ParamSpec("P")

NOTICE, ERROR = "dim", "red"  # styles of what is said

_WIDE = 200  # columns of a table in a pipe


class Screen(Protocol):
    """Where a chat is shown."""

    lost: bool
    """Whether it cannot be written to any more, as a closed window or a full disk."""

    @property
    def width(self) -> int:
        """In columns."""

    @property
    def no_color(self) -> bool:
        """Whether the user wants none."""

    def say(self, text: str, style: str = NOTICE) -> None:
        """A line about the chat itself."""

    def greet(self, text: str) -> None:
        """What a person wants to see where the conversation begins or goes on, and a script does not."""

    def gap(self) -> None:
        """An empty row, which sets apart what comes for the eye."""

    def show(self, *renderables: RenderableType) -> None:
        """What a command was asked for."""

    def answer(self, writing: Writing, conversation: Conversation, view: View) -> None:
        """An answer while it is written."""

    def wait(self, what: str) -> AbstractContextManager[Spinner]:
        """A context in which something is waited for."""


class _ConsoleScreen:
    """What both kinds of screen have from Rich's console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.lost = False

    @property
    def width(self) -> int:
        return self._console.width

    @property
    def no_color(self) -> bool:
        return self._console.no_color


def _shows(method: Callable[P, None]) -> Callable[P, None]:
    """A method of a screen that writes to it, and notices when it is lost."""

    @functools.wraps(method)
    def noticing(*args: P.args, **options: P.kwargs) -> None:
        try:
            method(*args, **options)
        except OSError:
            args[0].lost = True  # type: ignore[attr-defined]
            raise

    return noticing


class PipeScreen(_ConsoleScreen):
    """Bare answers on standard output, all else on standard error."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(Console(file=file, width=_WIDE, no_color=True, highlight=False, markup=False, emoji=False))
        self._file = file

    def say(self, text: str, style: str = NOTICE) -> None:
        print(f"pjlocal: {one_line(text)}", file=sys.stderr)

    def greet(self, text: str) -> None:
        pass

    def gap(self) -> None:
        pass

    @_shows
    def show(self, *renderables: RenderableType) -> None:
        for renderable in renderables:
            self._console.print(renderable)
        self._file.flush()

    @_shows
    def answer(self, writing: Writing, conversation: Conversation, view: View) -> None:
        with Display(self._file) as display:
            for event in writing:
                display.show(event)

    def wait(self, what: str) -> Spinner:
        return Spinner()


class TerminalScreen(_ConsoleScreen):
    """A terminal that shows colours and can move its cursor."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(make_console(file))
        self._spinner = Spinner()
        self._display: LiveDisplay | None = None  # of the answer that is being written

    @_shows
    def say(self, text: str, style: str = NOTICE) -> None:
        line = Text(visible(text), style)
        self._spinner.stop()
        if self._display:
            self._display.announce(line)
        else:
            self._console.print(line)

    def greet(self, text: str) -> None:
        self.say(text)

    @_shows
    def gap(self) -> None:
        self._console.print()

    @_shows
    def show(self, *renderables: RenderableType) -> None:
        for renderable in renderables:
            self._console.print(renderable)

    @_shows
    def answer(self, writing: Writing, conversation: Conversation, view: View) -> None:
        console = self._console
        with keys_unseen(), self._spinner as spinner:
            spinner.say("Writing a first answer" if writing.answer.plan.roles.mode == "rewrite" else "Reading")
            events = when_ready(writing)
            spinner.stop()
            tint = answer_tint(view, writing.answer, console.no_color)
            if tint:
                console.print(tint.legend)
            flow = MarkdownFlow() if view == "markdown" else LineFlow()
            with LiveDisplay(
                console,
                flow,
                style=tint.style if tint else lambda event: "",
                status=lambda: status_line(conversation, console.width),
                opened_thinking=writing.opened_thinking,
            ) as self._display:
                try:
                    for event in events:
                        self._display.show(event)
                finally:
                    self._display = None
        if writing.turn.finish_reason == "interrupted":
            if not writing.turn.events:
                raise Interrupted
            self.say("(stopped)")
        elif writing.turn.finish_reason == "length":
            n = writing.turn.statistics["usage"]["completion_tokens"]
            self.say(f"(cut off after {n} tokens; /set max-tokens allows more)")

    @contextmanager
    def wait(self, what: str) -> Iterator[Spinner]:
        with keys_unseen(), self._spinner as spinner:
            spinner.say(what)
            yield spinner


def status_line(conversation: Conversation, width: int) -> Text:
    """Roles, acceptance rate, speed and how full the context is, in one row; what does not fit is left out.

    It stands below answers and the line that is typed, and ends neither by what it cannot tell: then it is empty.
    """
    try:
        return _status(conversation, width)
    except Exception as error:
        log.debug("no status line:", exc_info=error)
        return Text()


def _status(conversation: Conversation, width: int) -> Text:
    progress = conversation.progress()
    numbers = [f"push {pushes_text(progress.pushes)}"] if progress.pushes else []
    if progress.acceptance_rate is not None:
        numbers.append(f"{progress.acceptance_rate:.0%} accepted")
    if progress.tokens_per_second is not None:
        numbers.append(f"{progress.tokens_per_second:.0f} tokens/s")
    numbers.append(f"context {progress.used}/{progress.limit}")
    return _fitted(_roles(conversation, progress), numbers, width)


def _roles(conversation: Conversation, progress: Progress) -> list[str]:
    """The mode with its strength, and who does what in it."""
    generation = conversation.judge.request.generation
    views = {view: [*wishes, *_own_adapters(generation, view)] for view, wishes in conversation.views.items()}
    some = any(views.values())
    mode = generation.mode or ("judge" if some else "plain")
    if mode == "plain" or not some:
        return [mode]
    strength = strength_in_force(generation, mode)
    force = "" if strength == "1" or generation.rule == "overlap" else f" ×{strength}"
    avoided = [f"avoid: {', '.join(generation.avoid)}"] if generation.avoid else []
    if mode not in JUDGED:
        force = "" if mode == "rewrite" else force
        return [f"{mode}{force}", ", ".join(in_turn(list(views.values()))), *avoided]
    rule = "" if generation.rule == "push" else f" {generation.rule}"
    does = {progress.drafts: " drafts", progress.judges: " judges", None: ""}
    roles = [f"{view}{does.get(view, '')}: {', '.join(wishes) or 'no preference'}" for view, wishes in views.items()]
    return [f"{mode}{rule} λ{generation.lam}{force}", *roles, *avoided]


def _own_adapters(generation: Generation, view: str) -> list[str]:
    """The names of the files that change that view alone, with their scales."""
    return [os.path.basename(spec) for name in ADAPTERS.get(view, ()) for spec in getattr(generation, name)]


def _fitted(parts: list[str], numbers: list[str], width: int) -> Text:
    """Both, as far as they go into the width: long words about roles give way to the numbers."""
    tail = Text(" · ".join(numbers))
    if tail.cell_len > width:
        tail = Text(tail.plain.replace(" accepted", "").replace("tokens", "tok"))
    if tail.cell_len > width and tail.plain.startswith("push "):
        tail = Text(tail.plain.partition(" · ")[2])
    head = Text(" · ".join(one_line(part) for part in parts))
    room = width - tail.cell_len - 3
    if room >= 12:
        head.truncate(room, overflow="ellipsis")
        line = Text.assemble(head, " · ", tail)
    else:
        line = tail
    line.truncate(width, overflow="ellipsis")
    line.stylize("dim")
    return line
