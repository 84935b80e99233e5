"""The status line: mode, preferences, pushes, speed, acceptance rate and context, as far as they fit on the screen."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from ..events import pushes_text
from ..prompting.plan import resolve_mode
from ..prompting.preferences import strength_in_force
from ..request import in_turn
from ..settings import ADAPTERS, JUDGED, Generation, Mode
from ..visible import one_line
from .conversation import Conversation, Progress

log = logging.getLogger("pjlocal")

_BETWEEN = " · "
#: Cells of a preference's text, if the whole text does not fit.
_SHORT, _SHORTEST = 24, 12


def status_line(conversation: Conversation, width: int) -> Text:
    """The settings and the progress of the answer, in one row below answers and the input line.

    It is empty after an error, which must not end the answer or the input.
    """
    try:
        request = conversation.judge.request
        generation = request.generation
        views = {view: [*wishes, *_own_adapters(generation, view)] for view, wishes in conversation.views.items()}
        mode = resolve_mode(request if request.has_preferences else request.as_defaults())
        return Text(status(mode, generation, views, conversation.progress(), width), "dim")
    except Exception as error:
        log.debug("no status line:", exc_info=error)
        return Text()


def status(
    mode: Mode, generation: Generation, views: Mapping[str, Sequence[str]], progress: Progress, width: int
) -> str:
    """The status line's text.

    The most important parts come first.  If not all fit, the roles are left out first, then long texts of preferences
    are shortened, then the names of the views are left out, then numbers that do not fit, and then preferences.
    """
    heads = [
        _head(mode, generation, views, progress, roles=True),
        _head(mode, generation, views, progress),
        _head(mode, generation, views, progress, longest=_SHORT),
        _head(mode, generation, views, progress, longest=_SHORT, named=False),
        _head(mode, generation, views, progress, longest=_SHORTEST, named=False),
    ]
    numbers = _numbers(progress)
    for head in heads:
        if _fits([*head, *numbers], width):
            return _BETWEEN.join([*head, *numbers])
    parts = next((head for head in heads[2:] if _fits(head, width)), heads[-1])
    while parts and not _fits(parts, width):
        parts.pop()
    for number in numbers:
        if _fits([*parts, number], width):
            parts.append(number)
    return _BETWEEN.join(parts)


def _fits(parts: Sequence[str], width: int) -> bool:
    return cell_len(_BETWEEN.join(parts)) <= width


def _numbers(progress: Progress) -> list[str]:
    numbers = [f"push {pushes_text(progress.pushes)}"] if progress.pushes else []
    if progress.tokens_per_second is not None:
        numbers.append(f"{progress.tokens_per_second:.0f} tok/s")
    if progress.acceptance_rate is not None:
        numbers.append(f"{progress.acceptance_rate:.0%} accepted")
    if progress.used is not None:
        numbers.append(f"context {progress.used}/{progress.limit}")
    return numbers


def _head(
    mode: Mode,
    generation: Generation,
    views: Mapping[str, Sequence[str]],
    progress: Progress,
    *,
    roles: bool = False,
    named: bool = True,
    longest: int | None = None,
) -> list[str]:
    """The mode and the preferences.

    Args:
        roles: show which view drafts and which judges.
        named: show the views' names, and λ and the strength after the mode.
        longest: the most cells of a preference's text.
    """
    if mode == "plain":
        return [mode]

    def texts(wishes: Sequence[str]) -> str:
        return ", ".join(_shortened(one_line(wish), longest) for wish in wishes)

    avoided = [f"avoid: {texts(generation.avoid)}"] if generation.avoid else []
    if mode not in JUDGED:
        return [f"{mode}{_force(mode, generation) if named else ''}", texts(in_turn(list(views.values()))), *avoided]
    if not named:
        return [mode, *filter(None, map(texts, views.values())), *avoided]
    does = {progress.drafts: " drafts", progress.judges: " judges", None: ""} if roles else {}
    wishes = [f"{view}{does.get(view, '')}: {texts(wishes) or 'no preference'}" for view, wishes in views.items()]
    return [f"{mode}{_force(mode, generation)}", *wishes, *avoided]


def _force(mode: Mode, generation: Generation) -> str:
    """λ and the strength, if the mode uses them and they differ from the defaults."""
    strength = strength_in_force(generation, mode)
    force = "" if strength == "1" or mode == "rewrite" else f" ×{strength}"
    return f" λ{generation.lam}{force}" if mode in JUDGED else force


def _shortened(text: str, longest: int | None) -> str:
    """The first words of a text that is longer than ``longest`` cells."""
    if longest is None or cell_len(text) <= longest:
        return text
    start = Text(text)
    start.truncate(longest - 1)
    words = start.plain if text[len(start.plain)].isspace() else start.plain.rpartition(" ")[0]
    return f"{(words or start.plain).rstrip(' ,.;:')}…"


def _own_adapters(generation: Generation, view: str) -> list[str]:
    """The file names and scales of the adapters of that view alone."""
    return [os.path.basename(spec) for name in ADAPTERS.get(view, ()) for spec in getattr(generation, name)]
