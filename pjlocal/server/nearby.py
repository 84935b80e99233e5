"""The socket for `pjlocal run` of the same user: what comes by it is written as that would write it (see `near`)."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.interrupt import Interrupt, Interrupted
from ..errors import explain
from ..events import TokenEvent
from ..settings import Engine
from .near import ALIVE_S, Head, is_private, socket_path
from .wish import Wish
from .worker import Busy, Done, SingleOrder, Stopping, Worker

log = logging.getLogger("pjlocal")

_MOST_ASKED = 64 << 20  # bytes of a line; whoever writes more loads the model
_PATIENCE_S = 10  # for a line to come
_PART = 1 << 16

Told = Head | TokenEvent | Done | Exception


@contextmanager
def listen_nearby(model: Path, engine: Engine) -> Iterator[socket.socket | None]:
    """A socket that waits for this user's `pjlocal run`; None where there can be none, or another server has it."""
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
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(path.parent):
            raise OSError(f"{path.parent} is open to others")
        if path.exists():
            if _is_listened_at(path):
                raise OSError(f"another server listens at {path}")
            path.unlink()
        listening.bind(str(path))
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


class Nearby:
    """Answers who comes by the socket.

    Args:
        most: answers at once; who wants one more is sent away, and loads the model.
    """

    def __init__(self, worker: Worker, most: int) -> None:
        self._worker = worker
        self._most = most
        self._talks: set[asyncio.Task[Any]] = set()
        self._orders: set[SingleOrder] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._talk, sock=listening, limit=_MOST_ASKED)

    async def stop(self, patience: float) -> None:
        """Let nobody else in, and wait until those who are were told how their answers end."""
        if self._server:
            self._server.close()
        if self._talks:
            await asyncio.wait(self._talks, timeout=patience)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._talks.add(task)
        try:
            with suppress(ConnectionError):
                await self._answer(reader, writer)
        finally:
            self._talks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(one: Told) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(told.put_nowait, one)

        try:
            said = json.loads(await asyncio.wait_for(reader.readline(), _PATIENCE_S))
            order = SingleOrder(Wish.from_dict(said), said["prompt"], Interrupt(), tell)
            if len(self._orders) >= self._most:
                raise Busy("others are being answered")
            self._worker.submit([order])
            self._orders.add(order)
        except Exception as error:  # whatever it is, the other side can do without
            await _say(writer, refused=str(error))
            return
        tasks = {asyncio.ensure_future(_heed(reader, order)), asyncio.ensure_future(_tell_all(writer, told))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._worker.cancel([order])
            self._orders.discard(order)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _heed(reader: asyncio.StreamReader, order: SingleOrder) -> None:
    """Stop an answer when its client says so; returns when that hangs up."""
    with suppress(ConnectionError, ValueError):
        if await reader.readline():
            order.interrupt.set()
            while await reader.read(_PART):
                pass


async def _tell_all(writer: asyncio.StreamWriter, told: asyncio.Queue[Told]) -> None:
    """Pass on what is told of an answer, to its end."""
    await _say(writer, taken=True)
    while True:
        try:
            one = await asyncio.wait_for(told.get(), ALIVE_S)
        except asyncio.TimeoutError:
            await _say(writer)
            continue
        await _say(writer, **_in_words(one))
        if isinstance(one, Done | Exception):
            return


def _in_words(told: Told) -> dict[str, Any]:
    if isinstance(told, Head):
        return {"head": asdict(told)}
    if isinstance(told, TokenEvent):
        return {"event": told.as_dict()}
    if isinstance(told, Done):
        return {"result": told.result.whole()}
    if isinstance(told, Stopping):
        return {"refused": str(told)}
    if isinstance(told, Interrupted):
        return {"interrupted": True}
    message, status = explain(told)
    return {"error": message, "status": status}


async def _say(writer: asyncio.StreamWriter, **said: Any) -> None:
    writer.write(json.dumps(said).encode() + b"\n")
    await writer.drain()
