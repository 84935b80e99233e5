"""OpenAI's Responses API without stored responses.  A body is converted to a chat completion.

Compare with the reference: https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BeforeValidator, Field
from starlette.responses import Response

from ..events import Result
from ..prompting.tools import make_call
from .auth import described
from .bodies import ONLY_TEXT, Object, Strict, Whole, Wrong, checked
from .jobs import Token
from .openai import Chat, usage, warning_header
from .replies import JsonResponse, as_event
from .streaming import ALIVE, Added, Answers, as_stream
from .tools import Calling, Part, Reader

N_KEPT = 500  # output items of the latest answers, to which requests may refer by their ids
_TEXTS = ("input_text", "output_text", "summary_text", "text")
_ROLES = ("user", "assistant", "system", "developer")
#: The names of chat completion fields in this API, the longest first.
_NAMES = {
    "verbosity": "text.verbosity",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    ".function.": ".",
}


# Body.


class _Text(Strict):
    format: Object = Field(default={"type": "text"})
    verbosity: Any = None


def _items(text: Any) -> Any:
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


class Responses(Strict, extra="allow"):
    """The body of a request, with the fields that differ from those of chat completions."""

    input: Annotated[list[Object], BeforeValidator(_items), Field(min_length=1)]
    instructions: str = ""
    text: _Text = _Text()
    tools: list[Object] = Field(default=[])
    tool_choice: Any = "auto"
    stream: bool = False
    store: bool = True
    top_logprobs: Whole = 0

    def as_chat(self, kept: Iterable[OutputItem] = ()) -> Chat:
        """Convert the request to a chat completion.

        Args:
            kept: the items to which it may refer.

        Raises:
            Wrong: a field is wrong or not supported (see `naming_own_fields`).
        """
        if self.top_logprobs:
            raise Wrong("top_logprobs is not supported here: use /v1/chat/completions", "top_logprobs")
        values: dict[str, Any] = {
            **(self.model_extra or {}),
            "messages": self._messages(kept),
        }
        if self.text.verbosity is not None:
            values["verbosity"] = self.text.verbosity
        if self.text.format.get("type") != "text":
            values["response_format"] = self._response_format()
        if self.tools:
            values["tools"] = [{"type": tool.get("type"), "function": tool} for tool in self.tools]
        chat = checked(Chat, values | {"tool_choice": self.tool_choice})
        if chat.n not in (None, 1):
            raise Wrong("n must be 1 here: use /v1/chat/completions", "n")
        return chat

    def _response_format(self) -> dict[str, Any]:
        kind = self.text.format.get("type")
        others = {name: value for name, value in self.text.format.items() if name != "type"}
        return {"type": kind, **({"json_schema": others} if kind == "json_schema" else others)}

    def _messages(self, kept: Iterable[OutputItem]) -> list[dict[str, Any]]:
        by_id = {item.id: item for item in kept}
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        for number, item in enumerate(self.input):
            if named := item.get("type") == "item_reference" and by_id.get(str(item.get("id"))):
                item = replace(named, status="completed").as_dict()  # also if its stream was cancelled
            kind = item.get("type", "message")
            if kind == "message":
                if item.get("role") not in _ROLES:
                    raise Wrong(f"input.{number}.role must be one of {', '.join(_ROLES)}", "input")
                content = {"content": _text(item.get("content"), f"input.{number}.content")}
                if messages and item["role"] == "assistant" and messages[-1].keys() == {"role", "reasoning_content"}:
                    messages[-1] |= content
                else:
                    messages.append({"role": item["role"], **content})
            elif kind == "function_call":
                names = ["call_id", "name"]
                if not isinstance(item.get("arguments"), dict):  # as in chat completions
                    names.append("arguments")
                _check_strings(item, names, f"input.{number}")
                call = make_call(item.get("call_id", ""), item.get("name", ""), item.get("arguments", "{}"))
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant"})
                messages[-1].setdefault("tool_calls", []).append(call)
            elif kind == "function_call_output":
                _check_strings(item, ["call_id"], f"input.{number}")
                text = _text(item.get("output"), f"input.{number}.output")
                messages.append({"role": "tool", "tool_call_id": item.get("call_id", ""), "content": text})
            elif kind == "item_reference":
                raise Wrong(
                    f"input.{number} refers to an item that this server does not have: send all messages, as clients "
                    "do with store: false",
                    "input",
                )
            elif kind == "reasoning":
                text = _text(item.get("summary"), f"input.{number}.summary")
                messages.append({"role": "assistant", "reasoning_content": text})
            else:
                raise Wrong(
                    f"input.{number}.type {json.dumps(kind)[:100]} is not supported: send text and functions only",
                    "input",
                )
        return messages


@contextmanager
def naming_own_fields() -> Iterator[None]:
    """A context in which errors name the fields of this API instead of those of chat completions."""
    try:
        yield
    except Wrong as error:
        field = "input" if error.field == "messages" else error.field and _renamed(error.field)
        raise Wrong(_renamed(str(error)), field, status=error.status, code=error.code) from None


def _renamed(message: str) -> str:
    for name, here in _NAMES.items():
        message = message.replace(name, here)
    return message


def _check_strings(item: Mapping[str, Any], names: Sequence[str], path: str) -> None:
    for name in names:
        if not isinstance(item.get(name, ""), str):
            raise Wrong(f"{path}.{name} must be a string", "input")


def _text(content: Any, path: str) -> str:
    """The text of an item's content, which is a text or a list of text parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Wrong(f"{path} must be a string or a list", "input")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _TEXTS:
            raise Wrong(f"{path}: {ONLY_TEXT}", "input")
        texts.append(str(part.get("text") or ""))
    return "".join(texts)


