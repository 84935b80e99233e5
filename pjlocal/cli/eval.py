"""``pjlocal eval``: answers of several systems, scored, compared and shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.interrupt import Interrupt, Interrupted, on_sigint
from ..errors import UsageError, plural
from ..evaluation.suite import PANEL, Scoring
from ..request import PREFERENCES, Request, absolute, in_turn, place
from ..screen.console import WIDE, make_console, say
from ..screen.progress import progress_bars
from ..settings import Engine, Prompting
from ..textfile import known_ending, user_path
from . import completion
from .options import MODEL_VARIABLE, server_at, server_option, takes_settings

if TYPE_CHECKING:
    from rich.console import Console

    from ..client import Server
    from ..evaluation.compare import Results
    from ..evaluation.records import Folder
    from ..evaluation.run import Contestant, Run
    from ..evaluation.suite import Suite

eval_app = typer.Typer(no_args_is_help=True, add_completion=False)

_AT_ONCE = 8  # answers, unless another number is given
_PROMPTS = "Prompts"

_Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an evaluation.")]
_Systems = Annotated[list[str], typer.Option("--system", "-s", help="A system to show (repeatable; default: all).")]
_Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@eval_app.command("suites")
def suites() -> None:
    """List the built-in suites."""
    from ..evaluation.suitefile import load_suite, ready_suites
    from ..screen.tables import plain_table

    table = plain_table("suite", "what it compares", "systems", "objectives", right=(2, 3))
    for name in ready_suites():
        suite = load_suite(name)
        table.add_row(name, suite.title, str(len(suite.systems)), str(len(suite.objectives)))
    _table_console().print(table)


@eval_app.command("run")
@takes_settings(preferences=("prefer",), max_tokens=128)  # as a suite's
def run_suite(
    suite: Annotated[
        str,
        typer.Argument(
            help="A built-in suite (pjlocal eval suites lists them), or a file.", autocompletion=completion.suites
        ),
    ] = "quick",
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The folder for answers and scores. An evaluation that exists there is continued.",
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="The model that answers. Repeat it: each model answers all prompts.",
            autocompletion=completion.models,
        ),
    ] = [],
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Prompts instead of the suite's: a text, JSON, CSV or Parquet file, koala:FILE or helpsteer2:FILE.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="The field of that file that holds the prompt.", rich_help_panel=_PROMPTS)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most prompts to answer.", rich_help_panel=_PROMPTS)
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=0, help="Draw the prompts at random, with this seed.", rich_help_panel=_PROMPTS)
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Answers written at once. 1 writes them one by one, as pjlocal run does; only then is speed "
            "measured (default: 1 if the suite is about time, else 8).",
        ),
    ] = None,
    reward: Annotated[
        bool,
        typer.Option(
            "--reward/--no-reward",
            help="Compute implicit rewards and fluency with the model that answered.",
            rich_help_panel=PANEL,
        ),
    ] = True,
    scoring: Scoring,
    server: Annotated[
        str | None, server_option("A pjlocal serve that writes the answers", " The scoring models run here.")
    ] = None,
    request: Request,
    engine: Engine,
    given: frozenset[str],
) -> None:
    """Answer a set of prompts with every system of a suite, score the answers, and report."""
    from ..evaluation.generate import generate
    from ..evaluation.prompts import load_prompts
    from ..evaluation.records import AnswerRecord, Folder, Score, Verdict
    from ..evaluation.run import Run, made_with, make_tasks, scoring_settings, write_run
    from ..evaluation.score import check_scoring_models
    from ..evaluation.suite import check_systems, without_effect
    from ..evaluation.tables import power_note
    from ..gguf.locate import find_model

    interrupt = Interrupt()
    # The engine settings have an effect on the models that score here.
    there = server_at(server, interrupt, given & {"model"} if scoring.loads_models else given)
    models = [] if there else _models(model, given)
    changes = {"prompts": prompts, "field": field, "limit": limit, "sample": sample}
    wanted = _changed_suite(suite, changes, models, request, given)
    check_systems(wanted, request)
    questions = load_prompts(
        wanted.prompts, wanted.field, wanted.limit, wanted.sample, wanted.min_chars, wanted.max_chars
    )
    first = models[0] if models else None
    paths = [] if there else [find_model(system.model or first) for system in wanted.systems]
    if there and reward and "reward" in given:
        raise UsageError(
            "--reward needs the answering model on this machine: give --scorer MODEL, or leave --server out"
        )
    scoring = _located(scoring, paths if reward else [])
    contestants = _contestants(wanted, there or paths, request, engine)
    tasks = make_tasks(wanted, contestants, questions)
    keys = tuple(task.key for task in tasks)
    run = Run(wanted, tuple(questions), keys, made_with(contestants, request, engine))
    prompting, engine = scoring_settings(run, request.prompting, engine, given)
    parallel = parallel or (1 if wanted.timed else _AT_ONCE)
    with on_sigint(interrupt), Folder(user_path(str(out))) as folder:
        with _resumable():
            check_scoring_models(scoring, prompting, engine, interrupt)
            folder.hold(AnswerRecord, Score, Verdict)
            if unheard := without_effect(wanted, given):
                say(f"every system of the suite sets {', '.join(unheard)} itself, so your value has no effect")
            _check_continues(folder, run)
            write_run(folder, run)
            say(f"suite {wanted.name}: {len(tasks):,} {plural(len(tasks), 'answer')}. {power_note(len(questions))}")
            with progress_bars() as progress:
                generate(folder, tasks, parallel, interrupt, partial(progress, "answers"), there)
            _score_run(folder, run, scoring, prompting, engine, interrupt)
        _print_report(folder, run, with_page=True)


@eval_app.command("score")
@takes_settings()
def score(
    folder: _Dir,
    *,
    scoring: Scoring,
    prompting: Prompting,
    engine: Engine,
    given: frozenset[str],
) -> None:
    """Score existing answers with other models or another judge."""
    from ..evaluation.records import Score, Verdict
    from ..evaluation.run import scoring_settings

    scoring = _located(scoring, [])
    interrupt = Interrupt()
    with on_sigint(interrupt), _opened(folder) as (opened, run):
        prompting, engine = scoring_settings(run, prompting, engine, given)
        opened.hold(Score, Verdict)
        with _resumable():
            _score_run(opened, run, scoring, prompting, engine, interrupt)
        _print_report(opened, run, with_page=True)


@eval_app.command("report")
def report(
    folder: _Dir,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Write the report to this file (.html, .md or .json) instead; or its figures one by one (.svg, .png, "
            ".pdf, or .csv for their data).",
        ),
    ] = None,
    force: _Force = False,
) -> None:
    """Show which system wins, by how much, and whether the difference is significant."""
    with _opened(folder) as (opened, run):
        if target is None:
            _print_report(opened, run)
            return
        from ..evaluation import plots
        from ..evaluation.compare import compare
        from ..evaluation.report import FORMATS, write_figures, write_report

        if user_path(str(target)).resolve() == opened.run_file.resolve():
            raise UsageError(f"{target} is the evaluation's own file: give the report another name")
        ending = known_ending(target, (*FORMATS, *plots.FORMATS))
        results = _results(opened, run)
        if ending in plots.FORMATS:
            for path, title in write_figures(results, compare(results), target, force):
                say(f"{path}: {title}")
            return
        write_report(results, compare(results), run.facts(len(results.answers)), target, force)


@eval_app.command("compare")
def compare_folders(
    first: _Dir,
    second: _Dir,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two evaluations, prompt by prompt: the second's numbers minus the first's."""
    from ..evaluation import compare
    from ..evaluation.report import folder_json, print_folders

    names = [user_path(str(path)).resolve().name for path in (first, second)]
    if names[0] == names[1]:
        names = [str(first), str(second)]
    with _opened(first) as (one, run), _opened(second) as (other, other_run):
        compared = compare.compare_folders(_results(one, run), _results(other, other_run), names[0])
    if as_json:
        sys.stdout.write(folder_json(compared))
    else:
        print_folders(compared, names[0], names[1], _table_console())


