"""OpenAI's protocol, from the body of a request to what an answer is written under."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from ..errors import PjlocalError, UsageError
from ..prompting.prompt import Message
from ..request import KEYS, Overrides, Request
from ..service import check_servable
from ..settings import FORMS
from .overrides import parse_overrides
from .terms import SHARED, field_of
from .unsupported import UNSUPPORTED, Wrong, check_fields, check_nested

MOST_CHOICES = 16  # answers that one request may want
MOST_STOPS = 16
_MOST_ITEMS = 1000  # of any other list: each bias, for one, is looked up for every view
_MOST_VALUES = 20_000  # in a body, over all its lists and objects

_WHERE_SETTINGS_GO = 'settings of pjlocal\'s go under one key: {{"pjlocal": {{"{0}": ...}}}}'


def _without_nulls(values: Any) -> Any:
    """An object without its fields that are null: every field may be, and then asks for nothing."""
    return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values


def _whole(number: Any) -> Any:
    """A number as it is, but an integer where it is written as 1.0."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Whole = Annotated[int, BeforeValidator(_whole)]
Object = Annotated[dict[str, Any], BeforeValidator(_without_nulls)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    _given = model_validator(mode="before")(_without_nulls)


class _Text(Strict):
    """A part of what was said.  Pictures and sounds are none."""

    type: Literal["text"]
    text: str


def _parts(said: Any) -> Any:
    """The parts of what was said: a text alone is one."""
    return [{"type": "text", "text": said}] if isinstance(said, str) else said


class _Said(Strict):
    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Text], BeforeValidator(_parts)] = []

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


class _Schema(Strict):
    model_config = ConfigDict(strict=True, extra="allow")

    name: str = ""
    description: str = ""
    strict: bool = True
    schema_: dict[str, Any] = Field(default={}, alias="schema")

    def check_others(self) -> None:
        """Refuse other fields: without ``schema``, a schema's own keywords would have any JSON written."""
        for name in self.model_extra or {}:
            field = f"response_format.json_schema.{name}"
            raise Wrong(f"unknown field {field}: the schema goes under response_format.json_schema.schema", field)


class _Form(Strict):
    """The form of the answer.

    schema_: as other servers take it, beside the type ``json_object``.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    def as_schema(self) -> str | None:
        takes = {"json_object": "schema", "json_schema": "json_schema"}.get(self.type)
        given = {"schema": self.schema_, "json_schema": self.json_schema, **(self.model_extra or {})}
        for name, value in given.items():
            if name != takes and value is not None:
                raise Wrong(f"response_format.{name} has no meaning beside the type {self.type}", "response_format")
        if self.type == "text":
            return None
        if self.type == "json_object":
            return json.dumps(self.schema_ or {"type": "object", "additionalProperties": True})
        if self.json_schema is None:
            raise Wrong("response_format.json_schema is missing", "response_format")
        self.json_schema.check_others()
        return json.dumps(self.json_schema.schema_)


class _InStream(Strict):
    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = False


def _listed(text: Any) -> Any:
    return [text] if isinstance(text, str) else text


class Body(Strict):
    """The fields that both kinds of request have; others are ignored or refused (see `unsupported`)."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    max_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], BeforeValidator(_without_nulls)] | None = None
    seed: Whole | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_listed), Field(max_length=MOST_STOPS)] = None
    n: Annotated[Whole | None, Field(ge=1, le=MOST_CHOICES)] = None
    stream: bool | None = None
    stream_options: _InStream | None = None
    pjlocal: Object | None = None

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
        own = dict(self.pjlocal or {})
        if type(own.pop("events", False)) is not bool:
            raise Wrong("pjlocal.events must be true or false", "pjlocal")
        values |= own
        return check_overrides(values, n_ctx)

    def _settings(self) -> dict[str, Any]:
        """What is set by the same name on both sides."""
        values = {name: value for name in SHARED if (value := getattr(self, name)) is not None}
        if self.logit_bias is not None:
            values["logit_bias"] = [f"{token}={bias}" for token, bias in self.logit_bias.items()]
        return values

    def check_others(self) -> None:
        """Refuse fields that would change the answer and are not supported.  Raises Wrong."""
        others = self.model_extra or {}
        for name in others:
            if name in KEYS and name not in UNSUPPORTED:
                raise Wrong(_WHERE_SETTINGS_GO.format(name), name)
            for kind, path in ((Chat, "/v1/chat/completions"), (Completion, "/v1/completions")):
                if name in kind.model_fields:
                    raise Wrong(f"{name} is a field of {path}, and not of this path: leave it out", name)
        check_fields(others, type(self).model_fields)
        if self.stream_options:
            check_nested("stream_options", self.stream_options.model_extra or {}, "stream_options")


