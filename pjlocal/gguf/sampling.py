"""The sampling settings that a model's makers recommend, in its file (``general.sampling.*``) or for Ollama."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import UsageError
from ..settings import Sampling, flag
from .ollama import SAMPLING, manifest_at

#: Settings by their keys in a file.  Mirostat and the order of the filters are not supported.
_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "repeat_penalty",
}


def recommended(metadata: Callable[[str], Any], path: Path | None = None) -> dict[str, Any]:
    """The recommended settings, by field of `Sampling`; values outside their limits are left out.

    Args:
        metadata: returns the file's value under a key (a number, a text, or None).
        path: the model's path.  The parameters in an Ollama manifest override those in the file.
    """
    hints = get_type_hints(Sampling)
    found = {}
    manifest = manifest_at(path) if path else None
    parameters = manifest.parameters() if manifest else {}
    values = [(name, metadata(f"general.sampling.{key}")) for key, name in _KEYS.items()]
    values += [(name, parameters.get(key)) for key, name in SAMPLING.items()]
    for name, value in values:
        if isinstance(value, int | float | str) and (number := _number(value, hints[name])) is not None:
            try:
                Sampling().replace(**{name: number})
            except UsageError:
                continue
            found[name] = number
    return found


def _number(value: int | float | str, kind: type) -> int | float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    number = float(f"{number:.7g}")  # in 32 bits, 0.95 is 0.949999988079071
    return int(number) if kind is int else number


def model_defaults_in_words(sampling: Sampling, values: Mapping[str, Any]) -> str:
    """A list of the current settings that come from the model's file; empty without ``--sampling model``."""
    if sampling.defaults != "model":
        return ""
    return described({name: value for name, value in values.items() if getattr(sampling, name) == value}) or "none"


def described(values: Mapping[str, Any]) -> str:
    """The settings as a list, as in ``temperature 0.6, top-k 40``; may be empty."""
    flags = {f.name: flag(f).removeprefix("--") for f in dataclasses.fields(Sampling)}
    return ", ".join(f"{flags[name]} {value}" for name, value in values.items())
