"""``pjlocal eval``: does it align?  Answers by several systems, scored and compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.interrupt import INTERRUPTED, Interrupt, Interrupted, on_sigint
from ..screen.console import make_console
from ..settings import Engine, Generation, Prompting, Sampling
from ..textfile import user_path
from .options import PreferOption, takes_settings

if TYPE_CHECKING:
    from ..evaluation.suite import Suite

eval_app = typer.Typer(help="Does it align?  Answers by several systems, scored and compared.", no_args_is_help=True)

_Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The folder that keeps all of it; one that exists goes on.")
]


@eval_app.command("run")
@takes_settings()
def run_suite(
    suite: Annotated[str, typer.Argument(help="A ready suite (see pjlocal eval suites), or a TOML file.")] = "quick",
    *,
    out: _Out,
    models: Annotated[
        list[str],
        typer.Option("--model", "-m", help="The model that answers; of several, every one answers everything."),
    ] = [],
    prefer: PreferOption = [],
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompts instead of the suite's: a file, koala:FILE, helpsteer2:FILE, or default."),
    ] = None,
    field: Annotated[str | None, typer.Option(help="The field of that file which holds the prompt.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts at most.")] = None,
    sample: Annotated[int | None, typer.Option(min=0, help="Draw the prompts at random, with this seed.")] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=64, help="Answers at once; 1 writes them one by one, as pjlocal run does.")
    ] = 8,
    generation: Generation,
    sampling: Sampling,
    prompting: Prompting,
    engine: Engine,
    given: frozenset[str],
) -> int:
    """Answer a set of prompts with every system of a suite."""
    from ..evaluation.generate import generate
    from ..evaluation.prompts import load_prompts
    from ..evaluation.records import Folder
    from ..evaluation.run import Asked, Run, digest_of, made_with, make_manner, make_tasks, write_run
    from ..evaluation.suite import check_systems, with_models
    from ..evaluation.suitefile import load_suite
    from ..gguf.locate import find_model

    asked = Asked(generation, sampling, prompting, given)
    wanted = _changed(load_suite(suite), prefer, prompts, field, limit, sample)
    wanted = with_models(wanted, models if len(models) > 1 else [])
    check_systems(wanted, generation, given)
    questions = load_prompts(
        wanted.prompts, wanted.field, wanted.limit, wanted.sample, wanted.min_chars, wanted.max_chars
    )
    alone = models[0] if models else None
    paths = [str(find_model(system.model or alone)) for system in wanted.systems]
    digests = {path: digest_of(Path(path)) for path in set(paths)}
    manners = [
        make_manner(wanted, system, asked, path, digests[path])
        for system, path in zip(wanted.systems, paths, strict=True)
    ]
    tasks = make_tasks(wanted, manners, questions)
    interrupt = Interrupt()
    with on_sigint(interrupt), Folder(user_path(str(out))) as folder, _Progress("answers") as progress:
        write_run(
            folder,
            Run(wanted, tuple(questions), tuple(task.key for task in tasks), made_with(manners, asked, engine)),
        )
        try:
            generate(folder, tasks, engine, parallel, interrupt, progress)
        except Interrupted:
            print(f"pjlocal: stopped; the same command goes on where {out} ends", file=sys.stderr)
            return INTERRUPTED
    return 0


def _changed(
    suite: Suite,
    prefer: list[str],
    prompts: str | None,
    field: str | None,
    limit: int | None,
    sample: int | None,
) -> Suite:
    """The suite with what the command line says instead."""
    from dataclasses import replace

    from ..evaluation.suite import Objectives

    changes: dict[str, object] = {"field": field, "limit": limit, "sample": sample, "prompts": prompts}
    if prompts:
        changes |= {"field": field or ""}
    if prefer:
        changes["objectives"] = (Objectives(" + ".join(prefer), tuple(prefer)),)
    return replace(suite, **{name: value or None for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


class _Progress:
    """How far it is, and how long it will take, on standard error where that is a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> _Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = make_console(sys.stderr)
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(self._what, total=None)
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
