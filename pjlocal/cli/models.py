"""``pjlocal models``: the models on this machine, and how to get one."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..settings import Engine
from ..visible import one_line
from .options import takes_settings

if TYPE_CHECKING:
    from ..gguf.header import Header
    from ..gguf.library import Found
    from ..gguf.memory import Memory
    from ..gguf.summary import Summary

models_app = typer.Typer(help="The models on this machine, and how to get one.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="A name of pjlocal models list, or how it begins; or a file.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models_app.command("list")
def list_models(as_json: _Json = False) -> None:
    """Print every model in models/, in your data folder, and where other programs keep theirs."""
    from ..gguf.locate import all_models
    from ..gguf.summary import summary

    summaries = [summary(found) for found in all_models()]
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in summaries], ensure_ascii=False))
        return
    if not summaries:
        typer.echo("pjlocal: there are no models here yet: pjlocal models pull gets one", err=True)
        return
    for line in _aligned([_HEAD, *map(_row, summaries)]):
        typer.echo(line)


_HEAD = ("name", "from", "size", "architecture", "parameters", "quantization", "context", "chat template")
_RIGHT = (2, 4, 6)  # columns of numbers


def _row(model: Summary) -> tuple[str, ...]:
    head = (one_line(model.found.name), model.found.owner, _bytes(model.found.size))
    if model.trouble:
        return (*head, f"cannot be used: {one_line(model.trouble)}")
    context = str(model.n_ctx_train or "-")
    template = "yes" if model.chat_template else "no"
    return (*head, one_line(model.architecture), _count(model.n_parameters), model.quantization, context, template)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows with their columns below each other, cut to a terminal's width; what is wrong with a file goes on."""
    from rich.cells import cell_len, set_cell_size

    widths = [max(cell_len(row[i]) for row in rows if len(row) == len(_HEAD) or i < 3) for i in range(len(_HEAD))]
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = []
    for row in rows:
        cells = [
            cell
            if len(row) < len(_HEAD) and i == 3
            else " " * (w - cell_len(cell)) + cell
            if i in _RIGHT
            else set_cell_size(cell, w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=False))
        ]
        line = "  ".join(cells).rstrip()
        lines.append(f"{set_cell_size(line, columns - 1)}…" if columns and cell_len(line) > columns else line)
    return lines


@models_app.command()
@takes_settings()
def info(name: _Name, as_json: _Json = False, *, engine: Engine) -> None:
    """Print what a model's file says, and what memory two views of it take."""
    from ..gguf.header import read_header
    from ..gguf.locate import find
    from ..gguf.memory import estimate

    found = find(name)
    header = read_header(found.path)
    memory = estimate(header, engine)
    if as_json:
        from ..gguf.summary import summary

        typer.echo(json.dumps({**summary(found).as_dict(), "memory": memory.as_dict()}, ensure_ascii=False))
        return
    facts = _facts(found, header) | _needs(memory)
    width = max(map(len, facts))
    for what, value in facts.items():
        typer.echo(f"{what:{width}}  {one_line(value)}")


def _facts(found: Found, header: Header) -> dict[str, str]:
    more = f" and {len(found.parts) - 1} more" if len(found.parts) > 1 else ""
    return {
        "name": found.name + (f" ({header.name})" if header.name else ""),
        "file": f"{found.path.absolute()}{more}",
        "from": found.owner + (f" ({found.repo})" if found.repo else ""),
        "size": _bytes(header.n_file_bytes),
        "architecture": header.architecture,
        "parameters": _count(header.n_parameters),
        "quantization": header.file_type,
        "context": f"{header.n_ctx_train or '-'} tokens",
        "vocabulary": f"{header.n_vocab} tokens",
        "chat template": "yes" if header.has_chat_template else "no: a plain dialogue is written instead",
        "licence": header.metadata.text("general.license") or "-",
    }


def _needs(memory: Memory) -> dict[str, str]:
    parts = {"weights": memory.weights, "caches": memory.caches, "compute": memory.compute, "program": memory.program}
    each = ", ".join(f"{what} {_bytes(n)}" for what, n in parts.items())
    return {"memory": f"about {_bytes(memory.total)} for {memory.n_views} views of {memory.n_ctx} tokens ({each})"}


@models_app.command()
def rm(
    name: _Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")] = False
) -> None:
    """Remove a model's file from models/ or your data folder; never one that another program keeps."""
    from ..gguf.locate import find
    from ..gguf.remove import check_removable, remove

    found = find(name)
    check_removable(found)
    if not yes and not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked here whether to remove {found.path}: give --yes")
    if yes or typer.confirm(f"Remove {one_line(str(found.path))} ({_bytes(found.size)}) for good?", err=True):
        remove(found)


def _bytes(n: int) -> str:
    """As people say it: 98 MB, 4.7 GB."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def _count(n: int) -> str:
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.0f}M" if n >= 1e6 else f"{n / 1e3:.0f}k"
