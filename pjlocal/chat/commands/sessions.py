"""Commands about saved chats."""

from __future__ import annotations

from pathlib import Path

from ...errors import UsageError
from ...sessions.export import FORMATS, write_export
from ...sessions.finding import parse_title
from ...sessions.session import Session
from ...textfile import name_parts, user_path
from .. import figures
from ..chat import Chat
from .command import Commands

commands = Commands()


@commands.add("/new", "Begin another chat; this one stays saved.")
def new(chat: Chat, words: str) -> None:
    chat.conversation.open(Session(settings=chat.conversation.settings()))
    chat.screen.say("a new chat")


@commands.add(
    "/fork [N]", "Begin another chat with a copy of this one, or of its first N turns; this one stays unchanged."
)
def fork(chat: Chat, words: str) -> None:
    conversation = chat.conversation
    n_turns = len(conversation.session.turns) if conversation.last else 0
    if words and (not words.isdecimal() or not 0 < int(words) <= n_turns):
        raise UsageError(f"/fork takes the number of a turn, from 1 to {n_turns} (not {words!r})")
    conversation.fork(int(words or n_turns))
    chat.show_where_we_were()


@commands.add("/sessions", "List the saved chats.")
def sessions(chat: Chat, words: str) -> None:
    chat.conversation.recorder.catch_up()
    if summaries := chat.store.summaries():
        chat.screen.show(figures.sessions(summaries, chat.conversation.session.id))
    else:
        chat.screen.say("there are no saved chats yet")


@commands.add("/load ID|TITLE", "Continue a saved chat.", lambda chat: [s.title for s in chat.store.summaries()])
def load(chat: Chat, words: str) -> None:
    if not words:
        raise UsageError("name a chat: /sessions lists them")
    chat.conversation.recorder.catch_up()
    chat.open(chat.store.load(chat.store.find(words)))


@commands.add("/title [TEXT]", "Show or change this chat's title.")
def title(chat: Chat, words: str) -> None:
    session = chat.conversation.session
    if words:
        session.title = parse_title(words)
        chat.conversation.recorder.rename()
    chat.screen.say(f"title: {session.title or 'none yet'}")


@commands.add(
    "/export [FILE|md|json|html] [drafts]",
    "Write this chat to a file: Markdown, JSON, or a web page that shows each token's numbers. With drafts, the "
    "other answers of each question too; JSON always has them.",
    lambda chat: [*FORMATS, "drafts"],
)
def export(chat: Chat, words: str) -> None:
    session = chat.conversation.session
    if not session.turns:
        raise UsageError("this chat has no questions yet")
    before, _, last = words.rpartition(" ")
    with_drafts = last in ("drafts", "--drafts")
    if with_drafts:
        words = before.strip()
    if not words or words in FORMATS:
        target = _free_name(_file_name(session.title), words or "md")
    else:
        target = user_path(words.strip("\"'"))
    write_export(session, target, drafts=with_drafts)
    chat.screen.say(f"written to {target}")


def _file_name(title: str) -> str:
    return "-".join(name_parts(title.lower()))[:40].strip("-") or "chat"


def _free_name(stem: str, suffix: str) -> Path:
    path = Path(f"{stem}.{suffix}")
    number = 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.{suffix}")
    return path
