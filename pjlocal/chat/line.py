"""The input line: editing, history, completion, and messages of several lines."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from ..screen import suspend
from ..screen.console import take_keys
from ..visible import visible
from .chat import Chat
from .commands.table import COMMANDS, is_command
from .screen import HOW_TO_LEAVE
from .status import status_line

log = logging.getLogger("pjlocal")

_QUOTES = '"""'
_PASTED = "pasted: sent as text"
_NO_TOOLBAR = Style.from_dict({"bottom-toolbar": "noreverse"})


class Line:
    """Reads the user's input at the prompt.

    Args:
        history: a file that only its owner can read; None keeps no history.
        typed_ahead: bytes that `take_keys` read; they are typed first.
    """

    def __init__(self, chat: Chat, history: Path | None, typed_ahead: list[bytes]) -> None:
        self._chat = chat
        self._interrupt = chat.conversation.judge.interrupt
        self._paste = Paste()
        self._typed_ahead = typed_ahead
        self._n_before = 0  # the number of `typed_ahead` items before a Ctrl-C since the last prompt
        self._is_stopped = False  # Ctrl-C was pressed since the last prompt
        self._asks_to_leave = False  # Ctrl-C was pressed at an empty prompt
        self._completer = _Completer(chat)
        self._session: PromptSession[str] = PromptSession(
            "> ",
            multiline=True,
            prompt_continuation=lambda width, number, wrapped: " " * width,
            history=_History(history, self._paste.as_typed),
            completer=self._completer,
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            complete_style=CompleteStyle.MULTI_COLUMN,
            key_bindings=_keys(self._paste, self._clear, self._suspend),
            bottom_toolbar=self._toolbar,
            style=_NO_TOOLBAR,
            enable_open_in_editor=True,
        )
        self._session.default_buffer.on_text_changed += self._changed
        self._interrupt.on_signal = self._on_signal

    def read(self) -> str:
        """Return one message or command, in the form typed by hand on one line.

        Raises:
            EOFError: the user leaves, or a signal ends the chat.
        """
        with suspend.at_prompt(self._on_suspend):
            typed = self._session.prompt(pre_run=self._begin, handle_sigint=False)
        self.resume()
        self._take_ctrl_c()
        if self._interrupt.ended_by:
            raise EOFError
        text = self._paste.as_typed(typed.removeprefix("\ufeff"))
        self._paste.begins = ""
        return unquoted(text)

    def _take_ctrl_c(self) -> None:
        """Let a Ctrl-C right behind Enter, which was a key of the prompt, stop what Enter started."""
        keys = get_typeahead(self._session.input)
        others = [key for key in keys if key.key is not Keys.ControlC]
        store_typeahead(self._session.input, others)
        if len(others) < len(keys):
            self._interrupt.set()
        take_keys()

    def resume(self) -> None:
        """Let the terminal mark what is pasted between prompts, so that line breaks in it send nothing."""
        self._session.output.enable_bracketed_paste()
        self._session.output.flush()

    def suspend(self) -> None:
        """Undo `resume`, for other programs."""
        self._session.output.disable_bracketed_paste()
        self._session.output.flush()

    def close(self) -> None:
        with suppress(OSError):  # the terminal is gone
            self.suspend()

    def _begin(self) -> None:
        """Prepare the prompt: from now on Ctrl-C clears the line, because nothing else can be stopped."""
        self._asks_to_leave = False
        self._completer.choices.clear()
        self._interrupt.clear()
        if self._interrupt.ended_by:
            self._session.app.exit(exception=EOFError)
        else:
            if self._chat.unsent:
                text, self._chat.unsent = self._chat.unsent, ""
                self._session.history.append_string(quoted(text) if text.startswith(_QUOTES) else escaped(text))
            self._type_ahead()

    def _type_ahead(self) -> None:
        """Insert the input that was typed before the prompt appeared.

        Complete lines typed before Ctrl-C are not sent; an unfinished line stays for editing.
        """
        typed, self._typed_ahead[:] = [*self._typed_ahead], []
        keys = [*get_typeahead(self._session.input), *self._parsed(typed[: self._n_before])]
        if self._is_stopped:
            *lines, keys = _split(keys)
            self._keep_unsent(lines)
        store_typeahead(self._session.input, [*keys, *self._parsed(typed[self._n_before :])])
        self._is_stopped, self._n_before = False, 0

    def _parsed(self, typed: Iterable[bytes]) -> list[KeyPress]:
        """Parse terminal bytes into keys with the prompt's own parser, which continues an unfinished paste."""
        keys: list[KeyPress] = []
        if text := b"".join(typed).decode("utf-8", "replace"):
            parser = getattr(self._session.input, "vt100_parser", None) or Vt100Parser(keys.append)
            own, parser.feed_key_callback = parser.feed_key_callback, keys.append
            parser.feed_and_flush(text)
            parser.feed_key_callback = own
        return keys

    def _keep_unsent(self, lines: list[list[KeyPress]]) -> None:
        """Report unsent lines, and keep their text in the history."""
        unsent = [text for line in lines if (text := _as_typed(line))]
        if unsent:
            self._session.history.append_string("\n".join(unsent))
            summary = "1 line typed ahead was" if len(unsent) == 1 else f"{len(unsent)} lines typed ahead were"
            self._chat.screen.say(f"({summary} not sent; press the up arrow to bring the text back)")

    def _on_signal(self, signum: int) -> bool:
        """Handle a signal: at the prompt, Ctrl-C clears the line and others leave; elsewhere, keep the typed input."""
        app = self._session.app
        if app.is_running and not app.is_done and app.loop:
            app.loop.call_soon_threadsafe(self._at_prompt)
            return True
        if signum == signal.SIGINT:
            take_keys()
            self._is_stopped, self._n_before = True, len(self._typed_ahead)
        return False

    def _at_prompt(self) -> None:
        """Handle a signal at the prompt."""
        app = self._session.app
        if app.is_done:  # a line was sent just before
            self._interrupt.set()
        elif self._interrupt.ended_by:
            app.exit(exception=EOFError)
        else:
            app.key_processor.send_sigint()

    def _clear(self) -> None:
        """Clear the line, at Ctrl-C."""
        buffer = self._session.default_buffer
        self._asks_to_leave = not buffer.text
        buffer.reset()
        self._paste.begins = ""

    def _changed(self, buffer: Buffer) -> None:
        self._asks_to_leave = False
        self._paste.changed(buffer)

    def _on_suspend(self) -> None:
        """Handle SIGTSTP at the prompt, or in an editor opened there, which has the restored terminal."""
        app = self._session.app
        if app.loop and not app._running_in_terminal:
            app.loop.call_soon_threadsafe(self._suspend)
        else:
            suspend.stop()

    def _suspend(self) -> None:
        """Stop the whole process group, at Ctrl-Z."""
        run_in_terminal(suspend.stop_all)

    def _toolbar(self) -> AnyFormattedText:
        columns = self._session.output.get_size().columns - 1
        notice = f"{_PASTED} · " if self._paste.counts(self._session.default_buffer.text) else ""
        if self._asks_to_leave:
            notice = f"{HOW_TO_LEAVE} · "
        status = status_line(self._chat.conversation, max(1, columns - len(notice)))
        return ANSI(f"\x1b[2m{notice}{status.plain}\x1b[0m")


