"""Functions in requests: forced, chosen, in the history, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import tiny_models
import tool_templates
from jsonschema import validate
from openai import OpenAI
from served import Served, serving

from pjlocal.server.tools import Function

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "$defs": {"City": {"enum": ["Paris", "Rome"]}},
}


def tool(name: str, parameters: Any = None, **more: Any) -> Any:
    function = {"name": name, "description": "Tells it.", "parameters": parameters or {}}
    return {"type": "function", "function": function | more}


WEATHER, TIME = tool("weather", CITY), tool("weather_time")
#: Keywords that clients send, and that cannot be enforced.
NOT_ENFORCED = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
ASK: Any = [{"role": "user", "content": "The weather in Paris?"}]
MARK = "<tool_call>"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, server_environment: dict[str, str]) -> Iterator[Served]:
    """A server of a model whose template writes calls as Qwen's does."""
    path: Path = tmp_path_factory.mktemp("model") / "hermes.gguf"
    tiny_models.write_llama(path, chat_template=tool_templates.HERMES, added=[MARK], n_ctx_train=2048)
    with serving(path, server_environment) as made:
        yield made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, server_environment: dict[str, str]) -> Iterator[Served]:
    """A server of a model whose template knows nothing of functions."""
    path: Path = tmp_path_factory.mktemp("model") / "plain.gguf"
    with serving(tiny_models.write_llama(path, n_ctx_train=2048), server_environment) as made:
        yield made


def call(client: OpenAI, **asked: Any) -> Any:
    """The call in an answer, which has nothing else; a stream says the same."""
    asked = {"model": "", "messages": ASK, "seed": 1, "max_tokens": 200} | asked
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (made,) = choice.message.tool_calls or []
    assert made.type == "function" and len(made.id) == 9
    chunks = [*client.chat.completions.create(**asked, stream=True)]
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == made.function.name and deltas[0].id and len(deltas) > 1
    assert not any(delta.id or delta.function.name or delta.index for delta in deltas[1:])
    assert "".join(delta.function.arguments for delta in deltas) == made.function.arguments
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    return made.function


@pytest.mark.parametrize("choice", [NAMED, "required", "weather"])
def test_a_forced_call_has_arguments_of_its_schema(client: OpenAI, plain: Served, choice: Any) -> None:
    for asked in (client, plain.openai()):
        made = call(asked, tools=[WEATHER], tool_choice=choice)
        assert made.name == "weather"
        validate(json.loads(made.arguments), CITY)


def test_a_required_call_calls_one_of_several_functions(client: OpenAI, plain: Served) -> None:
    for asked in (client, plain.openai()):
        names = set()
        for seed in range(3):
            made = call(asked, tools=[WEATHER, TIME], tool_choice="required", seed=seed)
            validate(json.loads(made.arguments), CITY if made.name == "weather" else {"maxProperties": 0})
            names.add(made.name)
        assert names <= {"weather", "weather_time"}
    assert call(client, tools=[TIME, WEATHER], tool_choice=NAMED).name == "weather"


@pytest.mark.parametrize("mode", ["judge", "both", "base"])
def test_a_call_is_written_under_preferences(client: OpenAI, mode: str) -> None:
    own = {"prefer": ["vivid", "concise"], "mode": mode}
    made = call(client, tools=[WEATHER], tool_choice=NAMED, extra_body={"pjlocal": own})
    validate(json.loads(made.arguments), CITY)


def test_a_model_may_choose_to_call_or_to_answer(client: OpenAI) -> None:
    made = call(client, tools=[WEATHER, TIME], extra_body={"pjlocal": {"logit_bias": [f"{MARK}=100"]}})
    assert made.name in ("weather", "weather_time")
    quiet: Any = {"pjlocal": {"logit_bias": [f"{MARK}=-100"], "ignore_end": True}}
    asked: Any = {"model": "", "messages": ASK, "seed": 1, "max_tokens": 20, "tools": [WEATHER], "extra_body": quiet}
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.message.content and choice.message.tool_calls is None and choice.finish_reason == "length"
    streamed = "".join(
        each.choices[0].delta.content or "" for each in client.chat.completions.create(**asked, stream=True)
    )
    assert streamed == choice.message.content


