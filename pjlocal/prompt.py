"""A conversation and a preference prefix to the prompt tokens of one view, through the model's own chat template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from .errors import ModelError
from .model import Model
from .settings import Prompting

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """``tokens`` are those that the model wrote an answer with.  They stand in later prompts as they are: what the
    text would be split into may differ from them, and then a KV cache that holds them could not be used again."""

    role: Role
    content: str
    tokens: tuple[int, ...] = ()


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
    def has_think_switch(self) -> bool:
        """Whether the template can be asked to have the model think aloud, or not to."""
        return self._render is not _dialogue and any(name in (self._model.chat_template or "") for name in _THINK_NAMES)

    @cached_property
    def has_system_role(self) -> bool:
        """Whether a system message reaches the prompt."""
        try:
            return _PROBE in self._render([Message("system", _PROBE), Message("user", "hello")], {})
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
        return [replace(first, content=f"{system}\n\n{first.content}"), *rest]

    def tokens(self, conversation: Sequence[Message], preference: str, prompting: Prompting) -> list[int]:
        """Prompt tokens of one view, ready for the assistant's answer.

        Raises:
            ModelError: the template refuses the conversation.
        """
        raw = self.messages(conversation, preference, prompting)
        marks = _Marks(raw)
        messages = self._protect(raw, marks)
        text = self._written(messages, prompting)
        answers = _Marks(raw, start=len(marks.hidden))
        marked = self._written([self._keep_tokens(m, answers) for m in messages], prompting)
        if answers.reveal(marked) == text:  # the template takes the answers as they are
            text = marked
            marks.hidden |= answers.hidden
        tokens: list[int] = []
        for piece in marks.split(text):
            tokens += piece.tokens if isinstance(piece, _Hidden) else self._model.tokenize(piece, special=True)
        bos = self._model.bos
        if bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _written(self, messages: list[Message], prompting: Prompting) -> str:
        variables = {} if prompting.think == "auto" else dict.fromkeys(_THINK_NAMES, prompting.think == "on")
        try:
            return self._render(messages, variables)
        except Exception as error:  # a template refuses by raising whatever it likes
            raise ModelError(f"the model's chat template refuses the conversation: {error}") from None

    def _protect(self, messages: list[Message], marks: _Marks) -> list[Message]:
        """Put a mark in the place of each control token that a message spells."""

        def protect(text: str) -> str:
            tokenize = self._model.tokenize
            if tokenize(text, special=True) == tokenize(text, special=False):
                return text
            for spelling in self._control_spellings:
                if spelling in text:
                    text = text.replace(spelling, marks.hide(spelling, tokenize(spelling, special=False)))
            return text

        return [replace(m, content=protect(m.content)) for m in messages]

    def _keep_tokens(self, message: Message, marks: _Marks) -> Message:
        """Put a mark in the place of an answer whose tokens are known, but for white space around it, which templates
        like to trim."""
        if not message.tokens:
            return message
        pieces = [self._model.piece(token) for token in message.tokens]
        spoken = [i for i, piece in enumerate(pieces) if piece.strip()]
        content = message.content
        if not spoken:
            return message
        first, last = spoken[0], spoken[-1] + 1
        if b"".join(pieces[first:last]) != content.strip().encode():
            return message
        before, _, after = content.partition(content.strip())
        mark = marks.hide(content.strip(), list(message.tokens[first:last]))
        return replace(message, content=f"{before}{mark}{after}")

    @cached_property
    def _control_spellings(self) -> list[str]:
        """The texts of all control tokens, longest first.  One pass over the vocabulary, made only when needed."""
        model = self._model
        spellings = {model.special_text(token) for token in range(model.n_vocab) if model.is_control(token)}
        return sorted(spellings - {""}, key=lambda text: (-len(text), text))


@dataclass(frozen=True)
class _Hidden:
    """What a mark stands for: a text, and the tokens that it must become."""

    text: str
    tokens: list[int]


class _Marks:
    """Short private texts that stand in messages for what the template must not touch, nor the tokenizer see."""

    def __init__(self, messages: Sequence[Message], start: int = 0) -> None:
        contents = "".join(message.content for message in messages)
        self.hidden: dict[str, _Hidden] = {}
        self._start = start
        self._open = "\ue000"
        while self._open in contents:
            self._open += "\ue000"

    def hide(self, text: str, tokens: list[int]) -> str:
        mark = f"{self._open}{self._start + len(self.hidden)}\ue001"
        self.hidden[mark] = _Hidden(text, tokens)
        return mark

    def reveal(self, text: str) -> str:
        for mark, hidden in self.hidden.items():
            text = text.replace(mark, hidden.text)
        return text

    def split(self, text: str) -> list[str | _Hidden]:
        """The text in pieces, with what is hidden in the place of its marks."""
        pieces: list[str | _Hidden] = [text]
        for mark, hidden in self.hidden.items():
            split: list[str | _Hidden] = []
            for piece in pieces:
                if isinstance(piece, _Hidden):
                    split.append(piece)
                    continue
                first, *rest = piece.split(mark)
                split.append(first)
                for part in rest:
                    split += [hidden, part]
            pieces = split
        return [piece for piece in pieces if piece]


#: What templates call the switch for thinking aloud: Qwen3, SmolLM3 and their kin the first, Granite and DeepSeek V3.1
#: the second.
_THINK_NAMES = ("enable_thinking", "thinking")

Render = Callable[[list[Message], Mapping[str, Any]], str]


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

    def render(messages: list[Message], variables: Mapping[str, Any]) -> str:
        dicts: list[Any] = [{"role": m.role, "content": m.content} for m in messages]
        return str(formatter(messages=dicts, **variables).prompt)

    return render


_DIALOGUE_NAMES = {"user": "User", "assistant": "Assistant"}


def _dialogue(messages: list[Message], variables: Mapping[str, Any]) -> str:
    """A plain written-out dialogue, for models without a chat template."""
    parts = [m.content if m.role == "system" else f"{_DIALOGUE_NAMES[m.role]}: {m.content}".rstrip() for m in messages]
    return "\n\n".join([*parts, "Assistant:"])