class Paste:
    """Remembers a text pasted at the beginning of a line: its slashes and quotation marks are text.

    A command pasted on one line is still a command, and so is text pasted after a typed command.
    """

    def __init__(self) -> None:
        self.begins = ""  # the first pasted characters; empty if nothing was pasted there

    def take(self, text: str, before: str) -> str:
        """Note a text that is pasted behind another one, and return it with line ends as a message has them."""
        text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
        if not before.strip():
            one_command = is_command(text) and "\n" not in text.strip()
            self.begins = "" if one_command else text.lstrip()[: len(_QUOTES)]
        return text

    def changed(self, buffer: Buffer) -> None:
        if not buffer.text:
            self.begins = ""

    def counts(self, line: str) -> bool:
        """True if the line would have another meaning if it had been typed."""
        return self.as_typed(line) != line

    def as_typed(self, line: str) -> str:
        """The typed form of the line with the same meaning."""
        if not self.begins or not line.lstrip().startswith(self.begins):
            return line
        return quoted(line) if line.lstrip().startswith(_QUOTES) else escaped(line)


def escaped(text: str) -> str:
    """The message with its leading slash escaped, as a user types it."""
    return f"/{text}" if text.startswith("/") else text


def quoted(text: str) -> str:
    """The message in a block of quotation marks."""
    return f"{_QUOTES}\n{text}\n{_QUOTES}"


