"""The prompt of a chat's next answer: the turns that fit into the context, the seed, and the saved settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..prompting.prompt import Message
from ..request import Request, deal, in_turn
from ..settings import VIEW_NAMES
from .session import Turn

if TYPE_CHECKING:
    from ..persona import PersonaJudge
    from ..prompting.plan import Plan, Roles

_ROOM_SHARE = 4  # at most a quarter of the context is reserved for the answer
_KEEP = 3 / 4  # of the prompt's room is used after turns are left out, so that this happens rarely


def as_messages(turns: Sequence[Turn], turn: Turn) -> list[Message]:
    """The messages of the turns and of the turn to answer.  Tokens that this one has already begin its answer.

    Answers include their thinking, which the template keeps or leaves out.  A thought without an answer is left out.
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
    """The plan for the result of `as_messages`, without the oldest turns if not all fit, and the first turn of its
    prompt.

    Args:
        roles: of the request.
        first: the number of turns that are left out already.

    Raises:
        UsageError: not even the question fits.
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

    A repeated question with a seed gets the next seed, because the same one would give the same answer.

    Args:
        replacing: the turn that is asked again or replaced.
        keep: the answer replaces that turn; else it is compared with it, and has the same seed.
    """
    given = request.generation.seed
    if replacing is None or (keep and given is None):
        return given
    if not keep:
        return replacing.settings.get("seed", given)
    seeds = (draft.settings.get("seed", given) for draft in replacing.drafts)  # with best, several at once
    last = max((int(seed) for seed in seeds if seed is not None), default=None)
    return None if last is None else (last + 1) % 2**63


def written_under(request: Request, turn: Turn) -> Request:
    """The request under which a turn was answered; what its settings lack is as in ``request``.

    Raises:
        UsageError: settings beyond their limits.
    """
    settings = dict(turn.settings)
    views = list(settings.get("preferences", {}).values())
    if len(views) > len(VIEW_NAMES):  # of a panel
        settings["preferences"] = dict(zip(VIEW_NAMES, deal(in_turn(views)), strict=True))
    return request.restore(settings)


def turn_settings(settings: Mapping[str, Any], request: Request, roles: Roles, model: str, seed: int) -> dict[str, Any]:
    """The settings that a turn is saved with.

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
