"""The commands.  Each has a module, which is imported when its command is used."""

from __future__ import annotations

import faulthandler
import logging
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__


class Entry(NamedTuple):
    """A command in the list."""

    place: str  # its module, and the name of the function or the group of commands there
    help: str


COMMANDS = {
    "run": Entry("run:run", help="Answer one prompt under two preferences, or a file of prompts."),
    "chat": Entry(
        "chat:chat",
        help="Chat under two preferences; /help in the chat lists its commands. In a pipe: one question per line.",
    ),
    "serve": Entry(
        "serve:serve", help="Serve OpenAI's protocol over HTTP. These options are the defaults of every request."
    ),
    "bench": Entry(
        "bench:bench",
        help="Compare the speed of mode judge with mode both, a plain llama.cpp loop, llama-cpp-python, the paper's "
        "Algorithm 1, and decoding alone (the limit).",
    ),
    "doctor": Entry(
        "doctor:doctor",
        help="Check llama.cpp, the hardware and your files, and write ten tokens. The exit status is 1 if something "
        "is broken.",
    ),
    "docs": Entry("docs:docs", help="Show pjlocal's documents in the terminal."),
    "models": Entry("models:models_app", help="The models on this machine, and how to get one."),
    "sessions": Entry("sessions:sessions_app", help="Saved chats."),
    "eval": Entry("eval:eval_app", help="Compare ways of answering (systems) on a set of prompts."),
    "config": Entry("config:config_app", help="Your own defaults: the file config.toml."),
    "prefs": Entry(
        "config:prefs_app", help="Presets of preferences, the built-in ones and your own; and your personas."
    ),
}


class _Commands(TyperGroup):
    """All commands, by name and help.  A command is imported and gets its options only when it is used: making the
    options of all commands was half of the work of ``pjlocal --help``."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _complete(name), rest


@cache
def _complete(name: str) -> Any:
    """The command with its options, or the group with its commands."""
    found = load(name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command()(function)
    command = typer.main.get_command(found)
    command.name, command.help = name, COMMANDS[name].help
    return command


def load(name: str) -> Any:
    """The function of a command, or the app of a group; its module is imported."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    return getattr(import_module(f".{module}", __package__), attribute)


app = typer.Typer(
    cls=_Commands,
    help="Persona-judge on local GGUF models: two preferences write one answer.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pjlocal {__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        logging.getLogger("pjlocal").setLevel(logging.DEBUG)
        faulthandler.enable()  # prints where C code crashed


@app.callback()
def _app(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar="PJLOCAL_DEBUG",
            callback=_debug,
            is_eager=True,
            help="Print the details of errors: tracebacks, and where C code crashed.",
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
