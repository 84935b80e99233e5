"""A chat as data: sessions made of turns, each with what was in force and every token of its answer."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

from ..attachments import without_texts
from ..errors import UsageError
from ..events import FinishReason, Result, TokenEvent
from ..prompting.thinking import split

_TITLE_LENGTH = 60


@dataclass
class Turn:
    """A question and its answer.

    settings: what was in force, as JSON holds it: ``model`` (file name), ``mode``, ``preferences`` by view, ``seed``,
        and the tables ``generation``, ``sampling`` and ``prompting``.
    finish_reason: None while the answer is being written; it stays so where the process was killed meanwhile.
    statistics: what `events.Result.as_dict` says of usage, acceptance rate, rounds, pushes and timings.
    created: seconds since the epoch.
    id: its row in the database; None while it is not there.
    undone: whether it is hidden: it was taken back, or another of its drafts is in force.
    first: the turn of its session that its prompt began with: older ones did not fit.  Not saved.
    drafts: every answer that the question has got, this one among them, in the order in which they came.  The drafts of
        a turn share the list.
    """

    question: str
    events: list[TokenEvent] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    statistics: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    id: int | None = None
    undone: bool = field(default=False, compare=False)
    first: int = field(default=0, compare=False)
    drafts: list[Turn] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.drafts = [self]

    @property
    def draft_of(self) -> int | None:
        """The row of the first draft; None of that itself."""
        return None if self.drafts[0] is self else self.drafts[0].id

    def join(self, other: Turn) -> None:
        """Become another draft of a turn."""
        self.drafts = other.drafts
        self.drafts.append(self)

    def leave(self) -> None:
        """Be no draft of another turn any more."""
        self.drafts[:] = [draft for draft in self.drafts if draft is not self]
        self.drafts = [self]

    def put_in_force(self) -> None:
        """Stand for the question; the other drafts are hidden."""
        for draft in self.drafts:
            draft.undone = draft is not self

    def continues(self, other: Turn) -> bool:
        """Whether the answer begins with the whole one of another turn."""
        return self.text.startswith(other.text)

    def is_repeated(self) -> bool:
        """Whether an earlier draft has the same mode and the same answer."""
        others = (draft for draft in self.drafts if draft is not self)
        return any(
            other.settings.get("mode") == self.settings.get("mode") and other.text == self.text for other in others
        )

    @property
    def text(self) -> str:
        """All that the model wrote, its thinking with the marks around it included."""
        return "".join(event.text for event in self.events)

    @property
    def answer(self) -> str:
        """The answer alone."""
        return split(self.events)[1]

    @property
    def thinking(self) -> str:
        """What the model thought before it, without the marks around it."""
        return split(self.events)[0]

    def continued(self) -> Turn:
        """The same question, with the answer as the beginning of a longer one: behind an answer that the model has
        ended, which it would end again, comes a new paragraph."""
        events = self._with_text()
        if events and self.finish_reason == "stop" and not events[-1].text.endswith("\n"):
            events.append(TokenEvent.given(len(events), "\n\n", thought=events[-1].thought))
        return Turn(self.question, events)

    def begun_until(self, position: int) -> Turn:
        """The same question and settings, with the tokens before a position as the beginning of an answer.

        Raises:
            UsageError: there is no token at the position.
        """
        if not 0 <= position < len(self.events):
            raise UsageError(f"there is no token {position}: the answer has tokens 0 to {len(self.events) - 1}")
        return Turn(self.question, self.events[:position], self.settings, first=self.first)

    def taking(self, position: int, text: str, token: int = 0) -> Turn:
        """The same question, with another token, or text, at a position as the end of a beginning of an answer.

        Raises:
            UsageError: there is no token at the position.
        """
        begun = self.begun_until(position).events
        taken = TokenEvent.given(position, text, token, self.events[position].thought)
        return Turn(self.question, [*begun, taken])

    def edited(self, answer: str) -> Turn:
        """The turn with another answer; its tokens stay as far as they are the same from the beginning and the end.
        The thinking stays."""
        events = self._with_text()
        thoughts, old = ([event for event in events if event.thought is which] for which in (True, False))
        first, begin = 0, 0
        while first < len(old) and answer.startswith(old[first].text, begin):
            begin += len(old[first].text)
            first += 1
        last, end = len(old), len(answer)
        while last > first and answer.endswith(old[last - 1].text, begin, end):
            end -= len(old[last - 1].text)
            last -= 1
        between = [TokenEvent.given(0, answer[begin:end])] if begin < end else []
        events = [*thoughts, *old[:first], *between, *old[last:]]
        ends_as_before = last < len(old) or answer == self.answer
        return replace(
            self,
            events=[replace(event, position=n) for n, event in enumerate(events)],
            finish_reason=self.finish_reason if ends_as_before else "interrupted",
            id=None,
        )

    def _with_text(self) -> list[TokenEvent]:
        """The tokens up to the last one with text: without the answer's end, or half a character."""
        n = next((n for n in range(len(self.events), 0, -1) if self.events[n - 1].text), 0)
        return self.events[:n]

    def finish(self, result: Result) -> None:
        """The answer is whole, or was stopped."""
        report = result.as_dict()
        self.finish_reason = result.finish_reason
        self.statistics = {key: report[key] for key in ("usage", "acceptance_rate", "rounds", "pushes", "timings")}
        if report["draft"]:
            self.statistics["draft"] = report["draft"]


@dataclass
class Session:
    """A conversation: its turns in order, those that were undone left out.

    settings: what the next turn would have in force, as `Turn.settings`, but ``model`` by its lasting name, and
        ``preferences`` as they are dealt to view a and b.
    """

    title: str = ""
    turns: list[Turn] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    id: int | None = None

    def fork(self, n_turns: int) -> Session:
        """A new session with a copy of the first turns and their drafts."""
        turns = []
        for turn in self.turns[:n_turns]:
            copies = [replace(draft, events=list(draft.events), id=None) for draft in turn.drafts]
            for copy in copies[1:]:
                copy.join(copies[0])
            turns += [copy for copy, draft in zip(copies, turn.drafts, strict=True) if draft is turn]
        return Session(fork_title(self.title), turns, dict(self.settings))


def fork_title(title: str) -> str:
    """The title of a chat's fork: its own with a number."""
    name, number = re.fullmatch(r"(.*?)(?: \(fork(?: (\d+))?\))?", title, re.DOTALL).groups()  # type: ignore[union-attr]
    is_fork = name != title
    return f"{name} (fork {int(number or 1) + 1})" if is_fork else f"{name} (fork)"


def title_of(question: str) -> str:
    """What a chat is called that begins with a question: the beginning of that."""
    return first_words(without_texts(question))


def first_words(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text[: 10 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
