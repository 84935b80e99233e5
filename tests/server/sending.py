"""Bodies of requests: sent, answered, and refused in a line."""

from __future__ import annotations

from typing import Any

import httpx2
from served import Served

CHAT, COMPLETION, ANSWER, RESPONSES = "/v1/chat/completions", "/v1/completions", "/api/answers", "/v1/responses"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1},
    COMPLETION: {"prompt": "hello", "max_tokens": 1},
    RESPONSES: {"input": "hello", "max_output_tokens": 1},
    ANSWER: {"chat": {"question": "hello", "keep": False}, "settings": {"max_tokens": 1}},
}


def send(served: Served, path: str, **fields: Any) -> httpx2.Response:
    return served.http.post(path, json=GOOD[path] | fields)


def texts(served: Served, path: str = CHAT, **fields: Any) -> list[str]:
    reply = send(served, path, **fields)
    assert reply.status_code == 200, reply.text
    return [choice["message"]["content"] if path == CHAT else choice["text"] for choice in reply.json()["choices"]]


def refusal(served: Served, path: str = CHAT, **fields: Any) -> str:
    reply = send(served, path, **fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    return str(error["message"])
