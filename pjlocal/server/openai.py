"""OpenAI's protocol: the models that a request may name, its body, and the JSON of its answers.

To be held beside the reference of https://platform.openai.com/docs/api-reference: chat completions, and completions.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BeforeValidator, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from ..engine.log_probs import LogProbs
from ..errors import did_you_mean
from ..events import Result
from ..prompting.preferences import presets
from ..prompting.prompt import Message
from ..request import KEYS, Overrides
from ..service import Done, Token
from ..settings import FORMS
from .auth import described
from .bodies import MOST_STOPS, SHARED, Object, Strict, Whole, Wrong, check_overrides, validated, without_nulls
from .streaming import Answers, Choice, as_event, as_stream
from .unsupported import UNSUPPORTED, check_fields, check_nested

MOST_CHOICES = 16  # answers that one request may want

_WHERE_SETTINGS_GO = 'settings of pjlocal\'s go under one key: {{"pjlocal": {{"{0}": ...}}}}'
_MOST_NAME = 1000  # characters of a model's name, presets and all

_Written = Sequence[Token] | Done


# The models.


class Names:
    """The names that a request may give as its model: the model itself, a persona, or presets (``vivid+creative``).

    Args:
        model: the name of the model that answers.
        also: other names that it goes by.
    """

    def __init__(self, model: str, also: Collection[str], personas: Mapping[str, Overrides]) -> None:
        self.model = model
        self._names = {name.lower() for name in (model, *also) if name}
        self._personas = personas

    def all(self) -> list[str]:
        return [self.model, *self._personas, *(f"{self.model}:{name}" for name in self._personas)]

    def find(self, name: str | None) -> Overrides | None:
        """The settings that a name stands for; None for an unknown name.  No name and the model's own set nothing."""
        if name and len(name) > _MOST_NAME:
            return None
        if not name or name.lower() in self._names:
            return Overrides()
        before, colon, last = name.rpartition(":")
        if colon and before.lower() not in self._names:
            return None
        chosen = last.strip().lower()
        if chosen in self._personas:
            return self._personas[chosen]
        preferences = chosen.split("+")
        return Overrides(prefer=tuple(preferences)) if all(name in presets() for name in preferences) else None

    def unknown(self, name: str) -> str:
        """An error message for an unknown name."""
        if len(name) > _MOST_NAME:
            return f"a model's name has at most {_MOST_NAME} characters, and this has {len(name):,}"
        near = did_you_mean(name, self.all()) or f"there are {', '.join(self.all())}"
        return f"no model {name!r}: {near}"


# The body of a request.


class _Text(Strict):
    """A part of a message.  Pictures and sounds are none."""

    type: Literal["text"]
    text: str


