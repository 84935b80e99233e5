"""A fault of the server is in its log and among its counters, wherever it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from saved_chats import saved
from served import serving, streamed
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from waiting import PATIENCE_S

from pjlocal.client import Server
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import UsageError
from pjlocal.request import Request
from pjlocal.server import model_routes, streaming
from pjlocal.server.app import create_app
from pjlocal.server.auth import Guard
from pjlocal.server.jobs import Job, ModelName
from pjlocal.server.metrics import Metrics
from pjlocal.server.openai import Names
from pjlocal.server.service import Service
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


def app_of(service: type[Service], metrics: Metrics) -> tuple[Starlette, Any]:
    """An application, and its service without a model."""
    made = service(lambda stop: None, 2, None, Interrupt())  # type: ignore[arg-type,return-value]
    names, model = Names("llama", (), {}), {"context_limit": 512}
    saved_as = ModelName("llama", "llama")
    return create_app(made, names, Request(), metrics, model, saved_as, token="secret"), made


def scope_of(path: str) -> Scope:
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer secret")]
    return {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}


def n_errors(metrics: Metrics) -> int:
    (line,) = (line for line in metrics.text().decode().splitlines() if line.startswith("pjlocal_errors_total "))
    return int(float(line.split()[1]))


@pytest.mark.slow
def test_a_database_that_cannot_be_used_is_reported_before_the_model_is_served(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    database.write_text("garbage")
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, "--ctx", "512") as served:
        assert f"cannot use the saved chats in {database}: file is not a database (set" in served.said[0]
        assert served.text(max_tokens=2)


@pytest.mark.slow
def test_a_database_that_breaks_during_an_answer_is_reported_logged_and_counted(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    options = ("--ctx", "32768")
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, *options) as served:
        with Store(database) as store:
            session = saved(store, "endless", settings=ENDLESS)
        body = {"chat": {"question": "hello", "id": session.id}}
        with served.http.stream("POST", "/api/answers", json=body) as reply:
            events = streamed(reply.iter_lines())
            next(events)
            with sqlite3.connect(database) as db:
                db.execute("DROP TABLE tokens")
            *_, error = events
        assert error["type"] == "server_error" and "cannot use the saved chats" in error["error"]
        assert served.metric("pjlocal_errors_total") >= 1
        _, said = served.end()
    assert said.removeprefix(served.greeting).startswith("pjlocal: cannot use the saved chats")


@pytest.mark.parametrize("begun", [False, True])
def test_an_unexpected_error_is_logged_and_counted_before_and_in_a_response(
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


@pytest.mark.parametrize("begun", [False, True])
def test_a_fault_in_the_service_is_reported_logged_and_counted_before_and_in_a_stream(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    class Faulty(Service):
        def submit(self, jobs: Sequence[Job]) -> None:
            if not begun:
                raise KeyError("nobody foresaw this")
            for job in jobs:
                job.emit(KeyError("nobody foresaw this"))

        def cancel(self, jobs: Sequence[Job]) -> None:
            pass

    app, _ = app_of(Faulty, metrics)
    headers = {"Authorization": "Bearer secret", "Host": "localhost"}
    asked = {"messages": [{"role": "user", "content": "hello"}], "request": Request().as_dict()}

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return await asyncio.wait_for(client.post("/api/answers", json=asked), PATIENCE_S)

    reply = asyncio.run(ask())
    assert reply.status_code == (200 if begun else 500) and "internal server error" in reply.text
    assert n_errors(metrics) == 1 and "this is a bug in pjlocal" in caplog.text


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/api/check", "/api/answers", "/api/files", "/api/dials"]
)
def test_a_client_that_disconnects_during_its_body_is_no_fault_of_the_server(metrics: Metrics, path: str) -> None:
    parts = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    app, _ = app_of(Service, metrics)
    asyncio.run(app(scope_of(path), receive, send))
    assert n_errors(metrics) == 0 and sent == []
    assert 'status="499"' in metrics.text().decode()


def test_a_counted_route_is_one_route_alone(metrics: Metrics) -> None:
    app, _ = app_of(Service, metrics)
    endpoints = {route.endpoint for route in app.routes if isinstance(route, Route)}
    assert len({endpoint.__name__ for endpoint in endpoints}) == len(endpoints)


def body_of_a_late_error(path: str, asked: Any, waits: bytes) -> bytes:
    """The body of a response to a request whose error comes after the body has said that it waits."""

    class Late(Service):
        def submit(self, jobs: Sequence[Job]) -> None:
            self.jobs = jobs

        def cancel(self, jobs: Sequence[Job]) -> None:
            pass

    async def receive() -> Any:
        return requests.pop() if requests else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == waits and sum(each.get("body") == waits for each in sent) == 2:
            for job in service.jobs:
                job.emit(UsageError("it comes late"))

    sent: list[Any] = []
    requests = [{"type": "http.request", "body": json.dumps(asked).encode()}]
    app, service = app_of(Late, Metrics())
    asyncio.run(asyncio.wait_for(app(scope_of(path), receive, send), PATIENCE_S))
    assert sent[0]["status"] == 200
    return b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize(("path", "field"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
def test_a_stream_without_a_token_says_that_it_is_alive_and_reports_a_late_error(
    monkeypatch: pytest.MonkeyPatch, path: str, field: str
) -> None:
    monkeypatch.setattr(streaming, "_STATUS_S", 0.001)
    monkeypatch.setattr(streaming, "_ALIVE_S", 0.001)
    body = body_of_a_late_error(path, {field: [{"role": "user", "content": "hello"}], "stream": True}, streaming.ALIVE)
    assert "it comes late" in body.decode().splitlines()[-2]


def test_a_check_that_waits_for_the_model_says_that_it_is_alive_and_reports_a_late_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_routes, "PROGRESS_S", 0.001)
    body = body_of_a_late_error("/api/check", {"request": Request().as_dict()}, b" ")
    server = Server("http://localhost", Interrupt())
    monkeypatch.setattr(server, "call", lambda *asked: json.loads(body))
    with pytest.raises(UsageError, match="it comes late"):
        server.check(Request())
