"""The data of a chat: a session and its turns, each with its settings and the tokens of its answer."""

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

    settings: the settings of its answer, for JSON: ``model`` (file name), ``mode``, ``preferences`` by view, ``seed``,
        and the tables ``generation``, ``sampling`` and ``prompting``.
    finish_reason: None while the answer is being written, and for good if the process was killed meanwhile.
    statistics: usage, acceptance rate, rounds, pushes and timings of `events.Result.as_dict`.
    created: seconds since the epoch.
    id: its row in the database; None if it has none.
    undone: the turn was undone or replaced.
    first: the first turn of its prompt; older ones did not fit.  Not saved.
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
        """The whole output of the model, including its thinking and the marks around it."""
        return "".join(event.text for event in self.events)

    @property
    def answer(self) -> str:
        """The answer alone."""
        return split(self.events)[1]

    @property
    def thinking(self) -> str:
        """The thinking before the answer, without its marks."""
        return split(self.events)[0]

    def continued(self) -> Turn:
        """A turn with the same question, whose answer begins with this one.  If the model ended the answer, a new
        paragraph is added; else the model would end it again at once."""
        events = self._with_text()
        if events and self.finish_reason == "stop" and not events[-1].text.endswith("\n"):
            events.append(TokenEvent.given(len(events), "\n\n", thought=events[-1].thought))
        return Turn(self.question, events)

    def edited(self, answer: str) -> Turn:
        """The turn with another answer.  Its equal tokens at the beginning and the end are kept, and its thinking."""
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
        """Set the finish reason and the statistics."""
        report = result.as_dict()
        self.finish_reason = result.finish_reason
        self.statistics = {key: report[key] for key in ("usage", "acceptance_rate", "rounds", "pushes", "timings")}
        if report["draft"]:
            self.statistics["draft"] = report["draft"]


@dataclass
class Session:
    """A conversation: its turns in order, without undone ones.

    settings: the settings of the next turn, as `Turn.settings`, but with the lasting name of ``model``, and with
        ``preferences`` as dealt to view a and view b.
    """

    title: str = ""
    turns: list[Turn] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    id: int | None = None


def title_of(question: str) -> str:
    """The title of a chat, which is the beginning of its first question."""
    line = " ".join(without_texts(question)[: 10 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