def unquoted(text: str) -> str:
    """The message without the quotation marks of a block.  Text in a block is not a command."""
    stripped = text.strip()
    if len(stripped) >= 2 * len(_QUOTES) and stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES):
        return escaped(stripped[len(_QUOTES) : -len(_QUOTES)].strip("\n"))
    return text


def _block_is_open(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith(_QUOTES) and (len(stripped) < 2 * len(_QUOTES) or not stripped.endswith(_QUOTES))


def _split(keys: Iterable[KeyPress]) -> list[list[KeyPress]]:
    """The keys of each line that Enter ends, then the keys after the last Enter."""
    lines: list[list[KeyPress]] = [[]]
    for key in keys:
        if key.key == Keys.ControlM:
            lines.append([])
        else:
            lines[-1].append(key)
    return lines


def _as_typed(keys: Iterable[KeyPress]) -> str:
    """The text of the keys of a line, as it would be typed."""
    paste, text = Paste(), ""
    for key in keys:
        if key.key is Keys.BracketedPaste:
            text += paste.take(key.data, text)
        elif len(key.key) == 1:
            text += key.data
    return paste.as_typed(text)


def _keys(paste: Paste, clear: Callable[[], None], suspend: Callable[[], None]) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # accept the completion; another Enter sends
        elif _block_is_open(paste.as_typed(buffer.text)):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    @keys.add("<sigint>")
    def stop(event: KeyPressEvent) -> None:
        clear()

    @keys.add("c-z")
    def stop_process(event: KeyPressEvent) -> None:
        suspend()

    @keys.add(Keys.BracketedPaste)
    def insert(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        buffer.insert_text(paste.take(event.data, buffer.document.text_before_cursor))

    return keys


class _Completer(Completer):
    """Completes commands and their arguments."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        #: The choices of commands that were looked up since the last prompt, perhaps on another machine.
        self.choices: dict[str, Sequence[str]] = {}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        try:
            yield from [*self._completions(document.text_before_cursor)]
        except Exception as error:  # a failing look-up must not break the line
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
        if name not in self.choices:
            self.choices[name] = [*COMMANDS[name].choices(self._chat)]
        for choice in self.choices[name]:
            # Marks that reorder or hide text must not get into the line.
            if choice.lower().startswith(word.lower()) and choice == visible(choice):
                yield Completion(choice, -len(word))


class _History(History):
    """The input history, with pasted text in its typed form.  It ignores errors of its file, so that a full disk loses
    no input."""

    def __init__(self, path: Path | None, as_typed: Callable[[str], str]) -> None:
        super().__init__()
        self._kept = _kept(path)
        self._as_typed = as_typed

    def append_string(self, string: str) -> None:
        super().append_string(self._as_typed(string))

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            self._kept.store_string(string.encode("utf-8", "replace").decode("utf-8"))

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(self._kept.load_history_strings())
        except OSError:
            return []


def _kept(path: Path | None) -> History:
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return FileHistory(str(path))
    return InMemoryHistory()
