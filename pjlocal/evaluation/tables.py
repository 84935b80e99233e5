"""The tables of a report, in the form of the paper's: systems as rows, the metrics of each objective as columns.

Differences from the baseline that are within noise are marked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..visible import shown_line
from .checks import unchecked
from .compare import Comparison, Difference, FolderComparison, Metric, WinRow, direction, place
from .statistics import UNFIT, Estimate, smallest_detectable, smallest_significant
from .suite import Suite
from .table import NOISE, Cell, Column, Table, rank_cells

_CHECKS = ("check", "checks")
_SCORES = ("least", "reward", "prompting", "fluency")  # in nats per token
_RANKS = ("rank",)  # of a reward model, without a unit
_SPEED = ("tokens/s", "seconds an answer")
_COMPARED = ("check:all", "least", "fluency", "repetition")  # metrics whose differences have a table of their own
_COPIED = ("question copied", "preferences copied")
_SUMMARY = ("check:all", "least", "prompting", "fluency", "repetition", *_COPIED, "words", "tokens/s")  # over all
_NAMES = {
    "least": "least served",
    "prompting": "under direct prompting",
    "checks": "share met",
    "check:all": "all met",
    "distinct1": "distinct words",
    "distinct2": "distinct pairs",
}
_SHARES = {"check", "checks", "finished", "distinct1", "distinct2", "repetition", *_COPIED, "acceptance"}
_DECIMALS = {"words": 1, "tokens": 1, "readability": 1, "tokens/s": 1, "seconds an answer": 2}  # others have 3

_PAIRED_NOTE = "Paired by prompt; 95 % bootstrap intervals."
_NOISE_NOTE = (
    f"{NOISE}: within noise, so chance could explain the difference (5 %, Holm's correction over the systems)."
)


class _Value(NamedTuple):
    """A cell and its place in a table.

    row, column: the keys of the row and the column.
    heading, group: the headings of the column.
    better: 1 if more is better, -1 if less is better, 0 if neither is.
    """

    row: Any
    column: Any
    cell: Cell
    heading: str
    group: str = ""
    better: int = 0


def report_tables(suite: Suite, comparison: Comparison) -> list[Table]:
    """The tables for all metrics that were measured."""
    metrics = dict.fromkeys(metric for row in comparison.systems for metric in row.means)
    texts = {_kind(metric) for metric in metrics} - {*_CHECKS, *_SCORES, *_RANKS}
    times = _time_table(suite, comparison) if suite.timed else _metric_table(comparison, "Speed", _SPEED, "")
    tables = [
        _summary_table(comparison),
        *(
            _win_table(suite, comparison, by, at_equal_length)
            for by in dict.fromkeys(row.by for row in comparison.wins)
            for at_equal_length in (False, True)
        ),
        _metric_table(comparison, "Checks that need no model", _CHECKS, "", *_unchecked_note(suite)),
        *(
            _metric_table(comparison, title, kinds, by)
            for by in dict.fromkeys(metric.by for metric in metrics if metric.by)
            for title, kinds in ((f"Scores by {by}, nats per token", _SCORES), (f"Scores by {by}", _RANKS))
        ),
        *_baseline_tables(comparison),
        _metric_table(comparison, "The texts", texts, ""),
    ]
    tables = [times, *tables] if suite.timed else [*tables, times]
    return [table for table in tables if any(cell.text for column in table.columns for cell in column.cells)]


def _unchecked_note(suite: Suite) -> list[str]:
    left_out = dict.fromkeys(text for objectives in suite.objectives for text in unchecked(objectives))
    names = ", ".join(map(shown_line, left_out))
    return [f'"all met" leaves out preferences without a check: {names}.'] if left_out else []


def _table(title: str, rows: Mapping[Any, str], values: Iterable[_Value], notes: Iterable[str] = ()) -> Table:
    """Make a table of systems, with the best cells of each column marked, and columns in the order of the values.

    Args:
        rows: the names of the rows by key.
    """
    columns: dict[Any, dict[Any, _Value]] = {}
    for value in values:
        columns.setdefault(value.column, {})[value.row] = value
    filled = []
    for found in columns.values():
        *_, heading, group, better = next(iter(found.values()))
        cells = rank_cells([found[row].cell if row in found else Cell() for row in rows], better)
        filled.append(Column(heading, cells, group))
    return Table(title, "system", tuple(rows.values()), tuple(filled), tuple(notes))


def power_note(n: int) -> str:
    """A sentence about the smallest win rate that is significant with ``n`` prompts."""
    significant, detectable = smallest_significant(n), smallest_detectable(n)
    if significant is None:
        few = "1 prompt is" if n == 1 else f"{n} prompts are"
        return f"{few} too few for any win rate to be significant (two-sided sign test, 5 %): use more."
    often = f"; a true rate of {detectable:.0%} is detected four times out of five" if detectable is not None else ""
    return f"With {n} prompts, win rates from {significant:.0%} on are significant (two-sided sign test, 5 %){often}."


def judge_notes(comparison: Comparison) -> list[str]:
    """A sentence about each judge: how steady its verdicts are, and whether it is unfit."""
    return [_steadiness_note(comparison, by) for by in comparison.judges]


def _steadiness_note(comparison: Comparison, by: str) -> str:
    steadiness = comparison.judges[by]
    if steadiness.flip_rate is None:
        return f"{by} gave no decisive verdict."
    text = f"{by} changes {steadiness.flip_rate:.0%} of its {steadiness.decisive} decisive verdicts"
    unfit = f": UNFIT as a judge (more than {UNFIT:.0%})" if steadiness.unfit else ""
    return f"{text} when the two answers change places{unfit}."


# All objectives together


def _summary_table(comparison: Comparison) -> Table:
    """The means of the most important metrics over all objectives; an empty table if there is only one."""
    several = len({row.objectives for row in comparison.systems}) > 1
    found: dict[tuple[str, Metric], list[float]] = {}
    for row in comparison.systems if several else ():
        for metric, estimate in row.numbers.items():
            if metric.name in _SUMMARY:
                found.setdefault((row.system, metric), []).append(estimate.value)
    values = []
    for (system, metric), some in found.items():
        cell = make_cell(Estimate(sum(some) / len(some), len(some)), _form(metric))
        values.append(_Value(system, metric, cell, _full_name(metric), better=direction(metric)))
    values.sort(key=lambda value: (_SUMMARY.index(value.column.name), value.column.by))
    note = "Means over the objectives that have the metric, with equal weights."
    return _table("All objectives together", _systems(comparison), values, [note])


def _systems(comparison: Comparison) -> dict[str, str]:
    return {row.system: row.system for row in comparison.systems}


# Win rates


def _win_table(suite: Suite, comparison: Comparison, by: str, at_equal_length: bool) -> Table:
    rows = [row for row in comparison.wins if row.by == by]

    def cell(row: WinRow) -> Cell:
        if at_equal_length:
            return make_cell(row.result.length_controlled, _percent, interval=True)
        return make_cell(row.result.rate, _percent, row.within_noise, interval=True)

    return _table(
        f"Win rate{' at equal length' * at_equal_length} against {suite.baseline}, by {by}",
        {(r.system, r.against): r.system + f" (against {r.against})" * (r.against != suite.baseline) for r in rows},
        [_Value((r.system, r.against), (r.objectives, r.aspect), cell(r), r.aspect, r.objectives, 1) for r in rows],
        _win_notes(comparison, by, rows, at_equal_length),
    )


def _win_notes(comparison: Comparison, by: str, rows: Sequence[WinRow], at_equal_length: bool) -> list[str]:
    if at_equal_length:
        return ["The estimated rate for answers of equal length (logistic regression)."]
    n_judged = max(row.result.rate.n for row in rows)
    notes = ["Ties count as halves; 95 % intervals.", power_note(n_judged), _NOISE_NOTE]
    if by in comparison.judges:
        notes.append(_steadiness_note(comparison, by))
    if incomplete := sum(row.incomplete for row in rows):
        notes.append(f"{incomplete} comparisons were judged in one order only, and do not count.")
    return notes


# Scores


def _metric_table(comparison: Comparison, title: str, kinds: Collection[str], by: str, *notes: str) -> Table:
    """A table of the metrics of these kinds, for all objectives."""
    noise = {(d.objectives, d.system, d.metric) for d in comparison.differences if d.within_noise}
    values = []
    for row in comparison.systems:
        for metric, estimate in row.numbers.items():
            if metric.by == by and _kind(metric) in kinds:
                cell = make_cell(estimate, _form(metric), (row.objectives, row.system, metric) in noise)
                column = row.objectives, metric
                values.append(_Value(row.system, column, cell, metric_name(metric), row.objectives, direction(metric)))
    objectives = [*dict.fromkeys(row.objectives for row in comparison.systems)]
    values.sort(key=lambda value: (objectives.index(value.group), place(value.column[1])))
    noise_note = [_NOISE_NOTE] * any(value.cell.noise for value in values)
    return _table(title, _systems(comparison), values, [*notes, *noise_note])


def _baseline_tables(comparison: Comparison) -> list[Table]:
    """A table for each set of objectives, with the differences of each system from its baseline in important
    metrics."""
    compared = [d for d in comparison.differences if d.metric.name in _COMPARED]
    tables = []
    for objectives in dict.fromkeys(d.objectives for d in compared):
        mine = [d for d in compared if d.objectives == objectives]
        several = len({d.baseline for d in mine}) > 1
        title = f"{objectives}: difference from {'the system compared with' if several else mine[0].baseline}"
        tables.append(_difference_table(title, mine, named=several))
    return tables


def folder_tables(comparison: FolderComparison, first: str, second: str) -> list[Table]:
    """A table for each set of objectives: for each system in both evaluations, the second's numbers minus the
    first's."""
    return [
        _difference_table(
            f"{objectives}: {second} minus {first}",
            [d for d in comparison.differences if d.objectives == objectives],
            f"Over the {comparison.prompts} prompts in both.",
        )
        for objectives in dict.fromkeys(d.objectives for d in comparison.differences)
    ]


