"""The data of a chat: a session and its turns, each with its settings and the tokens of its answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..attachments import without_texts
from ..errors import UsageError
from ..events import FinishReason, Result, TokenEvent
from ..prompting.preferences import strengths
from ..prompting.thinking import split
from ..request import in_turn
from ..settings import DEFAULT_MODE, OF_ONE_VIEW, VIEW_NAMES, Generation

LONGEST_TITLE = 200
_TITLE_LENGTH = 60
_NEW_PARAGRAPH = "\n\n"


@dataclass
class Turn:
    """A question and its answer.

    settings: the settings of the answer, for JSON: ``model`` (file name), ``mode``, ``preferences`` by view, ``seed``,
        and the tables ``generation``, ``sampling`` and ``prompting``.
    finish_reason: None while the answer is being written, or if the process was killed meanwhile.
    statistics: usage, acceptance rate, rounds, pushes and timings of `events.Result.as_dict`.
    created: seconds since the epoch.
    id: the row in the database; None if it has none.
    undone: whether the turn is hidden, because it was undone or another of its drafts is in force.
    first: the index of the first turn in its prompt, if older ones did not fit.  Not saved.
    drafts: all answers to the question in order, including this one.  The drafts of a turn share the list.
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
        """The row of the first draft; None for the first draft itself."""
        return None if self.drafts[0] is self else self.drafts[0].id

    def join(self, other: Turn) -> None:
        """Make this turn another draft of a turn."""
        self.drafts = other.drafts
        self.drafts.append(self)

    def leave(self) -> None:
        """Remove this turn from the drafts that it belongs to."""
        self.drafts[:] = [draft for draft in self.drafts if draft is not self]
        self.drafts = [self]

    def put_in_force(self) -> None:
        """Show this draft, and hide the others."""
        for draft in self.drafts:
            draft.undone = draft is not self

    def continues(self, other: Turn) -> bool:
        """True if the answer begins with the whole answer of another turn."""
        return self.text.startswith(other.text)

    def is_repeated(self) -> bool:
        """True if another draft has the same mode and the same answer."""
        others = (draft for draft in self.drafts if draft is not self)
        return any(
            other.settings.get("mode") == self.settings.get("mode") and other.text == self.text for other in others
        )

    @property
    def ending(self) -> FinishReason | None:
        """The finish reason to show.  An answer whose end the user wrote is complete: it counts as interrupted only
        when it is continued."""
        is_written = self.finish_reason == "interrupted" and self.events and self.events[-1].kind == "given"
        return "stop" if is_written else self.finish_reason

    @property
    def is_edited(self) -> bool:
        """True if the user wrote a part of the answer: a text without a token of its own, unlike those of ``begin``.

        In some vocabularies the token 0 is a character, so ``begin`` may contain it.
        """
        begin, answer = str(self.settings.get("prompting", {}).get("begin", "")), ""
        for event in self.events:
            answer += "" if event.thought else event.text
            is_of_begin = event.text and not event.thought and begin.startswith(answer)
            if event.kind == "given" and not event.id and event.text != _NEW_PARAGRAPH and not is_of_begin:
                return True
        return False

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
        """A new turn with the same question, whose answer begins with this one.

        If the model ended the answer, a new paragraph is added, because it would end the same text again.
        """
        events = self._with_text()
        if events and self.finish_reason == "stop" and not events[-1].text.endswith("\n"):
            events.append(TokenEvent.given(len(events), _NEW_PARAGRAPH, thought=events[-1].thought))
        return Turn(self.question, events)

    def begun_until(self, position: int) -> Turn:
        """A new turn with the same question and settings, whose answer begins with the tokens before a position.

        Raises:
            UsageError: there is no token at the position.
        """
        if not 0 <= position < len(self.events):
            raise UsageError(f"there is no token {position}: the answer has tokens 0 to {len(self.events) - 1}")
        return Turn(self.question, self.events[:position], self.settings, first=self.first)

    def taking(self, position: int, text: str, token: int = 0) -> Turn:
        """A new turn with the same question, whose answer begins with the tokens before a position and another token,
        or text, there.

        Raises:
            UsageError: there is no token at the position.
        """
        begun = self.begun_until(position).events
        taken = TokenEvent.given(position, text, token, self.events[position].thought)
        return Turn(self.question, [*begun, taken])

    def edited(self, answer: str) -> Turn:
        """The turn with another answer.  The thinking stays, and so do the equal tokens at the beginning and the
        end.  Of the statistics only the acceptance rate stays: that of the tokens that stay."""
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
        # A text at the end is the user's, although it may be empty: then the user ended the answer there.
        between = [TokenEvent.given(0, answer[begin:end])] if begin < end or first < last == len(old) else []
        events = [*thoughts, *old[:first], *between, *old[last:]]
        ends_as_before = last < len(old) or answer == self.answer
        kinds = [event.kind for event in events]
        n_judged = kinds.count("accepted") + kinds.count("resampled")
        return replace(
            self,
            events=[replace(event, position=n) for n, event in enumerate(events)],
            finish_reason=self.finish_reason if ends_as_before else "interrupted",
            statistics={"acceptance_rate": kinds.count("accepted") / n_judged if n_judged else None},
            id=None,
        )

    def _with_text(self) -> list[TokenEvent]:
        """The tokens up to the last one with text, without end tokens and incomplete characters."""
        n = next((n for n in range(len(self.events), 0, -1) if self.events[n - 1].text), 0)
        return self.events[:n]

    def finish(self, result: Result) -> None:
        """Set the finish reason and the statistics, and the seed of an answer that was chosen among several."""
        report = result.as_dict()
        if result.candidates:
            self.settings = self.settings | {"seed": result.seed}
        self.finish_reason = result.finish_reason
        self.statistics = {key: report[key] for key in ("usage", "acceptance_rate", "rounds", "pushes", "timings")}
        if report["draft"]:
            self.statistics["draft"] = report["draft"]


