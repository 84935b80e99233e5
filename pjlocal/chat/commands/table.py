"""All commands of a chat: recognize a command in a line, and run it."""

from __future__ import annotations

import re

from ...errors import UsageError, did_you_mean
from .. import figures
from ..chat import Chat
from . import answers, model, preferences, sessions, settings
from .command import Command, Commands

general = Commands()


@general.add("/help [COMMAND]", "List the commands, or explain one.")
def help_(chat: Chat, words: str) -> None:
    commands = [_named(f"/{words.lower().lstrip('/')}")] if words else COMMANDS.values()
    chat.screen.show(figures.commands([(c.usage, c.help) for c in commands], chat.screen.width))
    if words:
        return
    chat.screen.say(
        'Enter sends; Alt-Enter makes a new line, and so does Enter inside """ """. Ctrl-C stops an answer or clears '
        "the line; Ctrl-D leaves. A line that begins with // is a message that begins with /. Pasted text is sent as "
        "text, except for a command on one line."
    )


@general.add("/quit", "Leave; so does Ctrl-D.")
def quit_(chat: Chat, words: str) -> None:
    chat.done = True


#: In the order in which /help lists them.
COMMANDS: dict[str, Command] = {
    **preferences.commands,
    **settings.commands,
    **model.commands,
    **answers.commands,
    **sessions.commands,
    **general,
}
_ALIASES = {"/take": "/drafts", "/exit": "/quit", "/bye": "/quit", "/q": "/quit", "/?": "/help", "/h": "/help"}
#: Names that other programs use, with pjlocal's commands.
_OTHER_NAMES = {
    "/open": "/load",
    "/resume": "/load",
    "/list": "/sessions",
    "/chats": "/sessions",
    "/history": "/sessions",
    "/clear": "/new",
    "/reset": "/new",
    "/retry": "/regen",
    "/redo": "/regen",
    "/again": "/regen",
    "/rename": "/title",
    "/save": "/export",
    "/settings": "/set",
    "/config": "/set",
    "/preset": "/prefer",
    "/explain": "/why",
}


def is_command(line: str) -> bool:
    """True if a line is a command.  A path such as /etc/hosts and a line that begins with two slashes are not."""
    return re.match(r"/([\w?-]+(\s|$)|\s*$)", line) is not None


def run(chat: Chat, line: str) -> None:
    """Run a command.

    Raises:
        UsageError: there is no such command (the nearest is named), or it cannot be done.
    """
    name, *words = line.strip().split(maxsplit=1)
    found = _named(name.lower())
    if words and found.usage == found.name:
        raise UsageError(f"{found.name} takes no words (not {words[0]!r})")
    found.run(chat, *words or [""])


def _named(name: str) -> Command:
    found = COMMANDS.get(_ALIASES.get(name, name))
    if found is None:
        hint = f"did you mean {_OTHER_NAMES[name]}?" if name in _OTHER_NAMES else did_you_mean(name, COMMANDS, 1)
        raise UsageError(f"unknown command {name}: {hint or '/help lists them'}")
    return found
