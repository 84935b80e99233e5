"""Run the command line, and turn errors into one line and an exit status."""

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
from ..screen.console import say
from ..settings import REMOVED
from ..visible import visible
from .app import COMMANDS, app

#: Seconds after which a thread releases Python's lock to a waiting thread, here the one that decodes the other view.
#: With Python's default of 5 ms, judge mode is 3 % slower (SmolLM2, two contexts, 2-core machine).
_SWITCH_INTERVAL = 1e-4


def main() -> None:
    """Run the command line and exit with 0, 2 for wrong use, 1 for other errors, 130 after Ctrl-C, or 128 + n after
    signal n."""
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
            return _fail("give standard input to a command, as in: echo Hello | pjlocal run. See pjlocal --help", 2)
        command = typer.main.get_command(app)
        if "_PJLOCAL_COMPLETE" in os.environ:  # called by a shell to complete words
            command.main(prog_name="pjlocal")
        with command.make_context("pjlocal", sys.argv[1:]) as context:  # app() would handle some errors itself
            status = command.invoke(context) or 0
        sys.stdout.flush()
        return status
    except typer.Exit as exit:
        return exit.exit_code
    except (BrokenPipeError, SystemExit):  # Rich raises SystemExit for a closed pipe
        _drop_stdout()
        return 0
    except Ended as ended:
        try:
            sys.stdout.flush()
        except OSError:  # the terminal is gone, as after SIGHUP
            _drop_stdout()
        return ended.status
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError):
            _drop_stdout()
        if not hasattr(error, "format_message"):  # not an error of Typer
            return _fail(*explain(error))
        where = getattr(error, "ctx", None)
        named = ["pjlocal", *(word for word in sys.argv if word in COMMANDS)][:2]
        failed = where.command_path if where else " ".join(named)
        if message := _must_be(error) or error.format_message():
            return _fail(f"{_with_advice(message, failed)} See {failed} --help", 2)
        return 2


_ASKS = 'give a prompt and its options to run, as in: pjlocal run -p vivid "Why do cats purr?"'


def _must_be(error: Exception) -> str:
    """The message about an option whose value is not a number, or is outside its limits, in the words of `settings`;
    empty for other errors.  Typer's own message quotes Pydantic, which checks the values."""
    try:
        (wrong,) = error.__cause__.errors()  # type: ignore[union-attr]
        must = _MUST_BE[wrong["type"]].format(**wrong.get("ctx", {}))
        name = max(error.param.opts, key=len)  # type: ignore[attr-defined]
    except (AttributeError, KeyError, ValueError):
        return ""
    is_number = "than_equal" in wrong["type"]  # only numbers have limits
    given = wrong["input"] if is_number else repr(wrong["input"])
    return f"{name} must be {must} (not {given})"


#: The expected value of an option, by Pydantic's type of the error.
_MUST_BE = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


def _with_advice(message: str, command: str) -> str:
    """Typer's usage error as a sentence.  Advice is added if it has none."""
    message = message.rstrip(".").replace(": Value error, ", ": ")
    if command == "pjlocal run" and message.startswith("Got unexpected extra argument"):
        message = f"{message}: put the prompt in quotes"
    elif command == "pjlocal chat" and re.match(r"No such option: (-f|--file)\b", message):
        message = f"{message.partition(' (')[0]}: type /read FILE in the chat, or give -f FILE to pjlocal run"
    elif message.startswith("No such option: --debug"):
        before = command.replace("pjlocal", "pjlocal --debug", 1)
        message = f"No such option: --debug: give it before the command, as in: {before}"
    elif (given := re.match(r"No such option: --(?:no-)?([\w-]+)", message)) and given[1] in REMOVED:
        message = f"{given[0]}: {REMOVED[given[1]]}"
    elif suggested := re.fullmatch(r"(.*?)(?:\.? Did you mean | \(Possible options: )(.*)[?)]", message):
        names = suggested[2].replace("'", "").replace(", ", " or ")
        message = f"{suggested[1]}: did you mean {names}?"
    elif command == "pjlocal" and re.match("No such (command|option)", message):
        message = f"{message}: {_ASKS}"
    return message if message.endswith("?") else f"{message}."


def _is_piped() -> bool:
    """True if standard input is a pipe or a file."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _fail(message: str, status: int) -> int:
    try:
        say(message)
    except OSError:
        pass
    return status


def _fill_closed_streams() -> None:
    """Open the null device for closed standard streams, whose numbers other files would get.

    It is read-only as standard output, so that an answer is not lost without an error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            access = os.O_RDONLY if name == "stdout" else os.O_RDWR
            null = os.open(os.devnull, access)  # it gets the lowest free number, the stream's
            setattr(sys, name, open(null, mode))  # noqa: SIM115


def _never_fail_to_encode() -> None:
    """Write escapes for characters that the terminal's encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _unforeseen(error: BaseException | None) -> None:
    """Report an error that no caller handles, as in a thread of another package.  The work continues."""
    if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt | BrokenPipeError):
        _fail(*explain(error))


class _StandardError(logging.Handler):
    """A handler that writes to the current standard error: while a spinner turns, Rich puts lines above it.

    Control characters are replaced, because messages quote models' files and texts.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(visible(self.format(record)), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _show_log() -> None:
    """Send warnings, llama.cpp's log on request, and details of errors with --debug to standard error."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("pjlocal: %(message)s"))
    logger = logging.getLogger("pjlocal")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _drop_stdout() -> None:
    """Redirect standard output to the null device, so that Python does not fail again at its exit."""
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())
