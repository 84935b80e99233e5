"""What a request wishes its answer to be written under: the server's own settings, a persona's, then the request's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from typing import Any, get_type_hints

from ..config.config import PREFERENCES, TABLES, Config
from ..config.values import by_keys, typed
from ..errors import UsageError, did_you_mean
from ..prompting.preferences import presets
from ..settings import Engine, Generation, Prompting, Sampling, Settings

#: What a request may set, by the table where it stands in ``config.toml``.
_TABLES = {name: table for name, table in TABLES.items() if table is not Engine}
#: Every key of it.
KEYS = (*PREFERENCES, *(key for table in _TABLES.values() for key in get_type_hints(table)))
#: Those that name files.
_FILES = {f.name for f in fields(Generation) if f.metadata.get("adapter") or f.metadata.get("model")}


@dataclass(frozen=True)
class Wish:
    """Everything an answer is written under.

    views: the preferences of view a and of view b.
    own: settings that somebody gave; the others may be the model's, see ``Sampling.defaults``.
    """

    views: Sequence[Sequence[str]]
    prompting: Prompting
    sampling: Sampling
    generation: Generation
    own: frozenset[str]

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, as JSON can hold it."""
        return asdict(self) | {"own": sorted(self.own)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wish:
        """What `as_dict` gave.

        Raises:
            UsageError: settings beyond their limits.
        """
        return cls(
            values["views"],
            Prompting.from_dict(values["prompting"]),
            Sampling.from_dict(values["sampling"]),
            Generation.from_dict(values["generation"]),
            frozenset(values["own"]),
        )

    def under(self, config: Config) -> Wish:
        """The wish with what a persona or a request sets instead."""
        return Wish(
            config.views(self.views),
            config.laid_over(self.prompting),
            config.laid_over(self.sampling),
            config.laid_over(self.generation),
            self.own | config.flat().keys(),
        )

    def behind(self, system: str) -> Wish:
        """The wish with a request's system text behind its own."""
        both = "\n\n".join(text for text in (self.prompting.system, system) if text)
        return replace(self, prompting=self.prompting.replace(system=both))

    def seeded(self, seed: int) -> Wish:
        """The wish with another seed."""
        return replace(self, generation=self.generation.replace(seed=seed))


def asked(values: Mapping[str, Any]) -> Config:
    """A request's settings, by key, held to the types and limits of `pjlocal.settings`.

    Raises:
        UsageError: a key that there is not, or a value that it cannot have.
    """
    for key in values:
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f"known are {', '.join(KEYS)}"
            raise UsageError(f"unknown setting {key!r}: {near}")
    tables: dict[str, Any] = {name: _checked(values, settings) for name, settings in _TABLES.items()}
    tops = _checked({key: values[key] for key in PREFERENCES if key in values}, Config)
    wishes = chain(*tops.values(), tables["generation"].get("avoid", ()))
    if any(wish.strip().startswith("@") for wish in wishes) or _FILES & tables["generation"].keys():
        raise UsageError("a request names no files of the server's: write the text out, or keep it as a persona there")
    return Config(**tops, **tables)


def _checked(values: Mapping[str, Any], settings: type[Settings]) -> dict[str, Any]:
    hints = get_type_hints(settings)
    try:
        made = {key: typed(key, hints[key], values[key]) for key in values if key in hints and values[key] is not None}
        settings(**made)
    except UsageError as error:
        raise UsageError(by_keys(str(error), settings)) from None
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

    def __init__(self, model: str, also: Collection[str], personas: Mapping[str, Config]) -> None:
        self.model = model
        self._names = {name.lower() for name in (model, *also) if name}
        self._personas = personas

    def all(self) -> list[str]:
        return [self.model, *self._personas, *(f"{self.model}:{name}" for name in self._personas)]

    def find(self, name: str | None) -> Config | None:
        """What a name sets; None where it is no name.  Without one, and by the model's own, nothing."""
        if not name or name.lower() in self._names:
            return Config()
        before, colon, last = name.rpartition(":")
        if colon and before.lower() not in self._names:
            return None
        worn = last.strip().lower()
        if worn in self._personas:
            return self._personas[worn]
        wishes = worn.split("+")
        return Config(prefer=tuple(wishes)) if all(wish in presets() for wish in wishes) else None

    def nearest(self, name: str) -> str:
        """What to say of a name that is none."""
        return did_you_mean(name, self.all()) or f"there are {', '.join(self.all())}"
