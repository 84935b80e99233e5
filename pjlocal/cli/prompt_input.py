"""Read a prompt from the command line and standard input."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import time
from collections.abc import Iterator

from ..errors import UsageError, plural
from ..screen.console import say
from ..textfile import decode_utf8


def read_prompt(argument: str | None) -> str:
    """The prompt: standard input, then the argument.  Prints a notice if there are both.

    Raises:
        UsageError: the prompt is empty, or the input is not UTF-8.
    """
    if argument in (None, "-"):
        piped = "" if argument is None and sys.stdin.isatty() else read_stdin()
    else:
        piped = read_stdin() if _is_for_the_prompt() else ""
    parts = [part for part in (piped, "" if argument == "-" else argument or "") if part.strip()]
    if not parts:
        raise UsageError('the prompt is empty: give one, as in pjlocal run -p vivid "Tell me a story"')
    if len(parts) > 1:
        n = f"{len(piped):,} {plural(len(piped), 'character')}"
        say(f"{n} of standard input are put before the prompt; </dev/null leaves them out")
    return "\n\n".join(parts)


def _is_for_the_prompt() -> bool:
    """True if standard input belongs to a prompt given as an argument.

    A terminal does not.  Nor does a file that something else is reading, such as a shell's read loop, which would lose
    its next lines.  Such a loop over a pipe cannot be distinguished from piped text.
    """
    if sys.stdin.isatty():
        return False
    try:
        descriptor = sys.stdin.fileno()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        os.read(descriptor, 0)
    except OSError as error:
        return error.errno != errno.EBADF  # EBADF: nohup closes it
    return True


_PATIENCE_S = 1.0  # waiting time for standard input before a notice
MOST_BYTES = 1 << 28  # of standard input: more than any context takes


def read_stdin() -> str:
    """Read all of standard input.

    Raises:
        UsageError: it cannot be read, or is not text.
    """
    try:
        return decode_utf8(b"".join(_parts_of_stdin()), "standard input").strip("\r\n")
    except OSError as error:
        raise UsageError(f"cannot read standard input: {error.strerror or error}") from None


def _parts_of_stdin() -> Iterator[bytes]:
    """Read standard input to its end.  Prints a notice if that takes long."""
    try:
        descriptor = sys.stdin.fileno()
    except OSError:  # a replaced stdin, as in tests
        yield sys.stdin.buffer.read()
        return
    has_said, started, n_bytes = os.name != "posix", time.monotonic(), 0
    while True:
        if not has_said:
            left = started + _PATIENCE_S - time.monotonic()
            has_said = not select.select([descriptor], [], [], max(0.0, left))[0] or left < 0
            if has_said:
                ends = "Ctrl-D ends it" if sys.stdin.isatty() else "give </dev/null if there is none"
                say(f"waiting for standard input to end ({ends})")
        if os.name == "posix":  # another process may have made it non-blocking
            select.select([descriptor], [], [])
        part = os.read(descriptor, 1 << 20)
        if not part:
            return
        yield part
        n_bytes += len(part)
        if n_bytes > MOST_BYTES:
            raise UsageError(f"standard input is larger than {MOST_BYTES >> 20} MiB")
