"""A chat as data: sessions made of turns, each with what was in force and every token of its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from ..attachments import without_texts
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
    undone: whether it was taken back, or answered anew.
    first: the turn of its session that its prompt began with: older ones did not fit.  Not saved.
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


def title_of(question: str) -> str:
    """What a chat is called that begins with a question: the beginning of that."""
    line = " ".join(without_texts(question)[: 10 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
