"""The tables of a report, shaped like the paper's: systems as rows, what was measured of each objective as columns.

Wherever luck could have made a difference from the baseline, the table says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .. import __version__
from .compare import Comparison, Difference, FolderComparison, Metric, SystemRow, WinRow, direction
from .grid import NOISE, Cell, Grid, Row, ranked
from .statistics import UNFIT, Estimate
from .suite import Suite

_CHECKS = ("check", "checks")
_SCORES = ("least", "reward", "prompting", "fluency", "rank")
_TELLING = ("check:all", "least", "fluency", "repetition")  # metrics whose differences have a table of their own
_SUMMARY = ("check:all", "least", "prompting", "fluency", "repetition", "words")  # those that are averaged over all
_NAMES = {
    "least": "least served",
    "prompting": "under direct prompting",
    "checks": "share met",
    "check:all": "all met",
    "distinct1": "distinct words",
    "distinct2": "distinct pairs",
}
_SHARES = {"check", "checks", "finished", "script", "distinct1", "distinct2", "repetition", "acceptance"}
_COUNTS = {"words", "tokens", "readability"}

_PAIRED_NOTE = "Paired by prompt; intervals at 95 % by bootstrap."
_SPEED_NOTE = "Where several answers are written at once, each waits for the others: --parallel 1 measures speed."
_NOISE_NOTE = (
    f"{NOISE}: within noise, so luck could have made the difference (5 %, Holm's correction over the systems)."
)


def report_grids(suite: Suite, comparison: Comparison) -> list[Grid]:
    """All tables of an evaluation; what was not measured has none."""
    wins = [
        grid
        for by in dict.fromkeys(row.by for row in comparison.wins)
        for grid in (_win_grid(suite, comparison, by), _win_grid(suite, comparison, by, at_equal_length=True))
    ]
    wins = [grid for grid in wins if any(cell.text for row in grid.rows for cell in row.cells)]
    told = dict.fromkeys(metric.by for row in comparison.systems for metric in row.means)
    scores = [grid for by in told if (grid := _metric_grid(suite, comparison, _scores_title(by), _SCORES, by))]
    kinds = dict.fromkeys(_kind(metric) for row in comparison.systems for metric in row.means if not metric.by)
    texts = [kind for kind in kinds if kind not in (*_CHECKS, *_SCORES)]
    checks = _metric_grid(suite, comparison, "Checks that need no model", _CHECKS, "")
    rest = _metric_grid(suite, comparison, "The texts", texts, "")
    times = [_time_grid(suite, comparison) if suite.shape == "time" else _speed_grid(suite, comparison)]
    whole = _summary_grid(comparison)
    main = [
        *([whole] if whole else []),
        *wins,
        *([checks] if checks else []),
        *scores,
        *_beside_baseline(comparison),
        *([rest] if rest else []),
    ]
    return [*times, *main] if suite.shape == "time" else [*main, *times]


def telling_note(comparison: Comparison) -> str:
    """The smallest win rate that so many prompts can tell from chance, as a sentence."""
    n, telling, found = comparison.prompts, comparison.smallest_telling, comparison.smallest_found
    if telling is None:
        return f"{n} prompts tell no win rate from chance (two-sided sign test, 5 %): take more."
    often = f", and find a true {found:.0%} four times out of five" if found is not None else ""
    return f"{n} prompts tell win rates from {telling:.0%} on from chance (two-sided sign test, 5 %){often}."


def judge_notes(comparison: Comparison) -> list[str]:
    """How steady each judge is, and which are unfit."""
    return [_steadiness_note(comparison, by) for by in comparison.judges]


def _steadiness_note(comparison: Comparison, by: str) -> str:
    steadiness = comparison.judges[by]
    if steadiness.flip_rate is None:
        return f"{by} named the same answer, or neither, whichever order the answers stood in: nothing decisive."
    text = f"{by} turns over {steadiness.flip_rate:.0%} of its {steadiness.decisive} decisive verdicts"
    unfit = f": UNFIT as a judge, for more than {UNFIT:.0%} is too much" if steadiness.unfit else ""
    return f"{text} when the two answers change places{unfit}."


# All objectives together


def _summary_grid(comparison: Comparison) -> Grid | None:
    """The means over the objectives of what tells most; None where there is only one."""
    rows = comparison.systems
    if len({row.objectives for row in rows}) < 2:
        return None
    systems = list(dict.fromkeys(row.system for row in rows))
    found = {metric for row in rows for metric in row.means if metric.name in _SUMMARY}
    metrics = sorted(found, key=lambda metric: (_SUMMARY.index(metric.name), metric.by))

    def mean(system: str, form: Callable[[float], str], of: Callable[[SystemRow], float | None]) -> Cell:
        values = [value for row in rows if row.system == system and (value := of(row)) is not None]
        return estimated(Estimate(sum(values) / len(values), len(values)), form) if values else Cell()

    def value_of(metric: Metric) -> Callable[[SystemRow], float | None]:
        return lambda row: row.means[metric].value if metric in row.means else None

    columns = [[mean(system, _form(metric), value_of(metric)) for system in systems] for metric in metrics]
    columns.append([mean(system, "{:.1f}".format, lambda row: row.tokens_per_s.value) for system in systems])
    cells = _columns(columns, [*map(direction, metrics), 1])
    return Grid(
        "All objectives together",
        "system",
        (*map(_full_name, metrics), "tokens/s"),
        tuple(Row(name, row) for name, row in zip(systems, cells, strict=True)),
        notes=("Means over the objectives that have it, each of them counting alike.",),
    )


# Win rates


def _win_grid(suite: Suite, comparison: Comparison, by: str, at_equal_length: bool = False) -> Grid:
    rows = [row for row in comparison.wins if row.by == by]
    names = dict.fromkeys((row.system, row.against) for row in rows)
    columns = dict.fromkeys((row.objectives, row.aspect) for row in rows)
    found = {(row.system, row.against, row.objectives, row.aspect): row for row in rows}

    def cell(name: tuple[str, str], column: tuple[str, str]) -> Cell:
        row = found.get((*name, *column))
        if row is None:
            return Cell()
        rate = row.result.length_controlled if at_equal_length else row.result.rate
        return estimated(rate, _percent, noise=row.within_noise and not at_equal_length, interval=True)

    cells = _columns([[cell(name, column) for name in names] for column in columns], [1] * len(columns))
    labels = [system if against == suite.baseline else f"{system} (against {against})" for system, against in names]
    what = "Win rate at equal length" if at_equal_length else "Win rate"
    return Grid(
        f"{what} against {suite.baseline}, by {by}",
        "system",
        tuple(aspect for _, aspect in columns),
        tuple(Row(label, row) for label, row in zip(labels, cells, strict=True)),
        _groups(objectives for objectives, _ in columns),
        tuple(_win_notes(comparison, by, rows, at_equal_length)),
    )


def _win_notes(comparison: Comparison, by: str, rows: Sequence[WinRow], at_equal_length: bool) -> list[str]:
    if at_equal_length:
        return ["What the rate would be were both answers of the same length (logistic regression)."]
    notes = ["Ties count as halves; intervals at 95 %.", telling_note(comparison), _NOISE_NOTE]
    if by in comparison.judges:
        notes.append(_steadiness_note(comparison, by))
    if incomplete := sum(row.incomplete for row in rows):
        notes.append(f"{incomplete} comparisons were judged in one order alone, and do not count.")
    return notes


# Scores


def _scores_title(by: str) -> str:
    return f"Scores by {by}, nats a token" if by else "Scores"


def _metric_grid(suite: Suite, comparison: Comparison, title: str, kinds: Sequence[str], by: str) -> Grid | None:
    """The metrics of these kinds, of every objectives; None where there are none."""
    columns = _found(comparison, kinds, by)
    systems = list(dict.fromkeys(row.system for row in comparison.systems))
    if not columns:
        return None
    rows = {(row.objectives, row.system): row for row in comparison.systems}
    differences = {(d.objectives, d.system, d.metric): d for d in comparison.differences}

    def cell(system: str, objectives: str, metric: Metric) -> Cell:
        row = rows.get((objectives, system))
        if row is None or metric not in row.means:
            return Cell()
        difference = differences.get((objectives, system, metric))
        return estimated(row.means[metric], _form(metric), noise=difference is not None and difference.within_noise)

    values = [[cell(system, *column) for system in systems] for column in columns]
    cells = _columns(values, [direction(metric) for _, metric in columns])
    return Grid(
        title,
        "system",
        tuple(metric_name(metric) for _, metric in columns),
        tuple(Row(name, row) for name, row in zip(systems, cells, strict=True)),
        _groups(objectives for objectives, _ in columns),
        (_NOISE_NOTE,) if any(c.noise for row in cells for c in row) else (),
    )


def _beside_baseline(comparison: Comparison) -> list[Grid]:
    """What tells most of each system, less the same of the system that it is compared with; a table for each
    objectives."""
    telling = [d for d in comparison.differences if d.metric.name in _TELLING]
    grids = []
    for objectives in dict.fromkeys(d.objectives for d in telling):
        mine = [d for d in telling if d.objectives == objectives]
        baselines = dict.fromkeys(d.baseline for d in mine)
        if len(baselines) == 1:
            grids.append(_difference_grid(f"{objectives}: less {mine[0].baseline}", mine, lambda d: d.system))
        else:
            label = f"{objectives}: less the one it is compared with"
            grids.append(_difference_grid(label, mine, lambda d: f"{d.system} (less {d.baseline})"))
    return grids


def _difference_grid(
    title: str, differences: Sequence[Difference], label: Callable[[Difference], str], *notes: str
) -> Grid:
    """Differences of one objectives, with their intervals: a row a system, a column a metric."""
    metrics = list(dict.fromkeys(d.metric for d in differences))
    found = {(d.system, d.metric): d for d in differences}
    labels = {d.system: label(d) for d in differences}
    rows = tuple(
        Row(text, tuple(_difference(found.get((system, metric))) for metric in metrics))
        for system, text in labels.items()
    )
    return Grid(title, "system", tuple(map(_full_name, metrics)), rows, notes=(*notes, _PAIRED_NOTE, _NOISE_NOTE))


def _found(comparison: Comparison, kinds: Sequence[str], by: str) -> list[tuple[str, Metric]]:
    """The metrics that some system has, by objectives and in the order of the kinds."""
    columns = dict.fromkeys(
        (row.objectives, metric)
        for row in comparison.systems
        for metric in row.means
        if metric.by == by and _kind(metric) in kinds
    )
    objectives = list(dict.fromkeys(name for name, _ in columns))
    return sorted(columns, key=lambda column: (objectives.index(column[0]), kinds.index(_kind(column[1]))))


def _kind(metric: Metric) -> str:
    return metric.name.partition(":")[0]


def metric_name(metric: Metric) -> str:
    """As a column's heading."""
    return _NAMES.get(metric.name) or metric.name.partition(":")[2] or metric.name


