"""Settings dataclasses as Typer options.  Each option is declared once, in `pjlocal.settings`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from ..client import KEY_VARIABLE, Server
from ..config.config import Config, load_config
from ..engine.interrupt import Interrupt
from ..errors import UsageError, join_names
from ..prompting.preferences import use_own
from ..request import GROUPS, KEYS, PREFERENCES, Overrides, Request, place
from ..settings import VIEW_HELP, Engine, Generation, Prompting, Sampling, Settings, Thoughts, View, flag
from ..textfile import read_text
from ..visible import one_line
from . import completion

log = logging.getLogger("pjlocal")

#: The environment variables of --model and --server.
MODEL_VARIABLE, SERVER_VARIABLE = "PJLOCAL_MODEL", "PJLOCAL_SERVER"

_PANELS: dict[type[Settings], str] = {
    Generation: "How the views write",
    Sampling: "Filters of each view (llama.cpp's)",
    Prompting: "Prompt",
    Engine: "Engine (llama.cpp)",
}


def takes_settings(
    preferences: Sequence[str] = PREFERENCES, **defaults: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a command's parameters of a settings type, or of type `Request`, by options.

    An option comes from the command line or the environment, else from the persona named by ``--persona``, else from
    the config file, else from ``defaults``, else from the dataclass.  A parameter named ``given`` gets the names of the
    options on the command line, and of those that the persona sets.

    A `Request` has the options of all its settings, those of ``preferences`` after ``--model``, and ``--persona``.
    """
    return functools.partial(_with_settings, preferences=preferences, defaults=defaults)


def _with_settings(command: Callable[..., Any], preferences: Sequence[str], defaults: dict[str, Any]) -> Any:
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: parameter.annotation for name, parameter in own.items() if _is_group(parameter.annotation)}
    request = next((name for name, parameter in own.items() if parameter.annotation is Request), None)
    parameters = _parameters(own.values(), preferences, defaults)

    @functools.wraps(command)
    def wrapper(*, context: typer.Context, **values: Any) -> Any:
        config = load_config()
        use_own(config.presets, config.personas)
        given = {name for name in values if _source(context, name) in ("COMMANDLINE", "ENVIRONMENT")}
        persona = values.pop("persona", None)
        chosen = config.persona(persona) if persona is not None else Overrides()
        _unset(values)
        chosen = chosen.without(given)
        given.update(chosen.flat())
        config = config.without(given)
        for name, value in config.top().items():
            if name in values:
                values[name] = list(value) if isinstance(value, tuple) else value
        if values.get("model") == "":
            raise UsageError("--model is empty: name a model, or leave it out")
        if "server" in values:
            values["server"] = which_server(values["server"], values.pop("no_server"))
        for name, settings in groups.items():
            values[name] = _make(settings, values, config.of(settings))
        if request:
            values[request] = _requested(values, chosen, config, given)
        if "given" in own:
            values["given"] = frozenset(name for name in given if _source(context, name) != "ENVIRONMENT")
        return command(**values)

    del wrapper.__wrapped__  # Typer must look at the new signature
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _parameters(
    own: Collection[inspect.Parameter], preferences: Sequence[str], defaults: Mapping[str, Any]
) -> list[inspect.Parameter]:
    """A command's own parameters as Typer reads them, with options in the place of settings and a `Request`."""
    parameters: list[inspect.Parameter] = []
    for parameter in own:
        hint = parameter.annotation  # get_type_hints would hide an option's Annotated in an Optional on Python 3.10
        if parameter.name == "given":
            continue
        if hint is Request:
            at = 1 + next((i for i, p in enumerate(parameters) if p.name == "model"), -1)
            parameters[at:at] = [_keyword(name, _PREFERENCE_OPTIONS[name], []) for name in preferences]
            for settings in GROUPS.values():
                parameters += _options(settings, defaults)
        elif _is_group(hint):
            parameters += _options(hint, defaults)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            if parameter.name == "server":
                parameters.append(_keyword("no_server", _NoServerOption, False))
    if any(parameter.annotation is Request for parameter in own):
        parameters.append(_keyword("persona", _PersonaOption, None))
    return [*parameters, _keyword("context", typer.Context, inspect.Parameter.empty)]


#: The value of --server for no server.
OFF = "off"
_OFF = ("0", "false", "no", OFF)
_ON = ("1", "true", "yes", "on")


def which_server(named: str | bool | None, is_refused: bool) -> str | None:
    """The URL of the server in the options; `OFF` for none, and None if a resident one may be used."""
    text = str(named or "").strip().lower() if named is not False else OFF
    if is_refused or text in _OFF:
        return OFF
    return None if not text or text in _ON else str(named).strip()


def server_at(url: str | None, interrupt: Interrupt, given: Collection[str] = ()) -> Server | None:
    """The named server; None without one.

    Args:
        given: the options that were given.

    Raises:
        UsageError: the URL is not valid, or the server itself determines a given option.
    """
    if url is None or url == OFF:
        return None
    server = Server(url, interrupt)
    if "model" in given:
        raise UsageError(f"{server.name} has its own model: leave --model out, or give --no-server")
    fixed = [flag(f) for f in dataclasses.fields(Engine) if f.name in given]
    if fixed:
        have = "has" if len(fixed) == 1 else "have"
        log.warning("%s has its own engine settings: %s %s no effect", server.name, join_names(fixed), have)
    return server