@dataclass
class Session:
    """A conversation: its turns in order, without undone ones.

    settings: the settings of the next turn, like `Turn.settings`, but with the `lasting_name` of ``model``, and with
        ``preferences`` of view a and view b.
    """

    title: str = ""
    turns: list[Turn] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    id: int | None = None

    @property
    def notice(self) -> str:
        """A line about a setting of an earlier version that was removed; empty if there is none."""
        setting = removed_setting(self.settings)
        now = "its next answers take the default, unless you choose another mode"
        if setting == _PANEL:
            now = "its preferences now share two views"
        return setting and f"this chat was saved with {setting}, which was removed: {now}"

    def fork(self, n_turns: int) -> Session:
        """A new session with a copy of the first turns and their drafts."""
        turns = []
        for turn in self.turns[:n_turns]:
            copies = [replace(draft, events=list(draft.events), id=None) for draft in turn.drafts]
            for copy in copies[1:]:
                copy.join(copies[0])
            turns += [copy for copy, draft in zip(copies, turn.drafts, strict=True) if draft is turn]
        return Session(fork_title(self.title), turns, dict(self.settings))


_PANEL = "the setting panel"


def removed_setting(saved: Mapping[str, Any]) -> str:
    """The setting in an earlier version's `Request.as_dict` that this version does not have, as in ``mode args``; empty
    if there is none."""
    generation = saved.get("generation", {})
    if generation.get("mode") == "args":
        return "mode args"
    views = [*in_two_views(saved).get("preferences", {}).values()]
    mode = generation.get("mode") or DEFAULT_MODE
    if generation.get("panel") and mode not in OF_ONE_VIEW and sum(map(len, views)) > len(VIEW_NAMES):
        of = Generation(strength=generation.get("strength"))
        if all(len(strengths(view, of, mode)) == 1 for view in views):  # else each preference still has a view
            return _PANEL
    rule = generation.get("rule")  # push, the default, is what mode both does
    return f"the rule {rule}" if rule in ("mod", "mixture", "overlap") else ""


def refuse_removed(saved: Mapping[str, Any]) -> None:
    """Refuse saved settings that cannot be used any more.

    Raises:
        UsageError: there is a `removed_setting`.
    """
    if setting := removed_setting(saved):
        raise UsageError(f"{setting} was removed: ask again without it")


def in_two_views(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A turn's settings with the preferences of more views in view a, as `Request.restore` reads them.  They have
    several strengths, so each has a view of its own again."""
    views = [*settings.get("preferences", {}).values()]
    return {**settings, "preferences": {"a": in_turn(views)}} if len(views) > len(VIEW_NAMES) else dict(settings)


def fork_title(title: str) -> str:
    """The title of a chat's fork: the chat's title with a number."""
    name, number = re.fullmatch(r"(.*?)(?: \(fork(?: (\d+))?\))?", title, re.DOTALL).groups()  # type: ignore[union-attr]
    is_fork = name != title
    ending = f" (fork {int(number or 1) + 1})" if is_fork else " (fork)"
    return name[: LONGEST_TITLE - len(ending)].rstrip() + ending


def title_of(question: str) -> str:
    """The title of a chat, which is the beginning of its first question."""
    return first_words(without_texts(question))


def first_words(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text[: 10 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
