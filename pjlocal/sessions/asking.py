"""Between a chat and who answers it: what a view reads of it, and what is in force, as the chat keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..prompting.preferences import lasting
from ..prompting.prompt import Message
from ..settings import VIEW_NAMES, Generation, Prompting, Sampling
from .session import Turn

if TYPE_CHECKING:
    from ..persona import PersonaJudge
    from ..prompting.plan import Plan

_ROOM_SHARE = 4  # an answer's room in the context is at most a quarter of it
_KEEP = 3 / 4  # of the room for the prompt is what stays when turns must leave, so that they seldom must


def as_messages(turns: Sequence[Turn], question: str) -> list[Message]:
    """What a view reads of the turns, and then of the question."""
    messages = []
    for turn in turns:
        messages.append(Message("user", turn.question))
        messages.append(Message("assistant", turn.answer, tuple(event.id for event in turn.events)))
    return [*messages, Message("user", question)]


def fitted(
    judge: PersonaJudge, conversation: Sequence[Message], generation: Generation, first: int = 0
) -> tuple[Plan, int]:
    """The prompt of what `as_messages` made, without the oldest turns where they no longer fit; and the turn that it
    begins with.

    Args:
        first: older turns have left already.

    Raises:
        UsageError: not even the question fits.
    """
    limit = judge.context_limit
    room = judge.room(generation, min(generation.max_tokens, limit // _ROOM_SHARE))

    def prompts_from(first: int) -> list[list[int]]:
        return judge.prompts(conversation[2 * first :], generation)

    prompts = prompts_from(first)
    if max(map(len, prompts)) > room:
        while 2 * first + 1 < len(conversation) and max(map(len, prompts)) > room * _KEEP:
            first += 1
            prompts = prompts_from(first)
    return judge.planned(conversation[2 * first :], prompts, generation), first


def as_settings(
    model: str | None,
    views: Sequence[Sequence[str]],
    generation: Generation,
    sampling: Sampling,
    prompting: Prompting,
) -> dict[str, Any]:
    """What is in force, as `Session.settings` holds it; files by their whole paths."""
    avoid = tuple(map(lasting, generation.avoid))
    preferences = {view: list(map(lasting, wishes)) for view, wishes in zip(VIEW_NAMES, views, strict=True)}
    return {
        "model": model,
        "preferences": preferences,
        "generation": generation.with_whole_paths().replace(avoid=avoid).as_dict(),
        "sampling": sampling.as_dict(),
        "prompting": prompting.as_dict(),
    }
