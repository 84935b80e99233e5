"""OpenAI's clients get the model's thinking apart from its answer, and send it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from openai import OpenAI
from served import Served, serving

ASK: Any = [{"role": "user", "content": "Why?"}]
#: As DeepSeek-R1 has it: the template opens the thinking, and leaves earlier thoughts out.
OPENS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1].lstrip() }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
#: As MiniMax-M2 has it: earlier thoughts stay.
KEEPS = OPENS.replace(".split('</think>')[-1].lstrip()", "")
THOUGHT, ANSWER = "Let me see < that.", "It *purrs*."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, server_environment: dict[str, str]) -> Iterator[Served]:
    path = tiny_models.write_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=2048)
    with serving(path, server_environment, "-p", "vivid", "-p", "creative") as made:
        yield made


TEXT = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"


def ask(client: OpenAI, text: str = TEXT, **values: Any) -> Any:
    """A request whose answer is one text."""
    own = {"grammar": f"root ::= {json.dumps(text)}", **values.pop("own", {})}
    extra = {"pjlocal": own, **values.pop("extra", {})}
    return client.chat.completions.create(
        **{"model": "tiny", "messages": ASK, "max_tokens": 200, "extra_body": extra} | values
    )


def test_thinking_has_its_own_field_and_is_counted(client: OpenAI) -> None:
    reply = ask(client)
    (choice,) = reply.choices
    assert choice.message.content == ANSWER and choice.message.reasoning_content == THOUGHT
    assert choice.finish_reason == "stop"
    n_thoughts = reply.usage.completion_tokens_details.reasoning_tokens
    assert 0 < n_thoughts < reply.usage.completion_tokens


def test_a_stream_brings_the_thinking_first_and_then_the_answer(client: OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks if chunk.choices]
    thinking = [n for n, delta in enumerate(deltas) if "reasoning_content" in delta]
    answer = [n for n, delta in enumerate(deltas) if delta.get("content")]
    assert "".join(deltas[n]["reasoning_content"] for n in thinking) == THOUGHT
    assert "".join(deltas[n]["content"] for n in answer) == ANSWER
    assert thinking[-1] < answer[0] and not any("content" in deltas[n] for n in thinking)
    assert len(thinking) > 5, "as it comes"
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > len(thinking)


@pytest.mark.parametrize("left_out", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
def test_the_thinking_is_left_out_on_request(client: OpenAI, left_out: dict[str, Any]) -> None:
    reply = ask(client, extra=left_out)
    assert reply.choices[0].message.model_dump(exclude_unset=True) == {"role": "assistant", "content": ANSWER}
    deltas = [chunk.choices[0].delta for chunk in ask(client, extra=left_out, stream=True)]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert not any("reasoning_content" in (delta.model_extra or {}) for delta in deltas)


@pytest.mark.parametrize("left_out", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}, {}])
def test_a_stream_of_responses_leaves_it_out_too(client: OpenAI, left_out: dict[str, Any]) -> None:
    own = {"grammar": f"root ::= {json.dumps(TEXT)}"}
    stream = client.responses.create(model="tiny", input="Why?", stream=True, extra_body={"pjlocal": own, **left_out})
    *_, last = stream
    kinds = [item.type for item in last.response.output]  # type: ignore[union-attr]
    assert kinds == (["message"] if left_out else ["reasoning", "message"])


def test_an_answer_cut_off_while_thinking_is_empty(client: OpenAI) -> None:
    reply = ask(client, max_tokens=20)
    (choice,) = reply.choices
    assert choice.finish_reason == "length" and choice.message.content == ""
    assert choice.message.reasoning_content and THOUGHT.startswith(choice.message.reasoning_content)
    assert reply.usage.completion_tokens_details.reasoning_tokens == reply.usage.completion_tokens == 20
    chunks = [chunk.choices[0] for chunk in ask(client, max_tokens=20, stream=True)]
    thinking = "".join(chunk.delta.model_extra.get("reasoning_content", "") for chunk in chunks)
    assert thinking == choice.message.reasoning_content and chunks[-1].finish_reason == "length"
    assert not any(chunk.delta.content for chunk in chunks)


def test_token_events_mark_thinking(client: OpenAI) -> None:
    (choice,) = ask(client, own={"events": True}, logprobs=True).choices
    events = choice.pjlocal["events"]
    flags = [event["thought"] for event in events]
    assert flags == sorted(flags, reverse=True) and set(flags) == {True, False}
    assert "".join(event["text"] for event in events if not event["thought"]).lstrip() == ANSWER
    assert "".join(one.token for one in choice.logprobs.content).strip() == ANSWER, "of the answer alone"


@pytest.mark.slow
@pytest.mark.parametrize(("template", "stays"), [(OPENS, False), (KEEPS, True), (tiny_models.CHATML, False)])
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_the_thinking_of_earlier_answers_is_in_the_prompt_if_the_template_reads_it(
    tmp_path: Path, server_environment: dict[str, str], template: str, stays: bool, field: str
) -> None:
    model = tiny_models.write_llama(tmp_path / "opens.gguf", chat_template=template, n_ctx_train=2048)
    with serving(model, server_environment) as served:

        def n_prompt(content: str, **fields: str) -> int:
            messages = [*ASK, {"role": "assistant", "content": content, **fields}, *ASK]
            reply = served.openai().chat.completions.create(model="opens", messages=messages, max_tokens=1)
            return reply.usage.prompt_tokens

        plain = n_prompt(ANSWER)
        assert (n_prompt(ANSWER, **{field: THOUGHT}) > plain) == stays
        if stays:
            assert n_prompt(ANSWER, **{field: THOUGHT}) == n_prompt(f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}")


@pytest.mark.slow
def test_an_answer_that_is_sent_back_is_taken_however_it_is_worded(
    tmp_path: Path, server_environment: dict[str, str]
) -> None:
    model = tiny_models.write_llama(tmp_path / "oss.gguf", chat_template=tiny_models.HARMONY, n_ctx_train=2048)
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    with serving(model, server_environment) as served:

        def n_prompt(*answers: str) -> int:
            messages = [{"role": "user", "content": "Why?"}]
            for answer in answers:
                messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
            reply = served.openai().chat.completions.create(model="oss", messages=messages, max_tokens=1)
            return reply.usage.prompt_tokens

        plain = n_prompt("Yes", "No")
        assert n_prompt(f"{thought}Yes", f"{thought}No") == plain, "thoughts leave the prompt"
        assert n_prompt(f"Yes: {thought}", "No") > plain
        assert n_prompt("<|channel|>analysis<|message|>Hm") == n_prompt("")


def test_a_text_that_ends_with_an_opening_mark_is_continued_as_text(served: Served) -> None:
    reply = served.http.post("/v1/completions", json={"prompt": "Hello<think>\n", "max_tokens": 5, "ignore_eos": True})
    assert reply.json()["choices"][0]["text"], "a client that writes its prompts itself reads the marks itself"
