"""Answers on their way from the service to a client, until they are whole or the client hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.interrupt import Interrupted
from ..events import Started
from ..service import Checked, Done, Job, News, Service, Token
from .auth import TooLarge, TooSlow

MOST_BODY = 4 << 20  # bytes
_PATIENCE_S = 30  # for a body to come


async def read_body(request: Request, most: int = MOST_BODY) -> bytes:
    """The body, of so many bytes at most.

    Raises:
        TooLarge, TooSlow: it is, or does not come.
    """
    try:
        return await asyncio.wait_for(_read_all(request, most), _PATIENCE_S)
    except asyncio.TimeoutError:
        raise TooSlow(f"the body did not come within {_PATIENCE_S} seconds") from None


async def _read_all(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLarge(f"the body has more than {most:,} bytes")
    return bytes(body)


@dataclass
class Choice:
    """One of the answers that a request wants, as far as it has come."""

    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None


class Answers:
    """The answers that one request wants.

    Args:
        jobs: without their ``tell``, which is set here.
        warnings: those that are known already.
    """

    def __init__(self, service: Service, jobs: Sequence[Job], warnings: Sequence[str] = ()) -> None:
        self._service = service
        self._jobs = jobs
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        self.choices = [Choice() for _ in jobs]
        self.warnings = [*warnings]  # what of the settings has no effect, as far as it is known
        self.was_stopped = False
        for index, job in enumerate(jobs):
            job.emit = partial(self._receive, index)

    def _receive(self, index: int, news: News) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.put_nowait, (index, news))
        except RuntimeError:
            pass  # the loop is closed: nobody listens any more

    def submit(self) -> None:
        """Have them written.  Raises what `Service.submit` does."""
        self._service.submit(self._jobs)

    @property
    def are_done(self) -> bool:
        return all(choice.done for choice in self.choices)

    async def next(self) -> tuple[int, News]:
        """The next news of one of them, with its number.

        Raises:
            Exception: the service cannot write them.
        """
        index, news = await self._news.get()
        choice = self.choices[index]
        if isinstance(news, Exception):
            raise news
        if isinstance(news, Done):
            if news.result.finish_reason == "interrupted" and not self.was_stopped:
                raise Interrupted
            choice.done = news
        elif isinstance(news, Started):
            self.warnings = [*dict.fromkeys([*self.warnings, *news.warnings])]
        elif not isinstance(news, Checked):
            choice.tokens += news
        return index, news

    async def news(self) -> AsyncIterator[tuple[int, Sequence[Token] | Done]]:
        """Their tokens and ends, until all are done.  Raises what `next` does."""
        while not self.are_done:
            index, news = await self.next()
            if not isinstance(news, Started | Checked | Exception):
                yield index, news

    async def finish(self) -> None:
        """Have them written to their ends.  Raises what `submit` and `next` do."""
        self.submit()
        async for _ in self.news():
            pass

    async def begin(self) -> AsyncIterator[tuple[int, Sequence[Token] | Done]]:
        """Have them written; their `news`, once the first token is there: what goes wrong before that is raised here,
        and can have a status of its own."""
        self.submit()
        news = self.news()
        first = await anext(news)

        async def from_first() -> AsyncIterator[tuple[int, Sequence[Token] | Done]]:
            yield first
            async for item in news:
                yield item

        return from_first()

    def cancel(self) -> None:
        """Have no more written."""
        jobs, self._jobs = self._jobs, ()  # they refer to this object: Python frees both at once
        self._service.cancel(jobs)

    def stop(self) -> None:
        """Have them end as they are."""
        self.was_stopped = True
        self._service.stop(self._jobs)


class AnswerResponse(Response):
    """The response to a request.  It ends, and its answers are cancelled, when the client hangs up.

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
            self._answers.cancel()
            for task in (responding, hung_up):
                task.cancel()
            await asyncio.gather(responding, hung_up, return_exceptions=True)
            if self._end:
                await self._end()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> Any:
    """Wait for ever, as a response does that need not look whether the client is there."""
    await asyncio.Event().wait()


def as_stream(events: AsyncIterator[bytes], headers: Mapping[str, str] = {}) -> Response:
    """The response whose events come as they are written."""
    headers = {"Cache-Control": "no-cache", **headers}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def as_event(data: Mapping[str, Any], *, is_ascii: bool = False) -> bytes:
    """An event of a stream.

    Args:
        is_ascii: escapes all other characters: settings may hold halves of surrogate pairs.
    """
    return f"data: {json.dumps(data, ensure_ascii=is_ascii)}\n\n".encode()
