"""The server as a whole: listens, answers, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..engine.interrupt import INTERRUPTED
from ..errors import PjlocalError
from .nearby import Nearby
from .worker import Worker

#: Seconds that answers have to end after a first signal; then they are stopped, and told so.
_PATIENCE_S = 0.5
PATIENCE_S = 30  # for the head of a request to come
_LAST_S = 1  # after which connections that are still open are cut


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for clients, before there is anybody to answer them.

    Raises:
        PjlocalError: the address is taken, or none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise PjlocalError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


class Connection(H11Protocol):
    """uvicorn's, which is cut where the head of a request does not come to its end."""

    _cutting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        """From its first byte on; a byte now and then makes it no longer."""
        self._cutting = self._cutting or self.loop.call_later(PATIENCE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._cutting:
            self._cutting.cancel()
            self._cutting = None


class _Server(uvicorn.Server):
    """uvicorn, which tells the worker of signals: the first one lets answers end, a second one does not."""

    def __init__(self, config: uvicorn.Config, worker: Worker, nearby: Nearby, near: socket.socket | None) -> None:
        super().__init__(config)
        self._worker = worker
        self._nearby = nearby
        self._near = near
        self.status = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._near:
            await self._nearby.start(self._near)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.gather(super().shutdown(sockets), self._nearby.stop(_LAST_S))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.status = INTERRUPTED if sig == signal.SIGINT else 0
        self._worker.stop(0.0 if self.should_exit else _PATIENCE_S)
        self.should_exit = True


def serve(
    app: Starlette, listening: socket.socket, worker: Worker, nearby: Nearby, near: socket.socket | None = None
) -> int:
    """Answer until a signal comes; the exit status, which is 0 where that is what ends servers (SIGTERM).

    Args:
        near: where `pjlocal run` of the same user comes.
    """
    for name in ("uvicorn", "uvicorn.error", "asyncio"):  # of half a request, and the like
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_S,
    )
    server = _Server(config, worker, nearby, near)
    worker.start()
    try:
        server.run([listening])
    finally:
        worker.stop(0.0)
        worker.join(_LAST_S)
    return server.status
