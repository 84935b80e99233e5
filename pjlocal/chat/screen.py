"""The screens of a chat: a pipe with plain answers, or a terminal with live ones; notices and tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import IO, ParamSpec

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from ..answer import Answer
from ..attachments import without_texts
from ..client import RemoteAnswer
from ..engine.interrupt import Interrupted
from ..screen.choose import answer_tint
from ..screen.console import Spinner, keys_unseen, make_console, paged, say
from ..screen.display import Display, cut_off, thoughts_on_terminal, when_ready
from ..screen.first_answer import small_model_notice
from ..screen.flows import LineFlow, MarkdownFlow
from ..screen.live import LiveDisplay
from ..screen.tint import Tint
from ..sessions.session import Turn
from ..settings import Thoughts, View
from ..visible import visible
from .conversation import Conversation, Writing
from .figures import facts, turn_tint
from .status import status_line

P = ParamSpec("P")

NOTICE, ERROR = "dim", "red"  # styles of messages

HOW_TO_LEAVE = "Ctrl-D or /quit leaves"


def _shows(method: Callable[P, None]) -> Callable[P, None]:
    """Decorate a method that writes to the screen: an OSError sets ``lost``, and is raised again."""

    @functools.wraps(method)
    def noticing(*args: P.args, **options: P.kwargs) -> None:
        try:
            method(*args, **options)
        except OSError:
            args[0].lost = True  # type: ignore[attr-defined]
            raise

    return noticing


class Screen:
    """The output of a chat in a pipe: plain answers and the output of commands, and all else on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        #: True if writing to it failed, as to a closed window or a full disk.
        self.lost = False
        #: The display of the thoughts before an answer.
        self.thoughts: Thoughts = "hide"

    @property
    def width(self) -> int:
        """The width in columns."""
        return self._console.width

    @property
    def no_color(self) -> bool:
        """True if the user wants no colours."""
        return self._console.no_color

    def say(self, text: str, style: str = NOTICE) -> None:
        """Show a message about the chat itself."""
        say(text)

    def greet(self, text: str) -> None:
        """Show a message to a person at the start of a conversation; a pipe does not get it."""

    def gap(self) -> None:
        """Show an empty row; a pipe does not get it."""

    @_shows
    def show(self, *renderables: RenderableType) -> None:
        """Show the output of a command."""
        for renderable in renderables:
            self._console.print(renderable)
        self._console.file.flush()

    @_shows
    def answer(self, writing: Writing, conversation: Conversation, view: View) -> None:
        """Show an answer while it is written."""
        self._print(writing)
        if writing.turn.finish_reason != "interrupted" and (ending := _ending(writing.turn)):
            self.say(ending)

    def _print(self, writing: Writing) -> None:
        with Display(self._console.file, self.thoughts) as display:
            for event in writing:
                display.show(event)

    def show_turn(self, turn: Turn, view: View) -> None:
        """Show an earlier turn to a person, in its first form; a pipe does not get it."""

    @_shows
    def compared(self, writing: Writing, view: View) -> None:
        """Show one of several answers to a question, while it is written."""
        print(f"{writing.answer.mode}:", file=self._console.file)
        self._print(writing)

    @_shows
    def page(self, renderable: RenderableType) -> None:
        """Show the output of a command, in a pager if it is longer than the terminal."""
        with paged(self._console):
            self.show(renderable)

    def wait(self, what: str) -> AbstractContextManager[Spinner]:
        """A context that shows what the program is waiting for."""
        return Spinner()


class TerminalScreen(Screen):
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
    def answer(self, writing: Writing, conversation: Conversation, view: View) -> None:
        self._stream(writing, view, lambda: status_line(conversation, self.width))
        if writing.turn.finish_reason == "interrupted" and not writing.turn.events:
            raise Interrupted
        self._say_ending(writing.turn)
        judge = conversation.judge
        is_own = judge.server is None or judge.server.is_resident
        if is_own and (notice := small_model_notice(judge.model.name)):
            self.say(notice)

    def _stream(self, writing: Writing, view: View, status: Callable[[], Text]) -> None:
        """Show the tokens of an answer as they come, above a status line."""
        # The answer is closed, which saves it, also if the screen is lost.
        with self._spinner as spinner, closing(iter(writing)) as written:
            spinner.say(_waiting_for(writing.answer))
            writing.answer.on_progress = spinner.say
            events = when_ready(written)
            spinner.stop()
            tint = answer_tint(view, writing.answer, self.no_color)
            with self._live(view, tint, status) as self._display:
                try:
                    for event in events:
                        self._display.show(event)
                finally:
                    self._display = None

    def _live(self, view: View, tint: Tint | None, status: Callable[[], Text] | None) -> LiveDisplay:
        if tint:
            self._console.print(tint.legend)
        return LiveDisplay(
            self._console,
            MarkdownFlow() if view == "markdown" else LineFlow(),
            thoughts=thoughts_on_terminal(self.thoughts),
            style=tint.style if tint else lambda event: "",
            status=status,
        )

    def _say_ending(self, turn: Turn) -> None:
        if ending := _ending(turn):
            self.say(ending)

    @_shows
    def show_turn(self, turn: Turn, view: View) -> None:
        question = visible(without_texts(turn.question)).replace("\n", "\n  ")
        self._console.print(Text(f"> {question}"))
        with self._live(view, turn_tint(turn, view, self.no_color), None) as display:
            for event in turn.events:
                display.show(event)
        self._say_ending(turn)

    @_shows
    def compared(self, writing: Writing, view: View) -> None:
        answer = writing.answer
        self._console.print(Rule(answer.mode, style="dim"))
        self._stream(writing, view, lambda: Text(facts(answer.statistics), "dim"))
        self.say("(stopped)" if answer.finish_reason == "interrupted" else facts(answer.statistics))

    @contextmanager
    def wait(self, what: str) -> Iterator[Spinner]:
        with keys_unseen(), self._spinner as spinner:
            spinner.say(what)
            yield spinner


def _ending(turn: Turn) -> str:
    """A notice about an incomplete answer; empty for a complete one."""
    while_thinking = " while thinking, without an answer" if turn.events and turn.events[-1].thought else ""
    if turn.ending == "interrupted":
        return f"(stopped{while_thinking})"
    if turn.ending == "length":
        return f"({_cut_off(turn, while_thinking)})"
    if turn.ending is None:  # its process was killed
        return f"(unfinished{while_thinking}: {'/continue goes on' if turn.text else '/regen asks again'})"
    return f"(ended{while_thinking})" if while_thinking else ""


def _cut_off(turn: Turn, while_thinking: str) -> str:
    usage = turn.statistics.get("usage")  # edited answers and imported chats may lack it
    n = usage["completion_tokens"] if usage else len(turn.events)
    generation = turn.settings.get("generation", {})
    answered = [event for event in turn.events[-n:] if not event.thought]
    n_limited = n if generation.get("think_tokens") is None else len(answered)
    instead = ", /set think-tokens limits the thinking" if while_thinking else ""
    allows = f"/continue goes on, /set max-tokens allows more{instead}"
    most = generation.get("max_tokens", n_limited) if usage else n_limited
    return cut_off(n, n_limited, most, allows, while_thinking)


def _waiting_for(answer: Answer | RemoteAnswer) -> str:
    return "Writing a first answer" if answer.mode == "rewrite" else "Reading"
