"""Commands about the last answer, and about earlier ones."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from ...attachments import read_attachment, without_texts
from ...config.editor import edit_text
from ...errors import UsageError, join_names
from ...screen import suspend
from ...screen.display import LAYOUT_TEXT
from ...sessions.session import Turn
from ...settings import FixedLayout, Generation, Thoughts
from ...visible import visible
from .. import figures
from ..chat import Chat
from .command import Commands, one_of

commands = Commands()

_EDITED = ("question", "answer")
_SHOWN: dict[str, Thoughts] = {"on": "show", "off": "hide"}


@commands.add(
    "/why [N [TOKEN]]",
    "Show the last answer token by token: which view drafted it, p, q, whether it was accepted, and how far each "
    "preference pushed it. With a token's number, list the most probable tokens in its place; with a number of that "
    "list, or a text, continue from there.",
)
def why(chat: Chat, words: str) -> None:
    turn, view = chat.conversation.last, chat.view
    if words:
        _why_token(chat, turn, *words.split(maxsplit=1))
        return
    chat.screen.page(Group(*figures.why(turn, view, chat.screen.no_color, chat.screen.width)))


def _why_token(chat: Chat, turn: Turn, number: str, taken: str = "") -> None:
    """List the most probable tokens in the place of a token, or continue the answer from there with another one.

    Raises:
        UsageError: there is no such token.
    """
    if not number.isdecimal():
        raise UsageError(f"/why takes the number of a token (not {number!r})")
    position = int(number)
    if taken and not taken.isdecimal():
        chat.answer(chat.conversation.take(position, _as_text(turn, position, taken)))
        return
    alternatives = chat.conversation.alternatives(position)
    if not taken:
        chat.screen.show(figures.alternatives(alternatives, turn.events[position]))
        chat.screen.greet(
            f"/why {position} 2 continues from there with the second of these; with a text instead of 2, with that text"
        )
        return
    if not 0 < int(taken) <= len(alternatives):
        raise UsageError(f"/why {position} lists {len(alternatives)} tokens, and there is no {taken}")
    chosen = alternatives[int(taken) - 1]
    if not chosen.text:
        raise UsageError("this token has no text: take another one (/edit answer shortens an answer)")
    chat.answer(chat.conversation.take(position, chosen.text, chosen.id))


def _as_text(turn: Turn, position: int, words: str) -> str:
    """The text to put in the place of a token: unchanged in quotes, else with a space before it if the token has
    one."""
    if len(words) > 2 and words[0] == words[-1] == '"':
        return words[1:-1]
    has_space = any(event.text.startswith(" ") for event in turn.events[position : position + 1])
    return f" {words}" if has_space else words


@commands.add(
    "/thoughts [N|on|off]",
    "Show the thoughts before the last answer, or before the answer of turn N; on shows the thoughts of every answer, "
    "off only their number of tokens.",
    lambda chat: list(_SHOWN),
)
def thoughts(chat: Chat, words: str) -> None:
    if words in _SHOWN:
        chat.screen.thoughts = _SHOWN[words]
        chat.screen.say(f"thoughts {words}")
        return
    turn, view = _turn(chat, words), chat.view
    if turn.thinking:
        chat.screen.page(figures.thoughts(turn, view, chat.screen.no_color))
    else:
        chat.screen.say("this answer has no thoughts")


def _turn(chat: Chat, number: str) -> Turn:
    """The turn with this number; the last one if no number is given.

    Raises:
        UsageError: there is none.
    """
    last, turns = chat.conversation.last, chat.conversation.session.turns
    if not number:
        return last
    if not number.isdecimal() or not 0 < int(number) <= len(turns):
        raise UsageError(f"/thoughts takes on, off or the number of a turn, from 1 to {len(turns)} (not {number!r})")
    return turns[int(number) - 1]


@commands.add(
    "/compare", "Answer the last question in every mode, one after the other, and keep the answers as drafts."
)
def compare(chat: Chat, words: str) -> None:
    for writing in chat.conversation.compare():
        chat.screen.compared(writing, chat.view)
        if writing.answer.finish_reason == "interrupted":
            break
    chat.screen.greet("/drafts MODE puts one of these answers in force, as in /drafts both")


@commands.add(
    "/drafts [N|MODE]",
    "List the answers to the last question, or put one in force: by its number, or the latest in a mode.",
    lambda chat: [mode for turn in chat.conversation.session.turns[-1:] for mode in map(_mode, turn.drafts)],
)
def drafts(chat: Chat, words: str) -> None:
    last = chat.conversation.last
    if not words:
        chat.screen.show(figures.drafts(last))
        return
    number = _draft_number(last, words)
    draft = last.drafts[number - 1]
    if draft is last:
        chat.screen.say("this draft is in force already")
        return
    chat.conversation.switch(draft)
    chat.screen.say(f"draft {number} is in force")
    chat.screen.show_turn(draft, chat.view)


def _draft_number(turn: Turn, words: str) -> int:
    """The number of a draft: the given one, or that of the latest draft in the given mode.

    Raises:
        UsageError: there is none.
    """
    if words.isdecimal() and 0 < int(words) <= len(turn.drafts):
        return int(words)
    of_mode = [number for number, draft in enumerate(turn.drafts, 1) if _mode(draft) == words]
    if not of_mode:
        modes = ", ".join(dict.fromkeys(map(_mode, turn.drafts)))
        raise UsageError(f"/drafts takes a number from 1 to {len(turn.drafts)}, or a mode: {modes} (not {words!r})")
    return of_mode[-1]


def _mode(turn: Turn) -> str:
    return str(turn.settings.get("mode", ""))


@commands.add("/read [FILE|clear]", "Send a text file with the next question; without a file, list those to be sent.")
def read(chat: Chat, words: str) -> None:
    if words == "clear":
        chat.attachments.clear()
    elif words:
        chat.attachments.append(read_attachment(words.strip("\"'")))
    for attachment in chat.attachments:
        chat.screen.say(attachment.size(chat.conversation.judge.n_tokens(attachment.text)))
    chat.screen.say("the next question sends this" if chat.attachments else "no file is sent with the next question")


@commands.add("/regen", "Answer the last question again.")
def regen(chat: Chat, words: str) -> None:
    chat.answer(chat.conversation.regenerate())


@commands.add("/continue [N]", "Continue the last answer, by N tokens at most; also one that was cut off or stopped.")
def continue_(chat: Chat, words: str) -> None:
    conversation = chat.conversation
    last = conversation.last
    if words and not words.isdecimal():
        raise UsageError(f"/continue takes a number of tokens (not {words!r})")
    n = Generation.parse("max_tokens", words) if words else None
    writing = conversation.continue_answer(n)
    chat.answer(writing)
    if conversation.last is last and writing.turn.finish_reason == "stop":
        chat.screen.say("the model added nothing: the answer is unchanged")


@commands.add(
    "/edit [question|answer]",
    "Edit the last question in $EDITOR and ask it again; or edit the last answer, and keep your version.",
    lambda chat: _EDITED,
)
def edit(chat: Chat, words: str) -> None:
    last = chat.conversation.last
    what = one_of("/edit", words or _EDITED[0], _EDITED)
    if what == "answer":
        _edit_answer(chat, last.answer)
        return
    if not (question := _edited(chat, what, last.question)):
        chat.screen.say("the question is unchanged: nothing is asked")
        return
    chat.screen.greet(f"> {visible(without_texts(question))}")
    with chat.keeping(question):
        chat.answer(chat.conversation.ask(question, replacing=last))


def _edited(chat: Chat, what: str, before: str) -> str:
    """A text of the last turn as the user leaves it in the editor; empty if it is unchanged.

    Raises:
        UsageError: the user leaves an empty text.
    """
    chat.conversation.recorder.check_seen()
    with suspend.undone():
        text = edit_text(before)
    if not text:
        raise UsageError(f"the {what} is empty: nothing is changed")
    return "" if text == before.strip() else text


def _edit_answer(chat: Chat, before: str) -> None:
    if not (answer := _edited(chat, "answer", before)):
        chat.screen.say("the answer is unchanged")
        return
    # The editor keeps no white space around the text.  Behind another end there is none.
    head = before[: len(before) - len(before.lstrip())]
    tail = before[len(before.rstrip()) :] if answer[-1:] == before.rstrip()[-1:] else ""
    with chat.keeping(answer):
        chat.conversation.edit_answer(f"{head}{answer}{tail}")
    chat.screen.say("the answer is saved as you wrote it; /continue continues it")


@commands.add("/undo", "Take the last question and its answer back.")
def undo(chat: Chat, words: str) -> None:
    turn = chat.conversation.undo()
    chat.screen.say(f"taken back: {' '.join(without_texts(turn.question).split())}")


@commands.add("/stats", "Tokens, speeds, acceptance rates and pushes of this chat; where layers and views are.")
def stats(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    views: dict[FixedLayout, list[str]] = {}
    for n, layout in sorted(judge.layouts.items()):
        views.setdefault(layout, []).append(str(n))
    layouts = [f"{join_names(numbers)} views {LAYOUT_TEXT[layout]}" for layout, numbers in views.items()]
    where = Text(", ".join([judge.placed, *layouts]))
    if not chat.conversation.session.turns:
        chat.screen.say("this chat has no questions yet")
        chat.screen.show(where)
        return
    chat.screen.show(figures.statistics(chat.conversation.session), where)
