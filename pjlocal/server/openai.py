"""OpenAI's protocol: the models that a request may name, the body of a request, and the JSON of the replies.

Compare with the reference: https://platform.openai.com/docs/api-reference: chat completions, and completions.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from ..engine.log_probs import LogProbs
from ..errors import UsageError, did_you_mean
from ..events import Result
from ..prompting.preferences import check_strength, preset_hint, presets, without_strength
from ..prompting.prompt import Message
from ..prompting.tools import make_call
from ..request import KEYS, Overrides
from ..textfile import fold
from ..visible import one_line
from .auth import described
from .bodies import (
    MOST_STOPS,
    ONLY_TEXT,
    Object,
    Strict,
    Whole,
    Wrong,
    check_overrides,
    in_fields,
    in_sent_fields,
    split_persona,
    without_nulls,
)
from .jobs import Raw, Token
from .replies import JsonResponse, as_event
from .streaming import ALIVE, Added, Answers, Choice, as_events, as_stream
from .synonyms import ANY_OBJECT, SYNONYMS, as_schema, flat, merged, settings_of
from .tools import Call, Calling, Offering, Part, Reader
from .unsupported import IN_MESSAGES, UNSUPPORTED, check_fields, check_nested

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_CHOICES = 16  # answers to one request
_MOST_TOP = 100  # alternatives for each token
#: The response header for warnings about settings without effect.
WARNING = "X-Pjlocal-Warning"
_MOST_NAME = 1000  # characters of a model's name, including presets


# Models.


class Names:
    """The names that a request may give as its model: the model itself, a persona, or presets (``vivid:1.5+creative``).

    Args:
        model: the name of the model that answers.
        also: other names of the model.
    """

    def __init__(self, model: str, also: Collection[str], personas: Mapping[str, Overrides]) -> None:
        self.model = model
        self._names = {fold(name) for name in (model, *also) if name}
        self._personas = personas

    def all(self) -> list[str]:
        return [self.model, *self._personas, *(f"{self.model}:{name}" for name in self._personas)]

    def find(self, name: str | None) -> Overrides | None:
        """The settings of a model's name; None for an unknown name.  An empty name and the model's own have none."""
        if name and len(name) > _MOST_NAME:
            return None
        if not name or fold(name) in self._names:
            return Overrides()
        chosen = self._choice(name)
        if chosen in self._personas:
            return self._personas[chosen]
        preferences = chosen.split("+")
        for each in preferences:
            check_strength(each, presets())
        is_known = all(without_strength(each) in presets() for each in preferences)
        return Overrides(prefer=tuple(preferences)) if is_known else None

    def _choice(self, name: str) -> str:
        """The part of a name after the model's own, which chooses a persona or presets."""
        folded = fold(name.strip())
        own = max((f"{own}:" for own in self._names if folded.startswith(f"{own}:")), key=len, default="")
        return folded.removeprefix(own)

    def unknown(self, name: str) -> str:
        """An error message for an unknown name."""
        if len(name) > _MOST_NAME:
            return f"a model's name must have at most {_MOST_NAME} characters (not {len(name):,})"
        choice = self._choice(name)
        parts = [without_strength(part) for part in choice.split("+")]
        unknown = [part for part in parts if part not in presets()]
        if persona := next((part for part in unknown if part in self._personas), None):
            return f"no model {name!r}: {persona!r} is a persona, and only presets are joined by + and have strengths"
        if len(parts) > 1 and "" in parts:
            return f"no model {name!r}: a preset is missing before or after +"
        if len(unknown) < len(parts):
            return f"no model {name!r}: there is no preset {unknown[0]!r} ({preset_hint(unknown[0], presets())})"
        own = "" if choice == fold(name) else f"{self.model}:"
        similar = did_you_mean(choice, [*presets(), *self._personas, *(() if own else self._names)], 1)
        known = f"known are {', '.join(self.all())}, and presets joined by +"
        return f"no model {name!r}: {similar.replace('mean ', f'mean {own}', 1) or known}"


# The body of a request.


def _only_text(kind: Any) -> Any:
    if kind != "text":
        raise PydanticCustomError("not_text", ONLY_TEXT)
    return kind


