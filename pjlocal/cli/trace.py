"""The trace of ``pjlocal run``: a file with one JSON line per token."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import OutputError, UsageError
from ..textfile import owner_only, user_path

if TYPE_CHECKING:
    from ..events import TokenEvent


def _may_be_emptied(target: Path) -> bool:
    """True if a file is empty, a trace, or not a regular file."""
    if not stat.S_ISREG(os.stat(target).st_mode):
        return True
    with open(target, "rb") as file:
        head = file.read(len(_TRACE_HEAD))
    return head in (b"", _TRACE_HEAD)


_TRACE_HEAD = b'{"position": '


class Trace:
    """A file with one JSON line per token, flushed at once.  A write error does not stop the answer: see `error`.

    An existing file is emptied only at the first token.

    Raises:
        UsageError: the file is not a trace, but for example the model.
        OutputError: the file cannot be opened for writing.
    """

    def __init__(self, target: str | None) -> None:
        self.error: OSError | None = None
        self._fresh = True
        self._file: TextIO | None = None
        if target == "-":
            self._file, self._fresh = sys.stdout, False
        elif target is not None:
            try:
                path = user_path(target)
                self._file = open(path, "a", encoding="utf-8", opener=owner_only)  # noqa: SIM115
                if not _may_be_emptied(path):
                    raise UsageError(f"{target} exists and is not a trace: give --trace another name")
            except OSError as error:
                raise OutputError(f"cannot write the trace {target}: {error.strerror or error}") from None

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None and self._file is not sys.stdout:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error

    def write(self, event: TokenEvent, **more: Any) -> None:
        """Write a line with a token's event, and more."""
        if self._file is None or self.error:
            return
        try:
            if self._fresh:
                if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                    self._file.truncate(0)
                self._fresh = False
            self._file.write(json.dumps(event.as_dict() | more, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            if self._file is sys.stdout:
                raise
            self.error = error
