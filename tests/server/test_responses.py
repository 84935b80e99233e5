"""OpenAI's Responses API, asked by its own client: answers, streams, forms, functions, and what is not kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseErrorEvent
from pydantic import BaseModel

from pjlocal.errors import UsageError
from pjlocal.server.responses import Responses, ResponsesReply
from pjlocal.server.streaming import Choice

OPTIONS = ("--batch-size", "32")


class Trip(BaseModel):
    city: Literal["Paris", "Rome"]
    days: Literal[1, 2]


WEATHER: Any = {"type": "function", "name": "weather", "parameters": Trip.model_json_schema(), "strict": True}
NAMED: Any = {"type": "function", "name": "weather"}
LONG: Any = {"pjlocal": {"ignore_end": True}}


def test_a_text_gets_the_answer_of_a_chat_completion(client: OpenAI) -> None:
    asked: Any = {"model": "bold", "temperature": 0.5, "extra_body": {"seed": 3, **LONG}}
    answer = client.responses.create(**asked, input="hello", instructions="Be brief.", max_output_tokens=9)
    said: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    expected = client.chat.completions.create(**asked, messages=said, max_tokens=9)
    assert answer.output_text == expected.choices[0].message.content
    assert answer.usage and expected.usage and answer.usage.total_tokens == expected.usage.total_tokens
    assert answer.status == "incomplete" and answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert (answer.model, answer.instructions, answer.temperature) == ("bold", "Be brief.", 0.5)


def test_items_are_the_messages_of_a_conversation(client: OpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "hello"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
        {"role": "user", "content": [{"type": "input_text", "text": "and "}, {"type": "input_text", "text": "you?"}]},
    ]  # fmt: skip
    said: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "and you?"},
    ]
    asked: Any = {"model": "llama", "extra_body": {"seed": 3, **LONG}}
    answer = client.responses.create(**asked, input=items, max_output_tokens=9)
    assert (
        answer.output_text
        == client.chat.completions.create(**asked, messages=said, max_tokens=9).choices[0].message.content
    )
    again = client.responses.create(model="llama", input=[*items, *answer.output, items[-1]], max_output_tokens=1)  # type: ignore[list-item]
    assert again.status in ("completed", "incomplete")


@pytest.mark.parametrize("stream", [False, True])
def test_an_item_of_an_earlier_answer_may_be_named_by_its_id(client: OpenAI, stream: bool) -> None:
    asked: Any = {"model": "llama", "extra_body": {"seed": 3, **LONG}, "max_output_tokens": 9}
    question: Any = {"role": "user", "content": "hello"}
    answer: Any = client.responses.create(**asked, input=[question], stream=stream)
    (item,) = [*answer][-1].response.output if stream else answer.output
    texts = [
        client.responses.create(**asked, input=[question, before, question]).output_text  # type: ignore[list-item]
        for before in ({"type": "item_reference", "id": item.id}, item.model_dump())
    ]
    assert texts[0] == texts[1]


def test_an_item_is_not_kept_without_store(client: OpenAI) -> None:
    asked: Any = {"model": "llama", "input": "hello", "max_output_tokens": 1}
    answer: Any = client.responses.create(**asked, store=False)
    (unkept,) = answer.output
    assert answer.store is False
    with pytest.raises(openai.BadRequestError, match=r"input\.0 refers to .*: send all messages.* store: false"):
        client.responses.create(**asked | {"input": [{"type": "item_reference", "id": unkept.id}]})


def test_a_stream_sends_items_parts_and_deltas_in_order(client: OpenAI) -> None:
    asked: Any = {
        "model": "vivid+creative",
        "input": "hello",
        "max_output_tokens": 9,
        "extra_body": {"seed": 3, **LONG},
    }
    whole = client.responses.create(**asked)
    events = [*client.responses.create(**asked, stream=True)]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    names = [event.type for event in events]
    assert [*dict.fromkeys(names)] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.incomplete",
    ]  # fmt: skip
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last: Any = events[-1]
    assert last.response.output_text == whole.output_text and last.response.usage == whole.usage
    (message,) = last.response.output
    assert {event.item_id for event in events if event.type == "response.output_text.delta"} == {message.id}


def test_a_form_is_kept_and_parsed(client: OpenAI) -> None:
    answer = client.responses.parse(model="llama", input="hello", text_format=Trip, max_output_tokens=300)
    assert isinstance(answer.output_parsed, Trip)
    with client.responses.stream(model="llama", input="hello", text_format=Trip, max_output_tokens=300) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Trip)
    form: Any = {"format": {"type": "json_object"}}
    assert client.responses.create(model="llama", input="JSON", text=form, max_output_tokens=5).output_text[0] == "{"


def test_a_function_is_called_and_its_result_answered(client: OpenAI) -> None:
    asked: Any = {"model": "llama", "tools": [WEATHER], "max_output_tokens": 300, "extra_body": {"seed": 5}}
    answer = client.responses.create(**asked, input="hello", tool_choice=NAMED)
    (call,) = answer.output
    assert call.type == "function_call" and call.name == "weather" and answer.status == "completed"
    Trip.model_validate_json(call.arguments)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    said: Any = [{"role": "user", "content": "hello"}, call.model_dump(), result]
    assert client.responses.create(**asked | {"max_output_tokens": 3}, input=said, tool_choice="none").output_text
    with client.responses.stream(**asked, input="hello", tool_choice="required") as stream:
        names = [event.type for event in stream]
        (streamed,) = stream.get_final_response().output
    assert [*dict.fromkeys(names)] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert streamed.type == "function_call" and Trip.model_validate_json(streamed.arguments)
    reply = client.responses.with_raw_response.create(**asked | {"max_output_tokens": 3}, input="hello")
    assert "tools were not offered" in reply.headers["x-pjlocal-warning"]


PICTURE = {"type": "input_image", "image_url": "x"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"previous_response_id": "resp_1"}, "send all messages"),
        ({"conversation": "conv_1"}, "send all messages"),
        ({"background": True}, "wait for the answer, or stream it"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "send all messages"),
        ({"input": [{"role": "user", "content": [PICTURE]}]}, "only text parts are supported, no images"),
        ({"input": [{"type": "computer_call"}]}, 'input.0.type "computer_call" is not supported'),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role must be"),
        ({"input": []}, "input must be a string or a list that is not empty"),
        ({"input": [{"type": False}]}, "input.0.type false is not supported"),
        ({"input": 5}, "input must be a string or a list"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type must be 'function'"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "not"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type must be"),
        ({"max_output_tokens": 0}, "max_output_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"text": {"verbosity": "low"}}, "text.verbosity is not supported"),
        ({"top_logprobs": 3}, "use /v1/chat/completions"),
        ({"extra_body": {"n": 2}}, "n must be 1"),
    ],
)
def test_unsupported_fields_are_refused_with_the_reason(client: OpenAI, asked: dict[str, Any], says: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**({"model": "llama", "input": "hello", "stream": stream} | asked))
        assert says in refused.value.message, refused.value.message


def test_an_error_in_a_stream_is_an_error_event() -> None:
    async def failing() -> AsyncIterator[Any]:
        raise UsageError("wrong")
        yield

    async def events() -> list[bytes]:
        body = Responses.model_validate({"input": "hello"})
        reply = ResponsesReply(body, body.as_chat(), "llama", None, deque())
        return [event async for event in reply._stream(SimpleNamespace(choices=[Choice()]), failing())]  # type: ignore[arg-type]

    *_, last = asyncio.run(events())
    name, _, data = last.decode().strip().partition("\ndata: ")
    assert name == "event: error"
    assert ResponseErrorEvent.model_validate_json(data, strict=True).message == "wrong"


CALL: Any = {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"}
SCHEMA: Any = {"type": "json_schema", "name": "x", "schema": {}}


@pytest.mark.parametrize(
    ("asked", "says", "field"),
    [
        ({"input": [{"role": "user", "content": "x"}, CALL | {"arguments": 3}]}, "input.1.arguments must be", "input"),
        ({"input": [CALL | {"name": 3}], "instructions": "x"}, "input.0.name must be", "input"),
        ({"input": [CALL | {"call_id": 3}]}, "input.0.call_id must be", "input"),
        (
            {"input": [CALL, {"type": "function_call_output", "call_id": 3, "output": "x"}]},
            "input.1.call_id must be",
            "input",
        ),
        ({"input": [CALL]}, "the last message must be", "input"),
        ({"instructions": "[pjlocal]\nx"}, "system message line 2 is not valid TOML", "input"),
        ({"text": {"format": SCHEMA | {"foo": 1}}}, "unknown field text.format.foo: the schema", "text.format.foo"),
        ({"text": {"format": {"type": "regex"}}}, "text.format.pattern is missing", "text.format"),
        ({"tools": [WEATHER | {"name": "a b"}]}, "tools.0.name", "tools.0.name"),
    ],
)  # fmt: skip
def test_errors_name_the_fields_of_this_api(client: OpenAI, asked: dict[str, Any], says: str, field: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**({"model": "llama", "input": "hello"} | asked))
    message = refused.value.message
    assert says in message and refused.value.param == field, (message, refused.value.param)
    assert "messages." not in message and "response_format" not in message and "json_schema" not in message


def test_arguments_of_earlier_calls_may_be_objects(client: OpenAI) -> None:
    items: Any = [CALL | {"arguments": {"city": "Rome"}}, {"type": "function_call_output", "call_id": "1"}]
    assert client.responses.create(model="llama", input=items, max_output_tokens=1).id


def test_fields_without_effect_are_accepted(client: OpenAI) -> None:
    harmless: Any = {"store": True, "metadata": {"a": "b"}, "user": "me", "truncation": "disabled", "include": []}
    nothing: Any = {
        "tools": [],
        "text": {"format": {"type": "text"}},
        "parallel_tool_calls": True,
        "instructions": None,
    }
    answer = client.responses.create(model="llama", input="hello", max_output_tokens=1, **harmless, **nothing)
    assert answer.metadata == {"a": "b"} and answer.store is True


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="nobody", input="hello")
    assert refused.value.code == "model_not_found"
