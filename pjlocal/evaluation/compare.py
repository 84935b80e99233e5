"""Compute the numbers of all tables: each system alone, against its baseline, and by the judges.

Comparisons are paired by prompt, over the prompts that both systems answered.  The order of the records changes
no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import UsageError
from . import statistics
from .records import AnswerRecord, Score, Verdict, is_person
from .statistics import SIGNIFICANT, Array, Estimate, Steadiness, WinRate, by_unit
from .suite import Suite


class Metric(NamedTuple):
    """A metric and the model that measures it; the model is empty for metrics without one."""

    name: str
    by: str = ""


#: The metrics in the order of the tables, by the part of the name before the colon: 1 if more is better, -1 if less is
#: better, 0 if neither is.  ``checks`` is the share of an answer's checks that it meets.  ``least`` is the
#: least of the preferences' mean rewards.
_DIRECTIONS = (
    dict.fromkeys(("check", "checks", "least", "reward", "rank", "prompting", "fluency"), 1)
    | {"words": 0, "tokens": 0, "finished": 1, "distinct1": 1, "distinct2": 1, "repetition": -1}
    | {"question copied": -1, "preferences copied": -1}
    | {"readability": 0, "acceptance": 0, "tokens/s": 1, "seconds an answer": -1}
)


def direction(metric: Metric) -> int:
    """1 if more is better, -1 if less is better, 0 if it depends on the preference."""
    return _DIRECTIONS.get(metric.name.partition(":")[0], 0)


@dataclass(frozen=True)
class Results:
    """The suite, answers, scores and verdicts of an evaluation."""

    suite: Suite
    answers: Sequence[AnswerRecord]
    scores: Sequence[Score] = ()
    verdicts: Sequence[Verdict] = ()


@dataclass(frozen=True)
class SystemRow:
    """The numbers of one system under some objectives.

    tokens_per_s: the speed in an answer's own decoding time.
    seconds: the time of an answer, from prompt to end.

    Both are not numbers if several answers were written at once, because these wait for each other.
    """

    objectives: str
    system: str
    answers: int
    prompts: int
    means: Mapping[Metric, Estimate]
    tokens_per_s: Estimate
    seconds: Estimate

    @property
    def numbers(self) -> dict[Metric, Estimate]:
        """The means, and the speeds that were measured, by metric."""
        speeds = {Metric("tokens/s"): self.tokens_per_s, Metric("seconds an answer"): self.seconds}
        return {**self.means, **{metric: speed for metric, speed in speeds.items() if math.isfinite(speed.value)}}


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between a system and its baseline.

    p: the p-value of the swap test; p_holm: with Holm's correction over all systems with this baseline.
    """

    objectives: str
    system: str
    baseline: str
    metric: Metric
    estimate: Estimate
    p: float
    p_holm: float

    @property
    def within_noise(self) -> bool:
        return self.p_holm > SIGNIFICANT


@dataclass(frozen=True)
class WinRow:
    """The rate at which a judge prefers a system's answer to another's, in one aspect.

    incomplete: the number of comparisons judged in one order only; excluded from the rates.
    """

    objectives: str
    system: str
    against: str
    aspect: str
    by: str
    result: WinRate
    p_holm: float
    incomplete: int

    @property
    def within_noise(self) -> bool:
        return self.p_holm > SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """All numbers of a report.

    judges: the steadiness of each judge over all its verdicts.
    """

    prompts: int
    systems: tuple[SystemRow, ...]
    differences: tuple[Difference, ...]
    wins: tuple[WinRow, ...]
    judges: Mapping[str, Steadiness]


def compare(results: Results) -> Comparison:
    """Compare every system that has answers with its baseline."""
    groups = _grouped(results.answers)
    scores = _by_answer(results.scores)
    measured = {name: _measured(group, scores) for name, group in groups.items()}
    suite = results.suite
    baselines = suite.baselines
    order = [(o.name, s.name) for o in suite.objectives for s in suite.systems if (o.name, s.name) in groups]
    pairs = [
        (objectives, system, baseline, measured[objectives, system], measured[objectives, baseline])
        for objectives, system in order
        if (baseline := baselines[system]) and (objectives, baseline) in measured
    ]
    judged = _judged(results)
    n = len({answer.prompt_id for answer in results.answers})
    return Comparison(
        n,
        tuple(_system_row(*name, groups[name], measured[name]) for name in order),
        tuple(_differences(pairs)),
        tuple(_win_rows(judged, suite)),
        {
            by: statistics.steadiness([c.outcomes for c in judged if c.by == by and c.in_both_orders])
            for by in sorted({comparison.by for comparison in judged})
            if not is_person(by)
        },
    )


@dataclass(frozen=True)
class FolderComparison:
    """A comparison of two evaluations: for each system in both, the second's numbers minus the first's.

    prompts: the number of prompts in both, by their texts.
    only_first, only_second: the (objectives, system) in one of them only.
    """

    prompts: int
    differences: tuple[Difference, ...]
    only_first: tuple[tuple[str, str], ...]
    only_second: tuple[tuple[str, str], ...]