@eval_app.command("show")
def show(
    folder: _Dir,
    systems: _Systems = [],
    objectives: Annotated[list[str], typer.Option("--objectives", help="Objectives to show (repeatable).")] = [],
) -> None:
    """Page through the answers side by side, with each token in the colour of the view that wrote it."""
    from ..evaluation import browser
    from ..evaluation.side_by_side import side_by_side

    with _opened(folder) as (opened, run):
        rows = browser.choose(side_by_side(_results(opened, run).answers, run.suite), systems, objectives)
    browser.show(rows, run.suite, make_console(sys.stdout))


@eval_app.command("vote")
def vote(
    folder: _Dir,
    systems: _Systems = [],
    aspects: Annotated[
        list[str],
        typer.Option(
            "--aspect", "-a", help="The criterion to vote on (repeatable; default: each preference, and quality)."
        ),
    ] = [],
    by: Annotated[str, typer.Option(help="Name of the voter.")] = "person",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order in which answers are shown.")] = 0,
) -> None:
    """Choose blind between two answers.  The votes count like a judge's."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("eval vote needs a terminal")
    from ..evaluation import vote
    from ..evaluation.records import Verdict, voter
    from ..evaluation.side_by_side import side_by_side

    with _opened(folder) as (opened, run):
        rows = side_by_side(_results(opened, run).answers, run.suite)
        pairs = vote.all_pairs(rows, run.suite, systems)
        opened.hold(Verdict)
        voting = vote.Voting(vote.questions(rows, pairs, aspects, seed), opened, voter(by))
        console = make_console(sys.stdout)
        vote.run_vote(voting, console)
        console.print(vote.outcome(voting, run.suite))


# Helpers of the commands.


def _table_console() -> Console:
    """Standard output, where a row of a table in a pipe is one line."""
    return make_console(sys.stdout, width=None if sys.stdout.isatty() else WIDE)


def _preferences(request: Request, given: frozenset[str]) -> list[str]:
    """The preferences from the command line or its persona.  Those of the config file are for chats.

    Raises:
        UsageError: they are not in turn for the two views.
    """
    if given.isdisjoint(PREFERENCES):
        return []
    prefer = in_turn(request.views)
    if place(prefer) != request.views:
        raise UsageError("an evaluation gives the views their preferences in turn: give them all with -p")
    return prefer


def _models(model: list[str] | str, given: frozenset[str]) -> list[str]:
    """The models of the command line, else that of the environment, else the config file's."""
    if "model" not in given and (named := os.environ.get(MODEL_VARIABLE)):
        return [named]
    return [model] if isinstance(model, str) else model


