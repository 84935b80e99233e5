"""The settings that an HTTP request may name, and the models that it may ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from itertools import chain
from typing import Any, get_type_hints

from ..config.values import typed
from ..errors import UsageError, did_you_mean
from ..prompting.preferences import presets
from ..request import GROUPS, PREFERENCES, Overrides
from ..settings import Generation, Settings
from .terms import field_of

#: Every key that a request may set.
KEYS = (*PREFERENCES, *(key for table in GROUPS.values() for key in get_type_hints(table)))
#: Those that name files.
_MOST_NAME = 1000  # characters of a model's name, presets and all
_FILES = {f.name for f in fields(Generation) if f.metadata.get("adapter") or f.metadata.get("model")}


def asked(values: Mapping[str, Any]) -> Overrides:
    """A request's settings, by key, held to the types and limits of `pjlocal.settings`.

    Raises:
        UsageError: a key that there is not, or a value that it cannot have.
    """
    for key in values:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f"known are {', '.join(KEYS)}"
            raise UsageError(f"unknown setting {key!r}: {near}")
    tables: dict[str, Any] = {name: _checked(values, settings) for name, settings in GROUPS.items()}
    tops = _checked({key: values[key] for key in PREFERENCES if key in values}, Overrides)
    wishes = chain(*tops.values(), tables["generation"].get("avoid", ()))
    if any(wish.strip().startswith("@") for wish in wishes) or _FILES & tables["generation"].keys():
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


def check_servable(generation: Generation) -> None:
    """Refuse what a server's answers cannot have, with one model and one context for all of them.

    Raises:
        UsageError: a line that says what.
    """
    if generation.aligner is not None:
        raise UsageError("the server has one model: leave --aligner out")
    for name, _ in generation.adapters():
        raise UsageError(
            "a LoRA adapter or control vector changes a whole context, which all of the server's answers share: leave "
            f"--{name.replace('_', '-')} out"
        )


class Names:
    """What a request may name as its model: the model itself, a persona, or presets, as in ``vivid+creative``.

    Args:
        model: the name of the model that answers.
        also: other names that it goes by.
    """

    def __init__(self, model: str, also: Collection[str], personas: Mapping[str, Overrides]) -> None:
        self.model = model
        self._names = {name.lower() for name in (model, *also) if name}
        self._personas = personas

    def all(self) -> list[str]:
        return [self.model, *self._personas, *(f"{self.model}:{name}" for name in self._personas)]

    def find(self, name: str | None) -> Overrides | None:
        """What a name sets; None where it is no name.  Without one, and by the model's own, nothing."""
        if name and len(name) > _MOST_NAME:
            return None
        if not name or name.lower() in self._names:
            return Overrides()
        before, colon, last = name.rpartition(":")
        if colon and before.lower() not in self._names:
            return None
        worn = last.strip().lower()
        if worn in self._personas:
            return self._personas[worn]
        wishes = worn.split("+")
        return Overrides(prefer=tuple(wishes)) if all(wish in presets() for wish in wishes) else None

    def unknown(self, name: str) -> str:
        """What to say of a name that is none."""
        if len(name) > _MOST_NAME:
            return f"a model's name has at most {_MOST_NAME} characters, and this has {len(name):,}"
        near = did_you_mean(name, self.all()) or f"there are {', '.join(self.all())}"
        return f"no model {name!r}: {near}"
