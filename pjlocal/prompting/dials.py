"""Change a preference's strength step by step, from avoided to preferred."""

from __future__ import annotations

from ..errors import UsageError
from ..request import Request, deal
from ..settings import DEFAULT_MODE, parse_strength
from ..textfile import fold
from .preferences import resolve, split_strength, strengths, without_strength

STEP = 0.5
_AUTO = 1.5  # about the strength auto, in steps of `STEP`


def adjust(request: Request, preference: str, step: float) -> Request:
    """Change the strength of a preference in a request by ``step``, and return the new request.

    An absent preference is added at the default strength, or avoided at strength ``-step`` if ``step`` is negative.  A
    preference whose strength becomes 0 is removed, as is one that gets weaker and cannot take a strength.

    Raises:
        UsageError: the preference does not exist, the strength is outside its limits, or it would be
            read as part of the text.
    """
    name = without_strength(preference)
    resolve(name)
    for view, preferences in enumerate(request.views):
        for at, given in enumerate(preferences):
            if _is(given, name):
                new = _turned(name, _strength(request, given), step)
                changed = [*preferences[:at], *new, *preferences[at + 1 :]]
                return request.replace(views=[*request.views[:view], changed, *request.views[view + 1 :]])
    avoided = request.generation.avoid
    for at, given in enumerate(avoided):
        if _is(given, name):
            strength = float(split_strength(given)[1] or 1)
            return request.replace(avoid=(*avoided[:at], *_turned(name, strength, -step), *avoided[at + 1 :]))
    if step < 0:
        return request.replace(avoid=(*avoided, *_turned(name, 0, -step)))
    return request.replace(views=add(request, [name]))


def add(request: Request, preferences: list[str]) -> list[list[str]]:
    """Assign more preferences to the two views in turn, and return all preferences of each view."""
    views = request.views
    more = deal(preferences) if len(views[0]) <= len(views[1]) else deal(preferences)[::-1]
    return [[*old, *new] for old, new in zip(views, more, strict=True)]


def _is(given: str, name: str) -> bool:
    return fold(without_strength(given)) == fold(name)


def _strength(request: Request, given: str) -> float:
    mode = request.generation.mode or DEFAULT_MODE
    (value,) = strengths([given], request.generation, mode)
    return _AUTO if value is None else value


def _turned(name: str, strength: float, step: float) -> list[str]:
    """The preference with its strength after a step; empty if it reaches 0, or gets weaker and cannot take a strength.

    Raises:
        UsageError: the strength is outside its limits, or would be read as part of the text.
    """
    new = strength + step
    parse_strength(spelled := f"{new:g}")
    if new * (strength or step) <= 0:
        return []
    preference = f"{name}:{spelled}"
    if split_strength(preference)[1] is None:
        if abs(new) < abs(strength):
            return []  # it has no weaker form
        raise UsageError(
            f"{name!r} cannot take a strength, because :{spelled} after it would be part of the text: add a word at "
            "its end"
        )
    return [preference]
