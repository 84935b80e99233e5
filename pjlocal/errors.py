"""Errors that reach the user, with a one-line message (what is wrong, then what to do) and an exit status."""

from __future__ import annotations

import difflib
import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("pjlocal")


class PjlocalError(Exception):
    """An error whose message is written for users.

    in_flags: the message for the command line, if the error's own message names settings by Python keywords.
    """

    exit_status = 1
    in_flags: str | None = None


class UsageError(PjlocalError):
    """The request is wrong: an option, a prompt, a preference, or a file that one of them names."""

    exit_status = 2


class TooLong(UsageError):
    """The prompt does not fit into the context."""


class NoRoom(UsageError):
    """The server has too few places or views for this answer."""


class ModelError(PjlocalError):
    """The model cannot be found, loaded or run, or there is not enough memory for it."""


class DeviceMemoryError(ModelError):
    """There is not enough memory on a device for KV caches or compute buffers."""


class RefusedError(ModelError):
    """The model cannot write the answer to this request, but may write others."""


class OutputError(PjlocalError):
    """An output file cannot be written."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Explain a failed import in the body.

    Args:
        name: the command that needs the package, which is the name of the package's extra too.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"pjlocal {name} needs the package {error.name}: pip install 'pjlocal[{name}]' (or '.[{name}]' in a "
            "checkout)"
        ) from None


def explain(error: BaseException, written: str = "the output") -> tuple[str, int]:
    """The message and exit status for an error.  Its traceback goes to the log, for ``--debug``.

    An unexpected error is a bug: the message says where it happened and how to report it.

    Args:
        written: a name for the output, if the system's error names no file.
    """
    log.debug("details:", exc_info=error)
    if isinstance(error, PjlocalError):
        return error.in_flags or str(error), error.exit_status
    if isinstance(error, MemoryError):
        return "not enough memory: use a smaller model, a smaller --ctx or smaller files", 1
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return (
            "cannot start a thread: memory or the system's limit on threads (ulimit -v, ulimit -u) is exhausted. "
            "Give fewer --threads, a smaller --ctx or a smaller model, or raise the limit",
            1,
        )
    if isinstance(error, RuntimeError | OSError) and (reason := _reason_not_loaded(str(error))):
        return (
            f"llama.cpp cannot be loaded: {reason}. Install the runtime libraries of the graphics card (CUDA's or "
            "ROCm's), or llama.cpp for the CPU: pip install --no-cache-dir --force-reinstall llama-cpp-python",
            1,
        )
    if isinstance(error, OSError):
        what = f"cannot use {error.filename}" if error.filename else f"cannot write {written}"
        return f"{what}: {error.strerror or error}", OutputError.exit_status
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib's words
        return "no home folder is known: set HOME", 1
    what = _quoted(f"{type(error).__name__}: {error}")
    return (
        f"this is a bug in pjlocal: {what} (in {_place(error)}). Run the command again as pjlocal --debug, and "
        "report its output",
        1,
    )


_MOST_QUOTED = 200  # characters of Python's message, which may quote a whole text


def _quoted(message: str) -> str:
    """A message of Python in one line, shortened if necessary."""
    line = " ".join(message.split())
    return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED]} …"


def _reason_not_loaded(message: str) -> str:
    """The reason why llama-cpp-python could not load llama.cpp's library; empty for other messages."""
    if named := re.fullmatch(r"Shared library with base name '(.*)' not found", message):
        return f"its library {named[1]} is missing"
    if failed := re.fullmatch(r"Failed to load shared library '.*?': (.*)", message, re.DOTALL):
        return _quoted(re.sub(": cannot open shared object file.*", " is missing", failed[1]))
    return ""


def _place(error: BaseException) -> str:
    """The last line of this package in the traceback, else the last line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parent)]
    for frame in reversed(ours or frames):
        return f"{Path(frame.filename).name}:{frame.lineno}"
    return "no line of Python"


_LONGEST_WORD = 100  # characters; comparing longer ones takes long
_SHORT = 3  # characters of a short word; still shorter ones begin too many names


def plural(n: int, noun: str) -> str:
    """The noun for a number of things, as in ``tokens``."""
    return noun if n == 1 else f"{noun}s"


def join_names(names: Sequence[str]) -> str:
    """Names in a sentence, as in ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def byte_size(n: int) -> str:
    """A number of bytes for people, as in ``98 MB`` and ``4.7 GB``."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """A suggestion with the known names most similar to a word, else those that begin with it, as in ``did you mean
    this or that?``; empty if there are none.  Capitals do not matter."""
    names = {name.lower(): name for name in known}
    word = word.lower()
    alike = 0.7 if len(word) > _SHORT else 0.8  # between "foo" and "floor" it is 0.75
    similar = difflib.get_close_matches(word, names, most, alike) if len(word) <= _LONGEST_WORD else []
    if not similar and len(word) >= _SHORT:
        similar = [name for name in names if name.startswith(word)][:most]
    return f"did you mean {' or '.join(names[name] for name in similar)}?" if similar else ""
