"""A request made concrete: which views its mode has, and each view's prompt tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.interrupt import Interrupt
from ..errors import UsageError
from ..settings import Generation, Mode, Prompting
from .prompt import ChatTemplate, Message

log = logging.getLogger("pjlocal")

_MOST_PER_TOKEN = 256  # characters; longer tokens than that are not to be expected


@dataclass(frozen=True)
class Plan:
    """The mode, each view's preferences, each view's prompt tokens, and the stop strings of the way of writing."""

    mode: Mode
    preferences: list[list[str]]
    prompts: list[list[int]]
    stops: tuple[str, ...]


def mode_in_force(generation: Generation, preferences: Sequence[Sequence[str]]) -> Mode:
    """Judge with preferences and plain without, unless a mode was asked for.

    Raises:
        UsageError: the mode needs a preference, and there is none.
    """
    some = any(preferences)
    mode = generation.mode or ("judge" if some else "plain")
    if mode != "plain" and not some:
        raise UsageError(f"mode {mode} needs a preference, as in: -p vivid -p creative")
    return mode


def prefixes_of(mode: Mode, prefixes: Sequence[str]) -> list[str]:
    """The preference prefix of each view that a mode has."""
    if mode == "plain":
        return [""]
    if mode == "prompt":
        return ["\n".join(prefix for prefix in prefixes if prefix)]
    return list(prefixes)


def write_prompts(
    template: ChatTemplate,
    conversation: Sequence[Message],
    prefixes: Sequence[str],
    prompting: Prompting,
    limit: int,
    interrupt: Interrupt,
) -> list[list[int]]:
    """Each view's prompt tokens, be they more than fit into a context of ``limit`` tokens.

    Raises:
        UsageError: nothing is said, or so much that it cannot fit, and only splitting it into tokens would take long.
        ModelError: the template refuses the conversation.
    """
    if not conversation or not conversation[-1].content.strip():
        raise UsageError('the prompt is empty: say something, as in pjlocal run -p vivid "Tell me a story"')
    length = len(conversation[-1].content)
    if length > _MOST_PER_TOKEN * limit:
        raise UsageError(
            f"the prompt is far too long: {length:,} characters, where a context of {limit:,} tokens has room for "
            f"about {4 * limit:,}. Shorten it, or give a larger --ctx"
        )
    with interrupt.at_once():
        return [template.tokens(conversation, prefix, prompting) for prefix in prefixes]


def make_plan(
    mode: Mode, preferences: list[list[str]], prompts: list[list[int]], template: ChatTemplate, limit: int
) -> Plan:
    """The plan for prompts that `write_prompts` made.

    Raises:
        UsageError: they leave no room for an answer in a context of ``limit`` tokens.
    """
    n_tokens = max(map(len, prompts))
    if n_tokens >= limit:
        raise UsageError(
            f"the prompt is too long: {n_tokens} tokens, and a context of {limit} has room for {limit - 1} and "
            f"an answer. Shorten it by {n_tokens - limit + 1} tokens, or give a larger --ctx"
        )
    if mode == "base" and not preferences[1]:
        log.warning("base mode writes as view b alone would, and view b has no preference: use --judge-prefer")
    return Plan(mode, preferences, prompts, template.stops)
