"""The plan of an answer: the views of its mode, their strengths, and each view's prompt tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import Field, dataclass, fields, replace
from itertools import chain
from typing import Any, get_args

from ..engine.adapters import Adapters, make_adapters
from ..engine.policies import Weight
from ..errors import UsageError, join_names
from ..request import PREFERENCES, Request, changed, in_turn
from ..settings import (
    ADAPTERS,
    DEFAULT_MODE,
    DEFAULT_VIEWS,
    OF_ONE_VIEW,
    UNPUSHED,
    VIEW_LETTERS,
    VIEW_NAMES,
    Generation,
    Mode,
    Prompting,
    flag,
    parse_strength,
)
from .preferences import prefix, split_strength, strengths
from .prompt import Message


@dataclass(frozen=True)
class Roles:
    """The views of an answer, numbered from 0.  The first ones draft and judge in turn.

    preferences: the preferences by view name.
    n_speakers: the number of views that draft and judge.
    prefixes: the preference text of every view.
    weights: the weight of each view with a preference, and then of each avoided one, by name.
    neutral: the number of the view without a preference; None if no strength needs one.
    joint: the number of the view with all preferences, in mode both; None if there is one preference.
    adapters: the adapters of every view.
    n_answers: the number of answers to write, of which one is chosen.
    """

    mode: Mode
    preferences: dict[str, list[str]]
    n_speakers: int
    prefixes: list[str]
    weights: dict[str, Weight]
    neutral: int | None
    adapters: list[Adapters]
    joint: int | None = None
    n_answers: int = 1

    @property
    def labels(self) -> dict[str, list[str]]:
        """The preferences of each view as text, with the file names of its adapters."""
        if self.n_speakers == 1:
            return self.preferences
        speaking = zip(self.preferences.items(), self.adapters, strict=False)
        return {name: [*wishes, *adapters.labels] for (name, wishes), adapters in speaking}

    @property
    def strengths(self) -> dict[str, float | str]:
        """The strength of each preference, by name: a number, or ``auto``."""
        return {name: "auto" if weight.strength is None else weight.strength for name, weight in self.weights.items()}

    @property
    def view_names(self) -> list[str]:
        """The names of all views: those that draft and judge, the avoided ones, the joint and the neutral one."""
        speaking = list(self.preferences) if self.n_speakers > 1 else [self.mode]
        avoided = [name for name, weight in self.weights.items() if weight.view >= self.n_speakers]
        joint = [] if self.joint is None else ["joint"]
        return [*speaking, *avoided, *joint, "neutral"][: len(self.prefixes)]


@dataclass(frozen=True)
class Plan:
    """A request with everything needed to write its answer.

    prompts: the prompt tokens of each view.
    is_dialogue: whether the prompts are plain dialogues (`rendering.dialogue`).
    shares_prefix: whether the common prefix of all prompts, up to the end of the question, is read once for all.
    may_think: whether an opening mark at the beginning of the answer opens the thinking.  Not in a continued text.
    n_beginning: the number of tokens at the end of each prompt that begin the answer.
    """

    request: Request
    roles: Roles
    conversation: Sequence[Message]
    prompts: list[list[int]]
    is_dialogue: bool
    shares_prefix: bool
    may_think: bool = True
    n_beginning: int = 0

    @property
    def beginning(self) -> list[int]:
        """The tokens that begin the answer before any is generated."""
        return self.prompts[0][len(self.prompts[0]) - self.n_beginning :]

    @property
    def given(self) -> list[int]:
        """The tokens of the request's ``begin``, which are part of the answer."""
        return [] if self.conversation[-1].role == "assistant" else self.beginning


def resolve_mode(request: Request) -> Mode:
    """The mode of the request.  The default is both with preferences.  Without them it is plain.

    Raises:
        UsageError: the request sets the mode or another setting that needs a preference, and there is none.
    """
    generation = request.generation
    if request.has_preferences:
        return generation.mode or DEFAULT_MODE
    needing = {
        "mode": generation.mode not in (None, "plain"),
        "avoid": generation.avoid,
        "strength": generation.strength,
        "best": generation.best > 1,
    }
    for key, is_set in needing.items():
        if is_set and key in request.explicit:
            prefix(generation.avoid)  # raises an error for unknown presets
            shown = f"mode {generation.mode}" if key == "mode" else f"--{key}"
            raise UsageError(f"{shown} needs a preference, as in: -p vivid -p creative")
    return "plain"


