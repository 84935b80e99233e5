"""Settings dataclasses as Typer options: each option is declared once, in `pjlocal.settings`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from ..config.config import load_config
from ..prompting.preferences import use_own
from ..settings import FORMS, Engine, Generation, Prompting, Sampling, Settings
from ..textfile import read_text

_PANELS: dict[type[Settings], str] = {
    Generation: "How the two views write",
    Sampling: "Filters of each view (llama.cpp's)",
    Prompting: "Prompt",
    Engine: "Engine (llama.cpp)",
}

# Of these the command line may give one where the config file sets the other.
_EXCLUSIVE = (("prefer", "draft_prefer"), ("prefer", "judge_prefer"), FORMS)


def takes_settings(**defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let Typer see each parameter of a settings type as that type's options; the command gets the settings made.

    What neither the command line nor the environment gives comes from the config file, where that sets it, else from
    ``defaults``, else from the settings.  A parameter named ``given`` gets the names of what was given.
    """
    return functools.partial(_with_settings, defaults=defaults)


def _with_settings(command: Callable[..., Any], defaults: dict[str, Any]) -> Callable[..., Any]:
    takes_given = "given" in inspect.signature(command).parameters
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "given":
            continue
        hint = parameter.annotation  # get_type_hints would hide an option's Annotated in an Optional on Python 3.10
        if isinstance(hint, type) and issubclass(hint, Settings):
            groups[parameter.name] = hint
            parameters += _options(hint, defaults)
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hint, kind=kind))

    parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @functools.wraps(command)
    def wrapper(*, context: typer.Context, **values: Any) -> Any:
        config = load_config()
        use_own(config.presets)
        given = {name for name in values if _is_given(context, name)}
        for name, value in _without(config.top(), given).items():
            if name in values:
                values[name] = list(value) if isinstance(value, tuple) else value
        if takes_given:
            values["given"] = frozenset(given)
        for name, settings in groups.items():
            values[name] = _make(settings, values, _without(config.of(settings), given))
        return command(**values)

    del wrapper.__wrapped__  # Typer must look at the new signature
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line or the environment gives an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _without(defaults: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """The config file's values, but those that are given, or that exclude what is given."""
    excluded = {name for pair in _EXCLUSIVE if given & set(pair) for name in pair}
    return {name: value for name, value in defaults.items() if name not in given | excluded}


def _options(settings: type[Settings], defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(settings)
    parameters = []
    for f in dataclasses.fields(settings):  # type: ignore[arg-type]
        hint, default = hints[f.name], defaults.get(f.name, f.default)
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


def _make(settings: type[Settings], values: dict[str, Any], defaults: Mapping[str, Any]) -> Settings:
    made = {}
    for f in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = values.pop(f.name)
        if f.name in defaults:
            value = defaults[f.name]
        elif "file" in f.metadata and value is not None:
            value = read_text(value, f.metadata["file"])
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
