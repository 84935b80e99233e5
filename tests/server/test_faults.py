"""A fault of the server is in its log and among its counters, wherever it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from saved_chats import saved
from served import serving
from starlette.types import Receive, Scope, Send

from pjlocal.request import Request
from pjlocal.server.guard import Guard
from pjlocal.server.metrics import Metrics
from pjlocal.server.near import About
from pjlocal.server.nearby import Nearby
from pjlocal.sessions.store import Store

ENDLESS = {"generation": {"max_tokens": 30_000, "ignore_end": True}}


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    logger = logging.getLogger("pjlocal")
    before = list(logger.handlers)
    made = Metrics()
    made.count_errors(logger)
    yield made
    logger.handlers = before


def n_errors(metrics: Metrics) -> int:
    (line,) = (line for line in metrics.text().decode().splitlines() if line.startswith("pjlocal_errors_total "))
    return int(float(line.split()[1]))


@pytest.mark.slow
def test_a_database_that_breaks_in_the_middle_of_an_answer_is_told_logged_and_counted(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    options = ("--ctx", "32768")
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, *options) as served:
        with Store(database) as store:
            session = saved(store, "endless", settings=ENDLESS)
        body = {"question": "hello", "session": session.id}
        with served.http.stream("POST", "/api/turns", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            with sqlite3.connect(database) as db:
                db.execute("DROP TABLE tokens")
            error = json.loads([line for line in lines if line][-1].removeprefix("data: "))["error"]
        assert error["type"] == "server_error" and "cannot use the saved chats" in error["message"]
        assert served.metric("pjlocal_errors_total") >= 1
        _, said = served.end()
    assert said.removeprefix(served.greeting).startswith("pjlocal: cannot use the saved chats")


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_that_nobody_foresaw_is_logged_and_counted_before_and_in_a_response(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("nobody foresaw this")

    async def take(message: Any) -> None:
        sent.append(message)

    async def nothing() -> Any:
        await asyncio.Event().wait()

    guard = Guard(app, None, "token", False, (), metrics)
    asyncio.run(guard({"type": "http", "path": "/v1/models", "headers": []}, nothing, take))
    assert "this is a bug in pjlocal: KeyError: 'nobody foresaw this'" in caplog.text
    assert n_errors(metrics) == 1 and sent[0]["status"] == (200 if begun else 500)
    assert not any(b"foresaw" in message.get("body", b"") for message in sent)


class _Faulty:
    """A worker that fails as nobody foresaw."""

    def __init__(self, when: str) -> None:
        self._when = when

    def submit(self, orders: list[Any]) -> None:
        if self._when == "submitting":
            raise KeyError("nobody foresaw this")
        for order in orders:
            order.tell(KeyError("nobody foresaw this") if self._when == "writing" else object())

    def cancel(self, orders: list[Any]) -> None:
        pass

    def leave(self, talk: Any) -> None:
        pass


@pytest.mark.parametrize("when", ["submitting", "writing", "telling"])
def test_a_fault_on_the_private_socket_is_logged_and_counted(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, tmp_path: Path, when: str
) -> None:
    async def talk() -> dict[str, Any]:
        worker: Any = _Faulty(when)
        nearby = Nearby(worker, 2, About(300, "", {}))
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "s"))
            await nearby.start(listening)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(json.dumps(Request().as_dict() | {"prompt": "hello"}).encode() + b"\n")
            said: dict[str, Any] = {"taken": True}
            while "taken" in said:
                said = json.loads(await reader.readline())
            writer.close()
            await nearby.stop(1)
        return said

    async def within() -> dict[str, Any]:
        return await asyncio.wait_for(talk(), 20)

    said = asyncio.run(within())
    assert "refused" in said or "error" in said
    assert n_errors(metrics) == 1 and "this is a bug in pjlocal" in caplog.text