# Reply.


@dataclass(frozen=True)
class _Kind:
    """A kind of output item: the prefixes of its event names, and the fields of its text.

    part: the event prefix of a part within the item, and the field of its number.
    """

    prefix: str
    text: str
    delta: str
    part: tuple[str, str] | None = None


_KINDS = {
    "reasoning": _Kind(
        "rs", "text", "response.reasoning_summary_text", ("response.reasoning_summary_part", "summary_index")
    ),
    "message": _Kind("msg", "text", "response.output_text", ("response.content_part", "content_index")),
    "function_call": _Kind("fc", "arguments", "response.function_call_arguments"),
}


@dataclass
class OutputItem:
    """An item of the output so far."""

    kind: str
    index: int
    call: Reader
    text: str = ""
    status: str = "in_progress"
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def names(self) -> _Kind:
        return _KINDS[self.kind]

    @property
    def id(self) -> str:
        return f"{self.names.prefix}_{self.key}"

    @property
    def others(self) -> dict[str, Any]:
        """Additional fields of its text events."""
        return {"logprobs": []} if self.kind == "message" else {}

    @property
    def part(self) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "summary_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def as_dict(self) -> dict[str, Any]:
        fields = {"id": self.id, "type": self.kind, "status": self.status}
        if self.kind == "function_call":
            return fields | {"call_id": self.call.id, "name": self.call.name, "arguments": self.text}
        parts = [self.part] if self.status != "in_progress" else []
        return fields | ({"summary": parts} if self.kind == "reasoning" else {"role": "assistant", "content": parts})


