"""Settings dataclasses as Typer options: each option is declared once, in `pjlocal.settings`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from ..config.config import Config, load_config
from ..prompting.preferences import use_own
from ..settings import Engine, Generation, Prompting, Sampling, Settings
from ..textfile import read_text
from . import completion

_PANELS: dict[type[Settings], str] = {
    Generation: "How the two views write",
    Sampling: "Filters of each view (llama.cpp's)",
    Prompting: "Prompt",
    Engine: "Engine (llama.cpp)",
}


def takes_settings(**defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let Typer see each parameter of a settings type as that type's options; the command gets the settings made.

    What neither the command line nor the environment gives comes from the persona that ``--persona`` names, else from
    the config file, where that sets it, else from ``defaults``, else from the settings.  A parameter named ``given``
    gets the names of what was given, by the persona too; one named ``own`` those, and of what the config file sets.
    Commands that take `Generation` have ``--persona``.
    """
    return functools.partial(_with_settings, defaults=defaults)


def _with_settings(command: Callable[..., Any], defaults: dict[str, Any]) -> Callable[..., Any]:
    wanted = {"given", "own"} & inspect.signature(command).parameters.keys()
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name in wanted:
            continue
        hint = parameter.annotation  # get_type_hints would hide an option's Annotated in an Optional on Python 3.10
        if isinstance(hint, type) and issubclass(hint, Settings):
            groups[parameter.name] = hint
            parameters += _options(hint, defaults)
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hint, kind=kind))

    if Generation in groups.values():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("persona", kind, default=None, annotation=_PersonaOption))
    parameters.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @functools.wraps(command)
    def wrapper(*, context: typer.Context, **values: Any) -> Any:
        config = load_config()
        use_own(config.presets)
        given = {name for name in values if _is_given(context, name)}
        named = values.pop("persona", None)
        layers = _layers(config, named, given)
        for name, value in _set(layer.top() for layer in layers).items():
            if name in values:
                values[name] = list(value) if isinstance(value, tuple) else value
        names = {"given": frozenset(given), "own": frozenset(given).union(*(layer.flat() for layer in layers))}
        values |= {name: names[name] for name in wanted}
        for name, settings in groups.items():
            values[name] = _make(settings, values, _set(layer.of(settings) for layer in layers))
        return command(**values)

    del wrapper.__wrapped__  # Typer must look at the new signature
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line or the environment gives an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _layers(config: Config, persona: str | None, given: set[str]) -> list[Config]:
    """What the persona and the config file set that nothing before them does; the persona's joins what is given."""
    if persona is None:
        return [config.without(given)]
    worn = config.persona(persona).without(given)
    given.update(worn.flat())
    return [worn, config.without(given)]


def _set(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for layer in layers for name, value in layer.items()}


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
            autocompletion=completion.models if f.metadata.get("model") else None,
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


_PersonaOption = Annotated[
    str | None,
    typer.Option(
        "--persona",
        "-P",
        metavar="NAME",
        help="Preferences and settings kept under a name (pjlocal prefs).",
        autocompletion=completion.personas,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="PJLOCAL_MODEL",
        help="A GGUF file; a name of pjlocal models list, or how it begins; ORG/REPO[:QUANTIZATION], once pulled; or "
        "smollm2 (the default).",
        autocompletion=completion.models,
    ),
]
ServerOption = Annotated[
    bool,
    typer.Option(
        "--server/--no-server",
        envvar="PJLOCAL_SERVER",
        help="Have a pjlocal serve of yours that runs with this model and these engine settings write the answer, "
        "instead of loading the model; it is the same answer.",
        rich_help_panel=_PANELS[Engine],
    ),
]
PreferOption = Annotated[
    list[str],
    typer.Option(
        "--prefer",
        "-p",
        help="A preference: a preset, free text, or @FILE; vivid:1.5 has a strength. Repeat: they are dealt to the "
        "views in turn.",
        autocompletion=completion.presets,
    ),
]
DraftPreferOption = Annotated[
    list[str],
    typer.Option(
        "--draft-prefer",
        help="A preference of view a, which drafts first (repeatable).",
        autocompletion=completion.presets,
    ),
]
JudgePreferOption = Annotated[
    list[str],
    typer.Option(
        "--judge-prefer",
        help="A preference of view b, which judges first (repeatable).",
        autocompletion=completion.presets,
    ),
]
