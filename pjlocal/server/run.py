"""The server as a whole: listens, answers, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..engine.interrupt import INTERRUPTED
from ..errors import PjlocalError
from ..runtime_socket import is_private, socket_path
from ..service import Service
from ..settings import Engine

log = logging.getLogger("pjlocal")

#: Seconds that answers have to end after a first signal; then they are stopped.
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
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise PjlocalError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    # Accepted connections take this over.  asyncio sets it only on sockets that name their protocol: without it, every
    # reply on a kept connection waits 40 ms for the acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def listen_locally(model: Path, engine: Engine) -> Iterator[socket.socket | None]:
    """A socket for this user's `pjlocal run` and `chat`; None where there can be none, or another server has it."""
    path = socket_path(model, engine)
    bound = _bound(path) if path else None
    try:
        yield bound
    finally:
        if bound and path:
            bound.close()
            path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket | None:
    """Needs a name that nobody listens at: one that is left of a server that was killed is taken over."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for folder in (path.parent.parent, path.parent):  # of parents that are missing, `mkdir` sets no mode
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(path.parent):
            raise OSError(f"{path.parent} is open to others")
        if path.exists():
            if _is_listened_at(path):
                raise OSError(f"another server listens at {path}")
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)  # nobody reaches it before it listens
        listening.listen()
    except OSError as error:  # such as a path that is too long for a socket; the server is of use without
        log.debug("pjlocal run will not find this server: %s", error)
        listening.close()
        return None
    return listening


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except (ConnectionError, FileNotFoundError):
            return False
        except OSError:  # it does not come to accept
            return True
        return True


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
    """uvicorn, which tells the service of signals: the first one lets answers end, a second one does not."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.status = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.status = INTERRUPTED if sig == signal.SIGINT else 0
        self._service.end(0.0 if self.should_exit else _PATIENCE_S)
        self.should_exit = True


def serve(app: Starlette, sockets: Sequence[socket.socket], service: Service) -> int:
    """Answer until a signal comes; the exit status, which is 0 where that is what ends servers (SIGTERM)."""
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
    server = _Server(config, service)
    service.start()
    try:
        server.run(list(sockets))
    finally:
        service.end(0.0)
        service.join(_LAST_S)
    return server.status
