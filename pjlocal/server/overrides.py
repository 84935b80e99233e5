"""The settings that the body of an HTTP request may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import chain
from typing import Any, get_type_hints

from ..config.values import typed
from ..errors import UsageError, did_you_mean
from ..request import GROUPS, KEYS, PREFERENCES, Overrides
from ..settings import Generation, Settings
from .terms import field_of

#: Those that name files.
_FILES = {f.name for f in fields(Generation) if f.metadata.get("adapter") or f.metadata.get("model")}


def parse_overrides(values: Mapping[str, Any]) -> Overrides:
    """The settings of a body, by key, held to the types and limits of `pjlocal.settings`.

    Raises:
        UsageError: an unknown key, or a value that a setting cannot have.
    """
    for key in values:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f"known are {', '.join(KEYS)}"
            raise UsageError(f"unknown setting {key!r}: {near}")
    tables: dict[str, Any] = {name: _checked(values, settings) for name, settings in GROUPS.items()}
    tops = _checked({key: values[key] for key in PREFERENCES if key in values}, Overrides)
    preferences = chain(*tops.values(), tables["generation"].get("avoid", ()))
    if any(preference.strip().startswith("@") for preference in preferences) or _FILES & tables["generation"].keys():
        raise UsageError("a request names no files of the server's: write the text out, or keep it as a persona there")
    return Overrides(**tops, **tables)


def _checked(values: Mapping[str, Any], settings: type[Settings]) -> dict[str, Any]:
    hints = get_type_hints(settings)
    made: dict[str, Any] = {}
    for f in fields(settings):  # type: ignore[arg-type]
        if values.get(f.name) is not None:
            or_number = f.metadata.get("or_number", False)
            made[f.name] = typed(field_of(f.name), hints[f.name], values[f.name], or_number)
    settings(**made)
    return made