def test_text_may_stand_in_front_of_a_call(client: OpenAI) -> None:
    for seed in range(20):
        asked: Any = {"model": "", "messages": ASK, "seed": seed, "max_tokens": 300, "tools": [WEATHER]}
        (choice,) = client.chat.completions.create(
            **asked, extra_body={"pjlocal": {"logit_bias": [f"{MARK}=6"]}}
        ).choices
        if choice.message.content and choice.message.tool_calls:
            assert MARK not in choice.message.content
            validate(json.loads(choice.message.tool_calls[0].function.arguments), CITY)
            return
    raise AssertionError("no answer had both")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "first"),
    [(tool_templates.LLAMA, '{"name": "'), (tool_templates.MISTRAL, "<|im_start|>"), (tool_templates.DEEPSEEK, "<s>")],
    ids=["llama", "mistral", "deepseek"],
)
def test_each_template_has_calls_in_its_own_form(
    tmp_path: Path, server_environment: dict[str, str], template: str, first: str
) -> None:
    added = [first] if first.startswith("{") else []  # so that it is one token
    path = tiny_models.write_llama(tmp_path / "model.gguf", chat_template=template, added=added, n_ctx_train=2048)
    with serving(path, server_environment) as served:
        asked = served.openai()
        for choice in (NAMED, "required", "auto"):
            biases: Any = {"logit_bias": [f"{first}=100"]} if choice == "auto" else {}
            made = call(asked, tools=[WEATHER, TIME], tool_choice=choice, extra_body={"pjlocal": biases})
            validate(json.loads(made.arguments), CITY if made.name == "weather" else {"maxProperties": 0})
        asks: Any = {"model": "", "messages": ASK, "tools": [WEATHER], "max_tokens": 9}
        quiet = {"logit_bias": [f"{first}=-100"], "ignore_end": True}
        message = asked.chat.completions.create(**asks, extra_body={"pjlocal": quiet}).choices[0].message
        assert message.content and not message.tool_calls


@pytest.mark.slow
def test_thinking_before_a_call_has_its_own_field(tmp_path: Path, server_environment: dict[str, str]) -> None:
    template = tool_templates.HERMES.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    path = tmp_path / "model.gguf"
    tiny_models.write_llama(path, chat_template=template, added=[MARK, "</think>"], n_ctx_train=2048)
    biases: Any = {"pjlocal": {"logit_bias": ["</think>=6", f"{MARK}=6"]}}
    asked: Any = {"model": "", "messages": ASK, "tools": [WEATHER], "max_tokens": 300, "extra_body": biases}
    with serving(path, server_environment) as served:
        client = served.openai()
        for seed in range(30):
            message: Any = client.chat.completions.create(**asked, seed=seed).choices[0].message
            if message.tool_calls and hasattr(message, "reasoning_content"):
                break
        else:
            raise AssertionError("no answer had both")
        assert "</think>" not in message.reasoning_content
        validate(json.loads(message.tool_calls[0].function.arguments), CITY)
        chunks = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, seed=seed, stream=True)]
        assert "".join(getattr(each, "reasoning_content", "") for each in chunks) == message.reasoning_content
        flat = {"type": "function", **WEATHER["function"]}
        with client.responses.stream(
            model="", input=ASK, tools=[flat], extra_body=biases | {"seed": seed, "max_tokens": 300}
        ) as stream:
            names = [*dict.fromkeys(event.type for event in stream)]
            thought, *_, made = stream.get_final_response().output
        assert thought.type == "reasoning" and thought.summary[0].text == message.reasoning_content
        assert made.type == "function_call" and made.arguments == message.tool_calls[0].function.arguments
        assert names[2:5] == [
            "response.output_item.added", "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
        ]  # fmt: skip
        forced = client.chat.completions.create(**asked, tool_choice=NAMED).choices[0].message
        assert forced.tool_calls and not hasattr(forced, "reasoning_content")


