"""The line that a user types: editing, history, completion, several lines; what is typed there is given back whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from ..visible import visible
from .chat import Chat
from .commands.table import COMMANDS
from .screen import status_line

log = logging.getLogger("pjlocal")

_QUOTES = '"""'
_NO_TOOLBAR = Style.from_dict({"bottom-toolbar": "noreverse"})


class Line:
    """Reads what the user types, below the conversation.

    Args:
        history: a file of its owner's alone, or None to forget.
    """

    def __init__(self, chat: Chat, history: Path | None) -> None:
        self._chat = chat
        self._session: PromptSession[str] = PromptSession(
            "> ",
            multiline=True,
            prompt_continuation=lambda width, number, wrapped: " " * width,
            history=_history(history),
            completer=_Completer(chat),
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            complete_style=CompleteStyle.MULTI_COLUMN,
            key_bindings=_keys(),
            bottom_toolbar=self._toolbar,
            style=_NO_TOOLBAR,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            enable_suspend=True,
            enable_open_in_editor=True,
        )

    def read(self) -> str:
        """One message or command.

        Raises:
            EOFError: the user leaves.
        """
        return unquoted(self._session.prompt())

    def _toolbar(self) -> AnyFormattedText:
        columns = self._session.output.get_size().columns
        return ANSI(f"\x1b[2m{status_line(self._chat.conversation, columns - 1).plain}\x1b[0m")


def unquoted(text: str) -> str:
    """A message without the quotation marks of a block around it."""
    stripped = text.strip()
    if len(stripped) >= 2 * len(_QUOTES) and stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES):
        return stripped[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


def _block_is_open(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith(_QUOTES) and (len(stripped) < 2 * len(_QUOTES) or not stripped.endswith(_QUOTES))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the choice is taken; another Enter sends
        elif _block_is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def clear(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return keys


class _Completer(Completer):
    """Commands, and what may stand behind each."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        try:
            yield from [*self._completions(document.text_before_cursor)]
        except Exception as error:  # what cannot be looked up now is not offered, and the line goes on
            log.debug("no completions:", exc_info=error)

    def _completions(self, text: str) -> Iterable[Completion]:
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text.partition(" ")
        if not space:
            for command in COMMANDS.values():
                if command.name.startswith(name):
                    yield Completion(command.name, -len(name), display_meta=command.help)
            return
        if name not in COMMANDS:
            return
        word = rest if name in ("/load", "/model") else rest.split(" ")[-1]
        for choice in COMMANDS[name].choices(self._chat):
            # What holds marks that reorder or hide text must not come into the line.
            if choice.lower().startswith(word.lower()) and choice == visible(choice):
                yield Completion(choice, -len(word))


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError:
        return InMemoryHistory()
    return _TolerantHistory(str(path))


class _TolerantHistory(FileHistory):
    """A full disk is no reason to lose what was typed."""

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string.encode("utf-8", "replace").decode("utf-8"))
        except OSError:
            pass

    def load_history_strings(self) -> Any:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []
