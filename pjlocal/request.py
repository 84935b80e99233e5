"""All settings of one answer: preferences, generation, sampling and prompt.

The command line, the chat, saved sessions, the configuration, evaluation suites, the server and the Python API all
build a `Request`, by applying `Overrides` with the settings that they change.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .errors import UsageError
from .settings import (
    ADAPTERS,
    FORMS,
    RECOMMENDABLE,
    VIEW_NAMES,
    Engine,
    Generation,
    Prompting,
    Sampling,
    Settings,
    advise,
)
from .textfile import user_path

#: The groups of settings that a request has, by the name of the table that holds them in every file.
GROUPS: dict[str, type[Settings]] = {"generation": Generation, "sampling": Sampling, "prompting": Prompting}
#: The keys of the preferences.
PREFERENCES = ("prefer", "draft_prefer", "judge_prefer")
#: Every key of a request.
KEYS = (*PREFERENCES, *(f.name for group in GROUPS.values() for f in dataclasses.fields(group)))
#: Settings that exclude each other: giving one resets the others.
EXCLUSIVE = (("prefer", "draft_prefer"), ("prefer", "judge_prefer"), FORMS)

if TYPE_CHECKING:
    from typing_extensions import Self

#: The preferences of each view.
Views = tuple[tuple[str, ...], ...]

_Group = TypeVar("_Group", bound=Settings)


#: The default of `Request.explicit`.
_BY_VALUE: frozenset[str] = frozenset({""})


def deal(prefer: Sequence[str]) -> list[list[str]]:
    """Assign preferences to the views in turn: the first to view a, the second to view b, the third to a again."""
    n = len(VIEW_NAMES)
    return [list(prefer[view::n]) for view in range(n)]


def place(prefer: Sequence[str], draft_prefer: Sequence[str] = (), judge_prefer: Sequence[str] = ()) -> Views:
    """The preferences of view a and of view b, from ``prefer`` by `deal`, or as given for each view.

    Raises:
        UsageError: both are given.
    """
    if prefer and (draft_prefer or judge_prefer):
        raise UsageError("--prefer excludes --draft-prefer and --judge-prefer: use one")
    return _as_views(deal(prefer) if prefer else [draft_prefer, judge_prefer])


def parse_views(prefer: Any) -> Views:
    """The preferences of view a and of view b, from a Python value.

    Args:
        prefer: one text or several, which are assigned to the views in turn; or a list for each view.

    Raises:
        TypeError: the value has another type.
        UsageError: there are more lists than views.
    """
    if prefer is None or isinstance(prefer, str | os.PathLike):
        prefer = [] if prefer is None else [prefer]
    if not isinstance(prefer, Iterable):
        raise TypeError(f"preferences must be texts, not {type(prefer).__name__}")
    given = [*prefer]
    if all(isinstance(preference, str | os.PathLike) for preference in given):
        return _as_views(deal([*map(_as_text, given)]))
    if not all(isinstance(view, Iterable) and not isinstance(view, str | bytes) for view in given):
        raise TypeError(f"preferences must be texts, or two lists of texts: one for each view (not {given!r:.100})")
    if len(given) > len(VIEW_NAMES):
        raise UsageError(f"give at most two lists of preferences, one for each view (not {len(given)})")
    views = [[*map(_as_text, view)] for view in given]
    return _as_views([*views, *([] for _ in VIEW_NAMES[len(views) :])])


def make_views(prefer: Any = (), draft_prefer: Any = (), judge_prefer: Any = ()) -> Views:
    """The preferences of view a and of view b.  Arguments and errors are those of `parse_views` and `place`."""
    views, draft, judge = map(parse_views, (prefer, draft_prefer, judge_prefer))
    return place(in_turn(views), in_turn(draft), in_turn(judge)) if any(draft) or any(judge) else views


def _as_text(preference: Any) -> str:
    if isinstance(preference, os.PathLike):
        return f"@{os.fspath(preference)}"
    if not isinstance(preference, str):
        raise TypeError(f"a preference must be a text, not {type(preference).__name__}")
    return preference


def in_turn(views: Sequence[Sequence[str]]) -> list[str]:
    """The preferences in the order that they had before `deal`."""
    return [preference for preference in chain.from_iterable(zip_longest(*views)) if preference is not None]


@dataclass(frozen=True)
class Overrides(Settings):
    """The settings that one source sets: a configuration file, a persona, a suite, an HTTP body, the command line.

    None, or a missing key in a table, leaves a setting unchanged.  A table has valid arguments of its dataclass, as in
    ``Sampling(**overrides.sampling)``; files are read already.

    prefer: preferences for the two views in turn.
    draft_prefer, judge_prefer: preferences of view a and of view b, instead of ``prefer``.
    """

    top_keys: ClassVar[Sequence[str]] = PREFERENCES
    groups: ClassVar[Mapping[str, type[Settings]]] = GROUPS

    prefer: tuple[str, ...] | None = None
    draft_prefer: tuple[str, ...] | None = None
    judge_prefer: tuple[str, ...] | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompting: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefer and (self.draft_prefer or self.judge_prefer):
            raise UsageError("prefer excludes draft_prefer and judge_prefer: use one")

    def of(self, settings: type[Settings]) -> Mapping[str, Any]:
        """The values for a group of settings, by key."""
        return next((getattr(self, name) for name, group in self.groups.items() if group is settings), {})

    def top(self) -> dict[str, Any]:
        """The values outside the tables, by key."""
        return {key: value for key in self.top_keys if (value := getattr(self, key)) is not None}

    def flat(self) -> dict[str, Any]:
        """Every value by its key, from all tables."""
        return self.top() | {key: value for name in self.groups for key, value in getattr(self, name).items()}

    def without(self, given: Collection[str]) -> Self:
        """These overrides without the given keys, and without keys that the given ones exclude."""
        dropped = {*given, *excluded_by(given)}
        left: dict[str, Any] = dict.fromkeys(dropped.intersection(self.top_keys))
        for name in self.groups:
            left[name] = {key: value for key, value in getattr(self, name).items() if key not in dropped}
        return dataclasses.replace(self, **left)

    def apply_to(self, settings: _Group) -> _Group:
        """Return a group of settings with these values."""
        values = self.of(type(settings))
        excluded = excluded_by(values) & {f.name for f in dataclasses.fields(settings)}
        return settings.replace(**dict.fromkeys(excluded) | dict(values))

    def views(self, otherwise: Sequence[Sequence[str]]) -> list[list[str]]:
        """The preferences of view a and of view b; those of ``otherwise`` for a view whose preferences are not set."""
        if self.prefer:
            return deal(self.prefer)
        kept = otherwise if self.prefer is None else deal(())
        given = zip((self.draft_prefer, self.judge_prefer), kept, strict=True)
        return [list(old if own is None else own) for own, old in given]


def excluded_by(given: Collection[str]) -> set[str]:
    """The settings that are reset if the given ones are set."""
    return {name for group in EXCLUSIVE if set(group) & set(given) for name in group if name not in given}


@dataclass(frozen=True)
class Request:
    """All settings of one answer.

    views: the preferences of view a and of view b.
    explicit: the keys that were set for this answer, and sampling settings that any source has set.  Other sampling
        settings may come from the model's file.  A setting that needs a preference is an error without one only if it
        is explicit.  By default, the generation and sampling settings that differ from their defaults.
    """

    views: Views = ((), ())
    generation: Generation = Generation()
    sampling: Sampling = Sampling()
    prompting: Prompting = Prompting()
    explicit: frozenset[str] = _BY_VALUE

    def __post_init__(self) -> None:
        if self.explicit is _BY_VALUE:
            object.__setattr__(self, "explicit", changed(self.generation) | changed(self.sampling))

    @property
    def has_preferences(self) -> bool:
        """True if a view has a preference or an adapter of its own."""
        return any(self.views) or self.generation.adapts_views

    @property
    def preferences(self) -> list[str]:
        """The preferences of both views, then those to avoid."""
        return [*chain.from_iterable(self.views), *self.generation.avoid]

    def as_defaults(self) -> Request:
        """Return the request as the defaults of others, which may have preferences or none."""
        return dataclasses.replace(self, explicit=self.explicit & {f.name for f in dataclasses.fields(Sampling)})

    def override(self, overrides: Overrides) -> Request:
        """Return the request with these overrides applied.

        Raises:
            UsageError: the settings exclude each other.
        """
        return Request(
            _as_views(overrides.views(self.views)),
            overrides.apply_to(self.generation),
            overrides.apply_to(self.sampling),
            overrides.apply_to(self.prompting),
            self.explicit | overrides.flat().keys(),
        )

    def with_system(self, system: str) -> Request:
        """Return the request with a text added to its system text."""
        return self.replace(system="\n\n".join(filter(None, (self.prompting.system, system))))

    def replace(self, **changes: Any) -> Request:
        """Return the request with some settings changed, by name; ``views`` are the preferences of both views.

        Raises:
            UsageError: a value is outside its limits.
            TypeError: there is no setting of that name.
        """
        explicit = self.explicit.union(changes)
        forms = [form for form in FORMS if changes.get(form) is not None]
        changes = dict.fromkeys(excluded_by(forms)) | changes
        views = _as_views(changes.pop("views", self.views))
        if placed := {key: changes.pop(key) for key in PREFERENCES if key in changes}:
            each = zip(PREFERENCES[1:], make_views(**placed), views, strict=True)
            views = tuple(new if {key, "prefer"} & placed.keys() else old for key, new, old in each)
        groups: dict[str, Any] = {}
        for name, group in GROUPS.items():
            keys = {f.name for f in dataclasses.fields(group)} & changes.keys()
            if keys:  # making a group checks all its values
                groups[name] = getattr(self, name).replace(**{key: changes.pop(key) for key in keys})
        for name in changes:
            if name in {f.name for f in dataclasses.fields(Engine)}:
                raise TypeError(f"{name} belongs to the model: give it to PersonaJudge")
            hint = advise(name, [*KEYS, *(f.name for f in dataclasses.fields(Engine))])
            raise TypeError(f"unexpected keyword argument {name!r}{hint and f': {hint}'}")
        return dataclasses.replace(self, views=views, explicit=explicit, **groups)

    def unset(self, keys: Collection[str]) -> Request:
        """Return the request with these settings reset, as if nothing had set them."""
        fields = [f for group in GROUPS.values() for f in dataclasses.fields(group)]
        changes = {f.name: f.default for f in fields if f.name in keys}
        views = zip(PREFERENCES[1:], self.views, strict=True)
        cleared = self.replace(**changes, views=[() if {key, "prefer"} & {*keys} else own for key, own in views])
        return dataclasses.replace(cleared, explicit=self.explicit.difference(keys))

    def pick(self, keys: Collection[str]) -> Overrides:
        """The values of these settings, as overrides for another request."""
        tables: dict[str, Any] = {
            name: {key: value for key, value in vars(getattr(self, name)).items() if key in keys} for name in GROUPS
        }
        views = zip(PREFERENCES[1:], self.views, strict=True)
        placed: dict[str, Any] = {key: own for key, own in views if {key, "prefer"} & {*keys}}
        return Overrides(**placed, **tables)

    def nth(self, number: int) -> Request:
        """The request for one of several answers, numbered from 0.  A seed is increased by the answer's number."""
        seed = self.generation.seed
        return self if seed is None else self.replace(seed=(seed + number) % 2**63)

    def with_group(self, group: Settings) -> Request:
        """Return the request with another `Generation`, `Sampling` or `Prompting`.  Its values do not count as set, as
        those of `replace` do."""
        (name,) = (name for name, kind in GROUPS.items() if isinstance(group, kind))
        return dataclasses.replace(self, **{name: group})  # type: ignore[arg-type]

    def with_model_defaults(self, values: Mapping[str, Any]) -> Request:
        """Return the request with every `RECOMMENDABLE` setting that no source set replaced by its default: the model
        file's with ``--sampling model``, else pjlocal's.

        Args:
            values: the settings that the model's file recommends, by field of `Sampling`.
        """
        values = values if self.sampling.defaults == "model" else {}
        unset = [f for f in dataclasses.fields(Sampling) if f.name in RECOMMENDABLE - self.explicit]
        return self.with_group(self.sampling.replace(**{f.name: values.get(f.name, f.default) for f in unset}))

    def without_model_defaults(self) -> Request:
        """Return the request with all its sampling settings marked as set, so that no model's file changes them."""
        return dataclasses.replace(self, explicit=self.explicit | RECOMMENDABLE)

    def swap(self) -> Request:
        """Return the request with the two views' preferences and adapters exchanged."""
        a, b = (ADAPTERS[view] for view in VIEW_NAMES)
        exchanged = [*zip(a, b, strict=True), *zip(b, a, strict=True)]
        adapters = {target: getattr(self.generation, source) for target, source in exchanged}
        return self.replace(views=self.views[::-1], **adapters)

    def restore(self, saved: Mapping[str, Any]) -> Request:
        """Return the request with the values from `as_dict`, without settings that were removed.

        A missing group stays unchanged.  In a saved group, a missing setting gets its default.

        Raises:
            UsageError: a value is outside its limits.
        """
        if saved.get("generation", {}).get("mode") == "args":
            saved = {**saved, "generation": {**saved["generation"], "mode": None}}
        views = self.views
        if "preferences" in saved:
            views = _as_views([saved["preferences"].get(view, ()) for view in VIEW_NAMES])
        groups = {name: group.from_dict(saved[name]) for name, group in GROUPS.items() if name in saved}
        replaced = {f.name for name in groups for f in dataclasses.fields(GROUPS[name])}
        explicit = self.explicit - replaced | set(saved.get("explicit", saved.get("sampling", ())))
        return dataclasses.replace(self, views=views, explicit=explicit, **groups)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """The request for JSON and `restore`, with absolute paths."""
        avoid = tuple(map(absolute, self.generation.avoid))
        views = zip(VIEW_NAMES, self.views, strict=True)
        return {
            "preferences": {view: list(map(absolute, preferences)) for view, preferences in views},
            "generation": self.generation.with_whole_paths().replace(avoid=avoid).as_dict(),
            "sampling": self.sampling.as_dict(),
            "prompting": self.prompting.as_dict(),
            "explicit": sorted(self.explicit),
        }


def name_judge(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Name mode judge in the settings of a chat or a turn that name no mode and have preferences: it was the default of
    earlier versions."""
    generation, preferences = saved.get("generation"), saved.get("preferences", {})
    if not isinstance(generation, Mapping) or generation.get("mode") or not isinstance(preferences, Mapping):
        return dict(saved)
    adapters = (generation.get(name) for view in VIEW_NAMES for name in ADAPTERS[view])
    is_judged = saved.get("mode", "judge") == "judge" and any((*preferences.values(), *adapters))
    return {**saved, "generation": {**generation, "mode": "judge"}} if is_judged else dict(saved)


def changed(settings: Settings) -> frozenset[str]:
    """The names of the settings that differ from their defaults."""
    fields = dataclasses.fields(settings)
    return frozenset(f.name for f in fields if getattr(settings, f.name) != f.default)


def absolute(preference: str) -> str:
    """Make the path of a file in a preference absolute, so that it means the same file in every folder."""
    preference = preference.strip()
    return f"@{user_path(preference[1:]).absolute()}" if preference.startswith("@") else preference


def _as_views(views: Sequence[Sequence[str]]) -> Views:
    return tuple(map(tuple, views))
