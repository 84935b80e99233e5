"""Connections whose clients do not come to the point."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from waiting import PATIENCE_S

from pjlocal.server import run
from pjlocal.server.run import Connection

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


Scenario = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def talk(scenario: Scenario) -> tuple[bytes, list[bool]]:
    """The replies of a server with such connections, and for each whether a time limit was running."""
    limits: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        limits.append(made[-1]._cutting is not None)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    made: list[Connection] = []
    config = uvicorn.Config(app, log_config=None, lifespan="off")

    def connection() -> Connection:
        made.append(Connection(config, ServerState(), {}))
        return made[-1]

    async def main() -> bytes:
        async with await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                return await asyncio.wait_for(scenario(reader, writer), PATIENCE_S)
            finally:
                writer.close()

    return asyncio.run(main()), limits


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE_S", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [b"", HEAD[:3], HEAD])
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(sent: bytes) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(sent)
        return await reader.read()

    assert talk(scenario) == (b"", [])


@pytest.mark.usefixtures("impatient")
def test_single_bytes_do_not_extend_the_time_limit() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD + b"X: ")
        closed = asyncio.ensure_future(reader.read())
        while not closed.done():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        return await closed

    with suppress(ConnectionResetError):  # by which some systems tell of it
        assert talk(scenario) == (b"", [])


def test_a_second_request_that_is_half_sent_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(run, "PATIENCE_S", 0.05)
        writer.write(HEAD)
        return await reader.read()

    assert talk(scenario) == (b"", [False])


def test_an_answer_that_takes_long_is_waited_for() -> None:
    async def scenario(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        return await reader.read()

    heard, limits = talk(scenario)
    assert heard.endswith(b"done") and limits == [False], "no time limit is running while it is written"


def test_a_reply_on_a_kept_connection_does_not_wait_for_an_acknowledgement() -> None:
    with (
        run.listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
