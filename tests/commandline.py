"""The command, in this process and in one of its own, and the one line that it may print when it fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import typer

from pjlocal.prompting import preferences

PJLOCAL = [sys.executable, "-m", "pjlocal"]

#: Two preferences, and the same answer in every run.
PREFER = ("-p", "vivid", "-p", "creative", "--seed", "1")
QUESTION = "Got any creative ideas for a 10 year old's birthday?"


def one_line(stderr: str) -> str:
    """The one line that a failure may print."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("pjlocal: ")
    assert "Traceback" not in stderr
    return lines[0]


def environment_in(folder: Path) -> dict[str, str]:
    """An environment in which the user's own folders are empty, and lie in another."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PJLOCAL_", "XDG_", "HF_"))}
    of_the_terminal = "NO_COLOR FORCE_COLOR COLUMNS LINES COLORTERM TERM TMUX XTERM_VERSION PAGER LESS"
    for name in of_the_terminal.split():  # in which the tests run
        env.pop(name, None)
    folders = {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    folders |= {"HF_HOME": "huggingface", "LLAMA_CACHE": "llama.cpp", "OLLAMA_MODELS": "ollama"}
    folders["XDG_RUNTIME_DIR"] = "run"
    (folder / "run").mkdir(mode=0o700, exist_ok=True)  # which there must be, or sockets lie elsewhere
    return env | {variable: str(folder / name) for variable, name in folders.items()}


def configure(environment: dict[str, str], text: str) -> None:
    """Write the config file of that environment."""
    file = Path(environment["XDG_CONFIG_HOME"]) / "pjlocal" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def call(args: list[str], environment: dict[str, str], folder: Path, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run the command in this process, which takes a tenth of the time; returns its exit status and all that it and
    llama.cpp wrote to standard output and standard error."""
    from pjlocal.cli.main import main

    with ExitStack() as stack:
        given, written, complained = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        stack.enter_context(_process_state_kept(folder))
        stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        stack.enter_context(mock.patch.object(sys, "argv", ["pjlocal", *args]))
        stack.enter_context(mock.patch.object(typer.main, "get_command", _get_command))
        for name, file, mode in (("stdin", given, "r"), ("stdout", written, "w"), ("stderr", complained, "w")):
            number = ("stdin", "stdout", "stderr").index(name)
            stack.enter_context(_file_is(number, file.fileno()))
            stream = stack.enter_context(open(number, mode, encoding="utf-8", closefd=False))
            stack.enter_context(mock.patch.object(sys, name, stream))
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        written.seek(0)
        complained.seek(0)
        return status, written.read(), complained.read()


def _get_command(app: typer.Typer) -> object:
    return _made_command(app, os.environ.get("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"))


@cache  # it takes 40 ms
def _made_command(app: typer.Typer, detection: str | None, make=typer.main.get_command) -> object:
    return make(app)


@contextmanager
def _file_is(number: int, other: int) -> Iterator[None]:
    """The file of that number is the other one, for this process, its libraries and its children."""
    saved = os.dup(number)
    os.dup2(other, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@contextmanager
def _process_state_kept(folder: Path) -> Iterator[None]:
    """Undo what a process of its own takes along at its end."""
    here, interval, logger = os.getcwd(), sys.getswitchinterval(), logging.getLogger("pjlocal")
    handlers, level = logger.handlers[:], logger.level
    logger.handlers.clear()  # as in a new process
    os.chdir(folder)
    try:
        with (
            mock.patch.object(sys, "unraisablehook", sys.unraisablehook),
            mock.patch.object(threading, "excepthook", threading.excepthook),
        ):
            yield
    finally:
        os.chdir(here)
        sys.setswitchinterval(interval)
        logger.handlers[:] = handlers
        logger.setLevel(level)
        preferences.use_own({})


def start(
    args: list[str], environment: dict[str, str], folder: Path, stdin: bytes = b"", **options: object
) -> tuple[int, bytes, bytes]:
    """Run the command as a process, as a script would; returns what `call` does."""
    result = subprocess.run(
        [*PJLOCAL, *args], input=stdin, capture_output=True, env=environment, cwd=folder, timeout=120, **options
    )
    return result.returncode, result.stdout, result.stderr