def _full_name(metric: Metric) -> str:
    """With the model that says so."""
    return f"{metric_name(metric)} by {metric.by.removesuffix('.gguf')}" if metric.by else metric_name(metric)


# Times


def _speed_grid(suite: Suite, comparison: Comparison) -> Grid:
    objectives = list(dict.fromkeys(row.objectives for row in comparison.systems))
    systems = list(dict.fromkeys(row.system for row in comparison.systems))
    rows = {(row.system, row.objectives): row for row in comparison.systems}
    forms: list[tuple[Callable[[SystemRow], Estimate], Callable[[float], str], int]] = [
        (lambda row: row.tokens_per_s, "{:.1f}".format, 1),
        (lambda row: row.seconds, "{:.2f}".format, -1),
    ]
    values, directions = [], []
    for name in objectives:
        for of, form, better in forms:
            values.append([estimated(of(rows[s, name]), form) if (s, name) in rows else Cell() for s in systems])
            directions.append(better)
    cells = _columns(values, directions)
    return Grid(
        "Speed",
        "system",
        ("tokens/s", "seconds an answer") * len(objectives),
        tuple(Row(name, row) for name, row in zip(systems, cells, strict=True)),
        _groups(name for name in objectives for _ in forms),
        (_SPEED_NOTE,),
    )