def test_a_header_warns_of_tools_that_were_not_offered(client: OpenAI, plain: Served) -> None:
    asked: Any = {"model": "", "messages": ASK, "max_tokens": 3, "tools": [WEATHER]}
    reply = plain.openai().chat.completions.with_raw_response.create(**asked)
    assert "tools were not offered" in reply.headers["x-pjlocal-warning"]
    assert reply.parse().choices[0].message.tool_calls is None
    with plain.openai().chat.completions.with_streaming_response.create(**asked, stream=True) as stream:
        assert "x-pjlocal-warning" in stream.headers
    assert "x-pjlocal-warning" not in client.chat.completions.with_raw_response.create(**asked).headers


def test_none_has_the_answer_that_a_request_without_tools_has(client: OpenAI) -> None:
    asked: Any = {"model": "", "messages": ASK, "seed": 1, "max_tokens": 9}
    answers = [
        client.chat.completions.create(**asked, **more) for more in ({}, {"tools": [WEATHER], "tool_choice": "none"})
    ]
    assert answers[0].choices[0].message == answers[1].choices[0].message
    assert answers[0].usage == answers[1].usage


def test_a_result_is_answered(client: OpenAI, plain: Served) -> None:
    for asked in (client, plain.openai()):
        (choice,) = asked.chat.completions.create(
            model="", messages=ASK, tools=[WEATHER], tool_choice=NAMED, seed=1, max_tokens=200
        ).choices
        assert choice.message.tool_calls
        result: Any = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "rain"}
        answer = asked.chat.completions.create(
            model="", messages=[*ASK, choice.message, result], tools=[WEATHER], tool_choice="none", max_tokens=9
        )
        assert answer.choices[0].message.content is not None


def test_a_call_that_is_cut_says_so(client: OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        model="", messages=ASK, tools=[WEATHER], tool_choice=NAMED, max_tokens=5
    ).choices
    assert choice.finish_reason == "length" and choice.message.tool_calls
    assert choice.message.tool_calls[0].function.arguments.startswith("{")


@pytest.mark.parametrize("choice", ["required", "auto"])
def test_a_call_that_is_cut_before_its_arguments_is_no_text(client: OpenAI, choice: Any) -> None:
    biases: Any = {"pjlocal": {"logit_bias": [f"{MARK}=100"]}} if choice == "auto" else {}
    asked: Any = {"model": "", "messages": ASK, "tools": [WEATHER, TIME], "tool_choice": choice, "extra_body": biases}
    for n in (1, 2, 3):
        (made,) = client.chat.completions.create(**asked, max_tokens=n).choices
        assert made.finish_reason == "length" and not made.message.content and not made.message.tool_calls
        chunks = [*client.chat.completions.create(**asked, max_tokens=n, stream=True)]
        assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_a_call_that_a_stop_string_cuts_says_so(client: OpenAI) -> None:
    asked: Any = {"model": "", "tools": [WEATHER], "extra_body": {"stop": ["city"], "logit_bias": {MARK: 100}}}
    (choice,) = client.chat.completions.create(**asked, messages=ASK, max_tokens=200).choices
    assert choice.finish_reason == "length" and choice.message.tool_calls
    flat = {"type": "function", **WEATHER["function"]}
    answer = client.responses.create(**asked | {"tools": [flat]}, input="hello", max_output_tokens=200)
    assert answer.status == "incomplete" and answer.output[-1].type == "function_call"


