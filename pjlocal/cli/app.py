"""The commands and their names.  Each has a module, which imports its own packages late."""

from __future__ import annotations

import faulthandler
import logging
from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .chat import chat
from .config import config_app, prefs_app
from .docs import docs
from .doctor import doctor
from .eval import eval_app
from .models import models_app
from .run import run
from .serve import serve
from .sessions import sessions_app

app = typer.Typer(
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


for command in (run, chat, serve, bench, doctor, docs):
    app.command()(command)
app.add_typer(models_app, name="models")
app.add_typer(sessions_app, name="sessions")
app.add_typer(eval_app, name="eval")
app.add_typer(config_app, name="config")
app.add_typer(prefs_app, name="prefs")