def compare_folders(first: Results, second: Results, name: str = "first") -> FolderComparison:
    """Compare two evaluations.  Prompts are matched by their texts, and have the ids of the second evaluation.

    Args:
        name: the name of the first evaluation, as the baseline.

    Raises:
        UsageError: the evaluations have no prompt, or no system, in common.
    """
    named = {answer.prompt: answer.prompt_id for answer in second.answers}
    shared = {answer.prompt for answer in first.answers} & named.keys()
    if not shared:
        raise UsageError("the two evaluations have no prompt in common: choose evaluations of the same prompts")
    old = _grouped(replace(a, prompt_id=named[a.prompt]) for a in first.answers if a.prompt in shared)
    new = _grouped(a for a in second.answers if a.prompt in shared)
    both = [group for group in new if group in old]
    if not both:
        raise UsageError(
            "the two evaluations have no system with the same objectives in common: choose evaluations of the same "
            "suite"
        )
    old_scores, new_scores = _by_answer(first.scores), _by_answer(second.scores)
    pairs = [(*group, name, _measured(new[group], new_scores), _measured(old[group], old_scores)) for group in both]
    return FolderComparison(
        len(shared),
        tuple(_differences(pairs)),
        tuple(group for group in old if group not in new),
        tuple(group for group in new if group not in old),
    )


_Group = tuple[str, str]  # objectives, system
_Measured = Mapping[Metric, Mapping[str, Array]]  # values [k] by metric and prompt; k is 1 except for ``least``
_Pair = tuple[str, str, str, _Measured, _Measured]  # objectives, system, baseline, and the numbers of both systems


def _grouped(answers: Iterable[AnswerRecord]) -> dict[_Group, list[AnswerRecord]]:
    """The answers by objectives and system."""
    groups: dict[_Group, list[AnswerRecord]] = {}
    for answer in answers:
        groups.setdefault((answer.objectives, answer.system), []).append(answer)
    return groups


def _by_answer(scores: Iterable[Score]) -> dict[str, dict[Metric, float]]:
    found: dict[str, dict[Metric, float]] = {}
    for score in scores:
        if math.isfinite(score.value):
            found.setdefault(score.answer, {})[Metric(score.metric, score.by)] = score.value
    return found


def _measured(answers: Sequence[AnswerRecord], scores: Mapping[str, Mapping[Metric, float]]) -> _Measured:
    found: dict[Metric, list[tuple[str, Sequence[float]]]] = {}
    for answer in answers:
        for metric, value in _numbers(answer, scores.get(answer.key, {})):
            found.setdefault(metric, []).append((answer.prompt_id, [value]))
    for by, rewards in _rewards(found).items():
        of_prompts = [(answer.prompt_id, scores.get(answer.key, {})) for answer in answers]
        found[Metric("least", by)] = [
            (id, [of[m] for m in rewards]) for id, of in of_prompts if all(m in of for m in rewards)
        ]
    return {metric: by_unit(found[metric]) for metric in sorted(found, key=place) if found[metric]}


def _numbers(answer: AnswerRecord, scores: Mapping[Metric, float]) -> Iterator[tuple[Metric, float]]:
    """The metrics of an answer, including those derived from all its checks."""
    yield from scores.items()
    yield Metric("tokens"), answer.tokens
    if answer.acceptance_rate is not None:
        yield Metric("acceptance"), answer.acceptance_rate
    checks = [value for (name, _), value in scores.items() if name.startswith("check:") and name != "check:all"]
    if checks:
        yield Metric("checks"), sum(checks) / len(checks)


