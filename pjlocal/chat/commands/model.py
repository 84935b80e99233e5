"""The model, and how the screen shows what it writes."""

from __future__ import annotations

from typing import get_args

from ...errors import UsageError
from ...gguf.locate import available_models
from ...settings import VIEW_HELP, View
from ..chat import Chat
from .command import Commands, one_of

commands = Commands()


@commands.add("/model [NAME]", "Show the model, or change to another.", lambda chat: available_models())
def model(chat: Chat, words: str) -> None:
    conversation = chat.conversation
    server = conversation.judge.server
    named = server is not None and not server.is_resident
    if words:
        if server and named:
            raise UsageError(f"{server.name} has only one model: use pjlocal chat --no-server -m {words} for another")
        with chat.screen.wait("Loading the model"):
            conversation.switch_model(words.strip("\"'"))
        chat.changed()
    loaded = conversation.judge.model
    chat.screen.say(f"{loaded.name}: {loaded.description}, context {conversation.judge.context_limit} tokens per view")
    if not words and not named and (others := available_models()):
        chat.screen.say(f"available: {', '.join(others)}")


@commands.add(
    f"/view [{'|'.join(get_args(View))}]",
    f"How answers are shown; {VIEW_HELP}.",
    lambda chat: get_args(View),
)
def view(chat: Chat, words: str) -> None:
    if words:
        chat.view = one_of("the view", words, get_args(View))
    chat.screen.say(f"view {chat.view}")
