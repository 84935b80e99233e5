"""Prepare a chat's next answer: the turns that fit into the context, the seed, and the settings to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..prompting.plan import Plan, Roles, in_mode
from ..prompting.prompt import Message
from ..request import Request
from .session import Turn, in_two_views, refuse_removed

if TYPE_CHECKING:
    from ..persona import PersonaJudge

_ROOM_SHARE = 4  # at most a quarter of the context is reserved for the answer
_KEEP = 3 / 4  # of the room for the prompt: turns are left out until so much is used, so that this happens rarely


def as_messages(turns: Sequence[Turn], turn: Turn) -> list[Message]:
    """The messages of earlier turns and of the turn to answer.

    If that turn has tokens already, they begin its answer.  Answers include their thinking, which the template keeps or
    leaves out.  Thinking without an answer is left out.
    """
    messages = []
    for each in (*turns, turn):
        messages.append(Message("user", each.question))
        written = each.text if each.answer or each is turn else ""
        messages.append(Message("assistant", written, tuple(event.id for event in each.events)))
    return messages if turn.events else messages[:-1]


def n_exchanges(conversation: Sequence[Message]) -> int:
    """The number of exchanges before the last question."""
    return (len(conversation) - 1) // 2


def fitted(
    judge: PersonaJudge, roles: Roles, conversation: Sequence[Message], request: Request, first: int = 0
) -> tuple[Plan, int]:
    """Plan an answer to the result of `as_messages`, without the oldest turns if not all fit.

    Args:
        roles: the views of the request.
        first: the number of turns that are left out already.

    Returns:
        The plan, and the index of the first turn in its prompt.

    Raises:
        UsageError: the question alone does not fit.
    """
    last, limit = n_exchanges(conversation), judge.context_limit
    room = judge.room(request, min(request.generation.most_tokens, limit // _ROOM_SHARE))

    def prompts_from(first: int) -> list[list[int]]:
        return judge.prompts(conversation[2 * first :], request, roles)

    prompts = prompts_from(first)
    if max(map(len, prompts)) > room:
        while first < last and max(map(len, prompts)) > room * _KEEP:
            first += 1
            prompts = prompts_from(first)
    return judge.plan_prompts(conversation[2 * first :], prompts, request, roles), first


def turn_seed(request: Request, replacing: Turn | None, *, keep: bool = True) -> int | None:
    """The seed of a turn's answer; None for a random one.

    A question that is asked again gets the next seed that no draft has: the same seed would give the same answer.

    Args:
        replacing: the turn that is asked again.
        keep: whether the answer replaces that turn.  If not, it is compared with it, and gets the same seed.
    """
    given = request.generation.seed
    if replacing is None or (keep and given is None):
        return given
    if not keep:
        return replacing.settings.get("seed", given)
    used = {draft.settings.get("seed", given) for draft in replacing.drafts}
    seed: int | None = replacing.settings.get("seed", given)
    while seed is not None and seed in used:
        seed = (seed + 1) % 2**63
    return seed


def written_under(request: Request, turn: Turn) -> Request:
    """The request under which a turn was answered, without ``begin``, which the turn's tokens already contain.

    Args:
        request: has the groups of settings that the turn lacks.

    Raises:
        UsageError: a setting is outside its limits, or was removed.
    """
    refuse_removed(turn.settings)
    request = request.restore(in_two_views(turn.settings)).replace(begin="")
    # A turn in mode plain is saved without its preferences, but with settings that need some.
    return in_mode(request.as_defaults(), "plain") if turn.settings.get("mode") == "plain" else request


def turn_settings(settings: Mapping[str, Any], request: Request, roles: Roles, model: str, seed: int) -> dict[str, Any]:
    """The settings to save with a turn.

    Args:
        settings: the settings of its session.
        request: the request of its answer.
        model: the name of the model's file.
    """
    return {
        **settings,
        "generation": request.generation.as_dict(),
        "model": model,
        "mode": roles.mode,
        "preferences": roles.preferences,
        "lambda": request.generation.lam,
        "seed": seed,
    }