def _changed_suite(
    name: str, changes: dict[str, Any], models: list[str], request: Request, given: frozenset[str]
) -> Suite:
    """The suite of that name with the values of the command line.

    Args:
        changes: values of the suite; None for those that are not given.

    Raises:
        UsageError: the suite or a value cannot be used.
    """
    from ..evaluation.suite import Objectives, with_models, with_settings
    from ..evaluation.suitefile import load_suite

    values = {key: value for key, value in changes.items() if value is not None}
    if changes["prompts"] is not None:
        values["field"] = changes["field"]  # not that of the suite's file
    if "seed" in given:
        if request.generation.seed is None:
            raise UsageError("--seed must be at least 0 (not -1): an evaluation can be run again with the same seeds")
        values["seeds"] = (request.generation.seed,)
    if prefer := _preferences(request, given):
        values["objectives"] = (Objectives(" + ".join(prefer), tuple(map(absolute, prefer))),)
    changed = with_settings(replace(load_suite(name), **values), request, given)
    return with_models(changed, models if len(models) > 1 else [])


def _contestants(suite: Suite, answering: Server | list[Path], request: Request, engine: Engine) -> list[Contestant]:
    """The systems of a suite, with the model that answers: a server's, or a file for each system."""
    from ..evaluation.records import digest_of
    from ..evaluation.run import AnsweringModel, make_contestant, server_model

    if isinstance(answering, list):
        models = [AnsweringModel(str(path), digest_of(path)) for path in answering]
    else:
        models = [server_model(answering, suite)] * len(suite.systems)
    return [
        make_contestant(suite, system, request, engine, each)
        for system, each in zip(suite.systems, models, strict=True)
    ]


