"""``pjlocal models``: the models on this machine, and how to get one."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ModelError, UsageError, byte_size, did_you_mean
from ..screen.console import say
from ..screen.display import in_columns
from ..settings import Engine
from ..visible import one_line
from . import completion
from .options import JsonOption, YesOption, confirm_removal, takes_settings

if TYPE_CHECKING:
    from ..gguf.header import Header
    from ..gguf.library import ModelFile
    from ..gguf.locate import Repository
    from ..gguf.memory import Memory
    from ..gguf.summary import Summary

models_app = typer.Typer(no_args_is_help=True, add_completion=False)

_Name = Annotated[
    str,
    typer.Argument(
        help="A name from pjlocal models list, or its beginning; or a file.", autocompletion=completion.models
    ),
]


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models in models/, in your data folder, and in the folders of other programs."""
    from ..gguf.locate import all_models
    from ..gguf.summary import summary

    summaries = [summary(found) for found in all_models()]
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in summaries], ensure_ascii=False))
        return
    if not summaries:
        say("no models found: pjlocal models pull downloads one")
        return
    _print_table(_HEAD, [*map(_row, summaries)], _RIGHT)


_HEAD = ("name", "from", "size", "architecture", "parameters", "quantization", "context", "chat template")
_RIGHT = (2, 4, 6)  # columns of numbers
_PLAIN = ("from", "size", "architecture", "quantization")  # columns that need no heading


def _row(model: Summary) -> tuple[str, ...]:
    from ..gguf.header import in_words

    head = (one_line(model.found.name), model.found.owner, byte_size(model.found.size))
    header = model.header
    if model.trouble or not header:
        return (*head, f"cannot be used: {one_line(model.trouble or '')}")
    context = str(header.n_ctx_train or "-")
    template = "yes" if header.has_chat_template else "no"
    return (*head, one_line(header.architecture), in_words(header.n_parameters), header.file_type, context, template)


def _aligned(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    """The rows with aligned columns; the last cell of a shorter row may be longer than its column."""
    from rich.cells import cell_len, set_cell_size

    whole = len(rows[0])
    widths = [max(cell_len(row[i]) for row in rows if i < len(row) - (len(row) < whole)) for i in range(whole)]
    lines = []
    for row in rows:
        cells = [set_cell_size(cell, width) for cell, width in zip(row, widths, strict=False)]
        for i in right:
            if i < len(row):
                cells[i] = " " * (widths[i] - cell_len(row[i])) + row[i]
        if len(row) < whole:
            cells[-1] = row[-1]
        lines.append("  ".join(cells).rstrip())
    return lines


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> None:
    """Print a table; on a terminal that is too narrow for it, print each row's name with the other cells below it."""
    from rich.cells import cell_len

    lines = _aligned([head, *rows], right)
    if sys.stdout.isatty() and max(map(cell_len, lines)) > shutil.get_terminal_size().columns:
        lines = []
        for name, *facts in rows:
            if len(facts) == len(head) - 1:
                named = zip(head[1:], facts, strict=True)
                facts = [fact if what in _PLAIN else f"{what} {fact}" for what, fact in named]
            lines += [name, in_columns("    ", ", ".join(facts), sys.stdout)]
    for line in lines:
        typer.echo(line)


@models_app.command()
@takes_settings()
def info(name: _Name, as_json: JsonOption = False, *, engine: Engine) -> None:
    """Print the properties of a model, the memory that four views of it take (as in mode both), and the layers that a
    graphics card gets."""
    from ..engine.offload import choose_offload, placement
    from ..gguf.header import read_header
    from ..gguf.kind import no_model, writes_no_text
    from ..gguf.locate import find
    from ..gguf.memory import estimate
    from ..gguf.offload import Offload, bytes_on_devices

    found = find(name)
    header = read_header(found.path)
    memory = estimate(header, engine)
    what = no_model(header) or writes_no_text(header)
    offload = Offload() if what else choose_offload(header, engine, memory.n_views)
    on_devices = bytes_on_devices(header, engine, offload, memory.n_views)
    if as_json:
        from ..gguf.sampling import recommended
        from ..gguf.summary import summary

        facts = {"sampling": recommended(header.metadata.get, found.named), "memory": memory.as_dict()}
        facts["offload"] = offload.as_dict() | {"bytes_on_devices": on_devices}
        typer.echo(json.dumps(summary(found).as_dict() | facts, ensure_ascii=False))
        return
    lines = _facts(found, header) | ({"note": f"this is {what}"} if what else _needs(memory))
    if on_devices:
        there = " + ".join(map(byte_size, on_devices))
        lines["device"] = f"{placement(offload)}: about {there} there for {memory.n_views} views"
    width = max(map(len, lines))
    for what, value in lines.items():
        typer.echo(in_columns(f"{what:{width}}  ", one_line(value), sys.stdout))


def _facts(found: ModelFile, header: Header) -> dict[str, str]:
    from ..gguf.header import in_words
    from ..gguf.sampling import described, recommended

    more = f" and {len(found.parts) - 1} more" if len(found.parts) > 1 else ""
    return {
        "name": found.name + (f" ({header.name})" if header.name else ""),
        "file": f"{found.path.absolute()}{more}",
        "from": found.owner + (f" ({found.repo})" if found.repo else ""),
        "size": byte_size(header.n_file_bytes),
        "architecture": header.architecture,
        "parameters": in_words(header.n_parameters),
        "quantization": header.file_type,
        "context": f"{header.n_ctx_train or '-'} tokens",
        "vocabulary": f"{header.n_vocab} tokens",
        "chat template": "yes" if header.has_chat_template else "none: pjlocal writes a plain dialogue instead",
        "sampling": described(recommended(header.metadata.get, found.named)) or "none in the file",
        "licence": header.metadata.text("general.license") or "-",
    }


def _needs(memory: Memory) -> dict[str, str]:
    parts = {"weights": memory.weights, "caches": memory.caches, "compute": memory.compute, "program": memory.program}
    each = ", ".join(f"{what} {byte_size(n)}" for what, n in parts.items())
    return {"memory": f"about {byte_size(memory.total)} for {memory.n_views} views of {memory.n_ctx} tokens ({each})"}


@models_app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|ORG/REPO[:QUANTIZATION]]",
            help="The model to download; without it, print the catalogue and recommend a model.",
            autocompletion=completion.catalogue,
        ),
    ] = None,
) -> None:
    """Download a model from Hugging Face into its cache, where llama.cpp and other programs find it too."""
    if name is None:
        name = _recommended()
        if name is None:
            return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    from ..gguf.pull import check_room, choose, download, memory_warning
    from ..screen.progress import progress_bars

    with _ctrl_c_wins():
        choice = choose(_repository_of(name))
    others = f" (also available: {', '.join(choice.others)})" if choice.others else ""
    say(f"{choice.repo}: {choice.quantization}, {byte_size(choice.size)}{others}")
    check_room(choice)
    if warning := memory_warning(choice):
        say(warning)
    columns = DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with progress_bars(*columns) as progress, _ctrl_c_wins():
        path = download(choice, progress)
    say(f"use it with: pjlocal run -m {choice.repo}:{choice.quantization}, or a shorter name from pjlocal models list")
    typer.echo(path)