class _Text(Strict):
    """A text part of a message.  Images, sounds and files are refused."""

    type: Annotated[str, BeforeValidator(_only_text)]
    text: str


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Message(Strict, extra="allow"):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[_Text], BeforeValidator(_parts)] = Field(default=[])
    reasoning_content: str = ""
    reasoning: str = ""
    tool_calls: list[Call] = Field(default=[])
    tool_call_id: str = ""
    name: str = ""
    prefix: bool | None = None
    partial: bool | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


def _as_messages(messages: Iterable[_Message]) -> list[Message]:
    """Messages for the chat template.  Results get the function names of their calls."""
    names: dict[str, str] = {}
    converted = []
    for message in messages:
        others: dict[str, Any] = {}
        if message.role == "assistant" and message.tool_calls:
            names |= {call.id: call.function.name for call in message.tool_calls}
            others = {"tool_calls": [call.as_dict() for call in message.tool_calls]}
        elif message.role == "tool":
            named = message.name or names.get(message.tool_call_id, "")
            others = {"tool_call_id": message.tool_call_id, **({"name": named} if named else {})}
        thinking = message.reasoning_content or message.reasoning
        converted.append(Message(message.role, message.text, others=others, thinking=thinking))  # type: ignore[arg-type]
    return converted


class _Schema(Strict, extra="allow"):
    name: str = ""
    description: str = ""
    strict: bool = True
    schema_: dict[str, Any] = Field(default={}, alias="schema")

    def check_others(self) -> None:
        """Refuse other fields.  Keywords of a schema that are outside ``schema`` would have no effect."""
        for name in self.model_extra or {}:
            field = f"response_format.json_schema.{name}"
            raise Wrong(f"unknown field {field}: the schema goes under response_format.json_schema.schema", field)


class _Form(Strict, extra="allow"):
    """The format of the answer.

    schema_: the schema of other servers, with the type ``json_object``.
    grammar, pattern: the fields of Fireworks' type ``grammar`` and Together's ``regex``.
    """

    type: Literal["text", "json_object", "json_schema", "grammar", "regex"]
    json_schema: _Schema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    grammar: str | None = None
    pattern: str | None = None

    def settings(self) -> dict[str, Any]:
        """The setting for this format."""
        takes = {"json_object": "schema", "json_schema": "json_schema", "grammar": "grammar", "regex": "pattern"}
        own = takes.get(self.type, "")
        given: dict[str, Any] = {name: getattr(self, name) for name in ("json_schema", "grammar", "pattern")}
        given |= {"schema": self.schema_, **(self.model_extra or {})}
        for name, value in given.items():
            if name != own and value is not None:
                raise Wrong(f"response_format.{name} has no effect with the type {self.type}", "response_format")
        if self.type == "text":
            return {}
        if self.type == "json_object":
            return {"json_schema": as_schema(self.schema_ or ANY_OBJECT)}
        if not given[own]:
            raise Wrong(f"response_format.{own} is missing", "response_format")
        if self.json_schema:
            self.json_schema.check_others()
            return {"json_schema": json.dumps(self.json_schema.schema_)}
        return {"regex": self.pattern} if self.pattern else dict(SYNONYMS["grammar"](self.grammar))


class _InStream(Strict):
    include_usage: bool = False


def _listed(text: Any) -> Any:
    return list(filter(None, [text])) if isinstance(text, str) else text


def _biases(biases: Any) -> Any:
    """Convert biases to a dict by token.  As in llama.cpp, it may be a list of pairs; false forbids a token."""
    if isinstance(biases, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in biases):
        biases = {str(token): -math.inf if bias is False else bias for token, bias in biases}
    return without_nulls(biases)


