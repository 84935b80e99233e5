"""Open the server's sockets, run it, and end it."""

from __future__ import annotations

import asyncio
import errno
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
from ..settings import Engine
from .service import Service

log = logging.getLogger("pjlocal")

#: Seconds between a first signal and the interruption of unfinished answers.
_PATIENCE_S = 0.5
PATIENCE_S = 30  # time limit for the head of a request
_LAST_S = 1  # time limit for open connections at the end


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        PjlocalError: the address is in use, or not one of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = f"{error.strerror or error}".partition(" (while")[0]  # create_server adds the address
        hint = ": give another with --port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        raise PjlocalError(f"cannot listen on {host} port {port}: {reason}{hint}") from None
    # Accepted connections inherit this.  asyncio sets it only on sockets with an explicit protocol.  Without it, every
    # reply on a kept-alive connection waits 40 ms for the acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def listen_locally(model: Path, engine: Engine) -> Iterator[socket.socket | None]:
    """Open a socket for this user's `pjlocal run` and `chat`; None if that fails, or another server has it."""
    path = socket_path(model, engine)
    bound = _bound(path) if path else None
    try:
        yield bound
    finally:
        if bound and path:
            bound.close()
            path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket | None:
    """Bind the Unix socket.  The socket of a killed server is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for folder in (path.parent.parent, path.parent):  # `mkdir` does not set the mode of missing parents
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(path.parent):
            raise OSError(f"{path.parent} is open to others")
        if path.exists():
            if _is_listened_at(path):
                raise OSError(f"another server listens at {path}")
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)  # connections are not possible before it listens
        listening.listen()
    except OSError as error:  # for example a path too long for a socket; the server works without
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
        except OSError:  # a server listens, but is too busy to accept
            return True
        return True


class Connection(H11Protocol):
    """uvicorn's connection, which is closed if the head of a request is not complete in time."""

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
        """Start the time limit of a request's head, unless it runs: later bytes do not extend it."""
        self._cutting = self._cutting or self.loop.call_later(PATIENCE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._cutting:
            self._cutting.cancel()
            self._cutting = None


class _Server(uvicorn.Server):
    """A uvicorn server that passes signals to the service.  The first lets answers finish, the second interrupts
    them."""

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
    """Run the server until a signal.  Returns the exit status, which is 0 for SIGTERM."""
    # Their warnings, as about incomplete requests, are not for the user.
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
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
