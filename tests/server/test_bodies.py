"""Whatever a request's body says, the server does it, or refuses it in a line that names the field."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from jsonschema import validate
from sending import ANSWER, CHAT, COMPLETION, GOOD, RESPONSES, refusal, send, texts
from served import Served

from pjlocal.server.bodies import in_fields
from pjlocal.server.synonyms import SYNONYMS

OTHER_NAMES = [name for name in SYNONYMS if "." not in name and name != "max_completion_tokens"]
SHARED = [
    "model", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "seed",
    "stop", "n", "best_of", "response_format", "stream", "stream_options", "pjlocal", *OTHER_NAMES,
]  # fmt: skip
FIELDS = {
    CHAT: [*SHARED, "messages", "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice"],
    COMPLETION: [*SHARED, "prompt", "logprobs", "echo"],
    RESPONSES: [*SHARED, "input", "instructions", "text", "tools", "tool_choice", "reasoning", "top_logprobs"],
    ANSWER: ["request", "settings", "messages", "chat", "first", "shortens"],
}
OWN = [
    "events", "prefer", "draft_prefer", "judge_prefer", "mode", "strength", "avoid", "floor",
    "aligner", "lora", "lam", "decoding", "schedule", "lookahead", "ignore_end", "min_tokens", "stop", "stop_token",
    "seed", "best", "defaults", "top_k", "min_p", "top_n_sigma", "typical_p", "repeat_penalty", "penalty_last_n",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_last_n", "xtc_probability", "xtc_threshold",
    "logit_bias", "grammar", "json_schema", "regex", "lark",
    "system", "placement", "think", "reasoning_effort", "think_tokens", "push_thoughts",
]  # fmt: skip
ODD = [
    "null", "true", "false", "0", "1", "-1", "1.0", "1.5", "-1.5", "-0.0", "31", "1e400", "-1e400", "1e300",
    str(2**31), str(2**63 - 1), str(2**63), str(-(2**63)), "9" * 400, "9" * 4000, '""', '" "', '"x"', '"\\u0000"',
    '"\\ud800"', '"auto"', '"-5"', '"("', '"@/etc/passwd"', json.dumps("x" * 5000), "[]", "[null]", "[[]]", '[""]',
    '["x"]', '["x", "y z"]', "[1]", '["\\u0000"]', "{}", '{"x": null}', '{"x": 1}', '{"type": "text"}',
    '{"type": "json_object"}', '{"type": "json_schema"}', '{"": ""}', '{"1": "x"}', '{"1": 1e400}', "NaN",
    "[" * 150 + "]" * 150,
]  # fmt: skip
#: Advice that only somebody at a terminal can follow.
TERMINAL = re.compile(
    r"(?<!with a larger)(?:^| )(?:--[a-z]|-[a-z] )|pjlocal (run|chat|serve|sessions|prefs|config)|@FILE|None|True|False"
)
OPTIONS = ("--ctx", "512", "--parallel", "2")


def is_right(reply: httpx2.Response, *, in_flags: bool = False) -> bool:
    """Whether it is an answer, or a refusal in a line that a client can follow; `pjlocal run` can follow flags."""
    if reply.status_code == 200:
        return '"server_error"' not in reply.text
    if reply.status_code not in (400, 404):
        return False
    message = reply.json()["error"]["message"]
    return bool(message) and "\n" not in message and len(message) < 1500 and (in_flags or not TERMINAL.search(message))


def odd_bodies() -> Iterator[tuple[str, dict[str, str]]]:
    """Every field with every odd value: a path, and the field as JSON spells it."""
    for odd in ODD:
        for path, fields in FIELDS.items():
            yield from ((path, {name: odd}) for name in fields)
        yield from ((CHAT, {"pjlocal": f'{{"{name}": {odd}}}'}) for name in OWN)
        yield from ((CHAT, changes) for changes in nested(odd))
        yield from ((RESPONSES, changes) for changes in nested_of_a_response(odd))
        yield from ((ANSWER, changes) for changes in nested_of_an_answer(odd))


@pytest.mark.slow
def test_no_value_of_a_field_is_an_error_of_the_server(served: Served) -> None:
    some = random.Random(9).sample(list(odd_bodies()), 60)
    assert not list(filter(None, (fault(served, *one) for one in some)))


@pytest.mark.slow
def test_no_value_of_any_field_is_an_error_of_the_server(served: Served) -> None:
    with ThreadPoolExecutor(2) as clients:
        faults = clients.map(lambda one: fault(served, *one), odd_bodies())
        assert not list(filter(None, faults))


def nested(odd: str) -> Iterator[dict[str, str]]:
    for inner in ("type", "function", "id"):
        yield {"tools": f'[{{"type": "function", "function": {{"name": "f"}}, "{inner}": {odd}}}]'}
        called = f'{{"type": "function", "function": {{"name": "f", "arguments": "x"}}, "{inner}": {odd}}}'
        yield {"messages": f'[{{"role": "assistant", "tool_calls": [{called}]}}, {{"role": "user", "content": "x"}}]'}
    for inner in ("name", "description", "parameters"):
        yield {"tools": f'[{{"function": {{"name": "f", "{inner}": {odd}}}}}]', "tool_choice": '"required"'}
    for inner in ("role", "content", "name", "tool_calls", "tool_call_id", "prefix"):
        yield {"messages": f'[{{"role": "user", "content": "hello", "{inner}": {odd}}}]'}
    for inner in ("type", "text"):
        yield {"messages": f'[{{"role": "user", "content": [{{"type": "text", "text": "x", "{inner}": {odd}}}]}}]'}
    for inner in ("include_usage", "continuous_usage_stats"):
        yield {"stream": "true", "stream_options": f'{{"{inner}": {odd}}}'}
    for kind in ("text", "json_object", "json_schema"):
        for inner in ("schema", "json_schema"):
            yield {"response_format": f'{{"type": "{kind}", "{inner}": {odd}}}'}
    for inner in ("name", "schema", "strict"):
        yield {"response_format": f'{{"type": "json_schema", "json_schema": {{"{inner}": {odd}}}}}'}


def nested_of_a_response(odd: str) -> Iterator[dict[str, str]]:
    for inner in ("type", "role", "content", "id", "call_id", "name", "arguments", "output"):
        for kind in ("message", "function_call", "function_call_output"):
            said = {"type": f'"{kind}"', "role": '"user"'} | {inner: odd}
            item = ", ".join(f'"{name}": {value}' for name, value in said.items())
            yield {"input": f'[{{"role": "user", "content": "x"}}, {{{item}}}, {{"role": "user", "content": "x"}}]'}
    for inner in ("type", "text"):
        yield {"input": f'[{{"role": "user", "content": [{{"type": "input_text", "text": "x", "{inner}": {odd}}}]}}]'}
    for inner in ("type", "name", "parameters", "description"):
        yield {"tools": f'[{{"type": "function", "name": "f", "{inner}": {odd}}}]', "tool_choice": '"required"'}
    for inner in ("type", "name", "schema"):
        yield {"text": f'{{"format": {{"type": "json_schema", "{inner}": {odd}}}}}'}


def nested_of_an_answer(odd: str) -> Iterator[dict[str, str]]:
    for inner in ("question", "id", "after", "replacing", "keep", "other"):
        yield {"chat": f'{{"question": "x", "keep": false, "{inner}": {odd}}}'}
    for inner in ("role", "content", "tokens", "other"):
        yield {"chat": "null", "messages": f'[{{"role": "user", "content": "hello", "{inner}": {odd}}}]'}
    for group in ("preferences", "generation", "sampling", "prompting", "explicit"):
        yield {"settings": "null", "request": f'{{"{group}": {odd}}}'}
    for inner in OWN:
        yield {"settings": f'{{"max_tokens": 1, "{inner}": {odd}}}'}
        yield {"settings": "null", "request": f'{{"generation": {{"max_tokens": 1, "{inner}": {odd}}}}}'}


def fault(served: Served, path: str, changes: dict[str, str]) -> str:
    """What is wrong with the reply to a body whose fields are spelled as given; empty where nothing is."""
    fields = {name: json.dumps(value) for name, value in GOOD[path].items()} | changes
    sent = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
    reply = served.http.post(path, content=sent.encode())
    return (
        ""
        if is_right(reply, in_flags="request" in changes)
        else f"{sent[:300]}: {reply.status_code} {reply.text[:600]}"
    )


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_every_field_may_be_null(served: Served, path: str) -> None:
    wanted = [name for name in FIELDS[path] if name not in ("messages", "prompt")]
    reply = send(served, path, **(dict.fromkeys(wanted) | {"max_tokens": 2}))
    assert reply.status_code == 200, reply.text
    reply = send(served, path, pjlocal=dict.fromkeys(OWN))
    assert reply.status_code == 200, reply.text
    reply = send(served, path, **dict.fromkeys(["tools", "enable_thinking", "min_p", "format", "functions"]))
    assert reply.status_code == 200, reply.text


def test_every_field_of_pjlocals_own_requests_may_be_null(served: Served) -> None:
    wanted = {name: None for name in FIELDS[ANSWER] if name not in ("chat", "settings")}
    chat = dict.fromkeys(["id", "after", "replacing"]) | {"question": "hello", "keep": False}
    settings = dict.fromkeys(OWN[1:]) | {"max_tokens": 2}
    reply = send(served, ANSWER, **wanted, chat=chat, settings=settings)
    assert reply.status_code == 200 and '"result"' in reply.text, reply.text


def test_every_field_inside_another_may_be_null(served: Served) -> None:
    nothing = dict.fromkeys(["name", "tool_calls", "function_call", "refusal", "audio"])
    said = [
        {"role": "system", "content": None, **nothing},
        {"role": "user", "content": "hello", **nothing},
        {"role": "assistant", "content": None, **nothing},
        {"role": "user", "content": [{"type": "text", "text": "hello", "image_url": None}], **nothing},
    ]
    schema = {"type": "json_schema", "json_schema": {"name": None, "description": None, "schema": None, "strict": None}}
    for changes in (
        {"messages": said}, {"stream_options": {"include_usage": None}}, {"logit_bias": {"5": None}},
        {"response_format": schema}, {"response_format": {"type": "text", "json_schema": None}},
        {"response_format": {"type": "json_object", "schema": None}},
    ):  # fmt: skip
        assert send(served, CHAT, **changes).status_code == 200, changes


def test_a_schema_that_stands_a_level_too_high_is_refused(served: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    assert "the schema goes under response_format.json_schema.schema" in refusal(served, response_format=form)


def test_a_null_in_a_schema_is_part_of_it(served: Served) -> None:
    inner = {"a": {"const": None}}
    schema = {"type": "object", "properties": inner, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (answer,) = texts(served, response_format=form, max_tokens=80, seed=1)
    assert json.loads(answer) == {"a": None}


def test_a_whole_number_may_be_written_with_a_point(served: Served) -> None:
    whole: dict[str, Any] = {"max_tokens": 5, "seed": 3, "n": 2, "top_logprobs": 2, "logprobs": True, "temperature": 1}
    own = {"ignore_end": True, "lam": 2, "top_k": 9, "prefer": ["vivid", "formal"]}
    pointed = {name: float(value) if type(value) is int else value for name, value in whole.items()}
    pointed_own = {name: float(value) if type(value) is int else value for name, value in own.items()}
    expected = texts(served, **whole, pjlocal=own)
    assert texts(served, **pointed, pjlocal=pointed_own) == expected
    assert len(texts(served, COMPLETION, logprobs=2.0, max_tokens=3.0)) == 1
    for name, value in (("max_tokens", 64.5), ("max_tokens", True), ("n", True), ("seed", "3"), ("temperature", True)):
        assert refusal(served, **{name: value}).startswith(f"{name} must be a")
    for name, value in (("lam", 1.5), ("lam", True), ("top_k", "9"), ("floor", False), ("strength", True)):
        assert refusal(served, pjlocal={name: value}).startswith(f"pjlocal.{name} must be a")
        assert refusal(served, **{name: value}).startswith(f"{name} must be a")


def test_a_strength_may_be_a_number(served: Served) -> None:
    own = {"prefer": ["vivid", "formal"], "ignore_end": True}
    found = {
        str(strength): texts(served, seed=1, max_tokens=9, pjlocal=own | {"strength": strength})
        for strength in ("2", 2, 2.0, 1.5, "1.5", -1)
    }
    assert found["2"] == found["2.0"] and len(found) == 4
    assert "from -10 to 10" in refusal(served, pjlocal=own | {"strength": 11})


def test_the_seed_minus_one_is_random_and_others_below_zero_are_seeds(served: Served) -> None:
    long: dict[str, Any] = {"max_tokens": 20, "pjlocal": {"ignore_end": True}}
    assert texts(served, seed=-1, **long) != texts(served, seed=-1, **long)
    own = {"ignore_end": True, "seed": -1}
    assert texts(served, max_tokens=20, pjlocal=own) != texts(served, max_tokens=20, pjlocal=own)
    assert len(set(texts(served, seed=-1.0, n=2, **long))) == 2
    assert texts(served, seed=-(2**63), **long) == texts(served, seed=0, **long) != texts(served, seed=-2, **long)
    assert refusal(served, pjlocal={"seed": -2}) == "pjlocal.seed must be at least -1 (not -2)"
    assert refusal(served, seed=2**63).startswith("seed must be at most")
    assert '"result"' in send(served, ANSWER, settings={"seed": -1, "max_tokens": 1}).text


def test_a_top_p_of_zero_keeps_the_best_token(served: Served) -> None:
    long: dict[str, Any] = {"max_tokens": 20, "pjlocal": {"ignore_end": True}}
    assert texts(served, top_p=0, **long) == texts(served, top_p=0.0, temperature=2, **long)
    assert texts(served, top_p=0, **long) == texts(served, temperature=0, **long)


def test_several_answers_count_their_seeds_on_past_the_largest(served: Served) -> None:
    long: dict[str, Any] = {"max_tokens": 12, "pjlocal": {"ignore_end": True}}
    together = texts(served, seed=2**63 - 1, n=2, **long)
    assert together == [*texts(served, seed=2**63 - 1, **long), *texts(served, seed=0, **long)]


def test_a_schema_beside_json_object_is_kept(served: Served) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [3, 4]}}, "required": ["n"], "additionalProperties": False}
    (answer,) = texts(served, response_format={"type": "json_object", "schema": schema}, max_tokens=80, seed=1)
    validate(json.loads(answer), schema)
    for form in (
        {"type": "json_schema", "schema": schema, "json_schema": {"schema": schema}},
        {"type": "json_object", "json_schema": {"schema": schema}},
        {"type": "text", "schema": schema},
        {"type": "text", "grammar": "root ::= 'x'"},
    ):
        assert refusal(served, response_format=form).startswith("response_format.")
    form = {"type": "json_object"}
    assert "response_format and pjlocal.regex" in refusal(served, response_format=form, pjlocal={"regex": "a+"})


def test_a_schema_that_is_not_strict_is_enforced_as_far_as_it_can_be(served: Served) -> None:
    phone = {"type": "string", "format": "phone", "maxLength": 3}
    partly = {"type": "object", "properties": {"p": phone}, "required": ["p"], "additionalProperties": False}
    other = {"type": "object", "properties": {"p": {"type": "array", "uniqueItems": True}}}
    for schema, name in ((partly, "format 'phone'"), (other, "uniqueItems")):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert name in refusal(served, response_format=form)
        form["json_schema"]["strict"] = False  # type: ignore[index]
        reply = send(served, CHAT, response_format=form, max_tokens=80, seed=1)
        assert reply.status_code == 200, reply.text
        text, warning = reply.json()["choices"][0]["message"]["content"], reply.headers.get("x-pjlocal-warning", "")
        if schema is partly:
            validate(json.loads(text), schema)
        assert text[0] == "{" and ("uniqueItems" in warning) == (schema is other)


@pytest.mark.parametrize("schema", [{"enum": ["a"], "not": {}}, {"anyOf": [{"type": "array", "uniqueItems": True}]}])
def test_a_schema_without_a_type_that_cannot_be_enforced_allows_any_value(served: Served, schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": False}}
    reply = send(served, CHAT, response_format=form, max_tokens=1, logit_bias={'"': 100})
    assert "not enforced" in reply.headers["x-pjlocal-warning"]
    assert reply.json()["choices"][0]["message"]["content"] == '"'


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("chat_template_kwargs", {"tone": "dry"}, "chat_template_kwargs.tone is not supported"),
        ("structured_outputs", {"structural_tag": "x"}, "structured_outputs.structural_tag is not supported"),
        ("structured_outputs", "x", "it must be an object"),
        ("response_mime_type", "application/json", "response_format"),
        ("guided_whitespace_pattern", "x", "leave it out"),
        ("json_of_somebody", {"a": 1}, "use response_format"),
        ("output_schema", {"a": 1}, "use response_format"),
        ("best_of", 3, "best_of must equal n"),
        ("suffix", "end", "leave it out"),
        ("logit_processors", ["x"], "leave it out"),
        ("prompt_logprobs", 1, "leave it out"),
        ("prompt_logprobs", 0, "leave it out"),
        ("mirostat", 2, "leave it out"),
        ("n_probs", 3, "use logprobs"),
        ("options", {"temperature": 0}, "fields of the request"),
        ("do_sample", False, "temperature: 0"),
        ("functions", [{}], "use tools"),
        ("function_call", {"name": "f"}, "use tools"),
        ("reasoning", {"effortt": "low"}, "did you mean reasoning.effort?"),
        ("temprature", 0, "did you mean temperature"),
        ("lambda", 1, "did you mean lam?"),
        ("min-p", 0.5, "did you mean min_p?"),
        ("persona", "pirate", 'choose a persona as the model, as in "model": "pirate-brief"'),
        ("preferences", {"a": ["vivid"]}, "use prefer"),
    ],
)
def test_unsupported_fields_that_change_the_answer_are_refused(
    served: Served, name: str, value: Any, advice: str
) -> None:
    for path in (CHAT, COMPLETION):
        said = refusal(served, path, **{name: value})
        assert name in said and advice in said, said


def test_fields_of_messages_that_change_the_answer_are_refused(served: Served) -> None:
    call = {"name": "f", "arguments": "{}"}
    for role, inner in (("assistant", {"function_call": call}), ("user", {"images": ["x"]})):
        said = [{"role": role, "content": "x", **inner}, {"role": "user", "content": "x"}]
        assert refusal(served, messages=said).startswith(f"messages.0.{next(iter(inner))} is not supported")
    assert "/v1/completions" in refusal(served, CHAT, prompt="x")
    assert "/v1/chat/completions" in refusal(served, COMPLETION, tools=[{}])
    assert "/v1/chat/completions" in refusal(served, COMPLETION, top_logprobs=1)


def test_values_that_ask_for_nothing_and_harmless_fields_are_ignored(served: Served) -> None:
    nothing: dict[str, Any] = {
        "tools": [], "tool_choice": "auto", "chat_template_kwargs": {}, "stop_token_ids": [], "min_tokens": 0,
        "ignore_eos": False, "repetition_penalty": 1.0, "best_of": 1, "echo": False, "suffix": "", "mirostat": 0,
        "n_probs": 0, "add_generation_prompt": True, "continue_final_message": False, "length_penalty": 1.0,
        "use_beam_search": False, "skip_special_tokens": True, "do_sample": True, "options": {}, "guided_choice": [],
        "guided_json": {}, "format": "", "grammar": "", "thinking": {"display": "omitted"},
        "reasoning": {"context": "auto", "mode": "standard", "summary": "auto", "generate_summary": "concise"},
        "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "flex", "cache_prompt": True,
        "keep_alive": "5m", "parallel_tool_calls": True, "x_of_nobody": {"a": 1}, "speculative.n_max": 8,
        "stream_options": {"continuous_usage_stats": True}, "prediction": {"type": "content", "content": "x"},
    }  # fmt: skip
    for path in (CHAT, COMPLETION):
        seeded: dict[str, Any] = {"seed": 1, "max_tokens": 5, "pjlocal": {"ignore_end": True}}
        assert texts(served, path, **seeded, **nothing) == texts(served, path, **seeded)
    said = [{"role": "user", "content": "x", "name": "me", "tool_calls": [], "cache_control": {"type": "ephemeral"}}]
    assert texts(served, messages=said)


def test_a_persona_given_as_a_preference_is_said_to_be_a_model() -> None:
    assert in_fields("'odd' is a persona: use -P odd") == "'odd' is a persona: use the model odd"


PICTURE = {"type": "image_url", "image_url": {"url": "x"}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pjlocal": {"mode": "both"}}, 'needs a preference, as in: {"prefer": ["vivid", "creative"]}'),
        ({"pjlocal": {"avoid": ["formal"]}}, "avoid needs a preference"),
        ({"pjlocal": {"strength": 2}}, "strength needs a preference"),
        ({"pjlocal": {"prefer": ["vivid"], "mode": "judge", "best": 2}}, 'use mode "both" or add strength'),
        ({"pjlocal": {"prefer": ["a b:1", "c d", "e f:2"], "mode": "base"}}, 'the same, or use mode "both"'),
        ({"pjlocal": {"prefer": ["vivd"]}}, "did you mean vivid"),
        ({"pjlocal": {"prefer": ["nothing"]}}, "needs more than one word, as in 'Answer in rhyme')"),
        ({"pjlocal": {"persona": "pirate"}}, "unknown setting 'persona': choose a persona as the model, as in"),
        ({"pjlocal": {"n_ctx": 4096}}, "unknown setting 'n_ctx': it is the server's option ctx"),
        ({"pjlocal": {"foo": 1}}, "unknown setting 'foo': known are prefer, "),
        ({"pjlocal": {"model": "x"}}, "unknown setting 'model': the model is not a setting, leave it out"),
        ({"pjlocal": {"grammar": "nonsense"}}, "the grammar cannot be parsed"),
        ({"pjlocal": {"regex": "a", "lark": "b"}}, "pjlocal.regex and pjlocal.lark exclude each other"),
        ({"pjlocal": {"logit_bias": ["x"]}}, "logit_bias 'x' is not TOKEN=BIAS"),
        ({"logit_bias": {"x y z": 1}}, "logit_bias 'x y z=1.0'"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias '99999999=1.0': the model has tokens"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias '999"),
        ({"stop": [""]}, "stop must not be empty"),
        ({"max_tokens": 0}, "max_tokens must be at least 1 (not 0)"),
        ({"messages": [{"role": "user", "content": " "}]}, "the prompt is empty: give one"),
        ({"messages": [{"role": "user"}]}, "messages.0.content is missing"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "content.0.type: only text parts are supported"),
        ({"messages": [{"role": "user", "content": "x " * 400}]}, "start the server with a larger --ctx"),
        ({"messages": [{"role": "user", "content": "x " * 9000}]}, "far too long"),
        ({"pjlocal": {"prefer": ["x " * 9000]}}, "far too long"),
        ({"messages": []}, "messages must be a list that is not empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role must be 'system', 'developer', 'user',"),
        ({"n": 17}, "n must be at most 16"),
        ({"n": 0}, "n must be at least 1"),
        ({"stop": ["x"] * 17}, "stop must be a string or a list of at most 16 entries"),
        ({"messages": None}, "messages is missing"),
        ({"logit_bias": {str(n): 1 for n in range(1001)}}, "logit_bias has 1,001 entries: at most 1,000"),
        ({"pjlocal": {"grammar": 'root ::= "\\x00"'}}, "the filters drop every token"),
        ({"stop": 5}, "stop must be a string or a list"),
        ({"stream": 1}, "stream must be true or false"),
        ({"pjlocal": []}, "pjlocal must be an object"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content must be a string or a list"),
        ({"pjlocal": {"top": 1}}, "unknown setting 'top'"),
        ({"pjlocal": {"rule": "mod"}}, "unknown setting 'rule': it was removed, and mode both adds the pushes"),
        ({"rule": "mod"}, "rule is not supported: it was removed, and mode both adds the pushes: leave it out"),
        ({"pjlocal": {"panel": True}}, "unknown setting 'panel': it was removed, and preferences of several strengths"),
        ({"pjlocal": {"ignore_end": 1}}, "pjlocal.ignore_end must be true or false"),
        ({"pjlocal": {"strength": True}}, "pjlocal.strength must be a number or a text in quotes (not true)"),
        ({"pjlocal": {"mode": "x"}}, "pjlocal.mode must be one of judge"),
        ({"pjlocal": {"lora": ["x"]}}, "a request cannot name the server's files: leave lora out"),
        ({"pjlocal": {"aligner": "x"}}, "a request cannot name the server's files: leave aligner out"),
        ({"pjlocal": {"stop": ["x"] * 17}}, "pjlocal.stop has 17 entries: at most 16"),
    ],
)
def test_a_refusal_names_fields_and_not_options(served: Served, changes: dict[str, Any], says: str) -> None:
    said = refusal(served, **changes)
    assert says in said and not re.search(r"known are .*(lora|control_vector|aligner)", said)
    assert not TERMINAL.search(said), said


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"mode": "plain", "strength": 2}, "strength has no effect in mode plain"),
        ({"mode": "plain", "avoid": ["formal"]}, "avoid has no effect in mode plain"),
        ({"mode": "plain"}, "preferences have no effect in mode plain"),
        ({"mode": "rewrite", "prefer": ["vivid:2"]}, "the strength of vivid:2 has no effect in mode rewrite"),
        ({"mode": "rewrite", "lam": 9, "floor": 0.5}, "pjlocal.floor and pjlocal.lam have no effect in mode rewrite"),
        (
            {"mode": "rewrite", "lam": 9, "floor": 0, "push_thoughts": True},
            "pjlocal.floor, pjlocal.lam and pjlocal.push_",
        ),
        ({"mode": "base", "prefer": ["vivid"]}, "which has no preference: give it one with judge_prefer"),
    ],
)
def test_a_setting_without_effect_in_the_mode_is_refused(served: Served, own: dict[str, Any], says: str) -> None:
    assert says in refusal(served, pjlocal={"prefer": ["vivid", "creative"]} | own)
    error = send(served, CHAT, **{"prefer": ["vivid", "creative"]} | own).json()["error"]
    if "strength" in own:
        assert (error["message"], error["param"]) == ("strength has no effect in mode plain", "strength")
    if "floor" in own:
        assert error["param"] == "floor"
    if says.startswith("preferences"):
        assert (error["message"], error["param"]) == (says, "prefer")
    prefer = [] if own["mode"] == "plain" else ["vivid", "creative"]
    assert texts(served, pjlocal={"prefer": prefer, "mode": own["mode"], "lam": 4})


def test_a_setting_that_lacks_another_is_named_as_the_client_sent_it(served: Served) -> None:
    for own, param in (({"strength": 2}, "pjlocal.strength"), ({"best": 2}, "pjlocal.best")):
        error = send(served, CHAT, prefer=[], pjlocal=own).json()["error"]
        assert error["message"].startswith(f"{param} ") and error["param"] == param, error


def test_a_missing_chat_is_reported_without_advice_for_a_terminal(served: Served) -> None:
    for reply in (send(served, ANSWER, chat={"question": "x", "id": 12345}), served.http.get("/api/chats/12345")):
        assert reply.status_code == 404 and "no saved chat" in reply.text
        assert not TERMINAL.search(reply.json()["error"]["message"])
