"""The last answer, and the answers before it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ...config.editor import edit_text
from ...screen import suspend
from ...screen.display import LIVING
from .. import figures
from ..chat import Chat
from .command import Commands

commands = Commands()


@commands.add(
    "/why", "The last answer token by token: who drafted it, p, q, accepted or not, and what pushed it how far."
)
def why(chat: Chat, words: str) -> None:
    turn, view = chat.conversation.last, chat.view

    def page(width: int, no_color: bool) -> RenderableType:
        return Group(*figures.why(turn, view, no_color, width))

    chat.screen.page(page, "/why")


@commands.add("/compare", "Answer the last question in every mode, one after the other.")
def compare(chat: Chat, words: str) -> None:
    for begun in chat.conversation.compare():
        chat.screen.compared(begun, chat.view)
        if begun.answer.finish_reason == "interrupted":
            break


@commands.add("/regen", "Answer the last question again.")
def regen(chat: Chat, words: str) -> None:
    chat.answer(chat.conversation.regenerate())


@commands.add("/edit", "Open the last question in $EDITOR and ask it anew.")
def edit(chat: Chat, words: str) -> None:
    last = chat.conversation.last
    with suspend.undone():
        question = edit_text(last.question)
    if not question or question == last.question.strip():
        chat.screen.say("the question is as it was: nothing is asked")
        return
    chat.answer(chat.conversation.ask(question, replacing=last))


@commands.add("/undo", "Take the last question and its answer back.")
def undo(chat: Chat, words: str) -> None:
    turn = chat.conversation.undo()
    chat.screen.say(f"taken back: {' '.join(turn.question.split())}")


@commands.add("/stats", "Tokens, speeds, acceptance rates and pushes of this session; where layers and views are.")
def stats(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    living = [f"{n} views {LIVING[layout]}" for n, layout in judge.layouts.items()]
    where = Text(", ".join([judge.placed, *living]))
    if not chat.conversation.session.turns:
        chat.screen.say("nothing was said yet")
        chat.screen.show(where)
        return
    chat.screen.show(figures.statistics(chat.conversation.session), where)