def _source(context: typer.Context, name: str) -> str:
    """Where the value of an option comes from; empty if the command has no such option."""
    source = context.get_parameter_source(name)
    return source.name if source else ""


def _requested(values: dict[str, Any], persona: Overrides, config: Config, given: set[str]) -> Request:
    """The request from the options, the persona and the config file.  Its options are removed from ``values``."""
    preferences = {name: values.pop(name, []) for name in PREFERENCES}
    preferences |= {name: list(value) for name in PREFERENCES if (value := getattr(persona, name)) is not None}
    groups: dict[str, Any] = {
        name: _make(settings, values, {**config.of(settings), **persona.of(settings)})
        for name, settings in GROUPS.items()
    }
    views = place(**preferences)
    explicit = frozenset(given).union(config.of(Sampling)).intersection(KEYS)
    return Request(views, **groups, explicit=explicit)


def _options(settings: type[Settings], defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The options of these settings."""
    hints = get_type_hints(settings)
    parameters = []
    for f in dataclasses.fields(settings):
        hint, default = hints[f.name], defaults.get(f.name, f.default)
        if hint == tuple[str, ...]:
            hint, default = list[str], []
        option = typer.Option(
            *f.metadata["flags"],
            help=f.metadata["help"],
            metavar=f.metadata.get("metavar", "FILE" if "file" in f.metadata else None),
            rich_help_panel=f.metadata.get("panel") or _PANELS[settings],
            show_default=default not in (None, "", []),
            autocompletion=completion.models if f.metadata.get("model") else None,
        )
        parameters.append(_keyword(f.name, Annotated[hint, option], default))
    return parameters


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _unset(values: dict[str, Any]) -> None:
    """Give the options that are an empty text alone their defaults."""
    for settings in (*GROUPS.values(), Engine):
        for f in dataclasses.fields(settings):
            if values.get(f.name) in ("", [""]):
                values[f.name] = f.default


def _make(settings: type[Settings], values: dict[str, Any], defaults: Mapping[str, Any]) -> Settings:
    converted = {}
    for f in dataclasses.fields(settings):
        value = values.pop(f.name)
        if f.name in defaults:
            value = defaults[f.name]
        elif "file" in f.metadata and value is not None:
            value = read_text(value, f.metadata["file"])
        converted[f.name] = tuple(value) if isinstance(value, list) else value
    return settings(**converted)


_PersonaOption = Annotated[
    str | None,
    typer.Option(
        "--persona",
        "-P",
        metavar="NAME",
        help="A saved set of preferences and settings, by name (pjlocal prefs).",
        autocompletion=completion.personas,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=MODEL_VARIABLE,
        help="A GGUF file; a name from pjlocal models list, or its beginning; ORG/REPO[:QUANTIZATION], once pulled; "
        "or smollm2 (the default).",
        autocompletion=completion.models,
    ),
]
OUTPUT = "Output"
ViewOption = Annotated[
    View, typer.Option("--view", help=f"How a terminal shows answers; {VIEW_HELP}.", rich_help_panel=OUTPUT)
]
ThoughtsOption = Annotated[
    Thoughts,
    typer.Option(
        "--thoughts",
        help="Where a reasoning model's thoughts go: show (above the answer), stderr, or hide, which counts their "
        "tokens on a terminal and prints nothing in a pipe.",
        rich_help_panel=OUTPUT,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")]


def confirm_removal(what: str, details: str) -> bool:
    """Ask the user whether to remove something permanently.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"cannot ask for confirmation without a terminal: give --yes to remove {what}")
    return typer.confirm(f"Remove {one_line(what)} ({details}) for good?", err=True)


def server_option(does: str, more: str = "", panel: str | None = None) -> Any:
    """The option ``--server``.  Its help begins with ``does``."""
    return typer.Option(
        "--server",
        metavar="URL",
        envvar=SERVER_VARIABLE,
        help=f"{does}; its key comes from {KEY_VARIABLE}.{more}",
        rich_help_panel=panel,
    )


ServerOption = Annotated[
    str | None,
    server_option(
        "URL of a pjlocal serve, on this machine or another, that writes the answers and keeps the chats",
        " Without it, a pjlocal serve of yours on this machine with the same model and engine settings is found "
        "automatically; its answers are those of a model loaded here, up to rounding.",
        _PANELS[Engine],
    ),
]
_NoServerOption = Annotated[
    bool,
    typer.Option(
        "--no-server", help="Load the model in this process, even if a server runs.", rich_help_panel=_PANELS[Engine]
    ),
]


def _preference(*flags: str, help: str) -> Any:
    return Annotated[list[str], typer.Option(*flags, help=help, autocompletion=completion.presets)]


PreferOption = _preference(
    "--prefer",
    "-p",
    help="A preference: a preset, free text, or @FILE; vivid:1.5 gives it a strength (repeatable: preferences go to "
    "the two views in turn).",
)
DraftPreferOption = _preference("--draft-prefer", help="A preference of view a, which drafts first (repeatable).")
JudgePreferOption = _preference("--judge-prefer", help="A preference of view b, which judges first (repeatable).")
_PREFERENCE_OPTIONS = {"prefer": PreferOption, "draft_prefer": DraftPreferOption, "judge_prefer": JudgePreferOption}