def _difference_table(title: str, differences: Sequence[Difference], *notes: str, named: bool = False) -> Table:
    """A table of differences with their intervals.

    Args:
        named: whether each row names the system that it is compared with.
    """
    rows = {d.system: d.system + f" (minus {d.baseline})" * named for d in differences}
    values = []
    for d in differences:
        cell = make_cell(d.estimate, _signed(d.metric), d.within_noise, interval=True)
        values.append(_Value(d.system, d.metric, cell, _full_name(d.metric)))
    return _table(title, rows, values, [*notes, _PAIRED_NOTE, _NOISE_NOTE])


# Times


def _time_table(suite: Suite, comparison: Comparison) -> Table:
    """Seconds per answer, with a row for each set of objectives (the paper's Table 5)."""
    counts = {objectives.name: len(objectives.prefer) for objectives in suite.objectives}
    found = {
        (row.objectives, row.system): make_cell(row.seconds, "{:.2f}".format, interval=True)
        for row in comparison.systems
    }
    objectives, systems = dict.fromkeys(name for name, _ in found), _systems(comparison)
    rows = [rank_cells([found.get((name, system), Cell()) for system in systems], -1) for name in objectives]
    columns = (Column(system, cells) for system, cells in zip(systems, zip(*rows, strict=True), strict=True))
    names = (f"{counts.get(name, '')} ({name})" for name in objectives)
    return Table("Seconds an answer", "objectives", tuple(names), tuple(columns), ("95 % intervals.",))