@pytest.mark.parametrize("choice", [NAMED, "required"])
def test_settings_of_the_end_do_not_break_a_forced_call(client: OpenAI, choice: Any) -> None:
    ends: Any = {"stop": ["city"], "extra_body": {"ignore_eos": True, "stop_token_ids": ["P"]}}
    made = call(client, tools=[WEATHER, TIME], tool_choice=choice, **ends)
    validate(json.loads(made.arguments), CITY if made.name == "weather" else {"maxProperties": 0})


def test_an_answer_of_a_form_may_be_a_call_instead(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}
    biases = (({"logit_bias": [f"{MARK}=100"]}, True), ({"logit_bias": [f"{MARK}=-100", "<=-100"]}, False))
    for own, calls in biases:
        (choice,) = client.chat.completions.create(
            model="",
            messages=ASK,
            tools=[TIME],
            response_format=form,
            seed=1,
            max_tokens=200,
            extra_body={"pjlocal": own},
        ).choices
        assert bool(choice.message.tool_calls) == calls
        if not calls:
            validate(json.loads(choice.message.content or ""), CITY)


@pytest.mark.parametrize("choice", [NAMED, "required", "auto"])
def test_a_schema_that_cannot_be_enforced_does_not_refuse_the_request(client: OpenAI, choice: Any) -> None:
    own = {"logit_bias": [f"{MARK}=100"], "max_tokens": 9}
    asked: Any = {"model": "", "messages": ASK, "tool_choice": choice, "extra_body": {"pjlocal": own}}
    reply = client.chat.completions.with_raw_response.create(**asked, tools=[tool("weather", NOT_ENFORCED), TIME])
    assert "the parameters of weather are not enforced" in reply.headers["x-pjlocal-warning"]
    assert (
        "uniqueItems" in reply.headers["x-pjlocal-warning"] and "weather_time" not in reply.headers["x-pjlocal-warning"]
    )


def test_the_rest_of_a_schema_with_an_unknown_format_is_enforced(client: OpenAI) -> None:
    path = {"type": "string", "format": "path", "maxLength": 3}
    parameters = {"type": "object", "properties": {"format": path}, "required": ["format"]}
    made = call(client, tools=[tool("weather", parameters)], tool_choice=NAMED)
    validate(json.loads(made.arguments), parameters)
    with pytest.raises(openai.BadRequestError, match="format 'path' is not supported"):
        call(client, tools=[tool("weather", parameters, strict=True)], tool_choice=NAMED)


def test_schemas_of_tools_that_are_not_offered_are_not_checked(plain: Served) -> None:
    asked: Any = {"model": "", "messages": ASK, "max_tokens": 3, "tools": [tool("weather", NOT_ENFORCED, strict=True)]}
    assert plain.openai().chat.completions.create(**asked).choices


def test_a_function_without_parameters_gets_none() -> None:
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}}
    assert Function(name="now", parameters=described).arguments["additionalProperties"] is False


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"tools": [tool("weather", NOT_ENFORCED, strict=True)]}, "parameters of weather"),
        ({"tools": [tool("weather", {"type": "array"})]}, "their type must be 'object'"),
        ({"tools": [tool("a b")]}, "tools.0.function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, 'names "other"'),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice must be"),
        ({"tools": [WEATHER], "tool_choice": 5}, "tool_choice must be"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "names null"),
        ({"tool_choice": "required"}, "needs tools"),
        ({"tools": [WEATHER, WEATHER]}, "two functions have the name weather"),
        ({"tools": [WEATHER], "extra_body": {"pjlocal": {"regex": "a+"}}}, "exclude each other"),
        (
            {"tools": [WEATHER], "extra_body": {"pjlocal": {"prefer": ["vivid"], "mode": "rewrite"}}},
            "rewrite cannot call functions",
        ),
        ({"extra_body": {"functions": [{"name": "f"}]}}, "use tools"),
        ({"messages": [*ASK, {"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}]}, "tool_calls.0"),
    ],
)
def test_unsupported_tools_are_refused_with_the_reason(client: OpenAI, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**({"model": "", "messages": ASK} | asked))
    assert says in refused.value.message, refused.value.message