class Body(Strict, extra="allow"):
    """The fields of both kinds of request.  For fields of other servers, see `synonyms` and `unsupported`."""

    model: str | None = None
    max_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], BeforeValidator(_biases)] | None = None
    seed: Whole | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_listed), Field(max_length=MOST_STOPS)] = None
    n: Annotated[Whole | None, Field(ge=1, le=MOST_CHOICES)] = None
    best_of: Whole | None = None
    response_format: _Form | None = None
    stream: bool | None = None
    stream_options: _InStream | None = None
    include_reasoning: bool | None = None
    pjlocal: Object | None = None

    @property
    def with_events(self) -> bool:
        """True if the response includes token events."""
        return (self.pjlocal or {}).get("events") is True

    @property
    def with_thinking(self) -> bool:
        """True if the response includes the thinking."""
        excludes = flat(self.model_extra or {}).get("reasoning.exclude") is True
        return self.include_reasoning is not False and not excludes

    @property
    def top(self) -> int | None:
        """The number of alternatives for each token; None if no log-probabilities are requested."""
        raise NotImplementedError

    @property
    def echoes(self) -> Sequence[str]:
        """The prompts to repeat before the answers; empty if none are repeated."""
        return ()

    def system_and_prompts(self) -> tuple[str, Sequence[Sequence[Message] | Raw]]:
        """The system text, and the conversation or the texts to continue."""
        raise NotImplementedError

    def persona(self, n_ctx: int) -> Overrides:
        """The settings in the table at the start of the system message.  Raises the errors of `overrides`."""
        return Overrides()

    def overrides(self, n_ctx: int) -> Overrides:
        """The settings of the request, for a context of ``n_ctx`` tokens.

        Raises:
            UsageError: a setting is unknown or not valid.
        """
        values, fields = self.settings()
        try:
            return check_overrides(values, n_ctx)
        except UsageError as error:
            raise in_sent_fields(error, fields) from None

    def settings(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings of the request, unchecked, and the field that sets each.  Raises Wrong."""
        own = dict(self.pjlocal or {})
        if type(own.pop("events", False)) is not bool:
            raise Wrong("pjlocal.events must be true or false", "pjlocal")
        given = [*settings_of(self._fields())]
        if self.response_format:
            given += [("response_format", *item) for item in self.response_format.settings().items()]
        given += [(f"pjlocal.{name}", name, value) for name, value in own.items()]
        return merged(given)

    def _fields(self) -> dict[str, Any]:
        known = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return flat(known | (self.model_extra or {}))

    @model_validator(mode="after")
    def _check_others(self) -> Self:
        """Refuse unsupported fields that would change the answer.  Raises Wrong."""
        others = flat(self.model_extra or {})
        meant = {*UNSUPPORTED, *SYNONYMS}
        for name in [name for name, value in others.items() if value is not False and name not in meant]:
            for kind, path in ((Chat, "/v1/chat/completions"), (Completion, "/v1/completions")):
                if name in kind.model_fields:
                    raise Wrong(f"{name} is a field of {path}, not of this path: leave it out", name)
        known = {*type(self).model_fields, *SYNONYMS, *KEYS}
        check_fields({name: value for name, value in others.items() if name not in known}, known)
        if self.best_of not in (None, 1, self.n):
            raise Wrong("best_of must equal n: every answer is sent", "best_of")
        return self


class Chat(Offering, Body):
    """A request for a chat completion."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole | None, Field(ge=0, le=_MOST_TOP)] = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def top(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise Wrong("top_logprobs needs logprobs: true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def system_and_prompts(self) -> tuple[str, Sequence[Sequence[Message]]]:
        """The system texts, and the other messages.  If the last one is an answer, it is continued.

        System texts alone are the user's message.
        """
        for number, message in enumerate(self.messages):
            if message.role == "user" and "content" not in message.model_fields_set:
                raise Wrong(f"messages.{number}.content is missing", f"messages.{number}.content")
        system = split_persona(self._system)[1]
        turns = _as_messages(m for m in self.messages if m.role not in ("system", "developer"))
        if not turns and system.strip():  # some clients send an instruction alone
            system, turns = "", [Message("user", system)]
        if all(turn.role == "assistant" for turn in turns) or turns[-1].others.get("tool_calls"):
            raise Wrong(
                "the last message must be the user's, the result of a function, or the beginning of an answer",
                "messages",
            )
        is_answer = turns[-1].role == "assistant"
        if is_answer and (self.continue_final_message is False or self.add_generation_prompt):
            field = "continue_final_message" if self.continue_final_message is False else "add_generation_prompt"
            raise Wrong(f"{field} asks for a new answer: the last message must be the user's", field)
        if not is_answer and (self.continue_final_message or self.add_generation_prompt is False):
            field = "continue_final_message" if self.continue_final_message else "add_generation_prompt"
            raise Wrong(f"{field} continues an answer: the last message must be the assistant's", field)
        return system, [turns]

    @property
    def _system(self) -> str:
        return "\n\n".join(message.text for message in self.messages if message.role in ("system", "developer"))

    def persona(self, n_ctx: int) -> Overrides:
        return check_overrides(split_persona(self._system)[0], n_ctx)

    @model_validator(mode="after")
    def _check_messages(self) -> Self:
        for number, message in enumerate(self.messages):
            check_nested(IN_MESSAGES, message.model_extra or {}, f"messages.{number}")
            begins = message.role == "assistant" and number == len(self.messages) - 1
            for name in ("prefix", "partial"):
                if getattr(message, name) and not begins:
                    field = f"messages.{number}.{name}"
                    raise Wrong(f"{field} is only for an assistant's message at the end", field)
        return self


def _prompts(prompt: Any) -> Any:
    is_one = isinstance(prompt, str) or (isinstance(prompt, list) and prompt and type(prompt[0]) is int)
    return [prompt] if is_one else prompt


class Completion(Body):
    """A request to continue prompts, each given as text or as tokens."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts), Field(min_length=1, max_length=MOST_CHOICES)]
    logprobs: Annotated[Whole | None, Field(ge=0, le=_MOST_TOP)] = None
    echo: bool | None = None

    @property
    def top(self) -> int | None:
        return self.logprobs

    @property
    def echoes(self) -> Sequence[str]:
        if not self.echo:
            return ()
        if self.logprobs is not None:
            raise Wrong("echo cannot be used with logprobs: the prompt's are not computed", "echo")
        texts = [prompt for prompt in self.prompt if isinstance(prompt, str)]
        if len(texts) < len(self.prompt):
            raise Wrong("echo needs prompts that are texts, not tokens", "echo")
        return texts

    def system_and_prompts(self) -> tuple[str, Sequence[Raw]]:
        return "", [Raw(prompt) if isinstance(prompt, str) else Raw(tokens=prompt) for prompt in self.prompt]


# Replies.


class Reply:
    """The reply to a request for answers.

    Args:
        model: the name of the model in the reply.
        calling: how the answers may call functions.

    Raises:
        Wrong: the request's fields exclude each other.
    """

    def __init__(self, body: Body, model: str, calling: Calling | None) -> None:
        self._body = body
        self._model = model
        self._is_chat = isinstance(body, Chat)
        self._with_logprobs = body.top is not None
        self._with_thinking = body.with_thinking
        self._with_events = body.with_events
        self._echoes = body.echoes
        self._n = body.n or 1
        self._readers: defaultdict[int, Reader] = defaultdict(lambda: Reader(calling))  # by the number of the answer
        self._id = uuid4().hex
        self._created = int(time.time())

    async def whole(self, answers: Answers) -> Response:
        await answers.finish()
        listed = [self._choice(index, choice) for index, choice in enumerate(answers.choices)]
        reply = self._head(stream=False) | {"choices": listed, "usage": usage(answers.choices, self._n)}
        return JsonResponse(reply, headers=warning_header(answers))

    async def streamed(self, answers: Answers) -> Response:
        news = await answers.begin()
        return as_stream(self._stream(answers, news), warning_header(answers))

    async def _stream(self, answers: Answers, news: AsyncIterator[Added]) -> AsyncIterator[bytes]:
        try:
            for chunk in self._begin(len(answers.choices)):
                yield as_event(chunk)
            async for item in news:
                yield as_event(self._added(*item)) if item else ALIVE
            if self._body.stream_options and self._body.stream_options.include_usage:
                last = {"choices": [], "usage": usage(answers.choices, self._n)}
                yield as_event(self._head(stream=True) | last)
            yield b"data: [DONE]\n\n"
        except Exception as error:  # the status was sent already
            yield as_event(described(error)[1])

    def _begin(self, n_choices: int) -> list[dict[str, Any]]:
        """The first chunk of each answer, with the role, or the repeated prompt."""
        if self._is_chat:
            return [self._chunk(i, {"delta": {"role": "assistant", "content": ""}}) for i in range(n_choices)]
        return [self._chunk(i, {"text": self._echo(i)}) for i in range(n_choices) if self._echoes]

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._n] if self._echoes else ""

    def _added(self, index: int, news: Sequence[Token] | Result) -> dict[str, Any]:
        """The chunk of an answer's new tokens, or its last chunk."""
        reader = self._readers[index]
        if isinstance(news, Result):
            fields = self._part(reader, reader.finish())
            if self._with_events:
                fields["pjlocal"] = _summary(news)
            return self._chunk(index, fields, reader.finish_reason(news.finish_reason))
        events = [token.event for token in news]
        fields = self._part(reader, reader.push(events))
        if self._with_logprobs:
            fields["logprobs"] = self._logprobs(news)
        if self._with_events:
            fields["pjlocal"] = {"events": as_events(events)}
        return self._chunk(index, fields)

    def _part(self, reader: Reader, part: Part) -> dict[str, Any]:
        """The fields of a chunk with a part of an answer."""
        if not self._is_chat:
            return {"text": part.text}
        delta: dict[str, Any] = self._thinking(part) | ({"content": part.text} if part.text else {})
        if part.begins:
            delta["tool_calls"] = [{"index": 0, **make_call(reader.id, reader.name, part.arguments)}]
        elif part.arguments:
            delta["tool_calls"] = [{"index": 0, "function": {"arguments": part.arguments}}]
        return {"delta": delta}

    def _whole(self, reader: Reader, part: Part, echo: str) -> dict[str, Any]:
        """The fields of a whole answer."""
        if not self._is_chat:
            return {"text": echo + part.text}
        message: dict[str, Any] = {"role": "assistant", "content": part.text} | self._thinking(part)
        if reader.name:
            message["content"] = part.text.strip() or None
            message["tool_calls"] = [make_call(reader.id, reader.name, part.arguments)]
        return {"message": message}

    def _thinking(self, part: Part) -> dict[str, str]:
        return {"reasoning_content": part.thinking} if part.thinking and self._with_thinking else {}

    def _head(self, stream: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if stream else "chat.completion") if self._is_chat else "text_completion"
        name = f"chatcmpl-{self._id}" if self._is_chat else f"cmpl-{self._id}"
        return {"id": name, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, index: int, fields: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "logprobs": None, **fields, "finish_reason": finish_reason}
        return self._head(stream=True) | {"choices": [choice]}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        result = choice.result
        assert result
        reader = self._readers[index]
        events = [token.event for token in choice.tokens]
        fields = self._whole(reader, reader.read(events), self._echo(index))
        fields["logprobs"] = self._logprobs(choice.tokens) if self._with_logprobs else None
        if self._with_events:
            fields["pjlocal"] = {"events": as_events(events)} | _summary(result)
        return {"index": index, **fields, "finish_reason": reader.finish_reason(result.finish_reason)}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """The log-probabilities of the answer, without its thinking."""
        log_probs = [token.log_probs for token in tokens if token.log_probs and not token.event.thought]
        if self._is_chat:
            return {"content": [_logprob(one) for one in log_probs]}
        return {
            "tokens": [_key_of(one.piece) for one in log_probs],
            "token_logprobs": [one.log_prob for one in log_probs],
            "top_logprobs": [{_key_of(piece): log for piece, log in one.top} for one in log_probs],
        }


def usage(choices: Sequence[Choice], n: int = 1) -> dict[str, Any]:
    """The token counts of a request.  A prompt counts as its longest view, because that must fit into the context.

    Args:
        n: the number of answers to each prompt.
    """
    done = [choice.result.statistics for choice in choices if choice.result]
    prompt = sum(max(one.prompt_tokens, default=0) for one in done[::n])
    completion = sum(one.completion_tokens for one in done)
    thinking = sum(one.thinking_tokens for one in done)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


def _summary(result: Result) -> dict[str, Any]:
    """The fields of ``pjlocal run --json`` about an answer, without its text."""
    report = result.as_dict()
    return {key: report[key] for key in report if key not in ("text", "thinking", "model", "finish_reason")}


def _key_of(piece: bytes) -> str:
    """A token as a completion names it: its text, or ``bytes:`` and its bytes where it holds a part of a character.

    OpenAI's API writes it so; under one replacement character such tokens would share one place.
    """
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _one(piece: bytes, log_prob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": log_prob, "bytes": list(piece)}


def _logprob(of: LogProbs) -> dict[str, Any]:
    return _one(of.piece, of.log_prob) | {"top_logprobs": [_one(*other) for other in of.top]}


_MOST_OF_HEADER = 2000  # characters: some clients refuse a response whose headers have 8 kB


def warning_header(answers: Answers) -> dict[str, str]:
    """The header with the warnings so far; empty without any."""
    text = one_line(in_fields("; ".join(answers.warnings)).encode("ascii", "replace").decode())
    return {WARNING: text[:_MOST_OF_HEADER]} if text else {}