def _rewards(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    """The metrics of implicit rewards of each scoring model that has several."""
    found: dict[str, list[Metric]] = {}
    for metric in sorted(metrics):
        if metric.name.startswith("reward:"):
            found.setdefault(metric.by, []).append(metric)
    return {by: rewards for by, rewards in found.items() if len(rewards) > 1}


def place(metric: Metric) -> tuple[int, Metric]:
    kind = metric.name.partition(":")[0]
    return [*_DIRECTIONS, kind].index(kind), metric


def _stacked(values: Mapping[str, Array], prompts: Iterable[str]) -> Array:
    return np.stack([values[prompt] for prompt in prompts], axis=1)


def _system_row(objectives: str, system: str, answers: Sequence[AnswerRecord], measured: _Measured) -> SystemRow:
    spent = by_unit((a.prompt_id, [a.tokens, a.decode_s, a.prefill_s + a.decode_s]) for a in answers)
    tokens, decode_s, seconds = _stacked(spent, spent)
    is_timed = all(answer.n_at_once == 1 for answer in answers)
    untimed = Estimate(float("nan"), len(spent), note="several answers were written at once")
    return SystemRow(
        objectives,
        system,
        len(answers),
        len(spent),
        {metric: statistics.mean(_stacked(values, values)) for metric, values in measured.items()},
        statistics.ratio(tokens, decode_s) if is_timed else untimed,
        statistics.mean(seconds) if is_timed else untimed,
    )


def _differences(pairs: Sequence[_Pair]) -> Iterator[Difference]:
    rows = []
    for objectives, system, baseline, measured, measured_of_baseline in pairs:
        for metric, values in measured.items():
            others = measured_of_baseline.get(metric, {})
            prompts = [prompt for prompt in values if prompt in others]
            if not prompts or len(values[prompts[0]]) != len(others[prompts[0]]):
                continue  # no common prompt, or rewards that are still being computed
            mine, other = _stacked(values, prompts), _stacked(others, prompts)
            p, estimate = statistics.swap_test(mine, other), statistics.difference(mine, other)
            rows.append(Difference(objectives, system, baseline, metric, estimate, p, p))
    yield from _corrected(rows, lambda row: (row.objectives, row.baseline, row.metric), lambda row: row.p)


_Row = TypeVar("_Row", Difference, WinRow)


def _corrected(rows: Sequence[_Row], family: Callable[[_Row], object], p: Callable[[_Row], float]) -> Iterator[_Row]:
    """Apply Holm's correction within each family of rows, which compare several systems in the same way."""
    families: dict[object, dict[str, float]] = {}
    for row in rows:
        families.setdefault(family(row), {})[row.system] = p(row)
    corrected = {name: statistics.holm(values) for name, values in families.items()}
    for row in rows:
        yield replace(row, p_holm=corrected[family(row)][row.system])


@dataclass(frozen=True)
class _Judged:
    """Two answers that a judge compared in one aspect.

    orders: the verdicts, by whether the system's answer was shown first.  A person compares the answers once, in a
        random order; a model compares them in both orders.
    """

    system: AnswerRecord
    against: AnswerRecord
    aspect: str
    by: str
    orders: dict[bool, Verdict]

    @property
    def complete(self) -> bool:
        return self.in_both_orders or is_person(self.by)

    @property
    def in_both_orders(self) -> bool:
        return len(self.orders) == 2

    @property
    def outcomes(self) -> tuple[float, float]:
        """The outcomes with the system's answer shown first and second: 1 for a win, 0 for a loss, 0.5 for a tie."""
        outcomes = [_named(v) if leads else 1 - _named(v) for leads, v in sorted(self.orders.items(), reverse=True)]
        return outcomes[0], outcomes[-1]


def _named(verdict: Verdict) -> float:
    """The judge's most probable verdict: 1 for the first answer, 0 for the second, 0.5 for a tie or if two verdicts
    are equally probable."""
    if verdict.p_first > max(verdict.p_second, verdict.p_tie):
        return 1.0
    return 0.0 if verdict.p_second > max(verdict.p_first, verdict.p_tie) else 0.5


def _judged(results: Results) -> list[_Judged]:
    """The verdicts grouped by comparison, in the order of prompts and seeds."""
    answers = {answer.key: answer for answer in results.answers}
    found: dict[tuple[str, str, str, str], _Judged] = {}
    for verdict in results.verdicts:
        first, second = answers[verdict.first], answers[verdict.second]
        leads = results.suite.leads(first.system, second.system)
        mine, other = (first, second) if leads else (second, first)
        name = (mine.key, other.key, verdict.aspect, verdict.by)
        found.setdefault(name, _Judged(mine, other, verdict.aspect, verdict.by, {})).orders[leads] = verdict
    return sorted(found.values(), key=lambda c: (c.system.prompt_id, c.system.seed, c.system.key, c.against.key))


def _win_rows(judged: Sequence[_Judged], suite: Suite) -> Iterator[WinRow]:
    rows: dict[tuple[str, str, str, str, str], list[_Judged]] = {}
    for c in judged:
        rows.setdefault((c.system.objectives, c.system.system, c.against.system, c.aspect, c.by), []).append(c)
    objectives = [o.name for o in suite.objectives]
    systems = [s.name for s in suite.systems]
    win_rows = [row for name, group in rows.items() for row in _win_row(*name, group)]
    win_rows.sort(
        key=lambda row: (objectives.index(row.objectives), row.by, row.aspect, row.against, systems.index(row.system))
    )
    yield from _corrected(
        win_rows, lambda row: (row.objectives, row.against, row.aspect, row.by), lambda row: row.result.p
    )


def _win_row(
    objectives: str, system: str, against: str, aspect: str, by: str, group: Sequence[_Judged]
) -> Iterator[WinRow]:
    complete = [comparison for comparison in group if comparison.complete]
    if not complete:
        return
    by_prompt = by_unit(
        (c.system.prompt_id, [sum(c.outcomes) / 2, len(c.system.text) - len(c.against.text)]) for c in complete
    )
    result = statistics.win_rate(*_stacked(by_prompt, by_prompt))
    yield WinRow(objectives, system, against, aspect, by, result, result.p, len(group) - len(complete))
