"""Settings of the next answer."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, get_args, get_type_hints

from ...errors import UsageError
from ...prompting.plan import resolve_mode
from ...prompting.preferences import strength_in_force
from ...request import GROUPS
from ...screen import tables
from ...settings import Engine, Sampling, Settings, Think, advise, flag_names
from ..chat import Chat
from .command import Commands

commands = Commands()

#: Options of pjlocal chat that are no settings, and have commands of these names.
_WITH_COMMANDS = ("model", "prefer", "persona", "view", "thoughts")


@commands.add(
    "/set [NAME [VALUE]]",
    "Show the settings, or change one, as in /set temperature 0.9. 'default' resets a setting, also with a command of "
    "its own, as in /mode default.",
    lambda chat: _names(),
)
def set_(chat: Chat, words: str) -> None:
    name, _, value = re.sub(r"\s*=\s*|\s+", " ", words, count=1).partition(" ")
    judge = chat.conversation.judge
    if not name:
        table = tables.settings((getattr(judge.request, group) for group in GROUPS), _in_force(chat))
        chat.screen.page(table)
        return
    set_named(chat, name.lstrip("-").replace("_", "-"), value.strip())


def set_named(chat: Chat, name: str, value: str) -> None:
    """Change a setting, named by one of its flags without the dashes, or show it."""
    judge = chat.conversation.judge
    for attribute, group in GROUPS.items():
        if (f := _field(group, name)) is None:
            continue
        if value:
            change(chat, f.name, value if value == "default" else group.parse(f.name, value))
        chat.screen.show(tables.settings([getattr(judge.request, attribute)], _in_force(chat), f.name))
        return
    if _field(Engine, name) or _field(Engine, name.removeprefix("no-")):
        raise UsageError(f"{name} is fixed once the model is loaded: give it to pjlocal chat")
    hint = f"use /{name}" if name in _WITH_COMMANDS else advise(name, _names()) or "/set lists them"
    raise UsageError(f"no setting {name!r}: {hint}")


def change(chat: Chat, key: str, value: Any) -> None:
    """Change a setting; the word ``default`` resets it, as if nothing had set it."""
    judge = chat.conversation.judge
    request = judge.request.unset([key]) if value == "default" else judge.request.replace(**{key: value})
    is_filter = key in get_type_hints(Sampling)
    if is_filter:
        request = request.with_model_defaults(judge.recommended)
    if is_filter or key == "stop_token":
        judge.check(request)
    chat.use(request)


def _in_force(chat: Chat) -> dict[str, str]:
    """The values in force of settings that were not set."""
    request = chat.conversation.judge.request
    mode = resolve_mode(request)
    return {"mode": mode, "strength": strength_in_force(request.generation, mode)}


def _field(group: type[Settings], name: str) -> dataclasses.Field[Any] | None:
    named = {x.partition("/")[0].lstrip("-"): f for f in dataclasses.fields(group) for x in f.metadata["flags"]}
    return named.get(name)  # the form that turns it off is no name


def _names() -> list[str]:
    """The settings' flags without the dashes."""
    return [flag.removeprefix("--") for flag in flag_names(*GROUPS.values())]


@commands.add("/system [TEXT|clear]", "Show or change the system text that both views share.", lambda chat: ["clear"])
def system(chat: Chat, words: str) -> None:
    if words:
        change(chat, "system", "" if words == "clear" else words)
    chat.screen.say(f"system text: {chat.conversation.judge.request.prompting.system or 'none'}")


@commands.add(
    f"/think [{'|'.join(get_args(Think))}]",
    "Whether a reasoning model thinks before it answers.",
    lambda chat: get_args(Think),
)
def think(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    if words:
        change(chat, "think", words)
        if judge.request.prompting.think != "auto" and (notice := judge.think_notice()):
            chat.screen.say(notice)
    chat.screen.say(f"think {judge.request.prompting.think}")
