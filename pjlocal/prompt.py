"""A conversation and a preference prefix to the prompt tokens of one view, through the model's own chat template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from .model import Model
from .settings import Prompting

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


#: Ends an answer of a model without a chat template, before it writes the user's next turn itself.
DIALOGUE_STOPS = ("\nUser:",)

_PROBE = "pjlocal-probe"


class ChatTemplate:
    """The model's chat template, as far as it goes.

    Text that spells a control token stays text; BOS comes once; a template that has no place for a system message
    gets it at the head of the first user message; a model without a template gets a written-out dialogue.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._render = _jinja(model) or _dialogue
        #: Stop strings that the way of writing needs.
        self.stops: tuple[str, ...] = DIALOGUE_STOPS if self._render is _dialogue else ()

    @cached_property
    def has_system_role(self) -> bool:
        """Whether a system message reaches the prompt."""
        try:
            return _PROBE in self._render([Message("system", _PROBE), Message("user", "hello")])
        except Exception:  # a template refuses by raising whatever it likes
            return False

    def messages(self, conversation: Sequence[Message], preference: str, prompting: Prompting) -> list[Message]:
        """The messages of one view: system text, preference prefix and conversation.

        In ``user-turn`` placement the preference is a user turn of its own with an empty answer (the layout of the
        paper's authors); in ``system`` placement it follows the shared system text.
        """
        turns = list(conversation)
        system = prompting.system
        if preference and prompting.placement == "user-turn":
            turns = [Message("user", preference), Message("assistant", ""), *turns]
        elif preference:
            system = f"{system}\n\n{preference}" if system else preference
        if not system:
            return turns
        if self.has_system_role:
            return [Message("system", system), *turns]
        first, *rest = turns
        return [Message(first.role, f"{system}\n\n{first.content}"), *rest]

    def tokens(self, conversation: Sequence[Message], preference: str, prompting: Prompting) -> list[int]:
        """Prompt tokens of one view, ready for the assistant's answer."""
        messages, literals = self._protect(self.messages(conversation, preference, prompting))
        text = self._render(messages)
        tokens: list[int] = []
        for part, is_literal in _split(text, literals):
            tokens += self._model.tokenize(part, special=not is_literal)
        bos = self._model.bos
        if bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _protect(self, messages: list[Message]) -> tuple[list[Message], dict[str, str]]:
        """Put a mark in the place of each control token that a message spells; returns the marks and what they hide."""
        literals: dict[str, str] = {}
        contents = "".join(message.content for message in messages)

        def protect(text: str) -> str:
            tokenize = self._model.tokenize
            if tokenize(text, special=True) == tokenize(text, special=False):
                return text
            for spelling in self._control_spellings:
                if spelling in text:
                    mark = _unused_mark(contents, len(literals))
                    literals[mark] = spelling
                    text = text.replace(spelling, mark)
            return text

        return [Message(m.role, protect(m.content)) for m in messages], literals

    @cached_property
    def _control_spellings(self) -> list[str]:
        """The texts of all control tokens, longest first.  One pass over the vocabulary, made only when needed."""
        model = self._model
        spellings = {model.special_text(token) for token in range(model.n_vocab) if model.is_control(token)}
        return sorted(spellings - {""}, key=lambda text: (-len(text), text))


def _unused_mark(text: str, n: int) -> str:
    """A short private text that stands nowhere in the messages."""
    width = 1
    while (mark := "\ue000" * width + f"{n}\ue001") in text:
        width += 1
    return mark


def _split(text: str, literals: dict[str, str]) -> list[tuple[str, bool]]:
    """The text in pieces: (piece, False), or (what a mark hides, True)."""
    pieces = [(text, False)]
    for mark, spelling in literals.items():
        split: list[tuple[str, bool]] = []
        for piece, is_literal in pieces:
            if is_literal:
                split.append((piece, True))
                continue
            first, *rest = piece.split(mark)
            split.append((first, False))
            for part in rest:
                split += [(spelling, True), (part, False)]
        pieces = split
    return [(piece, is_literal) for piece, is_literal in pieces if piece]


Render = Callable[[list[Message]], str]


def _jinja(model: Model) -> Render | None:
    """The model's Jinja template behind llama-cpp-python's sandboxed formatter; None without a usable one."""
    if not model.chat_template:
        return None
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter = Jinja2ChatFormatter(model.chat_template, eos_token=model.eos_text, bos_token=model.bos_text)
    except Exception as error:  # whatever Jinja makes of a broken template
        log.warning("the model's chat template is broken (%s): using a plain dialogue instead", error)
        return None

    def render(messages: list[Message]) -> str:
        dicts: list[Any] = [{"role": m.role, "content": m.content} for m in messages]
        return str(formatter(messages=dicts).prompt)

    return render


_DIALOGUE_NAMES = {"user": "User", "assistant": "Assistant"}


def _dialogue(messages: list[Message]) -> str:
    """A plain written-out dialogue, for models without a chat template."""
    parts = [m.content if m.role == "system" else f"{_DIALOGUE_NAMES[m.role]}: {m.content}".rstrip() for m in messages]
    return "\n\n".join([*parts, "Assistant:"])
