"""Files that a user names: resolve paths, read texts with clear errors, and write texts atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from .errors import OutputError, UsageError

Format = TypeVar("Format")

MOST_BYTES = 1 << 26  # of a text: more than fits in any context


def user_path(name: str | Path) -> Path:
    """The path of a name, with ``~`` and ``~user`` expanded.  The name need not be UTF-8.

    Raises:
        UsageError: the name is empty, contains a NUL, or names an unknown user.
    """
    if not str(name):
        raise UsageError("the file name is empty: name a file")
    if "\0" in str(name):
        raise UsageError(f"{str(name)!r} cannot be the name of a file: it contains a NUL character")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        user = Path(name).parts[0]
        raise UsageError(f"cannot use the path {name}: no home folder is known for {user}") from None


def read_text(path: str | Path, what: str) -> str:
    """The stripped text of a UTF-8 file that an option names.

    Raises:
        UsageError: the file is missing, unreadable, too large, empty or not UTF-8; or no file is named.
    """
    name = f"{what} {path}"
    text = decode_utf8(read_bytes(path, name), name).replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise UsageError(f"{name} is empty")
    return text


def read_bytes(path: str | Path, name: str, most: int = MOST_BYTES, missing_ok: bool = False) -> bytes:
    """The content of a file, which may be a device without an end.

    Args:
        name: of the file, for messages.
        most: the most bytes.
        missing_ok: a missing file is an empty one.

    Raises:
        UsageError: the file is missing, unreadable or larger; or no file is named.
    """
    try:
        with user_path(path).open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        if missing_ok and isinstance(error, FileNotFoundError | NotADirectoryError):
            return b""
        raise UsageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise UsageError(f"{name} is larger than {most >> 20} MiB")
    return data


def decode_utf8(data: bytes, name: str) -> str:
    """Decode UTF-8, with or without a byte order mark.  Raises UsageError, which calls the text ``name``."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data and not data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            raise UsageError(f"{name} is not text: it contains a NUL (byte {data.index(0)})") from None
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None


def name_parts(text: str) -> list[str]:
    """The runs of letters, digits, combining marks and _ in a text, which may be in a name."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c == "_" or c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text).split()


def fold(name: str) -> str:
    """A name in the form in which names are compared, without the differences of case and composed characters."""
    return unicodedata.normalize("NFC", name.lower())


def owner_only(path: str, flags: int) -> int:
    """An opener for `open` that creates files for their owner only (0600), for questions and answers."""
    return os.open(path, flags, 0o600)


def lock(file: IO[Any]) -> None:
    """Lock a file if the system supports it.  Raises BlockingIOError if another process holds the lock."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks


def known_ending(target: Path, known: Collection[str]) -> str:
    """The ending of a file's name, without the dot.  Raises UsageError: it is not one of the ``known`` ones."""
    ending = target.suffix.lower().removeprefix(".")
    if ending not in known:
        *others, last = (f".{ending}" for ending in known)
        raise UsageError(f"{target.name or target} has no known format: end the name in {', '.join(others)} or {last}")
    return ending


def output_file(target: Path, formats: Mapping[str, Format], force: bool) -> tuple[Path, Format]:
    """The path of a file to write, and the format of its ending.

    Args:
        formats: formats by ending, without the dot.
        force: whether an existing file may be replaced.

    Raises:
        UsageError: the ending is unknown, or the file exists and ``force`` is not set.
        OutputError: the name is impossible, or its folder does not exist (a mistyped name).
    """
    form = formats[known_ending(target, formats)]
    try:
        path = user_path(target)
    except UsageError as error:
        raise OutputError(f"cannot write {target}: {error}") from None
    if not force and os.path.lexists(path):
        raise UsageError(f"{target} exists already: choose another name, or give --force")
    try:
        path.parent.stat()
    except FileNotFoundError:
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist") from None
    except OSError:
        pass  # `write_text` reports it
    return path, form


def write_text(path: Path, text: str) -> None:
    """Replace a file's text atomically; see `write_bytes`.

    Raises:
        OutputError: see `write_bytes`; or the text has half a character, which a file cannot have.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise OutputError(f"cannot write {path}: {text[error.start]!r} is not a character") from None
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically, and keep its mode.  Only the owner can read a new file (0600).

    Raises:
        OutputError: the file cannot be written, or is not a plain file.
    """
    try:
        with suppress(FileNotFoundError):
            path.stat()  # raises an error for a circle of links; `resolve` may not
        target = path.resolve()  # a link stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it is not a plain file")
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
