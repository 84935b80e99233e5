"""A conversation and a preference prefix to the prompt tokens of one view, through the model's own chat template."""

from __future__ import annotations

import codecs
import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

from ..engine.model import Model
from ..errors import ModelError
from ..settings import Prompting
from .thinking import MARKS

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
        self._piece = cache(model.piece)
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
        messages = self.messages(conversation, preference, prompting)
        written = self._written(messages, prompting)
        if messages[-1].content.strip() not in written:
            log.warning("the model's chat template leaves the message out: the model will not see it")
        marks = _Marks(messages)
        for trimmed in (False, True):
            text = self._written([self._keep_tokens(m, marks, trimmed) for m in messages], prompting)
            if marks.reveal(text) == written:  # the template takes the answers as they are
                break
        else:
            text = self._written([self._protect(m, marks) for m in messages], prompting)
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

    def _protect(self, message: Message, marks: _Marks) -> Message:
        """Put a mark in the place of each control token that a message spells."""
        text, tokenize = message.content, self._model.tokenize
        if tokenize(text, special=True) == tokenize(text, special=False):
            return message
        for spelling in self._control_spellings:
            if spelling in text:
                text = text.replace(spelling, marks.hide(spelling, tokenize(spelling, special=False)))
        return replace(message, content=text)

    def _keep_tokens(self, message: Message, marks: _Marks, trimmed: bool) -> Message:
        """Put a mark in the place of what an answer's tokens spell of it: all, where no stop string has cut it.

        ``trimmed`` leaves to the template what many like to drop: thinking, and white space around the answer.
        """
        content, ends = message.content, self._ends(message)
        begin, end = 0, len(content)
        if trimmed:
            begin = max((content.rfind(mark) + len(mark) for mark in MARKS.values() if mark in content), default=0)
            begin = len(content) - len(content[begin:].lstrip())
            end = len(content.rstrip())
        first = bisect_left(ends, begin)
        last = bisect_left(ends, ends[bisect_right(ends, end) - 1])  # behind it at most half a character
        if first >= last:
            return self._protect(message, marks)
        mark = marks.hide(content[ends[first] : ends[last]], list(message.tokens[first:last]))
        rest = self._protect(replace(message, content=content[ends[last] :]), marks).content
        return replace(message, content=f"{content[: ends[first]]}{mark}{rest}")

    def _ends(self, message: Message) -> list[int]:
        """Where each token's text ends in the message, a zero before them; as far as the tokens spell the message.

        A control token spells nothing: one in the middle of an answer must not come into the prompt.  Nor does a token
        of another model that the conversation was begun with, unless it spells the same here.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        ends = [0]
        for token in message.tokens:
            if token >= self._model.n_vocab:
                break
            piece = self._piece(token)
            text = decoder.decode(piece)
            if not piece or not message.content.startswith(text, ends[-1]):
                break
            ends.append(ends[-1] + len(text))
        return ends

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

    def __init__(self, messages: Sequence[Message]) -> None:
        contents = "".join(message.content for message in messages)
        self._hidden: dict[str, _Hidden] = {}
        self._open = "\ue000"
        while self._open in contents:
            self._open += "\ue000"
        self._mark = re.compile(f"({self._open}[0-9]+\ue001)")

    def hide(self, text: str, tokens: list[int]) -> str:
        mark = f"{self._open}{len(self._hidden)}\ue001"
        self._hidden[mark] = _Hidden(text, tokens)
        return mark

    def reveal(self, text: str) -> str:
        return self._mark.sub(lambda match: self._hidden[match[0]].text, text)

    def split(self, text: str) -> list[str | _Hidden]:
        """The text in pieces, with what is hidden in the place of its marks."""
        return [self._hidden.get(piece, piece) for piece in self._mark.split(text) if piece]


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
    return "\n\n".join([*map(_speech, messages), "Assistant:"])


def _speech(message: Message) -> str:
    if message.role == "system":
        return message.content
    space = "" if message.content[:1].isspace() else " "  # a model writes its own behind the colon
    return f"{_DIALOGUE_NAMES[message.role]}:{space}{message.content}".rstrip()