# Names and cells


def _kind(metric: Metric) -> str:
    return metric.name.partition(":")[0]


def metric_name(metric: Metric) -> str:
    """The metric's name as a column's heading."""
    return _NAMES.get(metric.name) or metric.name.partition(":")[2] or metric.name


def _full_name(metric: Metric) -> str:
    return f"{metric_name(metric)} by {metric.by.removesuffix('.gguf')}" if metric.by else metric_name(metric)


def make_cell(estimate: Estimate, form: Callable[[float], str], noise: bool = False, interval: bool = False) -> Cell:
    """Format a number, with its interval if it has one and ``interval`` is set."""
    if not math.isfinite(estimate.value):
        return Cell()
    text = form(estimate.value)
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" [{form(estimate.low).removesuffix('%')}, {form(estimate.high).removesuffix('%')}]"
    return Cell(text, estimate.value, noise=noise)


_percent = "{:.0%}".format


def _form(metric: Metric) -> Callable[[float], str]:
    kind = _kind(metric)
    return _percent if kind in _SHARES else f"{{:.{_DECIMALS.get(kind, 3)}f}}".format


def _signed(metric: Metric) -> Callable[[float], str]:
    form = _form(metric)
    return lambda value: f"{'+' if value >= 0 else '-'}{form(abs(value))}"
