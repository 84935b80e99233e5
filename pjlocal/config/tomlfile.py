"""Read, parse and change a TOML file that a person edits.  Changes keep the rest of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..textfile import decode_utf8, read_bytes

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


def read(path: Path, what: str = "config file") -> str:
    """Read a file's text; empty for a missing file.

    Raises:
        UsageError: the file cannot be read, is too large, or is not UTF-8.
    """
    name = f"{what} {path}"
    return decode_utf8(read_bytes(path, name, missing_ok=True), name)


def parse(path: Path, text: str) -> TOMLDocument:
    """Parse the text of a file to a document that can be edited.

    Raises:
        UsageError: the text is not TOML; the message has tomlkit's line, if any.
    """
    import tomlkit
    from tomlkit.exceptions import ParseError, TOMLKitError, UnexpectedEofError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        # A plain ParseError means a key that is set twice; it has the next line, and its message names the key.
        at = f" line {error.line}" if isinstance(error, ParseError) and type(error) is not ParseError else ""
        what = re.sub(r"\.?( at line \d+ col \d+)?$", "", str(error))
        if isinstance(error, UnexpectedEofError) or repr("\0") in what:  # tomlkit's mark for the end of the text
            what = "it ends too early"
        raise UsageError(f"{path}{at} is not valid TOML: {what}") from None


def without_table(text: str, keys: Sequence[str]) -> str:
    """Remove a table from a text: its header and the lines up to the next header and the comments above that.

    A text without this header is returned unchanged."""
    lines = text.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if _header(line) == [*keys]), None)
    if first is None:
        return text
    end = next((n for n in range(first + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    while end < len(lines) and end > first + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    before, behind = "".join(lines[:first]), "".join(lines[end:])
    return before + behind if behind.strip() or not before.strip() else before.rstrip() + "\n"


def _header(line: str) -> list[str]:
    """The keys of a table's header; empty for any other line."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    if not line.lstrip().startswith("["):
        return []
    try:
        table: Any = tomlkit.parse(line).unwrap()
    except TOMLKitError:
        return []
    keys = []
    while isinstance(table, dict) and table:
        ((key, table),) = table.items()
        keys.append(key)
    return keys


def value(of: object) -> str:
    """Write a text, number, boolean or list of texts in TOML, in which it looks like JSON."""
    return json.dumps(of, ensure_ascii=False).replace("\x7f", "\\u007f")


def assignments(values: Mapping[str, object]) -> list[str]:
    """The lines that set these values, by their bare keys."""
    return [f"{key} = {value(of)}" for key, of in values.items()]
