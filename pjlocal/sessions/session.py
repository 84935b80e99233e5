"""A chat as data: sessions made of turns, each with what was in force and every token of its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

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

    def finish(self, result: Result) -> None:
        """The answer is whole, or was stopped."""
        told = result.as_dict()
        self.finish_reason = result.finish_reason
        self.statistics = {key: told[key] for key in ("usage", "acceptance_rate", "rounds", "pushes", "timings")}
        if told["draft"]:
            self.statistics["draft"] = told["draft"]


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
    line = " ".join(question.strip()[: 10 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