def _time_grid(suite: Suite, comparison: Comparison) -> Grid:
    """Seconds an answer, a row for each number of objectives: the paper's Table 5."""
    counts = {objectives.name: len(objectives.prefer) for objectives in suite.objectives}
    objectives = list(dict.fromkeys(row.objectives for row in comparison.systems))
    systems = list(dict.fromkeys(row.system for row in comparison.systems))
    seconds = {(row.objectives, row.system): row.seconds for row in comparison.systems}
    rows = []
    for name in objectives:
        cells = [
            estimated(seconds[name, s], "{:.2f}".format, interval=True) if (name, s) in seconds else Cell()
            for s in systems
        ]
        rows.append(Row(f"{counts.get(name, '')} ({name})", tuple(ranked(cells, higher=False))))
    return Grid("Seconds an answer", "objectives", tuple(systems), tuple(rows), notes=("Intervals at 95 %.",))


# Two evaluations


def folder_grids(comparison: FolderComparison, first: str, second: str) -> list[Grid]:
    """Of each system that both have, the second's numbers less the first's; a table for each objectives."""
    return [
        _difference_grid(
            f"{objectives}: {second} less {first}",
            [d for d in comparison.differences if d.objectives == objectives],
            lambda d: d.system,
            f"Over {comparison.prompts} prompts that both have.",
        )
        for objectives in dict.fromkeys(d.objectives for d in comparison.differences)
    ]


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    form = _form(difference.metric)
    signed: Callable[[float], str] = lambda value: f"{'+' if value >= 0 else '-'}{form(abs(value))}"  # noqa: E731
    return estimated(difference.estimate, signed, noise=difference.within_noise, interval=True)


