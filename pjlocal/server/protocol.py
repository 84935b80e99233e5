"""OpenAI's protocol, from the body of a request to what an answer is written under."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import UsageError
from ..prompting.prompt import Message
from ..request import Overrides
from .wish import KEYS, asked

MOST_CHOICES = 16  # answers that one request may want
MOST_STOPS = 16

#: Fields that would change the answer and are not to be had, with the values that ask for nothing.
_NOT_HAD: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
_WHERE_SETTINGS_GO = 'settings of pjlocal\'s go under one key: {{"pjlocal": {{"{0}": ...}}}}'


class Wrong(UsageError):
    """A request that cannot be understood, and the field that is wrong."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Text(_Strict):
    """A part of what was said.  Pictures and sounds are none."""

    type: Literal["text"]
    text: str


def _parts(said: Any) -> Any:
    """The parts of what was said: a text alone is one."""
    if said is None:
        return []
    return [{"type": "text", "text": said}] if isinstance(said, str) else said


class _Said(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Text], BeforeValidator(_parts)] = []

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


class _Schema(_Strict):
    name: str = ""
    schema_: dict[str, Any] = Field(default={}, alias="schema")


class _Form(_Strict):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    def as_schema(self) -> str | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return json.dumps({"type": "object", "additionalProperties": True})
        if self.json_schema is None:
            raise Wrong("response_format.json_schema is missing", "response_format")
        return json.dumps(self.json_schema.schema_)


class _InStream(_Strict):
    include_usage: bool = False


def _listed(text: Any) -> Any:
    return [text] if isinstance(text, str) else text


class Body(_Strict):
    """What both kinds of request may say; what else OpenAI's clients may send changes nothing, or is refused."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_listed), Field(max_length=MOST_STOPS)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    stream: bool | None = None
    stream_options: _InStream | None = None
    pjlocal: dict[str, Any] | None = None

    @property
    def with_events(self) -> bool:
        """Whether token events ride along."""
        return (self.pjlocal or {}).get("events") is True

    @property
    def top(self) -> int | None:
        """How many alternatives are wanted for each token; None where no probabilities are."""
        raise NotImplementedError

    def said(self) -> tuple[str, Sequence[Message] | str]:
        """The system text, and the conversation, or the text to go on with."""
        raise NotImplementedError

    def config(self, n_ctx: int) -> Overrides:
        """What the request sets, for a context of so many tokens.

        Raises:
            UsageError: what it cannot.
        """
        values: dict[str, Any] = self._settings()
        if self.logit_bias:
            values["logit_bias"] = [f"{token}={bias}" for token, bias in self.logit_bias.items()]
        own = dict(self.pjlocal or {})
        if type(own.pop("events", False)) is not bool:
            raise Wrong("pjlocal.events must be true or false", "pjlocal")
        made = asked(values | own)
        if made.generation.get("max_tokens", 0) > n_ctx:
            raise Wrong(f"max_tokens must be at most {n_ctx}, for which the context has room", "max_tokens")
        return made

    def _settings(self) -> dict[str, Any]:
        """What is set by the same name on both sides."""
        names = ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def check_others(self) -> None:
        """Refuse what would change the answer and is not to be had."""
        for name, value in (self.model_extra or {}).items():
            if value is None:
                continue
            if name in _NOT_HAD and value not in _NOT_HAD[name]:
                raise Wrong(f"{name} is not to be had here: leave it out", name)
            if name in KEYS:
                raise Wrong(_WHERE_SETTINGS_GO.format(name), name)


class Chat(Body):
    """A conversation that wants an answer."""

    messages: Annotated[list[_Said], Field(min_length=1)]
    max_completion_tokens: int | None = None
    response_format: _Form | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None

    @property
    def top(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise Wrong("top_logprobs needs logprobs: true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def said(self) -> tuple[str, Sequence[Message]]:
        """System texts stand at the head, wherever they were said."""
        system = [message.text for message in self.messages if message.role in ("system", "developer")]
        turns = [Message(m.role, m.text) for m in self.messages if m.role == "user" or m.role == "assistant"]
        if not turns or turns[-1].role != "user":
            raise Wrong("the last message must be the user's", "messages")
        return "\n\n".join(system), turns

    def _settings(self) -> dict[str, Any]:
        values = super()._settings()
        if self.max_completion_tokens is not None:
            values["max_tokens"] = self.max_completion_tokens
        if self.response_format and (schema := self.response_format.as_schema()):
            values["json_schema"] = schema
        return values


class Completion(Body):
    """A text that is to go on."""

    prompt: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1, max_length=1)]
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None

    @property
    def top(self) -> int | None:
        return self.logprobs

    def said(self) -> tuple[str, str]:
        return "", self.prompt[0]


class Question(Body):
    """The next turn of a saved chat, with its token events.

    session: None begins a chat.
    after: the last turn of it that was seen, 0 where there is none; what was not seen is not gone on with.
    replacing: the turn that it is asked again, or instead, of.
    keep: whether the turn is saved; else it is only looked at.
    """

    question: Annotated[str, Field(min_length=1)]
    session: int | None = None
    after: int | None = None
    replacing: int | None = None
    keep: bool = True


class Naming(_Strict):
    """Another title for a saved chat."""

    title: str


_Body = TypeVar("_Body", bound=Body)
_Model = TypeVar("_Model", bound=BaseModel)


def parse(kind: type[_Body], body: bytes) -> _Body:
    """The body of a request for an answer.

    Raises:
        Wrong: it is no JSON, or not what such a request may say; names the field.
    """
    made = validated(kind, body)
    made.check_others()
    return made


def validated(kind: type[_Model], body: bytes) -> _Model:
    """A request's body.

    Raises:
        Wrong: it is no JSON, or not what such a request must say; names the field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Wrong(f"the body must be JSON ({first['msg']})") from None
        field = ".".join(map(str, first["loc"]))
        raise Wrong(f"{field or 'the body'}: {first['msg']}", field or None) from None
