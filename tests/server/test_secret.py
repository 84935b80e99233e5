"""Other users of the machine reach the port too: the chats need the token of the page's address, or the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from saved_chats import a_turn, saved
from served import VIEWS, Served, serving

from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "3")
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic {}", "Bearer {}x", "{}", "Bearer \xe9"])
def test_chats_cannot_be_listed_read_changed_or_begun_without_the_token(
    served: Served, store: Store, header: str
) -> None:
    session = saved(store, "private", a_turn("Who?", "Nobody."))
    headers = {"Authorization": header.format(served.token).encode("latin-1")} if header else {}
    path = f"/api/chats/{session.id}"
    client = httpx2.Client(base_url=served.url, headers=headers)
    for method, where in (
        ("GET", "/api/chats"), ("GET", "/api/chats?q=Nobody"), ("GET", path), ("GET", f"{path}/export.md"),
        ("PATCH", path), ("DELETE", path), ("POST", f"{path}/undo"),
        ("POST", "/api/answers"), ("POST", "/api/answers/1/stop"),
        ("GET", "/api/model"), ("POST", "/api/check"),
        ("HEAD", "/api/chats"), ("OPTIONS", path), ("GET", "/%61pi/chats"), ("GET", "/api/none"),
    ):  # fmt: skip
        reply = client.request(method, where)
        assert reply.status_code == 401, (method, where)
        assert method == "HEAD" or "?token=" in reply.json()["error"]["message"]
    client.close()
    assert store.load(session.id).title == "private"


def test_an_ollama_client_without_a_token_gets_a_hint_of_the_right_protocol(served: Served) -> None:
    for method, path in (
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("GET", "/api/tags"),
        ("GET", "/api/version"),
    ):
        reply = httpx2.request(method, served.url + path)
        assert reply.status_code == 404 and "Ollama's API is not served" in reply.json()["error"]["message"]


def test_without_a_key_every_program_may_ask_and_the_greeting_says_so(served: Served) -> None:
    assert httpx2.post(served.url + CHAT, json=HELLO).status_code == 200
    assert httpx2.get(f"{served.url}/v1/models").status_code == 200
    assert "without a key: every user of this machine may use it" in served.greeting
    assert served.page() in served.greeting and len(served.token) >= 32


@pytest.mark.slow
def test_the_key_opens_everything_and_the_token_the_chats_alone(
    tiny: Callable[[str], Path], server_environment: dict[str, str], database: Path
) -> None:
    environment = server_environment | {"PJLOCAL_API_KEY": "the key", "PJLOCAL_DATABASE": str(database)}
    with serving(tiny("llama"), environment) as served:
        assert "with your key" in served.greeting and "every user" not in served.greeting
        for secret, may_chat in (("the key", 200), (served.token, 401)):
            headers = {"Authorization": f"Bearer {secret}"}
            assert httpx2.get(f"{served.url}/api/chats", headers=headers).status_code == 200
            assert httpx2.post(served.url + CHAT, json=HELLO, headers=headers).status_code == may_chat
        assert httpx2.get(f"{served.url}/api/chats").status_code == 401
        first = served.token
    with serving(tiny("llama"), environment) as served:
        assert served.token != first
