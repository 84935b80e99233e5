"""Print and write the report of a comparison: tables, plots and page."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import __version__
from ..errors import UsageError
from ..html import render, source
from ..textfile import output_file, write_bytes, write_text
from ..visible import markdown_line, one_line
from .compare import Comparison, Difference, FolderComparison, Results, WinRow
from .plots import Plot, Point, Rate, inline, lines, plane, shorten, win_rates
from .side_by_side import facts as answer_facts
from .side_by_side import leads, legends, side_by_side, spans
from .statistics import smallest_detectable, smallest_significant
from .suite import Suite, System
from .table import Table, markdown_tables
from .tables import folder_tables, judge_notes, metric_name, power_note, report_tables


def print_report(results: Results, comparison: Comparison, facts: Sequence[str], console: Console) -> None:
    """Print facts, notes and tables."""
    for fact in (*facts, power_note(comparison.prompts), *judge_notes(comparison)):
        console.print(one_line(fact), markup=False, highlight=False)
    console.print()
    _print_tables(report_tables(results.suite, comparison), console)


def print_folders(comparison: FolderComparison, first: str, second: str, console: Console) -> None:
    """Print the tables of a comparison of two evaluations, and the systems that only one of them has."""
    _print_tables(folder_tables(comparison, first, second), console)
    for name, only in ((first, comparison.only_first), (second, comparison.only_second)):
        if only:
            systems = ", ".join(f"{system} ({objectives})" for objectives, system in only)
            console.print(one_line(f"Only in {name}: {systems}."), markup=False, highlight=False)


def _print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables on a terminal or into a pipe."""
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(table)


def as_markdown(results: Results, comparison: Comparison, facts: Sequence[str]) -> str:
    """The facts and tables as Markdown."""
    suite = results.suite
    head = [f"# {markdown_line(suite.title or suite.name)}", " · ".join(map(markdown_line, facts))]
    return "\n\n".join([*filter(None, head), markdown_tables(report_tables(suite, comparison))])


_N_LARGEST = 10  # wins and losses that the page lists


def as_page(results: Results, comparison: Comparison, facts: Sequence[str]) -> str:
    """The whole report, with plots and every answer coloured by view, as one HTML page, which loads nothing.  The same
    data give the same bytes.

    The page contains all answers as text, so it can be read without the script, which filters and sorts, and the
    browser's search finds everything.  Answers outside the screen are not laid out (``content-visibility``): 1,602
    answers in 106,800 spans, 3.2 MB, appear after 0.3 to 0.8 s (Chromium, two busy cores).

    Raises:
        UsageError: the packages that draw the plots are missing.
    """
    suite, script = results.suite, source("evaluation/report.js")
    rows = side_by_side(results.answers, suite)
    ahead, measured_by = leads(rows, suite, results.verdicts, results.scores)
    wins = [lead for lead in ahead if lead.margin > 0][:_N_LARGEST]
    losses = [lead for lead in reversed(ahead) if lead.margin < 0][:_N_LARGEST]
    return render(
        "evaluation/report.html",
        suite=suite,
        title=suite.title or suite.name,
        about=facts,
        explanations=[power_note(comparison.prompts), *judge_notes(comparison)],
        tables=report_tables(suite, comparison),
        plots=report_plots(suite, comparison),
        answers=rows,
        script=script,
        digest=b64encode(sha256(script.encode()).digest()).decode(),  # lets the browser run this script and no other
        leads={"wins": wins, "losses": losses},
        measured_by=measured_by,
        order=[*dict.fromkeys([*(lead.at for lead in [*wins, *losses]), *range(len(rows))])],
        objectives=[*dict.fromkeys(row.objectives for row in rows)],
        systems=[*dict.fromkeys(system for row in rows for system in row.answers)],
        legends=legends,
        facts_of=answer_facts,
        spans=spans,
        svg=inline,
        shorten=shorten,
    )


