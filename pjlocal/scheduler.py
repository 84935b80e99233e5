"""Several answers at once: every step decides a token of each, and one batch reads what all of them feed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from .answer import Answer
from .engine.interrupt import Interrupted
from .engine.seats import Seat, SharedContext
from .errors import UsageError
from .events import TokenEvent


@dataclass(eq=False)
class Job:
    """An answer that is wanted.

    n_views: sequences that it takes.
    make: the answer on its seat.
    answer: once it is being written.
    error: why it was not written to its end.
    """

    n_views: int
    make: Callable[[Seat], Answer]
    answer: Answer | None = None
    error: Exception | None = None
    seat: Seat | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.answer is not None and self.answer.finish_reason is not None)


class Scheduler:
    """Writes answers side by side on one context, in the order in which they were submitted.

    An answer is what its seed gives, as if it were alone, up to llama.cpp's rounding (see `SharedContext`).

    Args:
        shared: stays open when this is dropped.
        prompt_piece: prompt tokens that are read in a step while more than one answer is in flight; None for about a
            batch, which reads faster, and has answers that are being written wait for seconds.
    """

    def __init__(self, shared: SharedContext, prompt_piece: int | None = None) -> None:
        self.shared = shared
        self._prompt_piece = prompt_piece
        self._waiting: deque[Job] = deque()
        self._in_flight: list[Job] = []

    def submit(self, job: Job) -> None:
        """Write it when its turn has come.

        Raises:
            UsageError: it never would.
        """
        if job.n_views > self.shared.n_seq:
            raise UsageError(f"{job.n_views} views want a place, and there is {self.shared.n_seq}")
        self._waiting.append(job)

    def cancel(self, job: Job) -> None:
        """Write no more of it; its place is free."""
        if job in self._waiting:
            self._waiting.remove(job)
        if job in self._in_flight:
            self._leave(job)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._in_flight

    def step(self, *, others_wait: bool = False) -> list[tuple[Job, list[TokenEvent]]]:
        """Write one more token of every answer in flight; what it settled, and who is done.

        Args:
            others_wait: prompts are read in pieces for others than the answers in flight.

        A fault of one answer ends that one alone (`Job.error`); one of the context ends all in flight.
        """
        self._admit()
        failed = self._read(self._prompt_piece if others_wait or len(self._in_flight) > 1 else None)
        told = [(job, self._advance(job, failed)) for job in self._in_flight]
        for job, _ in told:
            if job.done:
                self._leave(job)
        return told

    def _admit(self) -> None:
        """Give those who wait their places, while there are any."""
        while self._waiting and self._waiting[0].n_views <= self.shared.n_free:
            job = self._waiting.popleft()
            job.seat = self.shared.seat()
            self._in_flight.append(job)
            try:
                job.answer = job.make(job.seat)
                job.answer.begin()
            except Exception as error:
                job.error = error

    def _read(self, n_most: int | None) -> Exception | None:
        """Have all that was fed decoded; what went wrong for everybody."""
        try:
            self.shared.decode(n_most)
        except Exception as error:
            return error
        return None

    def _advance(self, job: Job, failed: Exception | None) -> list[TokenEvent]:
        """Decide an answer's next token; what is settled by it, or by its end."""
        if job.error or not job.answer or not job.seat:
            return []
        if not job.seat.ready and not failed:  # its prompts are still being read
            return []
        events: list[TokenEvent] = []
        try:
            if failed:
                raise failed
            events = job.answer.decide()
        except Interrupted:
            job.answer.finish_reason = "interrupted"
        except Exception as error:
            job.error = error
        if job.done:
            events += job.answer.finish()
        return events

    def _leave(self, job: Job) -> None:
        self._in_flight.remove(job)
        if job.seat:
            job.seat.leave(job.error)


def write_all(scheduler: Scheduler, jobs: Iterable[Job], ahead: int) -> Iterator[tuple[Job, list[TokenEvent]]]:
    """Write every job, of which ``ahead`` wait at a time; what each step tells."""
    coming = iter(jobs)
    while True:
        for job in islice(coming, max(0, ahead - scheduler.n_waiting)):
            scheduler.submit(job)
        if scheduler.idle:
            return
        yield from scheduler.step()
