"""Between a chat and the model: the messages that a view reads of the turns, as many as its context has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..prompting.prompt import Message
from ..request import Request
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


def fitted(judge: PersonaJudge, conversation: Sequence[Message], request: Request, first: int = 0) -> tuple[Plan, int]:
    """The prompt of what `as_messages` made, without the oldest turns where they no longer fit; and the turn that it
    begins with.

    Args:
        first: older turns have left already.

    Raises:
        UsageError: not even the question fits.
    """
    limit = judge.context_limit
    roles = judge.roles(request)
    room = judge.room(request, min(request.generation.max_tokens, limit // _ROOM_SHARE))

    def prompts_from(first: int) -> list[list[int]]:
        return judge.prompts(conversation[2 * first :], request, roles)

    prompts = prompts_from(first)
    if max(map(len, prompts)) > room:
        while 2 * first + 1 < len(conversation) and max(map(len, prompts)) > room * _KEEP:
            first += 1
            prompts = prompts_from(first)
    return judge.planned(conversation[2 * first :], prompts, request, roles), first