def _parts(content: Any) -> Any:
    """The parts of a message: a text alone is one."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Message(Strict):
    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Text], BeforeValidator(_parts)] = Field(default=[])
    prefix: bool | None = None
    partial: bool | None = None

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
    logit_bias: Annotated[dict[str, float], BeforeValidator(without_nulls)] | None = None
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

    def system_and_prompt(self) -> tuple[str, Sequence[Message] | str]:
        """The system text, and the conversation, or the text to go on with."""
        raise NotImplementedError

    def overrides(self, n_ctx: int) -> Overrides:
        """The settings that the request sets, for a context of so many tokens.

        Raises:
            UsageError: it cannot set them.
        """
        values: dict[str, Any] = self._settings()
        own = dict(self.pjlocal or {})
        if type(own.pop("events", False)) is not bool:
            raise Wrong("pjlocal.events must be true or false", "pjlocal")
        values |= own
        return check_overrides(values, n_ctx)

    def _settings(self) -> dict[str, Any]:
        """The settings that have the same name on both sides."""
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
                if name in kind.model_fields and name not in UNSUPPORTED:
                    raise Wrong(f"{name} is a field of {path}, and not of this path: leave it out", name)
        check_fields(others, type(self).model_fields)
        if self.stream_options:
            check_nested("stream_options", self.stream_options.model_extra or {}, "stream_options")


class Chat(Body):
    """A conversation that wants an answer."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: Whole | None = None
    response_format: _Form | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole | None, Field(ge=0, le=20)] = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def top(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise Wrong("top_logprobs needs logprobs: true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def system_and_prompt(self) -> tuple[str, Sequence[Message]]:
        """The system texts, wherever they stand, and the other messages.  An answer at their end is continued."""
        system = [message.text for message in self.messages if message.role in ("system", "developer")]
        turns = [Message(m.role, m.text) for m in self.messages if m.role == "user" or m.role == "assistant"]
        if all(turn.role != "user" for turn in turns):
            raise Wrong("messages must have one of the user's", "messages")
        if turns[-1].role == "user" and (self.continue_final_message or self.add_generation_prompt is False):
            field = "continue_final_message" if self.continue_final_message else "add_generation_prompt"
            raise Wrong(f"{field} continues an answer: the last message must be the assistant's", field)
        return "\n\n".join(system), turns

    def check_others(self) -> None:
        super().check_others()
        for number, message in enumerate(self.messages):
            check_nested("messages", message.model_extra or {}, f"messages.{number}")
            begins = message.role == "assistant" and number == len(self.messages) - 1
            for name in ("prefix", "partial"):
                if getattr(message, name) and not begins:
                    field = f"messages.{number}.{name}"
                    raise Wrong(f"{field} is for an assistant's message at the end, which is continued", field)

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

    def system_and_prompt(self) -> tuple[str, str]:
        return "", self.prompt[0]


_Body = TypeVar("_Body", bound=Body)


def parse(kind: type[_Body], body: bytes) -> _Body:
    """The body of a request for an answer.

    Raises:
        Wrong: it is no JSON, or not what such a request may say; names the field.
    """
    made = validated(kind, body)
    made.check_others()
    return made


# The answers.


@dataclass(frozen=True)
class Reply:
    """The fields that all replies to one request share.

    chat: whether a conversation is answered; else a text goes on.
    with_logprobs, with_events: what rides along.
    """

    model: str
    chat: bool
    with_logprobs: bool
    with_events: bool
    id: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answers at once."""
        listed = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return self._head(stream=False) | {"choices": listed, "usage": usage(choices)}

    def begin(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer, which says who speaks."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def chunk(self, index: int, tokens: Sequence[Token]) -> dict[str, Any]:
        """The chunk of an answer's new tokens."""
        text = text_of(tokens)
        fields: dict[str, Any] = {"delta": {"content": text}} if self.chat else {"text": text}
        if self.with_logprobs:
            fields["logprobs"] = self._logprobs(tokens)
        if self.with_events:
            fields["pjlocal"] = {"events": _events(tokens)}
        return self._chunk(index, fields)

    def end(self, index: int, result: Result) -> dict[str, Any]:
        """The last chunk of an answer."""
        fields: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        if self.with_events:
            fields["pjlocal"] = _summary(result)
        return self._chunk(index, fields, result.finish_reason)

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk behind all answers that counts their tokens."""
        return self._head(stream=True) | {"choices": [], "usage": usage(choices)}

    def _head(self, stream: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if stream else "chat.completion") if self.chat else "text_completion"
        name = f"chatcmpl-{self.id}" if self.chat else f"cmpl-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, fields: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "logprobs": None, **fields, "finish_reason": finish_reason}
        return self._head(stream=True) | {"choices": [choice]}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        assert choice.done
        result = choice.done.result
        fields: dict[str, Any] = (
            {"message": {"role": "assistant", "content": choice.text}} if self.chat else {"text": choice.text}
        )
        fields["logprobs"] = self._logprobs(choice.tokens) if self.with_logprobs else None
        if self.with_events:
            fields["pjlocal"] = {"events": _events(choice.tokens)} | _summary(result)
        return {"index": index, **fields, "finish_reason": result.finish_reason}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        log_probs = [token.log_probs for token in tokens if token.log_probs]
        if self.chat:
            return {"content": [_logprob(one) for one in log_probs]}
        return {
            "tokens": [_readable(one.piece) for one in log_probs],
            "token_logprobs": [one.log_prob for one in log_probs],
            "top_logprobs": [{_readable(piece): log for piece, log in one.top} for one in log_probs],
        }


def usage(choices: Sequence[Choice]) -> dict[str, Any]:
    """Tokens of a request: of its prompt those of the longest view, which is what must fit into the context."""
    done = [choice.done for choice in choices if choice.done]
    prompt = max(max(one.result.statistics.prompt_tokens, default=0) for one in done)
    completion = sum(one.result.statistics.completion_tokens for one in done)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def text_of(tokens: Sequence[Token]) -> str:
    return "".join(token.event.text for token in tokens)


def _events(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [token.event.as_dict() | {"writer": token.event.writer} for token in tokens]


def _summary(result: Result) -> dict[str, Any]:
    """The fields of ``pjlocal run --json`` about an answer, without its text."""
    report = result.as_dict()
    return {key: report[key] for key in report if key not in ("text", "model", "finish_reason")}


def _readable(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _one(piece: bytes, log_prob: float) -> dict[str, Any]:
    return {"token": _readable(piece), "logprob": log_prob, "bytes": list(piece)}


def _logprob(of: LogProbs) -> dict[str, Any]:
    return _one(of.piece, of.log_prob) | {"top_logprobs": [_one(*other) for other in of.top]}


async def whole(answers: Answers, reply: Reply) -> Response:
    answers.submit()
    async for _ in answers.news():
        pass
    return JSONResponse(reply.whole(answers.choices))


async def streamed(answers: Answers, reply: Reply, with_usage: bool) -> Response:
    """A stream of events, once the first token is there: what goes wrong before that has a status of its own."""
    answers.submit()
    news = answers.news()
    first = await anext(news)
    return as_stream(chunks(answers, first, news, reply, with_usage))


async def chunks(
    answers: Answers,
    first: tuple[int, _Written],
    news: AsyncIterator[tuple[int, _Written]],
    reply: Reply,
    with_usage: bool,
) -> AsyncIterator[bytes]:
    """The events of a stream, from the first news on."""
    try:
        if reply.chat:
            for index, _ in enumerate(answers.choices):
                yield as_event(reply.begin(index))
        yield as_event(_chunk(reply, *first))
        async for item in news:
            yield as_event(_chunk(reply, *item))
        if with_usage:
            yield as_event(reply.usage(answers.choices))
        yield b"data: [DONE]\n\n"
    except Exception as error:  # in the middle of the stream it has no status any more
        yield as_event(described(error)[1])


def _chunk(reply: Reply, index: int, news: _Written) -> dict[str, Any]:
    if isinstance(news, Done):
        return reply.end(index, news.result)
    return reply.chunk(index, news)
