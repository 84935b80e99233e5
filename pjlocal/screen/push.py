"""Colour tokens by the preference that pushed them most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import TYPE_CHECKING

from ..visible import visible
from .tint import Tint, color_of, number_of

if TYPE_CHECKING:
    from ..events import TokenEvent

#: Styles by the factor by which a preference made the token more probable.
_STEPS = {1.1: "", 2: "bold", 10: "bold reverse"}
_STEPS_NO_COLOR = {1.1: "dim", 2: "", 10: "bold"}
_NO_COLOR = ("underline", "reverse", "italic", "underline italic", "reverse italic", "reverse underline")

_NONE = "no pushes: they need preferences with a strength other than 1 (--strength 1.5), or --avoid"


def push_style(event: TokenEvent, no_color: bool = False) -> str:
    """Rich style of a token: the colour of the preference that pushed it most, or none."""
    name, nats = max(event.pushes.items(), key=lambda push: push[1], default=("", 0.0))
    reached = [times for times in _STEPS if nats >= log(times)]
    return _style(name, reached[-1], no_color) if reached else ""


def _style(name: str, times: float, no_color: bool) -> str:
    if not no_color:
        return f"{_STEPS[times]} {color_of(name)}".strip()
    mark = "strike" if name.startswith("avoid") else _NO_COLOR[number_of(name) % len(_NO_COLOR)]
    return f"{_STEPS_NO_COLOR[times]} {mark}".strip()


def push(preferences: Mapping[str, Sequence[str]], pushing: Sequence[str], no_color: bool = False) -> Tint:
    """The colours of pushes, for the preferences named ``pushing``, as pushes name them."""
    from rich.text import Text

    if not pushing:
        return Tint(Text(_NONE), lambda event: "")
    line = Text()
    for name in pushing:
        wishes = ", ".join(preferences.get(name, ()))
        line.append(visible(f"{name}: {wishes}" if wishes else name), _style(name, 2, no_color)).append("  ")
    line.append("more probable by it:")
    for times in _STEPS:
        line.append(" ").append(f"×{times}", _style(pushing[0], times, no_color))
    return Tint(line, partial(push_style, no_color=no_color))
