"""A TOML file that a person keeps by hand, read with line numbers for what is wrong."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


def read(path: Path, what: str = "config file") -> str:
    """The file's text; of a missing file, the empty string.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror or error}") from None


def parse(path: Path, text: str) -> TOMLDocument:
    """The text of the file as a document that can be edited.

    Raises:
        UsageError: it is not TOML; names the line.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError, UnexpectedCharError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        at = error.line if isinstance(error, UnexpectedCharError) else line_of(text)
        what = re.sub(r"\.?( at line \d+ col \d+)?$", "", str(error))
        if repr("\0") in what:  # tomlkit's mark for the end of the text
            what = "it ends too early"
        raise UsageError(f"{path} line {at}: this is not TOML: {what}") from None


def line_of(text: str, keys: Sequence[str | int] = ()) -> int:
    """The line on which the statement begins that sets ``keys``, where a number is of a list's items; without keys, the
    first that is not TOML.

    tomlkit tells no positions, so the text is parsed again, statement by statement.
    """
    lines = text.split("\n")
    ends = [0]
    for end in range(1, len(lines) + 1):
        if _parsed(lines[ends[-1] : end]) is not None:
            ends.append(end)

    def reached(end: int) -> bool:
        node: Any = _parsed(lines[:end])
        if node is None:
            return True
        for key in keys:
            try:
                node = node[key]
            except (KeyError, IndexError):
                return False
        return bool(keys)

    return ends[bisect_left(ends, True, key=reached) - 1] + 1


def without_table(text: str, keys: Sequence[str]) -> str:
    """The text without the lines of a table that has a header of its own, up to the next header or to what is said
    above that."""
    lines = text.splitlines(keepends=True)
    first = line_of(text, keys) - 1
    end = next((n for n in range(first + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    while end < len(lines) and end > first + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    before, behind = "".join(lines[:first]), "".join(lines[end:])
    return before + behind if behind.strip() or not before.strip() else before.rstrip() + "\n"


def key(name: str) -> str:
    """A bare word as a key, which is bare where TOML lets it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def value(of: object) -> str:
    """A text, a number, a truth or a list of texts as TOML writes it; JSON writes such values in the same way."""
    return json.dumps(of, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parsed(lines: list[str]) -> TOMLDocument | None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse("\n".join(lines))
    except TOMLKitError:
        return None