@contextmanager
def _ctrl_c_wins() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C, even if a library turns it into another error."""
    pressed = False

    def handle(signum: int, frame: object) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def _repository_of(name: str) -> Repository:
    """The repository of a name.  Raises UsageError if it is neither in the catalogue nor ORG/REPO."""
    from ..gguf.catalogue import CATALOGUE
    from ..gguf.locate import Repository, repository

    if entry := CATALOGUE.get(name.lower()):
        return Repository(entry.repo, None)
    if wanted := repository(name):
        return wanted
    near = did_you_mean(name, CATALOGUE) or "pjlocal models pull lists the catalogue"
    raise UsageError(f"{name!r} is neither ORG/REPO[:QUANTIZATION] nor a name of the catalogue: {near}")


def _recommended() -> str | None:
    """The recommended model for the free memory, after the user's consent; None without it.

    Raises:
        UsageError: there is no terminal to ask on; the message has the recommendation.
        ModelError: no model fits.
    """
    from ..engine.devices import for_layers
    from ..engine.machine import memory
    from ..gguf.catalogue import recommend
    from ..gguf.locate import Repository, all_models, find_model, of_repository

    _print_catalogue()
    free = memory()
    room = f"{byte_size(free.amount)} of memory are free{free.where}"
    entry = recommend(free.amount, on_cpu=not for_layers())
    if entry is None:
        raise ModelError(f"{room}, too little for these models: close other programs, or name a model anyway")
    there: str | None = entry.name
    try:
        find_model(entry.name)
    except ModelError:  # none, or several
        there = entry.repo if of_repository(Repository(entry.repo, None), all_models()) else None
    if there:
        say(f"{room}: {entry.name} is recommended, and it is on this machine: pjlocal chat -m {there}")
        return None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"name a model: {room}, and this one is recommended: {entry.command} ({entry.facts})")
    say(f"{room}: {entry.name} is recommended ({entry.facts})")
    return entry.name if typer.confirm(f"Download {entry.name}?", err=True) else None


def _print_catalogue() -> None:
    from ..gguf.catalogue import CATALOGUE

    rows = [
        (entry.name, f"{entry.size_gb:.1f} GB", f"{entry.memory_gb:.1f} GB", entry.licence, entry.repo)
        for entry in CATALOGUE.values()
    ]
    _print_table(("name", "size", "memory", "licence", "repository"), rows, right=(1, 2))


@models_app.command()
def rm(name: _Name, yes: YesOption = False) -> None:
    """Remove a model's file from models/ or your data folder.  Files of other programs are never removed."""
    from ..gguf.locate import find
    from ..gguf.remove import check_removable, links_to, remove

    found = find(name)
    check_removable(found)
    if links := ", ".join(map(str, links_to(found))):
        say(f"these links would point to nothing without {found.path}: {links}")
    if yes or confirm_removal(str(found.path), byte_size(found.size)):
        remove(found)
