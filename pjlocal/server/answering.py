"""Answers on their way: from the worker's thread to whoever asked, until they are whole or nobody is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.interrupt import Interrupted
from ..request import Request as AnswerRequest
from .guard import TooLarge, TooSlow, described
from .replies import Choice, Reply
from .resident import Planned
from .worker import Done, Order, Told, Worker

MOST_BODY = 4 << 20  # bytes
_PATIENCE_S = 30  # for a body to come


async def read_body(request: Request) -> bytes:
    """The body.

    Raises:
        TooLarge, TooSlow: it is, or does not come.
    """
    try:
        return await asyncio.wait_for(_read_all(request), _PATIENCE_S)
    except asyncio.TimeoutError:
        raise TooSlow(f"the body did not come within {_PATIENCE_S} seconds") from None


async def _read_all(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise TooLarge(f"the body has more than {MOST_BODY:,} bytes")
    return bytes(body)


class Answers:
    """The answers that one request wants.

    Args:
        said, top, shortens: as for an `Order`.
    """

    def __init__(
        self, worker: Worker, asked: Sequence[AnswerRequest], said: Any, top: int | None, shortens: bool = False
    ) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Told] | None] = asyncio.Queue()
        self._orders = [Order(one, said, top, partial(self._tell, index), shortens) for index, one in enumerate(asked)]
        self.choices = [Choice() for _ in asked]

    def _tell(self, index: int, told: Told) -> None:
        try:
            self._loop.call_soon_threadsafe(self._told.put_nowait, (index, told))
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    async def told(self) -> AsyncIterator[tuple[int, Told]]:
        """What is told of each, by its number, until all are done or `stop` is called.

        Raises:
            Exception: what the worker could not do.
        """
        self._worker.submit(self._orders)
        while not all(choice.done for choice in self.choices):
            item = await self._told.get()
            if item is None:
                return
            index, told = item
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Done):
                if told.result.finish_reason == "interrupted":
                    raise Interrupted
                self.choices[index].done = told
            else:
                self.choices[index].tokens += told
            yield index, told

    def leave(self) -> None:
        """What is not written by now is not wanted."""
        self._worker.cancel(self._orders)

    def stop(self) -> None:
        """The same, and nothing more is told of it."""
        self.leave()
        self._told.put_nowait(None)

    @property
    def planned(self) -> Sequence[Planned | None]:
        """What each is written by, once it has begun."""
        return [order.planned for order in self._orders]


class Answering(Response):
    """The response to a request; no longer made, and its answers no longer written, when the client hangs up.

    Args:
        end: is called when all is over, however it went.
    """

    def __init__(
        self,
        answers: Answers,
        make: Callable[[], Awaitable[Response]],
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._answers = answers
        self._make = make
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            response = await self._make()
            await response(scope, _never, send)

        responding = asyncio.ensure_future(respond())
        hung_up = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait({responding, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not responding.done():
                raise ClientDisconnect
            responding.result()
        finally:
            self._answers.leave()
            for task in (responding, hung_up):
                task.cancel()
            await asyncio.gather(responding, hung_up, return_exceptions=True)
            if self._end:
                await self._end()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> Any:
    """What a response is told that need not look whether the client is there: somebody else does."""
    await asyncio.Event().wait()


async def whole(answers: Answers, reply: Reply) -> Response:
    async for _ in answers.told():
        pass
    return JSONResponse(reply.whole(answers.choices))


async def streamed(answers: Answers, reply: Reply, with_usage: bool) -> Response:
    """A stream of events, once the first token is there: what goes wrong before that has a status of its own."""
    told = answers.told()
    first = await anext(told)
    return as_stream(chunks(answers, first, told, reply, with_usage))


def as_stream(events: AsyncIterator[bytes], headers: Mapping[str, str] = {}) -> Response:
    """The response whose events come as they are written."""
    headers = {"Cache-Control": "no-cache", **headers}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def chunks(
    answers: Answers,
    first: tuple[int, Told],
    told: AsyncIterator[tuple[int, Told]],
    reply: Reply,
    with_usage: bool = False,
) -> AsyncIterator[bytes]:
    """The events of a stream, from what was told first on."""
    try:
        if reply.chat:
            for index, _ in enumerate(answers.choices):
                yield _event(reply.begin(index))
        yield _event(_chunk(reply, *first))
        async for item in told:
            yield _event(_chunk(reply, *item))
        if with_usage:
            yield _event(reply.usage(answers.choices))
        yield b"data: [DONE]\n\n"
    except Exception as error:  # in the middle of the stream it has no status any more
        yield _event(described(error)[1])


def _chunk(reply: Reply, index: int, told: Told) -> dict[str, Any]:
    if isinstance(told, Done):
        return reply.end(index, told.result)
    assert not isinstance(told, Exception)
    return reply.chunk(index, told)


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
