"""A turn of a saved chat, written down while the page reads it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..errors import PjlocalError
from ..events import Statistics
from ..request import Request
from ..sessions.session import Session, Turn
from ..sessions.store import RemovedError, Store
from .answering import Answers
from .worker import Done, Told

log = logging.getLogger("pjlocal")

_SAVE_S = 1.0  # of an answer, at most, are lost where the process is killed


@dataclass(frozen=True)
class SavedAs:
    """What the model is called in saved chats: by its lasting name, and by its file's."""

    lasting: str
    file: str


class Recording:
    """Saves a turn from its first token on; one that has none is as if it had not been asked.

    Args:
        answers: its answer alone.
        request: what was asked; the seed is its own.
        replaced: the turn that is hidden once this one is at its end.
    """

    def __init__(
        self,
        answers: Answers,
        session: Session,
        turn: Turn,
        request: Request,
        seed: int,
        saved_as: SavedAs,
        replaced: Turn | None,
    ) -> None:
        self.answers = answers
        self.session = session
        self.turn = turn
        self._request = request
        self._seed = seed
        self._saved_as = saved_as
        self._replaced = replaced
        self.is_over = False  # and saved, as far as it can be
        self._saved = 0.0  # when
        self._writing = threading.Lock()  # a thread that writes goes on when its request is cancelled

    @property
    def n_left_out(self) -> int:
        """Exchanges of the chat for which the context has no room."""
        (planned,) = self.answers.planned
        return planned.n_left_out if planned else 0

    async def told(self) -> AsyncIterator[tuple[int, Told]]:
        """What is told of the answer; when its end is told, it is saved.

        Raises:
            StoreError: it cannot be.
        """
        async for index, told in self.answers.told():
            self.turn.events = [token.event for token in self.answers.choices[0].tokens]
            if isinstance(told, Done):
                self.turn.finish(told.result)
                await self._save()
                self.is_over = True
            elif time.monotonic() - self._saved > _SAVE_S:
                await self._save()
            yield index, told
        await self.end()

    async def end(self) -> None:
        """Save what was stopped, by whoever did."""
        if self.turn.finish_reason is None and self.turn.events:
            self.turn.finish_reason = "interrupted"
            self.turn.statistics = {"acceptance_rate": _acceptance_rate(self.turn)}
            try:
                await self._save()
            except RemovedError:
                pass  # by the user, this answer as well
            except PjlocalError as error:  # nobody is there any more to be told
                log.error("%s", error)
        self.is_over = True

    async def _save(self) -> None:
        if self.turn.events:
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        """As much of the turn as there is."""
        with self._writing, Store() as store:
            session, turn = self.session, self.turn
            if turn.id is None:
                self._put_in_force()
                if session.id is None:
                    store.add_session(session)
                else:
                    store.save_settings(session)
                assert session.id is not None
                store.add_turn(session.id, turn)
            else:
                store.finish_turn(turn)
            if turn.finish_reason and self._replaced and self._replaced.id is not None:
                store.set_undone(self._replaced.id)
        self._saved = time.monotonic()

    def _put_in_force(self) -> None:
        (planned,) = self.answers.planned
        assert planned
        roles, request = planned.plan.roles, self._request.with_group(planned.plan.request.sampling)
        self.session.settings = {"model": self._saved_as.lasting, **request.as_dict()}
        self.turn.settings = self.session.settings | {
            "generation": request.generation.as_dict(),
            "model": self._saved_as.file,
            "mode": roles.mode,
            "preferences": roles.preferences,
            "lambda": request.generation.lam,
            "seed": self._seed,
        }


def _acceptance_rate(turn: Turn) -> float | None:
    kinds = [event.kind for event in turn.events]
    return Statistics(accepted=kinds.count("accepted"), resampled=kinds.count("resampled")).acceptance_rate
