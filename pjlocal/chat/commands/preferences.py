"""Commands about preferences, and about how they are combined."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import chain
from typing import get_args

from ...config import tomlfile
from ...config.config import load_config
from ...errors import UsageError, join_names
from ...prompting.dials import STEP, add, adjust
from ...prompting.plan import resolve_mode
from ...prompting.preferences import presets, resolve, split_strength, use_own
from ...request import deal
from ...settings import VIEW_LETTERS, VIEW_NAMES, Mode
from ..chat import Chat
from .command import Commands
from .settings import change, set_named

commands = Commands()


@commands.add(
    "/prefer [a|b] [set|add|clear] [PREFERENCES]",
    "Show or change the preferences: of one view, or of both in turn. Put texts of several words in quotes; vivid:1.5 "
    "gives a preference its own strength.",
    lambda chat: ["a", "b", "add", "clear", "set", *presets()],
)
def prefer(chat: Chat, words: str) -> None:
    conversation = chat.conversation
    before = conversation.views
    view, verb, rest = _view_and_verb(words, before)
    if words:
        wishes = _wishes(rest)
        if verb == "clear" and wishes:
            raise UsageError("/prefer clear takes a view or nothing, as in /prefer clear b")
        if verb != "clear" and not wishes:
            raise UsageError("name a preference, as in /prefer a vivid, or use /prefer clear")
        held = before[view] if view is not None else list(chain.from_iterable(before.values()))
        if verb == "add":
            wishes = [wish for wish in dict.fromkeys(wishes) if wish not in held]
        if view is not None:
            kept = held if verb == "add" else []
            after = list((before | {view: [*kept, *wishes]}).values())
            new = after if len(after) == len(VIEW_NAMES) else deal(list(chain.from_iterable(after)))
        else:
            new = add(conversation.judge.request, wishes) if verb == "add" else deal(wishes)
        conversation.prefer(new)
        chat.changed()
    for name, wishes in conversation.views.items():
        chat.screen.say(f"{name}: {', '.join(wishes) or 'no preference'}")


def _view_and_verb(words: str, views: Iterable[str]) -> tuple[str | None, str, str]:
    """The view and the verb, which may come in either order, and the words after them.

    Raises:
        UsageError: the words name a view that does not exist.
    """
    view, verb = None, ""
    while words:
        word, *rest = words.split(maxsplit=1)
        if word in views and view is None:
            view = word
        elif word in ("set", "add", "clear") and not verb:
            verb = word
        elif word in [*VIEW_LETTERS] and rest and view is None:
            raise UsageError(f"there is no view {word}: {join_names([*views])} (put a text in quotes)")
        else:
            break
        words = "".join(rest)
    return view, verb or "set", words


def _split(words: str, quotes: str) -> list[str]:
    """Split words at all spaces of Unicode, except within quotes and where a backslash precedes one."""
    lexer = shlex.shlex(words, posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, quotes, ""
    lexer.whitespace += "".join(re.findall(r"\s", words))
    return list(lexer)


def _wishes(words: str) -> list[str]:
    """Parse typed preferences: a list of presets, @files and quoted texts.  Words that are no such list, not even one
    with a typing error, are one text."""
    is_quoted = re.search("(^|[\\s,])[\"']", words) is not None  # within a word it is an apostrophe
    try:
        wishes = _split(words, "\"'") if is_quoted else _split(words.replace(",", " "), "")
    except ValueError:
        raise UsageError('a quotation mark is not closed: write texts of several words as in "Be brief"') from None
    try:
        for wish in wishes:
            resolve(wish)
    except UsageError:
        bare = words.lower().replace(",", " ").split()
        names = [word.partition(":")[0] for word in bare]
        is_list = words[0] in "\"'" or all(get_close_matches(name, presets(), cutoff=0.8) for name in names)
        if len(bare) < 2 or is_list:
            raise
        return [words]
    return wishes


@commands.add(
    "/more PREFERENCES",
    "Raise the strength of preferences by 0.5; an absent one is added, as in /more vivid.",
    lambda chat: list(presets()),
)
def more(chat: Chat, words: str) -> None:
    _adjust(chat, words, STEP)


@commands.add(
    "/less PREFERENCES",
    "Lower the strength of preferences by 0.5; at 0 one is removed, and an absent one is avoided, as in /less formal.",
    lambda chat: list(presets()),
)
def less(chat: Chat, words: str) -> None:
    _adjust(chat, words, -STEP)


def _adjust(chat: Chat, words: str, step: float) -> None:
    if not words:
        raise UsageError("name a preference, as in /more vivid or /less formal")
    request = chat.conversation.judge.request
    for wish in _wishes(words):
        if split_strength(wish)[1]:
            raise UsageError(f"/more and /less change a strength by {STEP}: leave it out of {wish}, or use /prefer")
        request = adjust(request, wish, step)
    chat.use(request, needs_preferences=bool(request.generation.avoid))  # it may have no preference left
    in_force = [f"{name}: {', '.join(wishes) or 'no preference'}" for name, wishes in chat.conversation.views.items()]
    avoided = request.generation.avoid
    chat.screen.say(" · ".join([*in_force, *([f"avoid: {', '.join(avoided)}"] if avoided else [])]))


@commands.add("/swap", "Exchange the preferences of the two views; more views get them in reverse order.")
def swap(chat: Chat, words: str) -> None:
    chat.conversation.swap()
    chat.changed()
    prefer(chat, "")


@commands.add(
    f"/mode [{'|'.join(get_args(Mode))}]",
    "both: all preferences weigh each token together; judge: the paper's rule, in which the roles swap every round; "
    "base: fixed roles; prompt: all preferences in one prompt; rewrite: a plain answer, then its correction; plain: no "
    "preferences.",
    lambda chat: get_args(Mode),
)
def mode(chat: Chat, words: str) -> None:
    if words:
        change(chat, "mode", words)
    chat.screen.say(f"mode {resolve_mode(chat.conversation.judge.request)}")


@commands.add(
    "/strength [S|auto]",
    "Strength of the preferences: 1 is their ordinary effect.",
    lambda chat: ["auto", "default", "1", "1.5", "2", "3"],
)
def strength(chat: Chat, words: str) -> None:
    set_named(chat, "strength", words)


@commands.add(
    "/avoid [TEXTS|clear]",
    "Preferences to avoid: presets, @files or quoted texts, as in /avoid formal:2.",
    lambda chat: ["clear", *presets()],
)
def avoid(chat: Chat, words: str) -> None:
    if words:
        change(chat, "avoid", () if words == "clear" else words if words == "default" else tuple(_wishes(words)))
    chat.screen.say(f"avoid: {', '.join(chat.conversation.judge.request.generation.avoid) or 'nothing'}")


@commands.add(
    "/persona [NAME]",
    "Apply a persona of your configuration; other settings stay. Without a name, list them.",
    lambda chat: list(load_config().personas),
)
def persona(chat: Chat, words: str) -> None:
    config = load_config()
    if words:
        found = config.persona(words)
        use_own(config.presets, config.personas)  # it may have been written since the chat began
        chat.conversation.apply_persona(found)
        chat.changed()
        prefer(chat, "")
    elif config.personas:
        for name, known in config.personas.items():
            chat.screen.say(f"{name}: {', '.join(tomlfile.assignments(known.flat()))}")
    else:
        chat.screen.say("no personas yet: pjlocal prefs save NAME saves one")


@commands.add("/lambda [N]", "Tokens drafted in a round before the roles swap.")
def lam(chat: Chat, words: str) -> None:
    set_named(chat, "lambda", words)