def as_json(results: Results, comparison: Comparison, facts: Sequence[str]) -> str:
    """The numbers as one JSON object; unknown numbers are null."""
    return _json(
        {
            "pjlocal": __version__,
            "suite": results.suite.name,
            "baseline": results.suite.baseline,
            "prompts": comparison.prompts,
            "smallest_telling": smallest_significant(comparison.prompts),
            "smallest_found": smallest_detectable(comparison.prompts),
            "judges": {
                by: asdict(steady) | {"flip_rate": steady.flip_rate, "unfit": steady.unfit}
                for by, steady in comparison.judges.items()
            },
            "systems": [
                {name: value for name, value in vars(row).items() if name != "means"}
                | {"tokens_per_s": asdict(row.tokens_per_s), "seconds": asdict(row.seconds)}
                | {"metrics": [{"metric": m.name, "by": m.by} | asdict(mean) for m, mean in row.means.items()]}
                for row in comparison.systems
            ],
            "differences": [_difference_dict(row) for row in comparison.differences],
            "wins": [_row_dict(row) for row in comparison.wins],
        }
    )


def folder_json(comparison: FolderComparison) -> str:
    """The numbers of a comparison of two evaluations as one JSON object."""
    return _json(asdict(comparison) | {"differences": [_difference_dict(row) for row in comparison.differences]})


def _difference_dict(row: Difference) -> dict[str, Any]:
    return _row_dict(row) | {"metric": row.metric.name, "by": row.metric.by}


def _row_dict(row: Difference | WinRow) -> dict[str, Any]:
    return asdict(row) | {"within_noise": row.within_noise}


def _json(values: dict[str, Any]) -> str:
    """Standard JSON, with null instead of NaN and infinite numbers."""
    standard = json.loads(json.dumps(values), parse_constant=lambda constant: None)
    return json.dumps(standard, indent=1) + "\n"


FORMATS: dict[str, Callable[[Results, Comparison, Sequence[str]], str]] = {
    "md": as_markdown,
    "json": as_json,
    "html": as_page,
}


def write_report(
    results: Results, comparison: Comparison, facts: Sequence[str], target: Path, force: bool = False
) -> None:
    """Write the report atomically, in the format of the file's ending.

    Raises:
        UsageError: no format has this ending, the file exists and ``force`` is not set, or a package is missing.
        OutputError: the file cannot be written.
    """
    path, form = output_file(target, FORMATS, force)
    write_text(path, form(results, comparison, facts))


def write_figures(
    results: Results, comparison: Comparison, target: Path, force: bool = False
) -> list[tuple[Path, str]]:
    """Write each plot to a file of its own in the format that the target's ending names; returns paths and titles.

    Several plots are numbered: ``figure-1.svg``.

    Raises:
        UsageError: there is no plot, a file exists and ``force`` is not set, or a package is missing.
        OutputError: a file cannot be written.
    """
    plots = report_plots(results.suite, comparison)
    if not plots:
        raise UsageError("this evaluation has no figures: they show verdicts, rewards, a varied lambda and times")
    names = [target.with_stem(f"{target.stem}-{n}") for n in range(1, len(plots) + 1)] if len(plots) > 1 else [target]
    form = target.suffix.lower().removeprefix(".")
    paths = [output_file(name, {form: form}, force)[0] for name in names]
    for path, plot in zip(paths, plots, strict=True):
        write_bytes(path, plot.as_file(form))
    return [(path, plot.title) for path, plot in zip(paths, plots, strict=True)]


# Plots


def report_plots(suite: Suite, comparison: Comparison) -> list[Plot]:
    """The plots for which there are numbers."""
    plots = [*_win_plots(comparison), *_reward_plots(comparison)]
    plots += [*_lambda_plots(suite, comparison), *_time_plots(suite, comparison)]
    return plots


def _win_plots(comparison: Comparison) -> Iterator[Plot]:
    for by, objectives in dict.fromkeys((row.by, row.objectives) for row in comparison.wins):
        rows = [row for row in comparison.wins if (row.by, row.objectives) == (by, objectives)]
        against = " or ".join(dict.fromkeys(row.against for row in rows))
        rates = [_rate(row) for row in rows]
        yield win_rates(rates, f"Win rates for {objectives}, by {by}, with 95 % intervals", against)


def _rate(row: WinRow) -> Rate:
    rate = row.result.rate
    low, high = (rate.value if end is None else end for end in (rate.low, rate.high))
    return Rate(row.aspect, row.system, rate.value, low, high)


