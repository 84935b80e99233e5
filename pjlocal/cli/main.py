"""Runs the command line, and makes one line and the right exit status of what goes wrong."""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import threading

import typer

from ..engine.interrupt import INTERRUPTED, Ended, Interrupted
from ..errors import explain
from .app import app

#: Seconds after which a thread gives way to one that waits for Python's lock, here one that wants to decode the other
#: view.  With Python's own 5 ms judge mode is 3 % slower (SmolLM2, two contexts, 2-core machine).
_SWITCH_INTERVAL = 1e-4


def main() -> None:
    """Run the command line and exit: 0, 2 for wrong use, 1 for what fails at run time, 130 after Ctrl-C,
    128 + n after signal n."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    sys.exit(_guarded())


def _guarded() -> int:
    _fill_closed_streams()
    _never_fail_to_encode()
    _show_log()
    threading.excepthook = lambda failed: _unforeseen(failed.exc_value)
    sys.unraisablehook = lambda failed: _unforeseen(failed.exc_value)
    try:
        if len(sys.argv) == 1 and _is_piped():
            return _fail("standard input goes to a command, as in: echo Hello | pjlocal run. See pjlocal --help", 2)
        command = typer.main.get_command(app)
        if "_PJLOCAL_COMPLETE" in os.environ:  # a shell asks what it may complete
            command.main(prog_name="pjlocal")
        with command.make_context("pjlocal", sys.argv[1:]) as context:  # app() would handle some errors in its own way
            status = command.invoke(context) or 0
        sys.stdout.flush()
        return status
    except typer.Exit as exit:
        return exit.exit_code
    except (BrokenPipeError, SystemExit):  # SystemExit is what Rich raises for a closed pipe
        _drop_stdout()
        return 0
    except Ended as ended:
        _flush_or_drop_stdout()
        return ended.status
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError):
            _drop_stdout()
        if not hasattr(error, "format_message"):  # not one of Typer's own
            return _fail(*explain(error))
        where = getattr(error, "ctx", None)
        failed = where.command_path if where else "pjlocal"
        if message := error.format_message():
            return _fail(f"{_with_advice(message, failed)} See {failed} --help", 2)
        return 2


_ASKS = 'a prompt and its options go to run, as in: pjlocal run -p vivid "Why do cats purr?"'


def _with_advice(message: str, command: str) -> str:
    """Typer's message about wrong use as a sentence, with advice where it gives none."""
    message = message.rstrip(".").replace(": Value error, ", ": ")
    if (
        command == "pjlocal"
        and re.match("No such (command|option)", message)
        and not re.search("Did you|Poss", message)
    ):
        message = f"{message}: {_ASKS}"
    elif command == "pjlocal run" and message.startswith("Got unexpected extra argument"):
        message = f"{message}: put the prompt in quotes"
    return message if message.endswith("?") else f"{message}."


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _fail(message: str, status: int) -> int:
    from ..visible import one_line

    try:
        print(f"pjlocal: {one_line(message)}", file=sys.stderr)
    except OSError:
        pass
    return status


def _fill_closed_streams() -> None:
    """Where a standard stream is closed, the next file that is opened would take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is the stream's
            setattr(sys, name, open(null, mode))  # noqa: SIM115


def _never_fail_to_encode() -> None:
    """A terminal in another encoding shows a mark for what it cannot, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _unforeseen(error: BaseException | None) -> None:
    """An error where nobody waits for it, as in a thread of another package: the work goes on."""
    if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt | BrokenPipeError):
        _fail(*explain(error))


class _Formatter(logging.Formatter):
    """Shows marks for what a terminal would take as orders: messages quote models' files, and what they wrote."""

    def format(self, record: logging.LogRecord) -> str:
        from ..visible import visible

        return visible(super().format(record))


def _show_log() -> None:
    """Warnings, llama.cpp's log where it is asked for, and errors' details with --debug go to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("pjlocal: %(message)s"))
    logger = logging.getLogger("pjlocal")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _flush_or_drop_stdout() -> None:
    """The terminal may be gone, as after SIGHUP."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()


def _drop_stdout() -> None:
    """What cannot be written must not be tried again, and complained about, when Python exits."""
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())
