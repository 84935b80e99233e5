"""Answers side by side: what every system said to the same prompt, for the same preferences and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..request import deal
from ..settings import PANEL_NAMES, VIEW_NAMES
from ..visible import goes_on, shown
from .records import AnswerRecord, Score, Verdict
from .suite import Suite, System


@dataclass(frozen=True)
class Sheet:
    """What the systems answered.

    prefer: the preferences that were asked for.
    answers: by the system's name, in the suite's order.
    """

    objectives: str
    prefer: tuple[str, ...]
    prompt_id: str
    prompt: str
    seed: int
    answers: Mapping[str, AnswerRecord]


@dataclass(frozen=True)
class Piece:
    """A part of an answer that one view wrote in one way; ``writer`` is ``all`` where all views agreed on it, and None
    where a view decoded alone."""

    text: str
    kind: str
    writer: str | None


@dataclass(frozen=True)
class Lead:
    """How far a system's answer is ahead of the baseline's on a sheet, from -1 (lost) to 1 (won)."""

    sheet: Sheet
    system: str
    margin: float


ALL = "all"


def sheets(answers: Iterable[AnswerRecord], suite: Suite) -> list[Sheet]:
    """The answers as sheets: by the suite's objectives, then as the prompts came, then by seed."""
    prefer = {objectives.name: objectives.prefer for objectives in suite.objectives}
    objectives_at = {name: at for at, name in enumerate(prefer)}
    system_at = {system.name: at for at, system in enumerate(suite.systems)}
    prompt_at: dict[str, int] = {}
    together: dict[tuple[int, int, int, str], list[AnswerRecord]] = {}
    for answer in answers:
        at = prompt_at.setdefault(answer.prompt_id, len(prompt_at))
        place = objectives_at.get(answer.objectives, len(prefer)), at, answer.seed, answer.objectives
        together.setdefault(place, []).append(answer)
    for place in together:
        together[place].sort(key=lambda answer: system_at.get(answer.system, len(system_at)))
    return [
        Sheet(
            same[0].objectives,
            prefer.get(same[0].objectives, ()),
            same[0].prompt_id,
            same[0].prompt,
            same[0].seed,
            {answer.system: answer for answer in same},
        )
        for _, same in sorted(together.items(), key=lambda item: item[0])
    ]


def pieces(answer: AnswerRecord) -> list[Piece]:
    """An answer's text as it may be shown, in as few pieces as its writers and kinds allow.

    A character that spans two pieces belongs to the first, as in an exported chat.
    """
    parts: list[Piece] = []
    for text, kind, writer in answer.pieces or [[answer.text, "plain", None]]:
        if not text:
            continue
        new = Piece(text, kind or "plain", writer or (ALL if kind not in (None, "plain") else None))
        last = parts[-1] if parts else None
        if last and (goes_on(last.text, text[0]) or (last.kind, last.writer) == (new.kind, new.writer)):
            parts[-1] = Piece(last.text + text, last.kind, last.writer)
        else:
            parts.append(new)
    return [Piece(shown(part.text), part.kind, part.writer) for part in parts]


def views(prefer: Sequence[str], system: System | None, answer: AnswerRecord) -> dict[str, list[str]]:
    """The preferences of the views that wrote an answer; none where one view decoded alone."""
    wrote = {piece.writer for piece in pieces(answer)} - {None}
    if not wrote:
        return {}
    panel = bool(system and system.settings.get("panel")) or bool(wrote - {*VIEW_NAMES, ALL})
    dealt = [[wish] for wish in prefer] if panel else deal(prefer)
    return dict(zip(PANEL_NAMES, dealt, strict=False))


def matching(sheet: Sheet, words: str) -> bool:
    """Whether all the words stand in the prompt, the answers or the names of a sheet, in whatever case."""
    text = " ".join([sheet.prompt, sheet.objectives, sheet.prompt_id, *(a.text for a in sheet.answers.values())])
    folded = text.casefold()
    return all(word in folded for word in words.casefold().split())


def leads(
    of: Iterable[Sheet], suite: Suite, verdicts: Iterable[Verdict], scores: Iterable[Score]
) -> tuple[list[Lead], str]:
    """How far each answer is ahead of its baseline's, the furthest first, and by what that is told.

    By the verdicts on the two, over all judges, aspects and orders; where there are none at all, by the mean
    difference of their implicit rewards, in parts of the largest one.
    """
    pairs = [
        (sheet, system.name, answer, other)
        for sheet in of
        for system in suite.systems
        if (answer := sheet.answers.get(system.name)) and (other := sheet.answers.get(suite.baseline_of(system) or ""))
    ]
    judged = _judged(verdicts)
    if judged:
        told = "the judges' verdicts"
        found = [Lead(*pair[:2], judged[key]) for pair in pairs if (key := (pair[2].key, pair[3].key)) in judged]
    else:
        told = "the implicit rewards"
        rewards = _rewards(scores)
        found = [
            Lead(*pair[:2], rewards[pair[2].key] - rewards[pair[3].key])
            for pair in pairs
            if pair[2].key in rewards and pair[3].key in rewards
        ]
        most = max((abs(lead.margin) for lead in found), default=0.0) or 1.0
        found = [replace(lead, margin=lead.margin / most) for lead in found]
    return sorted(found, key=lambda lead: -lead.margin), told


def _judged(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], float]:
    """By two answers' keys, how far the first is ahead of the second."""
    margins: dict[tuple[str, str], list[float]] = {}
    for verdict in verdicts:
        margin = verdict.p_first - verdict.p_second
        margins.setdefault((verdict.first, verdict.second), []).append(margin)
        margins.setdefault((verdict.second, verdict.first), []).append(-margin)
    return {pair: fmean(values) for pair, values in margins.items()}


def _rewards(scores: Iterable[Score]) -> dict[str, float]:
    """By an answer's key, its mean implicit reward over preferences and scorers."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric.startswith("reward:"):
            values.setdefault(score.answer, []).append(score.value)
    return {answer: fmean(rewards) for answer, rewards in values.items()}