def _located(scoring: Scoring, answering: list[Path]) -> Scoring:
    """The scoring models with their files, and the answering models as scorers too.

    Raises:
        UsageError: a server is given without a model's name.
        ModelError: a model cannot be found.
    """
    from ..gguf.locate import find_model

    def file(name: str | None) -> str | None:
        return str(find_model(name)) if name else None

    if scoring.judge_url and not scoring.judge:
        raise UsageError("--judge-url needs the name of the server's model: give it as --judge NAME")
    scorers = dict.fromkeys([*answering, *map(find_model, scoring.scorer)])
    return scoring.replace(
        scorer=tuple(map(str, scorers)),
        reward_model=file(scoring.reward_model),
        judge=scoring.judge if scoring.judge_url else file(scoring.judge),
    )


@contextmanager
def _resumable() -> Iterator[None]:
    """Tell the user that the same command continues, if Ctrl-C stops the body."""
    try:
        yield
    except Interrupted:
        say("stopped; the same command continues")
        raise


def _score_run(
    folder: Folder, run: Run, scoring: Scoring, prompting: Prompting, engine: Engine, interrupt: Interrupt
) -> None:
    from ..evaluation.score import score_run

    with progress_bars() as progress:
        score_run(folder, run, scoring, prompting, engine, interrupt, progress, say)


def _check_continues(folder: Folder, run: Run) -> None:
    """Refuse a run that leaves out answers of the folder's run.  It may add prompts, seeds and systems."""
    from ..evaluation.records import AnswerRecord
    from ..evaluation.run import read_run

    if folder.run_file.exists():
        n = len(folder.read(AnswerRecord).keys() & set(read_run(folder).keys) - set(run.keys))
        if n:
            raise UsageError(
                f"{folder.path} is another evaluation, and this command leaves out {n:,} of its answers: give another "
                f"--out, or remove {folder.run_file} to replace its report (the answers stay)"
            )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Folder, Run]]:
    from ..evaluation.records import Folder
    from ..evaluation.run import read_run

    with Folder(user_path(str(path))) as folder:
        yield folder, read_run(folder)


def _results(folder: Folder, run: Run) -> Results:
    from ..evaluation.compare import Results
    from ..evaluation.run import written_answers, written_scores, written_verdicts

    answers = written_answers(folder, run)
    return Results(run.suite, answers, written_scores(folder, run, answers), written_verdicts(folder, answers))


def _print_report(folder: Folder, run: Run, *, with_page: bool = False) -> None:
    """Print the report, and optionally write its page into the folder."""
    from ..evaluation.compare import compare
    from ..evaluation.report import print_report, write_report

    results = _results(folder, run)
    comparison, facts = compare(results), run.facts(len(results.answers))
    if with_page:  # before the report is printed: a closed pipe ends the program
        page = folder.path / "report.html"
        try:
            write_report(results, comparison, facts, page, force=True)
        except UsageError as error:
            say(f"{page} is not written: {error}")
        else:
            say(f"the report with its figures and all answers is {page}")
    print_report(results, comparison, facts, _table_console())