def expected_views(request: Request) -> int:
    """The number of views for which memory is planned.  Preferences may be given later, in the default mode.

    Raises:
        UsageError: preferences or settings that exclude each other.
    """
    least = DEFAULT_VIEWS if request.generation.mode in (None, DEFAULT_MODE) else 2
    return max(least, len(make_roles(request).prefixes) if request.has_preferences else 1)


#: The modes in which a setting has no effect or is impossible.
_IDLE: dict[str, tuple[Mode, ...]] = {
    "strength": UNPUSHED,
    "avoid": ("plain",),
    "push_thoughts": UNPUSHED,
    "floor": UNPUSHED,
    "best": UNPUSHED,
    "lam": OF_ONE_VIEW,
    "aligner": tuple(mode for mode in get_args(Mode) if mode != "rewrite"),
}


_IDLE |= dict.fromkeys((name for view in VIEW_NAMES for name in ADAPTERS[view]), UNPUSHED)


def in_mode(request: Request, mode: Mode) -> Request:
    """Change the mode, and reset the settings that have no effect in it to their defaults."""
    idle = {f.name: f.default for f in fields(Generation) if mode in _IDLE.get(f.name, ())}
    views = ((), ()) if mode == "plain" else request.views
    return replace(request, views=views, generation=request.generation.replace(mode=mode, **idle))


EVERYTHING = (*PREFERENCES, *(f.name for f in fields(Generation)))


def unused(request: Request, roles: Roles, given: Collection[str]) -> list[str]:
    """Messages about settings that have no effect.

    Args:
        given: the fields of `Request` views and `Generation` to check.
    """
    lines = []
    sets_views = not set(PREFERENCES).isdisjoint(given)
    chosen = {*PREFERENCES, "views", "mode"} & request.explicit
    if roles.mode == "base" and VIEW_NAMES[1] not in roles.weights and chosen and (sets_views or "mode" in given):
        lines.append("mode base writes the text of view b, which has no preference: give it one with --judge-prefer")
    idle = [flag(f) if f.name in request.explicit else f.name for f in _idle(request, roles.mode) if f.name in given]
    if roles.mode == "rewrite" and (sets_views or "avoid" in given):
        wishes = chain(*roles.preferences.values(), request.generation.avoid)
        idle += [f"the strength of {wish}" for wish in wishes if split_strength(wish)[1]]
    if idle:
        lines.append(f"{join_names(idle)} {'has' if len(idle) == 1 else 'have'} no effect in mode {roles.mode}")
    if roles.mode not in UNPUSHED and roles.n_answers < request.generation.best and "best" in given:
        lines.append(f"best has no effect in mode {roles.mode} at strength 1")
    if roles.mode == "plain" and sets_views and any(request.views) and {*PREFERENCES, "views"} & request.explicit:
        lines.append("preferences have no effect in mode plain")
    return lines


def _idle(request: Request, mode: Mode) -> list[Field[Any]]:
    """The settings that differ from their defaults and have no effect in the mode.

    In mode plain, only those are reported that the request sets: the others are defaults for requests with preferences.
    λ and the floor are often set for all answers, so they are reported only if the request names a mode.
    """
    generation = request.generation
    names = changed(generation) - (set() if generation.mode else {"lam", "floor"})
    if mode == "plain":
        names &= request.explicit
    return [f for f in fields(generation) if f.name in names and mode in _IDLE.get(f.name, ())]


