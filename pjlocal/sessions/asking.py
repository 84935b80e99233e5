"""Between a chat and who answers it: what a view reads of it, and what is in force, as the chat keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..prompting.preferences import lasting
from ..prompting.prompt import Message
from ..settings import VIEW_NAMES, Generation, Prompting, Sampling
from .session import Turn


def as_messages(turns: Sequence[Turn], question: str) -> list[Message]:
    """What a view reads of the turns, and then of the question."""
    messages = []
    for turn in turns:
        messages.append(Message("user", turn.question))
        messages.append(Message("assistant", turn.answer, tuple(event.id for event in turn.events)))
    return [*messages, Message("user", question)]


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