class Chat(Body):
    """A conversation that wants an answer."""

    messages: Annotated[list[_Said], Field(min_length=1)]
    max_completion_tokens: Whole | None = None
    response_format: _Form | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole | None, Field(ge=0, le=20)] = None

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

    def check_others(self) -> None:
        super().check_others()
        for number, message in enumerate(self.messages):
            check_nested("messages", message.model_extra or {}, f"messages.{number}")

    def _settings(self) -> dict[str, Any]:
        values = super()._settings()
        if self.max_completion_tokens is not None:
            values["max_tokens"] = self.max_completion_tokens
        if self.response_format and (schema := self.response_format.as_schema()):
            if given := [name for name in FORMS if (self.pjlocal or {}).get(name) is not None]:
                raise Wrong(f"response_format and pjlocal.{given[0]} exclude each other: give one", "response_format")
            values["json_schema"] = schema
        return values


class Completion(Body):
    """A text that is to go on."""

    prompt: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1, max_length=1)]
    logprobs: Annotated[Whole | None, Field(ge=0, le=5)] = None

    @property
    def top(self) -> int | None:
        return self.logprobs

    def said(self) -> tuple[str, str]:
        return "", self.prompt[0]


def check_overrides(values: Mapping[str, Any], n_ctx: int) -> Overrides:
    """The settings that a body sets, for a context of so many tokens.

    Raises:
        UsageError: it cannot set them.
    """
    for key, value in values.items():
        most = MOST_STOPS if key == "stop" else _MOST_ITEMS
        if isinstance(value, list) and len(value) > most:
            raise Wrong(f"{field_of(key)} has {len(value):,} entries, and may have {most:,}", field_of(key))
    made = parse_overrides(values)
    if made.generation.get("max_tokens", 0) > n_ctx:
        raise Wrong(f"max_tokens must be at most {n_ctx}, for which the context has room", "max_tokens")
    return made


def parse_request(values: Mapping[str, Any]) -> Request:
    """A request that `Request.as_dict` wrote.

    Raises:
        UsageError: it is none, or has settings that no server takes.
    """
    try:
        request = Request().restore(values)
        named = [*request.views[0], *request.views[1], *request.generation.avoid]
        if any(text.strip().startswith("@") for text in named):
            raise UsageError("a request names no files of the server's: write the text out")
        check_servable(request.generation)
    except PjlocalError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"not a request of this version of pjlocal: {error!r}") from None
    return request


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


def validated(kind: type[_Model], body: bytes, most_values: int | None = _MOST_VALUES) -> _Model:
    """A request's body, of so many values at most.

    Raises:
        Wrong: it is no JSON, or not what such a request must say; names the field.
    """
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Wrong(f"the body must be JSON ({error})") from None
    if most_values is not None:
        _check_size(values, most_values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Wrong(_in_words(field or "the body", first), field or None) from None


def _check_size(body: Any, most: int) -> None:
    """Refuse a body of more values than a request needs.

    Nobody else is answered while they are looked at: 2,000,000 numbers in the place of messages took 12 seconds.
    """
    left = most
    containers = [body] if isinstance(body, dict | list) else []
    while containers:
        container = containers.pop()
        left -= len(container)
        if left < 0:
            raise Wrong(f"the body holds more than {most:,} values: send fewer messages or a smaller schema")
        inside = container.values() if isinstance(container, dict) else container
        containers += [value for value in inside if isinstance(value, dict | list)]


#: What a value of a field must be, by pydantic's type of the error.
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "literal_error": "{expected}",
    "less_than_equal": "at most {le}",
    "greater_than_equal": "at least {ge}",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "a string that is not empty",
}


def _in_words(field: str, error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "list_type" and field.endswith(("content", "prompt", "stop")):
        return f"{field} must be a string or a list"
    if kind in _MUST_BE:
        return f"{field} must be {_MUST_BE[kind].format(**error.get('ctx', {}))}"
    return f"{field} is missing" if kind == "missing" else f"{field}: {error['msg']}"