def make_roles(request: Request) -> Roles:
    """The views of the request's mode, with their prefixes, weights and adapters.

    Raises:
        UsageError: preferences or settings that exclude each other.
    """
    generation, mode = request.generation, resolve_mode(request)
    named = by_view(request) if mode != "plain" else {name: [] for name in VIEW_NAMES}
    shared = _adapters(generation)
    if mode in UNPUSHED:
        _n_answers(request, mode, None)  # raises an error for a best that the request sets
        prefix([*chain.from_iterable(request.views), *generation.avoid])  # raises an error for unknown ones
        if mode == "rewrite" and not any(request.views):
            raise UsageError("mode rewrite needs a preference in words, as in: -p vivid")
        return Roles(mode, named, 1, [""], {}, None, [shared])
    views: list[tuple[str, Adapters]] = []

    def add(text: str, adapters: Adapters) -> int:
        views.append((text, adapters))
        return len(views) - 1

    speakers = {"prompt": [*chain.from_iterable(named.values())]} if mode == "prompt" else named
    for name, wishes in speakers.items():
        add(prefix(wishes), _adapters(generation, *(VIEW_NAMES if name == "prompt" else [name])))
    weights = {
        name: Weight(view, _strength(wishes, generation, mode))
        for view, (name, wishes) in enumerate(speakers.items())
        if wishes or views[view][1] != shared
    }
    for number, text in enumerate(generation.avoid, 1):
        weights[f"avoid {number}"] = Weight(add(prefix([text]), shared), -_avoided(text))
    joint = neutral = None
    preferring = [name for name in speakers if name in weights and weights[name].prefers]
    if mode == "both" and len(preferring) > 1:
        wishes = [*chain.from_iterable(named[name] for name in preferring)]
        joint = add(prefix(wishes), _adapters(generation, *preferring))
    if not all(weight.is_identity for weight in weights.values()):
        plain = ("", shared)
        neutral = views.index(plain) if plain in views else add(*plain)
    n_answers = _n_answers(request, mode, neutral)
    prefixes, adapters = map(list, zip(*views, strict=True))
    return Roles(mode, named, len(speakers), prefixes, weights, neutral, adapters, joint, n_answers)


def by_view(request: Request) -> dict[str, list[str]]:
    """The preferences by view name.

    Views a and b share the preferences.  If those of one view have several strengths, every preference has a view of
    its own instead, in the order in which the user gave them.  Mode base and modes of one view have no more views.

    Raises:
        UsageError: there are too many preferences, or a strength is outside its limits.
    """
    generation, mode = request.generation, request.generation.mode or DEFAULT_MODE
    if mode not in ("judge", "both") or all(len(strengths(view, generation, mode)) == 1 for view in request.views):
        return dict(zip(VIEW_NAMES, map(list, request.views), strict=True))
    preferences = in_turn(request.views)
    if len(preferences) > (most := len(VIEW_LETTERS)):
        raise UsageError(
            f"preferences of several strengths have a view each: give at most {most}, or the same strength to all"
        )
    return {name: [preference] for name, preference in zip(VIEW_LETTERS, preferences, strict=False)}


def _adapters(generation: Generation, *views: str) -> Adapters:
    kinds = zip(*(ADAPTERS[view] for view in ("", *views) if view in ADAPTERS), strict=True)
    return make_adapters(*([*chain.from_iterable(getattr(generation, name) for name in names)] for names in kinds))


def _avoided(text: str) -> float:
    strength = split_strength(text)[1]
    value = parse_strength(strength or "1")
    if value is None or value <= 0:
        raise UsageError(f"--avoid {text}: its strength must be a number above 0")
    return value


def _strength(wishes: Sequence[str], generation: Generation, mode: Mode) -> float | None:
    """The strength of a view.  Its preferences share one prefix, and so one strength."""
    found = strengths(wishes, generation, mode)
    if len(found) > 1:
        both = ", or use --mode both" if mode == "base" else ""
        names = join_names([*map(repr, wishes)])
        raise UsageError(f"{names} share one view, which has one strength: give all of them the same{both}")
    return found.pop()


def _n_answers(request: Request, mode: Mode, neutral: int | None) -> int:
    """The number of answers to write.  Without pushes to choose by, a ``best`` that is a default has no effect.

    Raises:
        UsageError: the request sets it.
    """
    if neutral is not None:
        return request.generation.best
    if request.has_preferences and request.generation.best > 1 and "best" in request.explicit:
        more = "" if mode in UNPUSHED else " at strength 1"
        ways = [*(["use --mode both"] if mode != "both" else []), *(["add --strength 1.5"] if more else [])]
        raise UsageError(
            f"--best chooses by pushes, which need a neutral view, and mode {mode}{more} has none: "
            f"{' or '.join(ways)}, or give --best 1"
        )
    return 1


def with_beginning(conversation: Sequence[Message], prompting: Prompting) -> Sequence[Message]:
    """The conversation with the answer's beginning from the settings, unless it ends with a beginning already."""
    if not prompting.begin or conversation[-1].role == "assistant":
        return conversation
    return [*conversation, Message("assistant", prompting.begin)]
