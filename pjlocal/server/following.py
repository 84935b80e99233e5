"""An answer while it is written, as a stream of events that several clients can follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from starlette.responses import Response

from ..errors import PjlocalError
from ..events import Result, Started, TokenEvent
from ..settings import VIEW_NAMES
from .auth import described
from .bodies import in_fields
from .chats import question_as_dict
from .jobs import Checked, Job, News
from .replies import as_event
from .service import Service
from .streaming import AnswerResponse, Answers, as_events, as_stream

PROGRESS_S = 0.5  # seconds between two signs of life before an answer's first event
_ALIVE_S = 2.0  # the most seconds between two lines of a stream


class FollowedAnswer:
    """An answer being written, with its events so far.  Clients can follow it from its beginning at any time.

    Without a client it is cancelled.

    Args:
        job: the answer to write, which is submitted here.
        patience: seconds for which it continues without a client, once its chat is saved.
        end: called at its end, whatever the outcome.

    Raises the errors of `Service.submit`.
    """

    def __init__(
        self,
        service: Service,
        job: Job,
        patience: float,
        end: Callable[[], object],
        *,
        in_flags: bool,
    ) -> None:
        self.answers = Answers(service, [job])
        self._request = job.request
        #: The question in a saved chat; None for an answer that is not saved, or is saved as a draft.
        self.question = job.saved if job.saved and job.saved.keep else None
        self._begun = [*self.question.turn.events] if self.question else []  # the beginning of a continued answer
        self._patience = patience
        self._end = end
        self._in_flags = in_flags
        self._events: list[bytes] = []
        self._more = asyncio.Event()  # set and replaced when there are more events
        self._n_clients = 0
        self._timer: asyncio.TimerHandle | None = None  # ends the answer, after the last client has left
        self.answers.submit()
        self._writing = asyncio.create_task(self._write())
        self._writing.add_done_callback(self._finish)  # also called if it is cancelled before it starts

    async def _write(self) -> None:
        try:
            while not self.answers.are_done:
                _, news = await self.answers.next()
                if isinstance(news, Started) and not self._in_flags:
                    news = replace(news, warnings=[*map(in_fields, news.warnings)])
                self._add(_as_events(news, self._begun))
        except Exception as error:
            self._add([as_error(error, in_flags=self._in_flags)])

    def _finish(self, writing: asyncio.Task[None]) -> None:
        self._more.set()
        self.answers.cancel()
        self._end()

    def _add(self, events: Sequence[Mapping[str, Any]]) -> None:
        self._events += [as_event(event) for event in events]
        self._more.set()
        self._more = asyncio.Event()

    def described(self) -> dict[str, Any]:
        """The question and its settings as JSON, for other clients that show the same chat."""
        assert self.question
        preferences = dict(zip(VIEW_NAMES, self._request.views, strict=True))
        return {
            **question_as_dict(self.question.turn.question),
            "turn": self.question.turn.id,
            "replacing": self.question.replacing.id if self.question.replacing else None,
            "settings": {"mode": self._request.generation.mode, "preferences": preferences},
        }

    def response(self, number: str, first: Sequence[Mapping[str, Any]] = ()) -> Response:
        """A stream of its events for one more client, after the events in ``first``."""
        self._n_clients += 1

        async def make() -> Response:
            return as_stream(self._follow(first), {"X-Pjlocal-Answer": number})

        return AnswerResponse(self._leave, make)

    async def _follow(self, first: Sequence[Mapping[str, Any]]) -> AsyncIterator[bytes]:
        """Yield all its events, and comments while there are none."""
        for event in first:
            yield as_event(event)
        n = 0
        while True:
            more = self._more
            while n < len(self._events):
                yield self._events[n]
                n += 1
            if self._writing.done():
                return
            try:
                await asyncio.wait_for(more.wait(), _ALIVE_S if self._events else PROGRESS_S)
            except asyncio.TimeoutError:
                yield f": {self.answers.progress}\n\n".encode()

    def _leave(self) -> None:
        self._n_clients -= 1
        if self._timer:
            self._timer.cancel()
        if self._patience and self.question and self.question.session.id is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._check_followed)
        else:
            self._check_followed()

    def _check_followed(self) -> None:
        if not self._n_clients:
            self._writing.cancel()


def as_error(error: Exception, *, in_flags: bool) -> dict[str, Any]:
    """An error as an event of a stream."""
    status = error.exit_status if isinstance(error, PjlocalError) else 1
    facts = described(error, in_flags=in_flags)[1]["error"]
    return {"error": facts.pop("message"), "status": status, **facts}


def _as_events(news: News, begun: Sequence[TokenEvent]) -> list[dict[str, Any]]:
    if isinstance(news, Started):
        return [{"head": asdict(news), **({"begun": as_events(begun)} if begun else {})}]
    if isinstance(news, Result):
        return [{"result": news.whole()}]
    assert not isinstance(news, Checked | Exception)
    return [
        {
            "event": as_events([token.event])[0],
            "statistics": asdict(token.statistics),
            **({"alternatives": [*map(asdict, token.alternatives)]} if token.alternatives else {}),
        }
        for token in news
    ]