# For programs


def report_json(suite: Suite, comparison: Comparison) -> str:
    """All numbers as one object; what cannot be told is null."""
    whole = {
        "pjlocal": __version__,
        "suite": suite.name,
        "baseline": suite.baseline,
        "prompts": comparison.prompts,
        "smallest_telling": comparison.smallest_telling,
        "smallest_found": comparison.smallest_found,
        "judges": {
            by: asdict(steady) | {"flip_rate": steady.flip_rate, "unfit": steady.unfit}
            for by, steady in comparison.judges.items()
        },
        "systems": [_system_dict(row) for row in comparison.systems],
        "differences": [_difference_dict(row) for row in comparison.differences],
        "wins": [_row_dict(row) for row in comparison.wins],
    }
    return json.dumps(_finite(whole), ensure_ascii=True, indent=1) + "\n"


def folder_json(comparison: FolderComparison) -> str:
    """The same of two evaluations."""
    whole = asdict(comparison) | {"differences": [_difference_dict(row) for row in comparison.differences]}
    return json.dumps(_finite(whole), ensure_ascii=True, indent=1) + "\n"


def _system_dict(row: SystemRow) -> dict[str, Any]:
    values = {"objectives": row.objectives, "system": row.system, "answers": row.answers, "prompts": row.prompts}
    metrics = [{"metric": m.name, "by": m.by} | asdict(estimate) for m, estimate in row.means.items()]
    return values | {"tokens_per_s": asdict(row.tokens_per_s), "seconds": asdict(row.seconds), "metrics": metrics}


def _difference_dict(row: Difference) -> dict[str, Any]:
    return _row_dict(row) | {"metric": row.metric.name, "by": row.metric.by}


def _row_dict(row: Difference | WinRow) -> dict[str, Any]:
    extremes = {name: [value._asdict() for value in getattr(row, name)] for name in ("best", "worst")}
    return asdict(row) | extremes | {"within_noise": row.within_noise}


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Cells


def estimated(estimate: Estimate, form: Callable[[float], str], noise: bool = False, interval: bool = False) -> Cell:
    """A number as it is shown; with its interval, where it has one and that is wanted."""
    if not math.isfinite(estimate.value):
        return Cell()
    text = form(estimate.value)
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" [{form(estimate.low).removesuffix('%')}, {form(estimate.high).removesuffix('%')}]"
    return Cell(text, estimate.value, estimate.low, estimate.high, noise=noise)


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _form(metric: Metric) -> Callable[[float], str]:
    kind = _kind(metric)
    if kind in _SHARES:
        return _percent
    return "{:.1f}".format if kind in _COUNTS else "{:.3f}".format


def _columns(columns: Sequence[Sequence[Cell]], directions: Sequence[int]) -> list[tuple[Cell, ...]]:
    """The cells by rows, each column's best ones marked where its direction says which these are."""
    marked = [
        ranked(column, higher=better > 0) if better else list(column)
        for column, better in zip(columns, directions, strict=True)
    ]
    return [*zip(*marked, strict=True)]


def _groups(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    every = list(names)
    return tuple((name, every.count(name)) for name in dict.fromkeys(every))
