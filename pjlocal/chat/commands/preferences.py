"""Preferences, and how they are judged."""

from __future__ import annotations

import re
import shlex
from difflib import get_close_matches
from typing import get_args

from ...errors import UsageError
from ...prompting.preferences import deal, presets, resolve
from ...settings import VIEW_NAMES, Mode
from ..chat import Chat
from .command import Commands, one_of
from .settings import set_named

commands = Commands()


@commands.add(
    "/prefer [a|b] [set|add|clear] [PREFERENCES]",
    "Show or change the preferences: of one view, or dealt to both in turn. Quote texts of several words.",
    lambda chat: ["a", "b", "add", "clear", "set", *presets()],
)
def prefer(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    view, verb, rest = _view_and_verb(words)
    if words:
        wishes = _wishes(rest)
        if verb == "clear" and wishes:
            raise UsageError("/prefer clear takes a view or nothing behind it, as in /prefer clear b")
        if verb != "clear" and not wishes:
            raise UsageError("say which preference, as in /prefer a vivid, or /prefer clear")
        now = [list(wishes) for wishes in judge.preferences]
        new = deal(wishes) if view is None else [wishes if name == view else [] for name in VIEW_NAMES]
        if verb == "add":
            if view is None:  # the views' turns go on where they stand
                new = deal(wishes) if len(now[0]) <= len(now[1]) else deal(wishes)[::-1]
            new = [[*old, *more] for old, more in zip(now, new, strict=True)]
        elif view is not None:
            new = [made if name == view else old for name, made, old in zip(VIEW_NAMES, new, now, strict=True)]
        judge.prefer(new)
        chat.changed()
    for name, wishes in zip(VIEW_NAMES, judge.preferences, strict=True):
        chat.screen.say(f"{name}: {', '.join(wishes) or 'no preference'}")


def _view_and_verb(words: str) -> tuple[str | None, str, str]:
    """The view and the verb, in either order, and what stands behind them."""
    view, verb = None, ""
    while words:
        word, _, rest = words.partition(" ")
        if word in VIEW_NAMES and view is None:
            view = word
        elif word in ("set", "add", "clear") and not verb:
            verb = word
        else:
            break
        words = rest.strip()
    return view, verb or "set", words


def _wishes(words: str) -> list[str]:
    """Preferences as typed: presets, @files and quoted texts; or all of it as one text, where it is no list of them,
    nor one with a typing error."""
    quoted = re.search("[\"']", words) is not None
    try:
        wishes = shlex.split(words if quoted else words.replace(",", " "))
    except ValueError:  # an apostrophe
        return [words]
    try:
        for wish in wishes:
            resolve(wish)
    except UsageError:
        bare = words.lower().replace(",", " ").split()
        if len(bare) < 2 or all(get_close_matches(word, presets(), cutoff=0.8) for word in bare):
            raise
        return [words.strip("\"'")]
    return wishes


@commands.add("/swap", "Exchange the preferences of the two views.")
def swap(chat: Chat, words: str) -> None:
    chat.conversation.swap()
    chat.changed()
    prefer(chat, "")


@commands.add(
    "/mode [judge|base|prompt|plain]",
    "judge swaps the roles every round, base keeps them; prompt puts all preferences into one prompt, plain uses none.",
    lambda chat: get_args(Mode),
)
def mode(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    if words:
        generation = judge.generation.replace(mode=one_of("the mode", words, get_args(Mode)))
        judge.mode(generation)
        judge.generation = generation
        chat.changed()
    chat.screen.say(f"mode {judge.mode(judge.generation)}")


@commands.add("/lambda [N]", "Tokens drafted in a round before the roles swap.")
def lam(chat: Chat, words: str) -> None:
    set_named(chat, "lambda", words)
