"""Programs and libraries that speak OpenAI's protocol, each doing what its users do with a server at a URL.

A client has a function for each feature that it offers, which raises where the feature does not work.
`tests/tools/clients.py` makes a table of them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

FEATURES = ("model list", "chat", "stream", "sampling", "structured output", "thinking", "tools", "continuation")
HELLO: Any = [{"role": "user", "content": "hello"}]
CONTINUED: Any = [*HELLO, {"role": "assistant", "content": "The cat"}]
N = 7  # tokens of an answer


class Number(BaseModel):
    """A number of one digit."""

    n: int = Field(ge=0, le=9)


TOOL: Any = {
    "type": "function",
    "function": {"name": "Number", "description": "Takes a number.", "parameters": Number.model_json_schema()},
}

#: What a feature does, with the URL of the server; by name.
Client = dict[str, Callable[[str], None]]


def same(ask: Callable[[int], str]) -> None:
    """Check that a seed gives one text, and another seed another."""
    first, again, other = ask(1), ask(1), ask(2)
    assert first and first == again and first != other, (first, again, other)


def openai() -> Client:
    from openai import OpenAI

    def chat(url: str, **changes: Any) -> Any:
        client = OpenAI(base_url=url, api_key="none", max_retries=0)
        return client.chat.completions.create(**{"model": "llama", "messages": HELLO, "max_tokens": N} | changes)

    def models(url: str) -> None:
        assert "llama" in [model.id for model in OpenAI(base_url=url, api_key="none").models.list()]

    def structured(url: str) -> None:
        client = OpenAI(base_url=url, api_key="none", max_retries=0)
        answer = client.chat.completions.parse(model="llama", messages=HELLO, response_format=Number)
        assert isinstance(answer.choices[0].message.parsed, Number)

    def tools(url: str) -> None:
        choice: Any = {"type": "function", "function": {"name": "Number"}}
        (call,) = chat(url, tools=[TOOL], tool_choice=choice, max_tokens=100).choices[0].message.tool_calls
        Number.model_validate_json(call.function.arguments)

    def streamed(url: str) -> None:
        chunks = list(chat(url, stream=True, extra_body={"ignore_eos": True}))
        assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 1

    def sampling(url: str) -> None:
        own = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True}
        same(lambda seed: chat(url, seed=seed, temperature=1, extra_body=own).choices[0].message.content)

    return {
        "model list": models,
        "chat": lambda url: _some(chat(url).choices[0].finish_reason),
        "stream": streamed,
        "sampling": sampling,
        "structured output": structured,
        "thinking": lambda url: _some(chat(url, reasoning_effort="none").choices),
        "tools": tools,
        "continuation": lambda url: _some(chat(url, messages=CONTINUED).choices),
    }


def llm() -> Client:
    from llm import Tool
    from llm.default_plugins.openai_models import Chat

    def ask(url: str, text: str = "hello", stream: bool = False, **options: Any) -> Any:
        model = Chat(
            "llama", model_name="llama", api_base=url, supports_schema=True, supports_tools=True, reasoning=True
        )
        model.key = "none"
        return model.prompt(text, stream=stream, key="none", **{"max_tokens": N} | options)

    def streamed(url: str) -> None:
        assert len([piece for piece in ask(url, stream=True, max_tokens=50) if piece]) > 1

    def structured(url: str) -> None:
        Number.model_validate_json(ask(url, schema=Number, max_tokens=100).text())

    def tools(url: str) -> None:
        assert ask(url, tools=[Tool.function(lambda n: str(n), name="number")]).text() is not None

    return {
        "chat": lambda url: _some(ask(url).json()),
        "stream": streamed,
        "sampling": lambda url: same(lambda seed: ask(url, seed=seed, temperature=1.0, max_tokens=50).text()),
        "structured output": structured,
        "thinking": lambda url: _some(ask(url, reasoning_effort="low").json()),
        "tools": tools,
    }


def litellm() -> Client:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched at the import
    import litellm

    def chat(url: str, **changes: Any) -> Any:
        fields = {"model": "openai/llama", "messages": HELLO, "max_tokens": N, "api_base": url, "api_key": "none"}
        return litellm.completion(**fields | changes)

    def structured(url: str) -> None:
        Number.model_validate_json(chat(url, response_format=Number, max_tokens=100).choices[0].message.content)

    def streamed(url: str) -> None:
        chunks = list(chat(url, stream=True, ignore_eos=True))
        assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 1

    def sampling(url: str) -> None:
        same(
            lambda s: chat(url, seed=s, temperature=1, top_k=40, min_p=0.01, ignore_eos=True).choices[0].message.content
        )

    def tools(url: str) -> None:
        choice = {"type": "function", "function": {"name": "Number"}}
        (call,) = chat(url, tools=[TOOL], tool_choice=choice, max_tokens=100).choices[0].message.tool_calls
        Number.model_validate_json(call.function.arguments)

    return {
        "chat": lambda url: _some(chat(url).choices),
        "stream": streamed,
        "sampling": sampling,
        "structured output": structured,
        "thinking": lambda url: _some(
            chat(url, reasoning_effort="low", allowed_openai_params=["reasoning_effort"]).choices
        ),
        "tools": tools,
        "continuation": lambda url: _some(chat(url, messages=CONTINUED).choices),
    }


def langchain_openai() -> Client:
    from langchain_openai import ChatOpenAI

    def chat(url: str, **changes: Any) -> Any:
        return ChatOpenAI(**{"model": "llama", "base_url": url, "api_key": "none", "max_tokens": N} | changes)

    def streamed(url: str) -> None:
        chunks = chat(url, extra_body={"ignore_eos": True}).stream("hello")
        assert sum(bool(chunk.content) for chunk in chunks) > 1

    def sampling(url: str) -> None:
        own = {"top_k": 40, "min_p": 0.01, "ignore_eos": True}
        same(lambda seed: str(chat(url, seed=seed, temperature=1, extra_body=own).invoke("hello").content))

    def structured(url: str) -> None:
        assert isinstance(chat(url, max_tokens=100).with_structured_output(Number).invoke("hello"), Number)

    def tools(url: str) -> None:
        model = chat(url, max_tokens=100).with_structured_output(Number, method="function_calling")
        assert isinstance(model.invoke("hello"), Number)

    return {
        "chat": lambda url: _some(chat(url).invoke("hello")),
        "stream": streamed,
        "sampling": sampling,
        "structured output": structured,
        "thinking": lambda url: _some(chat(url, reasoning_effort="low").invoke("hello")),
        "tools": tools,
        "continuation": lambda url: _some(chat(url).invoke(CONTINUED)),
    }


def instructor() -> Client:
    import instructor
    from openai import OpenAI

    def number(url: str, mode: Any) -> None:
        client = instructor.from_openai(OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
        made = client.chat.completions.create(model="llama", messages=HELLO, response_model=Number, max_retries=0)
        assert isinstance(made, Number)

    return {
        "structured output": lambda url: number(url, instructor.Mode.JSON_SCHEMA),
        "tools": lambda url: number(url, instructor.Mode.TOOLS),
    }


def pydantic_ai() -> Client:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def agent(url: str, output: Any = str, **settings: Any) -> Any:
        model = OpenAIChatModel("llama", provider=OpenAIProvider(base_url=url, api_key="none"))
        return Agent(model, output_type=output, model_settings=settings)

    def ask(url: str, output: Any = str, **settings: Any) -> Any:
        return agent(url, output, **{"max_tokens": 100} | settings).run_sync("hello").output

    def streamed(url: str) -> None:
        async def pieces() -> list[str]:
            talker = agent(url, max_tokens=50, extra_body={"ignore_eos": True})
            async with talker.run_stream("hello") as stream:
                return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

        assert len(asyncio.run(pieces())) > 1

    def sampling(url: str) -> None:
        own = {"top_k": 40, "min_p": 0.01, "min_tokens": 20}
        same(lambda seed: str(ask(url, seed=seed, temperature=1.0, extra_body=own)))

    def number(url: str, output: Any) -> None:
        assert isinstance(ask(url, output), Number)

    long = {"extra_body": {"min_tokens": 9}}  # an agent asks again where an answer is empty
    return {
        "chat": lambda url: _some(ask(url, **long)),
        "stream": streamed,
        "sampling": sampling,
        "structured output": lambda url: number(url, NativeOutput(Number)),
        "thinking": lambda url: _some(ask(url, openai_reasoning_effort="low", **long)),
        "tools": lambda url: number(url, Number),
    }


def _some(answer: Any) -> None:
    assert answer


#: By the name of the module that must be installed.
CLIENTS: dict[str, Callable[[], Client]] = {
    make.__name__: make for make in (openai, llm, litellm, langchain_openai, instructor, pydantic_ai)
}


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
