"""``pjlocal config`` and ``pjlocal prefs``: the user's own defaults, presets and personas."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..config import tomlfile
from ..config.character import read_character
from ..config.config import (
    TABLES,
    TOP,
    Config,
    config_path,
    load_checked,
    load_config,
    remove_persona,
    remove_preset,
    set_persona,
    set_preset,
)
from ..config.editor import edit_file
from ..errors import UsageError
from ..gguf.locate import EMBEDDED, lasting_name_if_found
from ..prompting.preferences import PRESETS, preset_hint
from ..request import GROUPS, Request, in_turn
from ..screen.console import say
from ..screen.display import in_columns
from ..settings import Sampling, flag, kind
from ..textfile import fold, read_text, write_text
from ..visible import visible
from . import completion
from .options import MODEL_VARIABLE, SERVER_VARIABLE, takes_settings
from .prompt_input import read_stdin

config_app = typer.Typer(no_args_is_help=True, add_completion=False)
prefs_app = typer.Typer(no_args_is_help=True, add_completion=False)


@config_app.command()
def path() -> None:
    """Print the path of the configuration file."""
    typer.echo(config_path())


@config_app.command()
def show() -> None:
    """Print all settings, and the source of each."""
    for source, key, value in _in_force(load_checked()):
        typer.echo(f"{source:12}{key}{': not set' if value is None else f' = {visible(tomlfile.value(value))}'}")


@config_app.command()
def edit() -> None:
    """Open the configuration file in your editor ($VISUAL or $EDITOR), then check it.

    A missing file is created first."""
    file = config_path()
    if not file.exists():
        write_text(file, _template())
    edit_file(file)
    load_checked(file)


@prefs_app.command("list")
def list_presets() -> None:
    """Print all presets, with their origin and text, and your personas with their settings."""
    config = load_config()
    own, personas = config.presets, config.personas
    presets = PRESETS | dict(own)
    width = max(map(len, [*presets, *personas]))
    for name, text in presets.items():
        head = f"{name:{width}}  {'own' if name in own else 'built-in':8}  "
        typer.echo(in_columns(head, visible(" ".join(text.split())), sys.stdout))
    for name, persona in personas.items():
        sets = ", ".join(tomlfile.assignments(persona.flat()))
        typer.echo(in_columns(f"{name:{width}}  persona   ", visible(sets), sys.stdout))


def _name(complete: Callable[[str], completion.Names]) -> Any:
    return typer.Argument(help="Its name: one bare word.", show_default=False, autocompletion=complete)


_Name = Annotated[str, _name(completion.presets_and_personas)]
_OwnName = Annotated[str, _name(completion.own)]


@prefs_app.command("show")
def show_preset(name: _Name) -> None:
    """Print the text of a preset, or the settings of a persona."""
    config = load_config()
    if persona := config.personas.get(fold(name)):
        for line in tomlfile.assignments(persona.flat()):
            typer.echo(visible(line))
    else:
        known = PRESETS | dict(config.presets)
        if (text := known.get(fold(name))) is None:
            hint = preset_hint(fold(name), known | dict.fromkeys(config.personas, ""))
            raise UsageError(f"unknown preset {name!r}: {hint}")
        typer.echo(visible(text))


@prefs_app.command()
def add(
    name: _OwnName,
    text: Annotated[str, typer.Argument(help="The preference in words; - reads standard input, @FILE a file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a preset of that name.")] = False,
) -> None:
    """Add a preset of your own."""
    config = load_config()
    if fold(name) in config.personas:
        raise UsageError(f"a persona is named {fold(name)!r}: give the preset another name")
    if fold(name) in config.presets and not force:
        raise UsageError(f"the preset {fold(name)!r} exists already: --force replaces it")
    if text == "-":
        text = read_stdin()
    elif text.startswith("@"):
        text = read_text(text[1:], "preference file")
    set_preset(config_path(), name, text)


@prefs_app.command()
@takes_settings()
def save(
    name: Annotated[str, typer.Argument(help="The persona's name: one bare word.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace a persona of that name.")] = False,
    *,
    given: frozenset[str],
    request: Request,
) -> None:
    """Save the given options as a persona, which -P NAME uses in run and chat."""
    saved = request.as_dict()
    views = list(saved["preferences"].values())
    values = {"prefer": in_turn(views), "draft_prefer": views[0], "judge_prefer": views[1]}
    values |= {key: value for group in GROUPS for key, value in saved[group].items()}
    if values["seed"] is None:
        values["seed"] = -1  # TOML has no null
    configured = load_config().flat()
    values = {key: value for key, value in values.items() if key in given and (value is not None or key in configured)}
    if unset := next((key for key, value in values.items() if value is None), None):
        raise UsageError(f"a persona cannot unset --{unset.replace('_', '-')}: leave it out")
    if not values:
        raise UsageError("give the settings of the persona, as in: pjlocal prefs save brief -p concise --mode both")
    if read := [f for f in dataclasses.fields(Sampling) if "file" in f.metadata and f.name in values]:
        raise UsageError(
            f"prefs save cannot save the name of a file: leave {flag(read[0])} out, and write "
            f'{read[0].name} = "FILE" below [personas.{name}] in {config_path()}'
        )
    if "regex" in values:
        from ..engine.constraint import check_constraint

        check_constraint(request.sampling)
    if values.get("aligner"):
        values["aligner"] = lasting_name_if_found(values["aligner"])
    if any(request.views):
        from ..prompting.plan import make_roles

        make_roles(request)
    set_persona(config_path(), name, values, replace=force)


@prefs_app.command("import")
def import_card(
    file: Annotated[Path, typer.Argument(help="A character card, as JSON or PNG.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", help="The persona's name: one bare word (default: the character's).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a persona of that name.")] = False,
) -> None:
    """Save a character card as a persona, which run and chat use with -P NAME."""
    character = read_character(file)
    persona = name or character.persona
    if not persona:
        raise UsageError("the character's name has no letters for a persona's name: give one with --name")
    set_persona(config_path(), persona, {"system": character.system}, replace=force)
    say(f"saved as the persona {persona}: pjlocal chat -P {persona}")


@prefs_app.command()
def rm(name: _OwnName) -> None:
    """Remove one of your presets or personas."""
    if fold(name) in load_config().personas:
        remove_persona(config_path(), name)
    else:
        remove_preset(config_path(), name)


# Defaults of the commands for these keys; other keys have no effect when not set.
_TOP_DEFAULTS = {"model": EMBEDDED, "save": True, "save_cache": False, "server": True}
_VARIABLES = {"model": MODEL_VARIABLE, "server": SERVER_VARIABLE}


def _in_force(config: Config) -> Iterator[tuple[str, str, Any]]:
    """The settings: source, key, and value or None."""
    top = config.top()
    for key in TOP:
        if named := os.environ.get(_VARIABLES.get(key, "")):
            yield "environment", key, named
        else:
            yield _source(key in top), key, top.get(key, _TOP_DEFAULTS.get(key))
    for table, settings in TABLES.items():
        values = config.of(settings)
        for f in dataclasses.fields(settings):
            yield _source(f.name in values), f"{table}.{f.name}", values.get(f.name, f.default)
    for name, text in config.presets.items():
        yield "file", f"presets.{name}", text
    for name, persona in config.personas.items():
        for key, value in persona.flat().items():
            yield "file", f"personas.{name}.{key}", value


def _source(is_set: bool) -> str:
    return "file" if is_set else "default"


def _template() -> str:
    """A configuration file with every setting and its default, all commented out."""
    lines = [_TEMPLATE_HEAD]
    for table, settings in TABLES.items():
        hints = get_type_hints(settings)
        lines.append(f"\n[{table}]")
        for f in dataclasses.fields(settings):
            what = "a file's name in quotes" if "file" in f.metadata else kind(hints[f.name])
            lines += [
                f"# {f.metadata['help']}",
                f"#{f.name} = {f'<{what}>' if f.default is None else tomlfile.value(f.default)}",
            ]
    return "\n".join([*lines, _TEMPLATE_END])


_TEMPLATE_HEAD = """\
# pjlocal's settings. Remove the # from a line to set something. An option on the command line overrides it.

#model = "smollm2"  # or a file; relative to this folder
#prefer = ["vivid", "creative"]
#draft_prefer = ["vivid"]
#judge_prefer = ["creative"]
#view = "text"
#thoughts = "show"
#save = true
#save_cache = false
#server = true  # or false, or the URL of one in quotes"""


_TEMPLATE_END = """
[presets]
#pirate = "Talk like a pirate."

# Personas: preferences and settings under a name, used with -P NAME. They may set the preferences and all
# settings of the tables above except [engine].
# [personas.pirate-brief]
# prefer = ["pirate:1.5", "concise"]
# mode = "both"
"""
