"""Send answers from the service to a client, until they end or the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.interrupt import Interrupted
from ..events import Result, Started, TokenEvent
from .bodies import Wrong
from .jobs import Checked, Job, News, Token
from .service import Service

MOST_BODY = 4 << 20  # bytes
_PATIENCE_S = 30  # time limit for a body
_STATUS_S = 20.0  # after which a stream begins without a token; clients give up after 30 s to 60 s without a status
_ALIVE_S = 15.0  # seconds between two comments before the first token

_T = TypeVar("_T")

#: One item of a stream: an answer's index with its new tokens or result.  None after a pause.
Added = tuple[int, Sequence[Token] | Result] | None
ALIVE = b": alive\n\n"


async def until_done(future: asyncio.Future[Any], seconds: float) -> AsyncIterator[None]:
    """Yield at once and every so many seconds until a future is done."""
    while not future.done():
        yield None
        await asyncio.wait([future], timeout=seconds)


async def read_body(request: Request, most: int = MOST_BODY) -> bytes:
    """Read a body of at most ``most`` bytes.

    Raises:
        Wrong: the body is too large, or does not arrive in time.
    """
    try:
        return await asyncio.wait_for(_read_all(request, most), _PATIENCE_S)
    except asyncio.TimeoutError:
        raise Wrong(f"the body did not arrive within {_PATIENCE_S} seconds", status=408, code="timeout") from None


async def _read_all(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Wrong(f"the body has more than {most:,} bytes", status=413, code="too_large")
    return bytes(body)


@dataclass
class Choice:
    """One of the answers to a request, as far as it is written."""

    tokens: list[Token] = field(default_factory=list)
    result: Result | None = None


class Answers:
    """The answers to one request.

    Args:
        jobs: their ``emit`` is set here.
        warnings: the warnings known so far.
    """

    def __init__(self, service: Service, jobs: Sequence[Job], warnings: Sequence[str] = ()) -> None:
        self._service = service
        self._jobs = jobs
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        self.choices = [Choice() for _ in jobs]
        self.warnings = [*warnings]
        self.was_stopped = False
        self._coming: asyncio.Future[Any] | None = None
        for index, job in enumerate(jobs):
            job.emit = partial(self._receive, index)

    def _receive(self, index: int, news: News) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.put_nowait, (index, news))
        except RuntimeError:
            pass  # the loop is closed

    def submit(self) -> None:
        """Submit the jobs.  Raises the errors of `Service.submit`."""
        self._service.submit(self._jobs)

    @property
    def are_done(self) -> bool:
        return all(choice.result for choice in self.choices)

    async def next(self) -> tuple[int, News]:
        """Wait for the next news of an answer, and return it with the answer's number.

        Raises:
            Exception: the service cannot write the answer.
        """
        index, news = await self._news.get()
        choice = self.choices[index]
        if isinstance(news, Exception):
            raise news
        if isinstance(news, Result):
            if news.finish_reason == "interrupted" and not self.was_stopped:
                raise Interrupted
            choice.result = news
        elif isinstance(news, Started):
            self.warnings = [*dict.fromkeys([*self.warnings, *news.warnings])]
        elif not isinstance(news, Checked):
            choice.tokens += news
        return index, news

    async def news(self) -> AsyncIterator[tuple[int, Sequence[Token] | Result]]:
        """Yield the tokens and ends of all answers.  Raises the errors of `next`."""
        while not self.are_done:
            index, news = await self.next()
            if not isinstance(news, Started | Checked | Exception):
                yield index, news

    async def finish(self) -> None:
        """Submit the jobs, and wait until all answers have ended.  Raises the errors of `submit` and `next`."""
        self.submit()
        async for _ in self.news():
            pass

    async def wait(self, coming: Awaitable[_T], seconds: float) -> asyncio.Future[_T]:
        """Wait for news, at most so many seconds, and return them as a future, which `cancel` cancels."""
        self._coming = future = asyncio.ensure_future(coming)
        await asyncio.wait([future], timeout=seconds)
        return future

    async def begin(self) -> AsyncIterator[Added]:
        """Submit the jobs, wait for the first token, and return all `news`.

        Errors before the first token are raised here, so that the response can have an error status.  If it takes long,
        the response begins without it, and errors are raised by the iteration."""
        self.submit()
        news = self.news()
        first = await self.wait(anext(news), _STATUS_S)
        if first.done():
            first.result()

        async def from_first() -> AsyncIterator[Added]:
            async for _ in until_done(first, _ALIVE_S):
                yield None
            yield first.result()
            async for item in news:
                yield item

        return from_first()

    @property
    def progress(self) -> str:
        """A line about the work before the first event, as the clients read it."""
        return next(filter(None, map(self._service.progress, self._jobs)), "alive")

    def cancel(self) -> None:
        """Cancel the jobs."""
        if self._coming:
            self._coming.cancel()
        jobs, self._jobs = self._jobs, ()  # breaks the reference cycle with this object
        self._service.cancel(jobs)

    def stop(self) -> None:
        """End the answers as interrupted."""
        self.was_stopped = True
        self._service.stop(self._jobs)


class AnswerResponse(Response):
    """The response to a request.  It ends when the client disconnects.

    Args:
        leave: called at the end of the response, whatever the outcome.
    """

    def __init__(self, leave: Callable[[], None], make: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._leave = leave
        self._make = make

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
            self._leave()
            for task in (responding, hung_up):
                task.cancel()
            await asyncio.gather(responding, hung_up, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> Any:
    """Wait for ever, as the ``receive`` of a response that need not watch the connection."""
    await asyncio.Event().wait()


def as_stream(events: AsyncIterator[bytes], headers: Mapping[str, str] = {}) -> Response:
    """A response that streams events as they are written."""
    headers = {"Cache-Control": "no-cache", **headers}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def as_events(events: Sequence[TokenEvent]) -> list[dict[str, Any]]:
    """Token events as the clients read them, each with the view that chose the token."""
    return [event.as_dict() | {"writer": event.writer} for event in events]