def _reward_plots(comparison: Comparison) -> Iterator[Plot]:
    """Plots of fluency and the least of the preferences' rewards, one for each scorer and set of objectives."""
    scorers = dict.fromkeys(metric.by for row in comparison.systems for metric in row.means if metric.name == "fluency")
    for by in scorers:
        for objectives in dict.fromkeys(row.objectives for row in comparison.systems):
            points: dict[str, Point] = {}
            for row in comparison.systems:
                means = {metric.name: estimate.value for metric, estimate in row.means.items() if metric.by == by}
                rewards = [value for name, value in means.items() if name.startswith("reward:")]
                if row.objectives == objectives and rewards and "fluency" in means:
                    points[row.system] = min(rewards), means["fluency"]
            if points:
                title = f"Reward against fluency for {objectives}, by {by}"
                yield plane(points, title, "least implicit reward of the preferences, nats per token",
                            "fluency, nats per token")  # fmt: skip


def _lambda_plots(suite: Suite, comparison: Comparison) -> Iterator[Plot]:
    """λ against score and speed, if the suite varies λ.  Scores are win rates, or else implicit rewards."""
    places = [(s.name, float(s.settings["lam"]), _but_lambda(s)) for s in suite.systems if "lam" in s.settings]
    if len({lam for _, lam, _ in places}) < 2:
        return
    for objectives in dict.fromkeys(row.objectives for row in comparison.systems):
        rows = [row for row in comparison.systems if row.objectives == objectives]
        won = [row for row in comparison.wins if row.objectives == objectives]
        scores: dict[str, dict[str, float]] = {}
        for win in won:
            scores.setdefault(f"{win.aspect}, {win.by}", {})[win.system] = 100 * win.result.rate.value
        for row in rows if not won else ():
            for metric, estimate in row.means.items():
                if metric.name.startswith("reward:"):
                    scores.setdefault(f"{metric_name(metric)}, {metric.by}", {})[row.system] = estimate.value
        speeds = {"tokens/s": {row.system: row.tokens_per_s.value for row in rows}}
        what = f"% won against {suite.baseline}" if won else "implicit reward, nats"
        panels = {what: _series(scores, places), "tokens/s": _series(speeds, places)}
        if panels := {label: series for label, series in panels.items() if series}:
            yield lines(panels, f"λ against score and speed for {objectives}", "λ, tokens drafted in a round")


def _but_lambda(system: System) -> str:
    """A system's model, preference and settings except λ.  Systems that agree in them form one line of a plot."""
    values = [value for name, value in sorted(system.settings.items()) if name != "lam"]
    model = Path(system.model).name if system.model else None
    return " ".join(str(value) for value in (*values, model, system.only) if value is not None)


def _series(
    values: Mapping[str, Mapping[str, float]], places: Sequence[tuple[str, float, str]]
) -> dict[str, list[Point]]:
    """Lines through the values of systems that differ only in λ.

    Args:
        values: a value for each system, by the name of the measure.
        places: each system with its λ and the result of `_but_lambda`.
    """
    kinds = dict.fromkeys(kind for _, _, kind in places)
    found = {}
    for label, by_system in values.items():
        for kind in kinds:
            points = [(at, by_system[name]) for name, at, of in places if of == kind and name in by_system]
            if points := [point for point in points if isfinite(point[1])]:
                found[f"{label}, {kind}" if len(kinds) > 1 else label] = sorted(points)
    return found


def _time_plots(suite: Suite, comparison: Comparison) -> Iterator[Plot]:
    """Seconds per answer against the number of preferences, if the suite varies it."""
    counts = {objectives.name: len(objectives.prefer) for objectives in suite.objectives}
    if not suite.timed or len(set(counts.values())) < 2:
        return
    series: dict[str, list[Point]] = {}
    for row in comparison.systems:
        if isfinite(row.seconds.value):
            series.setdefault(row.system, []).append((counts[row.objectives], row.seconds.value))
    if series:
        panels = {"seconds an answer": {system: sorted(points) for system, points in series.items()}}
        yield lines(panels, "Time against number of objectives", "objectives")
