"""Settings dataclasses as Typer options: each option is declared once, in `pjlocal.settings`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..preferences import read_text
from ..settings import Engine, Generation, Prompting, Sampling, Settings

_PANELS: dict[type[Settings], str] = {
    Generation: "How the two views write",
    Sampling: "Filters of each view (llama.cpp's)",
    Prompting: "Prompt",
    Engine: "Engine (llama.cpp)",
}


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let Typer see each parameter of a settings type as that type's options; the command gets the settings made."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and issubclass(hint, Settings):
            groups[parameter.name] = hint
            parameters += _options(hint)
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hint, kind=kind))

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        for name, settings in groups.items():
            values[name] = _make(settings, values)
        return command(**values)

    del wrapper.__wrapped__  # Typer must look at the new signature
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _options(settings: type[Settings]) -> list[inspect.Parameter]:
    hints = get_type_hints(settings)
    parameters = []
    for f in dataclasses.fields(settings):  # type: ignore[arg-type]
        hint, default = hints[f.name], f.default
        if hint == tuple[str, ...]:
            hint, default = list[str], []
        option = typer.Option(
            *f.metadata["flags"],
            help=f.metadata["help"],
            metavar=f.metadata.get("metavar", "FILE" if "file" in f.metadata else None),
            rich_help_panel=_PANELS[settings],
            show_default=default not in (None, "", []),
        )
        parameters.append(
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option]
            )
        )
    return parameters


def _make(settings: type[Settings], values: dict[str, Any]) -> Settings:
    made = {}
    for f in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = values.pop(f.name)
        if "file" in f.metadata and value is not None:
            value = read_text(Path(value), f.metadata["file"])
        made[f.name] = tuple(value) if isinstance(value, list) else value
    return settings(**made)


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="PJLOCAL_MODEL",
        help="A GGUF file, a file name in models/ or the user's data folder, or smollm2 (the default).",
    ),
]
PreferOption = Annotated[
    list[str],
    typer.Option(
        "--prefer",
        "-p",
        help="A preference: a preset, free text, or @FILE. Repeat: they are dealt to the views in turn.",
    ),
]
DraftPreferOption = Annotated[
    list[str], typer.Option("--draft-prefer", help="A preference of view a, which drafts first (repeatable).")
]
JudgePreferOption = Annotated[
    list[str], typer.Option("--judge-prefer", help="A preference of view b, which judges first (repeatable).")
]
