"""Group the answers of all systems to the same prompt, with the same preferences and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import NamedTuple, TypeVar

from ..events import ALL
from ..request import deal
from ..settings import VIEW_LETTERS, VIEW_NAMES
from ..visible import shown, whole_characters
from .records import AnswerRecord, Score, Verdict
from .suite import Suite


@dataclass(frozen=True)
class SideBySide:
    """The systems' answers to one prompt under the same objectives and seed.

    prefer: the objectives' preferences.
    answers: by the system's name, in the suite's order.
    """

    objectives: str
    prefer: tuple[str, ...]
    prompt_id: str
    prompt: str
    seed: int
    answers: Mapping[str, AnswerRecord]


@dataclass(frozen=True)
class Span:
    """A part of an answer whose tokens have the same kind and writer.

    writer: the view's name; ``all`` if all views decided together; None if there was only one view, or the text was
        given.
    """

    text: str
    kind: str
    writer: str | None


class Legend(NamedTuple):
    """The preferences of an answer's views, by name.

    agreed: whether all views decided a part of the answer together.
    """

    views: dict[str, list[str]]
    agreed: bool


class Lead(NamedTuple):
    """The margin of a system's answer over its baseline's, from -1 (lost) to 1 (won).  ``at`` is the row's index."""

    at: int
    system: str
    margin: float


_Key = TypeVar("_Key")


def side_by_side(answers: Iterable[AnswerRecord], suite: Suite) -> list[SideBySide]:
    """The answers grouped by prompt, objectives and seed; sorted by objectives, then prompt, then seed."""
    prefer = {objectives.name: objectives.prefer for objectives in suite.objectives}
    objectives_at = {name: at for at, name in enumerate(prefer)}
    system_at = {system.name: at for at, system in enumerate(suite.systems)}
    prompt_at: dict[str, int] = {}
    together: dict[tuple[int, int, int], list[AnswerRecord]] = {}
    for answer in answers:
        at = prompt_at.setdefault(answer.prompt_id, len(prompt_at))
        together.setdefault((objectives_at[answer.objectives], at, answer.seed), []).append(answer)
    rows = []
    for place in sorted(together):
        same = sorted(together[place], key=lambda answer: system_at[answer.system])
        by_system, one = {answer.system: answer for answer in same}, same[0]
        rows.append(SideBySide(one.objectives, prefer[one.objectives], one.prompt_id, one.prompt, one.seed, by_system))
    return rows


def spans(answer: AnswerRecord) -> list[Span]:
    """Split an answer's printable text into the fewest spans.

    A character whose bytes are in two spans belongs to the first, as in an exported chat.
    """
    pieces = answer.pieces or [[answer.text, None, None]]
    parts = [
        Span(
            "".join(text or "" for text, *_ in same),
            kind or "plain",
            writer or (None if kind in (None, "plain", "given") else ALL),
        )
        for same in whole_characters(pieces, lambda piece: piece[0] or "")
        for _, kind, writer in same[:1]
    ]
    return [
        Span(shown("".join(part.text for part in same)), kind, writer)
        for (kind, writer), same in groupby(parts, lambda part: (part.kind, part.writer))
    ]


def legends(row: SideBySide, suite: Suite) -> list[Legend]:
    """The distinct legends of the answers.  An answer with only one view has none."""
    systems = {system.name: system for system in suite.systems}
    distinct: list[Legend] = []
    for name, answer in row.answers.items():
        wrote = {span.writer for span in spans(answer)} - {None}
        prefer = systems[name].preferred(row.prefer)
        more_views = {*VIEW_LETTERS[len(VIEW_NAMES) :]} & {*wrote, *answer.pushes}
        has_own_views = more_views or suite.in_force(systems[name], "panel")  # of earlier versions
        assigned = [[preference] for preference in prefer] if has_own_views else deal(prefer)
        legend = Legend(dict(zip(VIEW_LETTERS, assigned, strict=False)), ALL in wrote)
        if wrote and legend.views and legend not in distinct:
            distinct.append(legend)
    return distinct


def facts(answer: AnswerRecord) -> list[str]:
    """Short texts with an answer's length and acceptance rate, and the reason if it did not end by itself."""
    rate = answer.acceptance_rate
    ending = {"stop": [], "length": ["cut at the length limit"]}.get(answer.finish_reason, [answer.finish_reason])
    return [f"{answer.tokens} tokens", *([] if rate is None else [f"{rate:.0%} accepted"]), *ending]


def leads(
    rows: Iterable[SideBySide], suite: Suite, verdicts: Iterable[Verdict], scores: Iterable[Score]
) -> tuple[list[Lead], str]:
    """The margin of each answer over its baseline's, the largest first, and the name of the measure.

    The measure is the mean verdict on the two answers, over all judges, aspects and orders.  Without verdicts, it is
    the difference of their mean implicit rewards, divided by the largest difference.
    """
    pairs = [
        (at, name, answer.key, other.key)
        for at, row in enumerate(rows)
        for name, baseline in suite.baselines.items()
        if (answer := row.answers.get(name)) and baseline and (other := row.answers.get(baseline))
    ]
    margins = [((v.first, v.second), v.p_first - v.p_second) for v in verdicts]
    judged = _means([*margins, *((pair[::-1], -margin) for pair, margin in margins)])
    if judged:
        measured_by = "the judges' verdicts"
        gaps = [Lead(at, name, judged[pair]) for at, name, *keys in pairs if (pair := (keys[0], keys[1])) in judged]
    else:
        measured_by = "the implicit rewards"
        rewards = _means((score.answer, score.value) for score in scores if score.metric.startswith("reward:"))
        gaps = [
            Lead(at, name, rewards[answer] - rewards[other])
            for at, name, answer, other in pairs
            if answer in rewards and other in rewards
        ]
        most = max((abs(gap.margin) for gap in gaps), default=0.0) or 1.0
        gaps = [gap._replace(margin=gap.margin / most) for gap in gaps]
    return sorted(gaps, key=lambda lead: -lead.margin), measured_by


def _means(values: Iterable[tuple[_Key, float]]) -> dict[_Key, float]:
    found: dict[_Key, list[float]] = {}
    for key, value in values:
        found.setdefault(key, []).append(value)
    return {key: fmean(some) for key, some in found.items()}
