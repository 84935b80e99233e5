"""Values that stand in a TOML file, held to the types and limits of the dataclass that takes them."""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UsageError
from ..gguf.locate import EMBEDDED, repository
from ..prompting.preferences import resolve
from ..settings import Settings, flag_names, is_in_union, rename_flags, with_whole_path, without_none
from ..textfile import read_text, user_path


class Wrong(Exception):
    """What is wrong, and the keys (of a list, the numbers) that lead to it."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


def checked(
    table: Mapping[str, Any],
    settings: type[Settings],
    folder: Path,
    *where: str | int,
    rest: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """A table's values as the settings take them, each checked together with those before it.

    Args:
        folder: from which the files that values name are found.
        where: the keys that lead to the table.
        rest: what else the settings are made of.

    Raises:
        Wrong: a value of another type, or outside its limits.
    """
    fields = {f.name: f for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    hints = get_type_hints(settings)
    made: dict[str, Any] = {}
    for key, value in table.items():
        try:
            made[key] = typed(key, hints[key], value, or_number=fields[key].metadata.get("or_number", False))
            if what := fields[key].metadata.get("file"):
                made[key] = read_text(folder / user_path(value), what)
            if fields[key].metadata.get("adapter"):
                made[key] = tuple(with_whole_path(spec, folder) for spec in made[key])
            if fields[key].metadata.get("model"):
                made[key] = model_named(value, folder)
            settings(**{**rest, **made})
        except UsageError as error:
            raise Wrong(by_keys(error.in_flags or str(error), settings), *where, key) from None
    return made


def by_keys(message: str, settings: type[Settings]) -> str:
    """A message about settings, which names their flags, as it reads where they are keys."""
    return rename_flags(message, flag_names(settings))


def typed(key: str, hint: Any, value: Any, or_number: bool = False) -> Any:
    """The value as that type.  Of words and numbers the settings themselves check which ones may be.

    Args:
        or_number: whether a text may be a number as well.

    Raises:
        UsageError: it is of another type.
    """
    if is_in_union(hint, value):
        return value
    hint = without_none(hint)
    if or_number and type(value) in (int, float):
        return str(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is (str if get_origin(hint) is Literal else hint):
        return value
    if get_origin(hint) is tuple and isinstance(value, list) and all(type(item) is get_args(hint)[0] for item in value):
        return tuple(value)
    if hint is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    shown = _as_json(value) if value is None or isinstance(value, bool | list | dict) else repr(value)
    raise UsageError(f"{key} must be {'a number or ' if or_number else ''}{kind(hint)} (not {shown})")


def _as_json(value: Any) -> str:
    """The value as it is written outside Python, at most some words of it."""
    return textwrap.shorten(json.dumps(value, ensure_ascii=False, default=str), 100, placeholder=" …")


def kind(hint: Any) -> str:
    """What a value of that type is, in words."""
    hint = without_none(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    words = {
        str: "a text in quotes",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        tuple[int, ...]: "a list of whole numbers, as in [0, 1]",
    }
    return words.get(hint, 'a list of texts, as in ["one", "two"]')


def model_named(name: str, folder: Path) -> str:
    """The model that a file names: a path, and a file beside it, are found from there; any other name stays one.

    Raises:
        UsageError: nothing can have this name.
    """
    if Path(name).name == name:
        beside = folder.absolute() / name
        return str(beside) if name != EMBEDDED and os.path.isfile(beside) else name
    path = folder.absolute() / user_path(name)
    return name if repository(name) and not os.path.lexists(path) else str(path)


def preference(spec: str, presets: Mapping[str, str], folder: Path, *where: str | int) -> str:
    """A preference of a file; the file that it names in its turn is found from there.

    Raises:
        Wrong: there is no such preset or file.
    """
    spec = spec.strip()
    try:
        if spec.startswith("@"):
            spec = f"@{folder.absolute() / user_path(spec[1:])}"
        resolve(spec, presets)
    except UsageError as error:
        raise Wrong(str(error), *where) from None
    return spec
