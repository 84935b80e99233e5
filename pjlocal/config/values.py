"""Check the values of a TOML file against the types and limits of a dataclass."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from ..errors import UsageError
from ..gguf.locate import EMBEDDED
from ..prompting.preferences import resolve
from ..request import PREFERENCES
from ..settings import Settings, typed, with_whole_path
from ..textfile import read_text, user_path


class InvalidValue(Exception):
    """A wrong value in a file, with its keys."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys

    def placed(self) -> str:
        """The message with its place, as in ``[sampling] top_k must be a whole number``."""
        message, (*tables, key) = str(self), self.keys
        if repr(key) in message:
            return message
        place = f"[{'.'.join(tables)}] " if tables else ""
        return f"{place}{message}" if message.startswith(f"{key} ") else f"{place}{key}: {message}"


def checked(
    table: Mapping[str, Any],
    settings: type[Settings],
    folder: Path,
    presets: Mapping[str, str],
    *where: str,
    rest: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Convert a table's values for a class of settings.  Each is checked together with those before it.

    Args:
        folder: the base of relative file names in values, which become absolute.
        presets: those that preferences may name.
        where: the keys that lead to the table.
        rest: the other values of the settings.

    Raises:
        InvalidValue: a value has the wrong type, or is outside its limits.
    """
    fields = {f.name: f for f in dataclasses.fields(settings)}
    hints = get_type_hints(settings)
    values: dict[str, Any] = {}
    for key, value in table.items():
        try:
            values[key] = typed(key, hints[key], value, or_number=fields[key].metadata.get("or_number", False))
            if what := fields[key].metadata.get("file"):
                values[key] = read_text(folder / user_path(value), what)
            if fields[key].metadata.get("adapter"):
                values[key] = tuple(with_whole_path(spec, folder) for spec in values[key])
            if fields[key].metadata.get("model"):
                values[key] = model_named(value, folder)
            if key in (*PREFERENCES, "avoid"):
                values[key] = tuple(_preference(spec, presets, folder) for spec in values[key])
            settings(**{**rest, **values})
        except UsageError as error:
            raise InvalidValue(str(error), *where, key) from None
    return values


def model_named(name: str, folder: Path) -> str:
    """Resolve the model in a configuration file: a path relative to the file's folder, a file there, or a name.

    Raises:
        UsageError: the name is not valid.
    """
    if not name:
        raise UsageError("the name is empty: name a model")
    if Path(name).name == name:
        beside = folder.absolute() / name
        return str(beside) if name != EMBEDDED and os.path.isfile(beside) else name
    path = folder.absolute() / user_path(name)
    is_path = os.path.lexists(path) or name.startswith((".", "/", "~")) or name.lower().endswith(".gguf")
    return str(path) if is_path else name


def _preference(spec: str, presets: Mapping[str, str], folder: Path) -> str:
    spec = spec.strip()
    if spec.startswith("@"):
        spec = f"@{folder.absolute() / user_path(spec[1:])}"
    resolve(spec, presets)
    return spec
