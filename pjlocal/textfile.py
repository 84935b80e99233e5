"""Files that a user names: their paths, and texts that are read with plain complaints and written in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .errors import OutputError, UsageError

Format = TypeVar("Format")


def user_path(name: str | Path) -> Path:
    """The path that a user names, ``~`` and ``~user`` written out.  A name need not be UTF-8, just as for the system.

    Raises:
        UsageError: nothing can have this name: it is empty, there is no such user, or it holds a NUL.
    """
    if not str(name):
        raise UsageError("no file is named: its name is empty")
    if "\0" in str(name):
        raise UsageError(f"no file is called {str(name)!r}: a name holds no NUL")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        user = Path(name).parts[0]
        raise UsageError(f"cannot use the path {name}: no home folder is known for {user}") from None


def read_text(path: str | Path, what: str) -> str:
    """The stripped text of a UTF-8 file that an option names.

    Raises:
        UsageError: the file is missing, unreadable, empty or not UTF-8; or no file is named.
    """
    try:
        text = user_path(path).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {what} {path}: {reason}") from None
    if not text:
        raise UsageError(f"{what} {path} is empty")
    return text


def owner_only(path: str, flags: int) -> int:
    """An opener for `open`: a new file is its owner's alone (0600), for what was asked and answered is in it."""
    return os.open(path, flags, 0o600)


def output_file(
    target: Path, formats: Mapping[str, Format], force: bool, advice: str = "choose another name"
) -> tuple[Path, Format]:
    """The path of a file that a user wants written, and the format that its ending names.

    Args:
        formats: by the ending, without its dot.
        force: whether a file that exists may be replaced.
        advice: what to do about a file that exists.

    Raises:
        UsageError: the ending names no format, or the file exists and ``force`` is not set.
        OutputError: nothing can have this name, or the folder does not exist: its name is mistyped.
    """
    form = formats.get(target.suffix.lower().removeprefix("."))
    if form is None:
        *others, last = (f".{ending}" for ending in formats)
        raise UsageError(f"{target.name or target} names no format: end it in {', '.join(others)} or {last}")
    try:
        path = user_path(target)
    except UsageError as error:
        raise OutputError(f"cannot write {target}: {error}") from None
    if not force and os.path.lexists(path):
        raise UsageError(f"{target} exists already: {advice}")
    try:
        path.parent.stat()
    except FileNotFoundError:
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist") from None
    except OSError:
        pass  # `write_text` says what is wrong
    return path, form


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step, keeping its mode; a new file is its owner's alone (0600).

    Raises:
        OutputError: it cannot be written, or is not a plain file.
    """
    try:
        with suppress(FileNotFoundError):
            path.stat()  # says when links go in a circle, of which `resolve` makes what it likes
        target = path.resolve()  # a link stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it is not a plain file")
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
