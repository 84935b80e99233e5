"""Clients that get nested data by a function, in parts, and by the Responses API, whatever the template is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny_models
import tool_templates
from pydantic import BaseModel
from served import Served, serving


class City(BaseModel):
    name: Literal["Paris", "Rome"]


class Trip(BaseModel):
    """A trip to cities."""

    city: City  # which schemas refer to
    days: Literal[1, 2]


ASK: Any = [{"role": "user", "content": "Two days in Paris."}]


@pytest.fixture(scope="module", params=[tiny_models.CHATML, tool_templates.HERMES], ids=["plain", "hermes"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server_environment: dict[str, str]
) -> Iterator[Served]:
    """A server of a model whose template knows nothing of functions, or has its own way with them."""
    path: Path = tmp_path_factory.mktemp("model") / "model.gguf"
    tiny_models.write_llama(path, chat_template=request.param, n_ctx_train=4096)
    with serving(path, server_environment) as made:
        yield made


def test_instructor_gets_data_whole_and_in_parts(served: Served) -> None:
    instructor = pytest.importorskip("instructor")
    client = instructor.from_openai(served.openai())
    asked: Any = {"model": "model", "messages": ASK, "response_model": Trip, "max_tokens": 300}
    assert isinstance(client.chat.completions.create(**asked), Trip)
    parts = [*client.chat.completions.create_partial(**asked)]
    Trip.model_validate(parts[-1].model_dump())


@pytest.mark.slow
def test_pydantic_ai_gets_data_by_responses(served: Served) -> None:
    ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    provider = providers.OpenAIProvider(base_url=f"{served.url}/v1", api_key="none")
    model = models.OpenAIResponsesModel("model", provider=provider)
    agent = ai.Agent(model, output_type=Trip, model_settings={"max_tokens": 300})
    assert isinstance(agent.run_sync("Two days in Paris.").output, Trip)
