"""Programs and libraries that know nothing of pjlocal do with the server what they do with any other.

Only `openai` and `llm` come with the extra `dev`; the others are tried where they are installed:
``pip install instructor langchain-openai litellm pydantic-ai-slim[openai]``.
"""

from __future__ import annotations

import pytest
from real_clients import CLIENTS, FEATURES
from served import Served

OPTIONS = ()


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_has_what_it_offers(served: Served, name: str, feature: str) -> None:
    pytest.importorskip(name)
    client = CLIENTS[name]()
    if feature not in client:
        pytest.skip(f"{name} does not offer it")
    client[feature](f"{served.url}/v1")