class ResponsesReply:
    """The reply to a request, which grows with the tokens of its answer.

    Args:
        chat: the request as a chat completion.
        model: the model's name in the request.
        calling: how the answer may call functions.
        kept: gets the items of the answer, unless the request has ``store: false``.
    """

    def __init__(
        self, body: Responses, chat: Chat, model: str, calling: Calling | None, kept: deque[OutputItem]
    ) -> None:
        self._body = body
        self._chat = chat
        self._model = model
        self._reader = Reader(calling)
        self._items: list[OutputItem] = []
        self._kept = kept
        self._space = ""  # white space that is sent only if a text follows
        self._n_events = 0
        self._id = uuid4().hex
        self._created = int(time.time())

    async def whole(self, answers: Answers) -> Response:
        await answers.finish()
        (choice,) = answers.choices
        assert choice.result
        for _ in (*self._events(choice.tokens), *self._events(choice.result)):
            pass
        return JsonResponse(self._response(answers), headers=warning_header(answers))

    async def streamed(self, answers: Answers) -> Response:
        news = await answers.begin()
        return as_stream(self._stream(answers, news), warning_header(answers))

    async def _stream(self, answers: Answers, news: AsyncIterator[Added]) -> AsyncIterator[bytes]:
        try:
            for name in ("response.created", "response.in_progress"):
                yield self._event(name, response=self._response(answers))
            async for item in news:
                for event in self._events(item[1]) if item else [ALIVE]:
                    yield event
            response = self._response(answers)
            yield self._event(f"response.{response['status']}", response=response)
        except Exception as error:  # the status was sent already
            facts = described(error)[1]["error"]
            yield self._event("error", **{**facts, "error": facts})

    def _events(self, news: Sequence[Token] | Result) -> Iterator[bytes]:
        return self._end(news) if isinstance(news, Result) else self._grow(self._reader.push([t.event for t in news]))

    def _grow(self, part: Part) -> Iterator[bytes]:
        if part.thinking and self._chat.with_thinking:
            yield from self._write("reasoning", part.thinking)
        text = self._space + part.text
        self._space = ""
        if text.strip() or (text and self._items and self._items[-1].kind == "message"):
            yield from self._write("message", text)
        else:
            self._space = text
        if part.arguments or part.begins:
            yield from self._write("function_call", part.arguments)

    def _end(self, result: Result) -> Iterator[bytes]:
        yield from self._grow(self._reader.finish())
        if not self._items or self._items[-1].kind == "reasoning":
            yield from self._write("message", self._space)
        is_cut = self._reader.finish_reason(result.finish_reason) == "length"
        yield from self._close("incomplete" if is_cut else "completed")

    def _write(self, kind: str, text: str) -> Iterator[bytes]:
        """Add text to the last item, or begin an item of another kind."""
        if not self._items or self._items[-1].kind != kind:
            yield from self._close("completed")
            item = OutputItem(kind, len(self._items), self._reader)
            self._items.append(item)
            if self._body.store:
                self._kept.append(item)
            yield self._of_item("response.output_item.added", item, item=item.as_dict())
            if item.names.part:
                yield self._of_item(f"{item.names.part[0]}.added", item, in_part=True, part=item.part)
        item = self._items[-1]
        item.text += text
        yield self._of_item(f"{item.names.delta}.delta", item, in_part=True, delta=text, **item.others)

    def _close(self, status: str) -> Iterator[bytes]:
        if not self._items:
            return
        item = self._items[-1]
        item.status = status
        done = {item.names.text: item.text, **item.others}
        yield self._of_item(f"{item.names.delta}.done", item, in_part=True, **done)
        if item.names.part:
            yield self._of_item(f"{item.names.part[0]}.done", item, in_part=True, part=item.part)
        yield self._of_item("response.output_item.done", item, item=item.as_dict())

    def _of_item(self, name: str, item: OutputItem, /, *, in_part: bool = False, **fields: Any) -> bytes:
        where: dict[str, Any] = {"output_index": item.index}
        if in_part:
            where["item_id"] = item.id
            if item.names.part:
                where[item.names.part[1]] = 0
        return self._event(name, **where, **fields)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        number = self._n_events
        self._n_events += 1
        return f"event: {name}\n".encode() + as_event({**fields, "type": name, "sequence_number": number})

    def _response(self, answers: Answers) -> dict[str, Any]:
        """The response object so far."""
        body, chat = self._body, self._chat
        metadata, reasoning = (_as_object(body.model_extra, name) for name in ("metadata", "reasoning"))
        (choice,) = answers.choices
        status = self._items[-1].status if choice.result and self._items else "in_progress"
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions or None,
            "max_output_tokens": (chat.model_extra or {}).get("max_output_tokens"),
            "metadata": metadata,
            "model": self._model,
            "output": [item.as_dict() for item in self._items] if choice.result else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": reasoning.get("effort"), "summary": None},
            "store": self._body.store,
            "temperature": chat.temperature,
            "text": {"format": body.text.format if chat.response_format else {"type": "text"}},
            "tool_choice": body.tool_choice,
            "tools": [{"type": "function", **tool.function.model_dump()} for tool in chat.tools],
            "top_p": chat.top_p,
            "truncation": "disabled",
            "usage": _usage(answers) if choice.result else None,
        }


def _as_object(fields: Mapping[str, Any] | None, name: str) -> dict[str, str]:
    """The text values of a field that is an object; empty for other fields."""
    value = (fields or {}).get(name)
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _usage(answers: Answers) -> dict[str, Any]:
    counted = usage(answers.choices)
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": counted["completion_tokens_details"],
        "total_tokens": counted["total_tokens"],
    }
