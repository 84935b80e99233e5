"""``pjlocal config`` and ``pjlocal prefs``: the user's own defaults and presets."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Annotated, Any, get_type_hints

import typer

from ..config.config import TABLES, TOP, Config, config_path, kind, load_config, remove_preset, set_preset
from ..config.editor import edit_file
from ..errors import UsageError
from ..gguf.locate import EMBEDDED
from ..prompting.preferences import PRESETS, resolve
from ..textfile import read_text, write_text
from ..visible import visible
from .run import read_stdin

config_app = typer.Typer(help="Your own defaults: the file config.toml.", no_args_is_help=True)
prefs_app = typer.Typer(help="Presets of preferences: the built-in ones and your own.", no_args_is_help=True)


@config_app.command()
def path() -> None:
    """Print where the file is, or would be."""
    typer.echo(config_path())


@config_app.command()
def show() -> None:
    """Print the settings in force, and where each comes from."""
    for source, key, value in _in_force(load_config()):
        typer.echo(f"{source:12}{key}{': not set' if value is None else f' = {visible(_toml(value))}'}")


@config_app.command()
def edit() -> None:
    """Open the file in your editor ($VISUAL or $EDITOR), then check it; a missing file is made first."""
    file = config_path()
    if not file.exists():
        write_text(file, _template())
    edit_file(file)
    load_config(file)


@prefs_app.command("list")
def list_presets() -> None:
    """Print every preset: its name, whether it is yours, and its text."""
    own = load_config().presets
    presets = PRESETS | dict(own)
    width = max(map(len, presets))
    for name, text in presets.items():
        typer.echo(f"{name:{width}}  {'own' if name in own else 'built-in':8}  {visible(' '.join(text.split()))}")


_Name = Annotated[str, typer.Argument(help="The preset's name: one bare word.", show_default=False)]


@prefs_app.command("show")
def show_preset(name: _Name) -> None:
    """Print the text of one preset."""
    typer.echo(visible(resolve(name, PRESETS | dict(load_config().presets))))


@prefs_app.command()
def add(
    name: _Name,
    text: Annotated[str, typer.Argument(help="What answers should be like; - reads standard input, @FILE a file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a preset of that name.")] = False,
) -> None:
    """Add a preset of your own."""
    if name.lower() in load_config().presets and not force:
        raise UsageError(f"there is a preset {name.lower()!r} already: --force replaces it")
    if text == "-":
        text = read_stdin(wait_notice=False)
    elif text.startswith("@"):
        text = read_text(text[1:], "preference file")
    set_preset(config_path(), name, text)


@prefs_app.command()
def rm(name: _Name) -> None:
    """Remove a preset of your own."""
    remove_preset(config_path(), name)


# What the commands themselves do without these; the others do nothing when not set.
_TOP_DEFAULTS = {"model": EMBEDDED, "save": True, "save_cache": False}


def _in_force(config: Config) -> Iterator[tuple[str, str, Any]]:
    """Every setting: where it comes from, its key, and its value or None."""
    top = config.top()
    for key in TOP:
        if key == "model" and (model := os.environ.get("PJLOCAL_MODEL")):
            yield "environment", key, model
        else:
            yield _source(key in top), key, top.get(key, _TOP_DEFAULTS.get(key))
    for table, settings in TABLES.items():
        values = config.of(settings)
        for f in dataclasses.fields(settings):  # type: ignore[arg-type]
            yield _source(f.name in values), f"{table}.{f.name}", values.get(f.name, f.default)
    for name, text in config.presets.items():
        yield "file", f"presets.{name}", text


def _source(is_set: bool) -> str:
    return "file" if is_set else "default"


def _template() -> str:
    """A file that sets nothing and shows everything that can be set, with its default."""
    lines = [_TEMPLATE_HEAD]
    for table, settings in TABLES.items():
        hints = get_type_hints(settings)
        lines.append(f"\n[{table}]")
        for f in dataclasses.fields(settings):  # type: ignore[arg-type]
            what = "a file's name in quotes" if "file" in f.metadata else kind(hints[f.name])
            lines += [
                f"# {f.metadata['help']}",
                f"#{f.name} = {f'<{what}>' if f.default is None else _toml(f.default)}",
            ]
    return "\n".join([*lines, '\n[presets]\n#pirate = "Talk like a pirate."\n'])


_TEMPLATE_HEAD = """\
# pjlocal's settings. Take the # off a line to set something; an option on the command line goes before it.

#model = "smollm2"  # or a file, found from this folder
#prefer = ["vivid", "creative"]
#draft_prefer = ["vivid"]
#judge_prefer = ["creative"]
#view = "text"
#save = true
#save_cache = false"""


def _toml(value: Any) -> str:
    """A setting's value as TOML writes it; JSON writes such values in the same way."""
    return json.dumps(value, ensure_ascii=False)
