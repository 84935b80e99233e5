"""JSON for replies, in ASCII: names of files and settings may contain halves of surrogate pairs, which UTF-8
cannot encode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


class JsonResponse(Response):
    """A JSON response, which browsers do not keep."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, {"Cache-Control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def as_event(data: Mapping[str, Any]) -> bytes:
    """An event of a stream."""
    return f"data: {json.dumps(data)}\n\n".encode()
