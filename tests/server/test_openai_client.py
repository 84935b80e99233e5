"""OpenAI's own Python client asks, and gets what its protocol promises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from pjlocal import Engine, PersonaJudge, Sampling
from pjlocal.request import Overrides
from pjlocal.server.openai import Names

ASK: Any = [{"role": "user", "content": "Tell me about cats."}]
LONG = {"pjlocal": {"ignore_end": True}}  # a tiny model likes to end at once
OPTIONS = ("--batch-size", "32")


def test_every_persona_is_listed_as_a_model(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "llama", "bold", "ahoy", "cook", "llama:bold", "llama:ahoy", "llama:cook",
    ]  # fmt: skip
    assert client.models.retrieve("llama:bold").owned_by == "pjlocal"
    slash = client.get("/models/", cast_to=object)
    assert slash == client.get("/models", cast_to=object), "some clients add a slash"


def test_a_seed_gives_the_text_that_it_gives_alone(client: OpenAI, alone: Callable[..., str]) -> None:
    answer = client.chat.completions.create(model="llama", messages=ASK, seed=3, max_tokens=20, extra_body=LONG)
    assert answer.choices[0].message.content == alone(ASK[0]["content"], seed=3, max_tokens=20, ignore_end=True)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage and answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20


def test_presets_can_be_named_as_the_model(client: OpenAI, alone: Callable[..., str]) -> None:
    expected = alone(ASK[0]["content"], ("vivid", "creative"), seed=3, max_tokens=20, ignore_end=True)
    for name in ("vivid+creative", "llama:vivid+creative"):
        answer = client.chat.completions.create(model=name, messages=ASK, seed=3, max_tokens=20, extra_body=LONG)
        assert answer.choices[0].message.content == expected
        assert answer.model == name


def test_preferences_and_settings_come_under_one_key(client: OpenAI, alone: Callable[..., str]) -> None:
    own = {"prefer": ["vivid", "concise"], "mode": "both", "strength": "2", "lam": 2, "ignore_end": True, "top_k": 5}
    answer = client.chat.completions.create(
        model="llama", messages=ASK, seed=5, max_tokens=12, extra_body={"pjlocal": own | {"events": True}}
    )
    told = answer.choices[0].pjlocal  # type: ignore[attr-defined]
    assert told["mode"] == "both" and told["strengths"] == {"a": 2.0, "b": 2.0} and told["seed"] == 5
    assert "".join(event["text"] for event in told["events"]) == answer.choices[0].message.content
    assert {event["writer"] for event in told["events"]} <= {"a", "b", None}
    assert all(event["pushes"].keys() == {"a", "b"} for event in told["events"])


def test_mode_rewrite_corrects_a_first_answer(client: OpenAI, tiny: Callable[[str], Path]) -> None:
    own = {"prefer": ["vivid"], "mode": "rewrite", "ignore_end": True, "events": True}
    asked: Any = {"model": "llama", "messages": ASK, "seed": 6, "max_tokens": 12, "extra_body": {"pjlocal": own}}
    with PersonaJudge(tiny("llama"), prefer=["vivid"], engine=Engine(n_threads=1)) as judge:
        expected = judge(ASK[0]["content"], mode="rewrite", seed=6, max_tokens=12, ignore_end=True)
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].message.content == expected.text
    assert expected.draft and answer.choices[0].pjlocal["draft"]["text"] == expected.draft.text  # type: ignore[attr-defined]
    stream = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected.text


def test_composed_and_decomposed_names_of_models_are_the_same() -> None:
    names = Names("Caf\u00e9.gguf", ("cafe\u0301",), {"ren\u00e9": (rene := Overrides(prefer=("vivid",)))})
    for name in ("caf\u00e9.gguf", "Cafe\u0301.gguf", "Caf\u00e9"):
        assert names.find(name) == Overrides() and names.find(f"{name}:Rene\u0301") is rene


def test_a_persona_sets_what_it_sets_and_a_request_sets_more(client: OpenAI) -> None:
    events = {"pjlocal": {"events": True}}
    bold = client.chat.completions.create(model="bold", messages=ASK, max_tokens=3, extra_body=events)
    told = bold.choices[0].pjlocal  # type: ignore[attr-defined]
    assert told["mode"] == "both" and told["preferences"] == {"a": ["vivid:1.5"], "b": ["concise"]}
    other = {"pjlocal": {"events": True, "mode": "base"}}
    based = client.chat.completions.create(model="bold", messages=ASK, max_tokens=3, extra_body=other)
    assert based.choices[0].pjlocal["mode"] == "base"  # type: ignore[attr-defined]


def test_a_system_message_is_the_system_text(client: OpenAI, tiny: Callable[[str], Path]) -> None:
    said: Any = [{"role": "system", "content": "Be brief."}, *ASK]
    answer = client.chat.completions.create(model="llama", messages=said, seed=1, max_tokens=9, extra_body=LONG)
    with PersonaJudge(tiny("llama"), engine=Engine(n_threads=1)) as judge:
        judge.request = judge.request.replace(system="Be brief.")
        assert answer.choices[0].message.content == judge(ASK[0]["content"], seed=1, max_tokens=9, ignore_end=True).text


def test_a_system_message_alone_is_the_question(client: OpenAI) -> None:
    asked: Any = {"model": "", "seed": 3, "max_tokens": 9, "extra_body": LONG}
    instruction = {"role": "system", "content": "[pjlocal]\ntop_k = 5\n\nTell me about cats."}
    alone = client.chat.completions.create(**asked, messages=[instruction])
    expected = client.chat.completions.create(
        **asked | {"extra_body": {"pjlocal": {"ignore_end": True, "top_k": 5}}}, messages=ASK
    )
    assert alone.choices[0].message == expected.choices[0].message and alone.usage == expected.usage


def test_a_stream_says_the_same_and_counts_at_its_end(client: OpenAI) -> None:
    asked: Any = {"model": "vivid+creative", "messages": ASK, "seed": 4, "max_tokens": 15, "extra_body": LONG}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert len(chunks) > 10  # token by token


def test_a_stream_sends_token_events_on_request(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="vivid+creative",
        messages=ASK,
        seed=4,
        max_tokens=6,
        stream=True,
        extra_body={"pjlocal": {"events": True}},
    )
    told = [chunk.choices[0].model_extra["pjlocal"] for chunk in stream if "pjlocal" in chunk.choices[0].model_extra]  # type: ignore[index,operator]
    events = [event for one in told[:-1] for event in one["events"]]
    assert [event["position"] for event in events] == list(range(len(events)))
    assert {"writer", "p", "q", "kind"} <= events[0].keys()
    assert told[-1]["acceptance_rate"] is not None


def test_several_answers_have_seeds_counted_on(client: OpenAI) -> None:
    asked: Any = {"model": "vivid+creative", "messages": ASK, "max_tokens": 10, "extra_body": LONG}
    each = [client.chat.completions.create(**asked, seed=seed).choices[0].message.content for seed in (7, 8, 9)]
    together = client.chat.completions.create(**asked, seed=7, n=3)
    assert [choice.message.content for choice in together.choices] == each
    assert together.usage and together.usage.completion_tokens == 30
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, seed=7, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == each


def test_an_answer_ends_at_a_stop_string(client: OpenAI) -> None:
    asked: Any = {"model": "llama", "messages": ASK, "seed": 3, "max_tokens": 30, "extra_body": LONG}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    assert whole
    end = whole[10:12]
    stopped = client.chat.completions.create(**asked, stop=end).choices[0]
    assert stopped.message.content == whole[: whole.index(end)] and stopped.finish_reason == "stop"


def test_logprobs_are_those_before_the_filters(client: OpenAI) -> None:
    asked: Any = {"model": "llama", "messages": ASK, "max_tokens": 8, "logprobs": True, "extra_body": LONG}
    greedy = client.chat.completions.create(**asked, temperature=0, top_logprobs=3).choices[0].logprobs
    assert greedy and greedy.content and len(greedy.content) == 8
    for token in greedy.content:
        best = token.top_logprobs[0]
        assert (best.token, best.bytes, best.logprob) == (token.token, token.bytes, token.logprob)
        assert -10 < token.top_logprobs[2].logprob < best.logprob < 0
    bare = client.chat.completions.create(**asked).choices[0].logprobs
    assert bare and bare.content and bare.content[0].top_logprobs == [] and bare.content[0].logprob < 0


def test_logprobs_have_no_token_that_the_text_does_not_have(client: OpenAI) -> None:
    asked: Any = {"model": "llama", "messages": ASK, "seed": 3, "max_tokens": 30, "logprobs": True}
    whole = client.chat.completions.create(**asked, extra_body=LONG).choices[0]
    assert whole.message.content and whole.logprobs and whole.logprobs.content
    tokens = [one.token for one in whole.logprobs.content]
    n = next(
        n for n in range(5, 25) if tokens[n].strip() and "".join(tokens[n : n + 2]) not in "".join(tokens[: n + 1])
    )
    ends: list[Any] = [
        {"stop": "".join(tokens[n : n + 2]), "extra_body": LONG},
        {"extra_body": {"pjlocal": {"ignore_end": True, "stop_token": [whole.logprobs.content[n].token]}}},
    ]
    for end in ends:
        choice = client.chat.completions.create(**asked, **end).choices[0]
        assert choice.finish_reason == "stop" and choice.logprobs and choice.logprobs.content is not None
        assert "".join(one.token for one in choice.logprobs.content) == choice.message.content


@pytest.mark.parametrize("mode", ["judge", "both", "base"])
def test_logprobs_are_those_of_who_decided(client: OpenAI, mode: str) -> None:
    own = {"prefer": ["vivid", "creative"], "mode": mode, "ignore_end": True, "events": True, "top_p": 1.0}
    plain: Any = {"temperature": 1, "max_tokens": 8, "seed": 2, "extra_body": {"pjlocal": own | {"top_k": 0}}}
    answer = client.chat.completions.create(model="llama", messages=ASK, logprobs=True, top_logprobs=5, **plain)
    choice = answer.choices[0]
    assert choice.logprobs and choice.logprobs.content
    events = choice.pjlocal["events"]  # type: ignore[attr-defined]
    for token, event in zip(choice.logprobs.content, events, strict=True):
        assert token.logprob == pytest.approx(math.log(event["p"]), abs=1e-3)  # nothing is filtered here
        assert token.top_logprobs[0].logprob >= token.logprob


def test_json_obeys_its_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model="llama", messages=ASK, seed=1, max_tokens=100, response_format=form)
    assert 0 <= json.loads(answer.choices[0].message.content or "")["n"] <= 9
    some = client.chat.completions.create(
        model="llama", messages=ASK, seed=1, max_tokens=5, response_format={"type": "json_object"}
    )
    assert (some.choices[0].message.content or "").startswith("{")


def test_a_completion_continues_its_prompt_without_a_template(client: OpenAI) -> None:
    asked: Any = {"prompt": "the cat sees", "seed": 2, "max_tokens": 8, "extra_body": LONG}
    answer = client.completions.create(model="llama", **asked, logprobs=2)
    assert answer.usage and answer.usage.prompt_tokens == 1 + len("the cat sees")  # no template around it
    assert answer.choices[0].logprobs and len(answer.choices[0].logprobs.tokens or []) == 8
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(model="llama", **asked, stream=True))
    assert text == answer.choices[0].text
    judged = client.completions.create(model="vivid+creative", **asked)
    assert judged.usage and judged.usage.prompt_tokens > answer.usage.prompt_tokens  # a preference stands above it


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"extra_body": {"functions": [{"name": "f", "parameters": {}}]}}, "functions is not supported: use tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "text"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"extra_body": {"topk": 3}}, "did you mean top_k"),
        ({"extra_body": {"pjlocal": {"topk": 3}}}, "did you mean top_k"),
        ({"extra_body": {"pjlocal": {"prefer": ["@/etc/passwd"]}}}, "cannot name the server's files"),
        ({"extra_body": {"pjlocal": {"control_vector_b": ["a.gguf:0.5"]}}}, "cannot name the server's files"),
        ({"extra_body": {"pjlocal": {"mode": "judge"}}}, "needs a preference"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, "not"),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_with_the_reason(client: OpenAI, asked: dict[str, Any], says: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**({"model": "llama", "messages": ASK, "stream": stream} | asked))
        assert says in refused.value.message, refused.value.message
        assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("n", [2000, 100_000])
def test_a_prompt_that_is_too_long_is_refused_with_openais_code(client: OpenAI, n: int) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="too long") as refused:
            client.chat.completions.create(model="", messages=[{"role": "user", "content": "x " * n}], stream=stream)
        assert refused.value.code == "context_length_exceeded" and refused.value.type == "invalid_request_error"


def test_none_is_what_is_not_given(client: OpenAI) -> None:
    nothing: Any = dict.fromkeys(
        ["stop", "seed", "n", "temperature", "logit_bias", "response_format", "stream_options"]
    )
    assert client.chat.completions.create(model="llama", messages=ASK, max_tokens=1, **nothing).choices
    assert client.completions.create(model="llama", prompt="x", max_tokens=1, stop=None, suffix=None).choices


def test_an_empty_stop_string_is_none(client: OpenAI) -> None:
    assert client.chat.completions.create(model="llama", messages=ASK, max_tokens=1, stop="").choices


def test_a_completion_takes_the_newer_name_of_its_length(client: OpenAI) -> None:
    newer: Any = {"max_completion_tokens": 3, **LONG}
    answer = client.completions.create(model="llama", prompt="x", extra_body=newer)
    assert answer.usage and answer.usage.completion_tokens == 3


def test_fields_without_effect_are_accepted(client: OpenAI) -> None:
    harmless: Any = {
        "user": "me",
        "store": False,
        "metadata": {"a": "b"},
        "tool_choice": "none",
        "service_tier": "auto",
    }
    assert client.chat.completions.create(model="llama", messages=ASK, max_tokens=1, **harmless).choices


def test_an_unknown_model_is_refused_with_the_nearest_name(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean llama:bold"):
        client.chat.completions.create(model="llama:blod", messages=ASK)
    with pytest.raises(openai.NotFoundError, match=r"'Lama': did you mean llama[?]"):
        client.chat.completions.create(model="Lama", messages=ASK)
    with pytest.raises(openai.NotFoundError, match=r"'vivd': did you mean vivid[?]"):
        client.chat.completions.create(model="vivd", messages=ASK)
    with pytest.raises(openai.NotFoundError, match="no model 'other:bold'"):
        client.models.retrieve("other:bold")
    hint = r"there is no preset 'friendl' [(]did you mean friendly[?][)]"
    with pytest.raises(openai.NotFoundError, match=rf"no model 'vivid[+]friendl': {hint}"):
        client.chat.completions.create(model="vivid+friendl", messages=ASK)
    with pytest.raises(openai.NotFoundError, match="no model 'zzzz': known are llama, "):
        client.chat.completions.create(model="zzzz", messages=ASK)
    for name, says in (
        ("llama:vivid*2", "did you mean llama:vivid[?]"),
        ("concise+bold:2", "'bold' is a persona, and"),
    ):
        with pytest.raises(openai.NotFoundError, match=says):
            client.chat.completions.create(model=name, messages=ASK)
    for name in ("nosuch", "default", "llama:", "llama:default"):
        with pytest.raises(openai.NotFoundError, match=f"no model '{name}': known are llama, "):
            client.chat.completions.create(model=name, messages=ASK)
    with pytest.raises(openai.NotFoundError, match=r"no model 'vivid[+]': a preset is missing before or after [+]"):
        client.chat.completions.create(model="vivid+", messages=ASK)
    for name in ("vivid:99", "vivid:abc", "vivid:abc+concise"):
        with pytest.raises(openai.BadRequestError, match=f"the preference '{name[:8]}.*': a strength is a number from"):
            client.chat.completions.create(model=f"llama:{name}", messages=ASK)


def test_a_model_name_gives_preferences_strengths(client: OpenAI) -> None:
    asked: Any = {"messages": ASK, "max_tokens": 9, "seed": 3}
    named = client.chat.completions.create(model="llama:vivid:1.5+concise", **asked)
    prefer: Any = {"prefer": ["vivid:1.5", "concise"]}
    assert named.choices == client.chat.completions.create(model="llama", **asked, extra_body=prefer).choices
    assert client.models.retrieve("vivid:1.5").id == "vivid:1.5"


def test_penalties_and_biases_reach_the_filters(client: OpenAI, tiny: Callable[[str], Path]) -> None:
    asked: Any = {"model": "llama", "messages": ASK, "seed": 3, "max_tokens": 9, "extra_body": LONG}
    answer = client.chat.completions.create(**asked, logit_bias={"263": 100}, top_p=0.5, presence_penalty=0.5)
    filters = Sampling(logit_bias=("263=100",), top_p=0.5, presence_penalty=0.5)
    with PersonaJudge(tiny("llama"), sampling=filters, engine=Engine(n_threads=1)) as judge:
        expected = judge(ASK[0]["content"], seed=3, max_tokens=9, ignore_end=True).text
    assert answer.choices[0].message.content == expected == "#" * 9
