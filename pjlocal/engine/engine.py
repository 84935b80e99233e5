"""The engine: each step decodes the last tokens of all answers, and lets each answer decide its next token.

A single answer is a batch of one.  Each view of an answer is a sequence in a *lane*, which is a llama context.  In the
layout ``batched`` all views are in one lane, and one llama_decode reads the weights once for all of them: best on a GPU
and wherever memory bandwidth is the limit.  In the layout ``contexts`` every view has a lane of its own, and threads
decode them side by side: best for two views on two cores.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

from ..errors import UsageError
from ..settings import Engine as EngineSettings
from .backend import check_process
from .context import PROMPT_PIECE
from .interrupt import Interrupt, Interrupted
from .lanes import Capacity, Job, Lanes, Needs
from .model import Model
from .sequence import Lane
from .sequence import Sequence as CacheSequence
from .shortlist import InvalidLogits
from .slot import Slot


class Submission(Protocol):
    """An answer that a caller submits.

    parts: the answers to write: usually this one alone, or the answers among which it chooses.
    """

    @property
    def parts(self) -> Sequence[EngineAnswer]: ...

    @property
    def is_done(self) -> bool: ...

    def publish(self, events: list[Any]) -> list[Any]:
        """Turn the parts' events of one step into the events for the caller."""

    def close(self) -> None:
        """Stop its iteration.  Raises UsageError if another thread iterates."""

    def end(self) -> None:
        """Stop its iteration, in whichever thread it runs, and wait for that thread."""


class EngineAnswer(Submission, Protocol):
    """An answer being written.

    engine: the engine that writes it; if it begins again, the engine to submit it to.
    error: the exception that ended it.
    is_done: whether the answer is complete.
    begins_again: whether this part has ended and the answer continues with another prompt.
    """

    engine: Engine
    needs: Needs
    error: Exception | None
    begins_again: bool

    def begin(self, slot: Slot) -> None:
        """Start reading the prompts."""

    def decide(self) -> list[Any]:
        """Decide one token from the logits in the slot, feed it, and return the new events.

        Raises Interrupted, or the error that ends the answer.
        """

    def interrupt(self) -> None:
        """End the answer as interrupted."""

    def finish(self, slot: Slot) -> list[Any]:
        """Return the events that were held back until the end."""


_open: WeakSet[Engine] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop daemon threads that are writing answers: llama.cpp crashes if the process ends meanwhile."""
    for engine in list(_open):
        with suppress(Exception):
            engine.check_open()
            engine.close()


class Engine:
    """Writes answers on one model, in the order in which they are submitted.

    Without a ``capacity`` it writes one answer at a time.  Lanes are made when an answer needs them, and kept for the
    next answer with as many views.  They are enlarged without losing their caches, so a conversation that outgrows its
    context is not read again.

    With a ``capacity`` answers share lanes.  llama.cpp rounds differently in batches of different widths: where two
    tokens are almost equally probable, an answer written beside others may differ from the one that its seed gives
    alone.

    Args:
        model: the loaded model; it stays open when the engine is closed.
        interrupt: the flag that stops the current decode; every answer in flight then ends as interrupted.
        capacity: room for several answers at once.

    Raises:
        ModelError: there is not enough memory for the capacity.
    """

    def __init__(
        self, model: Model, settings: EngineSettings, interrupt: Interrupt, capacity: Capacity | None = None
    ) -> None:
        self.model = model
        self.settings = settings
        self.interrupt = interrupt
        self.lanes = Lanes(model, settings, interrupt, capacity)
        self.n_steps = 0
        self.closed = False
        self._waiting: deque[EngineAnswer] = deque()
        self._in_flight: dict[EngineAnswer, Slot] = {}
        self._submissions: dict[EngineAnswer, Submission] = {}  # of the parts that wait or are in flight
        self._direct: list[Slot] = []
        self._n_released = 0
        self._writer: Submission | None = None
        self._opening = threading.Lock()  # guards `closed` and the writer against a close in another thread
        self._stepping = threading.RLock()  # held while the contexts are used
        self._is_freed = False  # a closed engine still takes steps until it is freed, so that its answers end
        _open.add(self)

    def close(self) -> None:
        """End the answers being written, then free the contexts.  Callable from any thread."""
        with self._opening:
            self.closed = True
            writer = self._writer
        with self.interrupt.stopping():
            if writer:
                writer.end()
            with self._stepping:
                for answer in [*self._waiting, *self._in_flight]:
                    answer.interrupt()
                    self.cancel(answer)
                self.lanes.close()
                self._is_freed = True

    def check_open(self) -> None:
        """Check that the engine can write.

        Raises:
            UsageError: the engine is closed.
            ModelError: llama.cpp cannot be used in this process.
        """
        check_process()
        if self.closed:
            raise UsageError("this PersonaJudge is closed: make a new one")

    @contextmanager
    def writing(self, writer: Submission) -> Iterator[None]:
        """Reserve the engine while an answer is iterated.  An unfinished earlier iteration is stopped.

        Raises:
            UsageError: the engine is closed, or another thread iterates.
        """
        self.check_open()
        with self._opening:
            self.check_open()
            if self._writer:
                self._writer.close()
            self._writer = writer
        try:
            self._clean_up()
            yield
        finally:
            self._writer = None

    # Answers.

    def submit(self, answer: Submission) -> None:
        """Queue an answer, to be written in its turn.

        Raises:
            NoRoom: the answer has more views than the capacity.
            UsageError: the engine is closed.
        """
        self.check_open()
        for part in answer.parts:
            self.lanes.check_room(part.needs.n_views)
        for part in answer.parts:
            self._submissions[part] = answer
            self._waiting.append(part)

    def cancel(self, answer: Submission) -> None:
        """Stop writing an answer and free its place.  If the decode fails or is stopped, all answers in flight end."""
        for part in answer.parts:
            if part in self._waiting:
                self._waiting.remove(part)
                del self._submissions[part]
        in_flight = [part for part in answer.parts if part in self._in_flight]
        if not in_flight:
            return
        if len(in_flight) == len(self._in_flight):
            self.lanes.drop()
        try:
            with self.lanes.recovering():
                self.lanes.wait()
        except Exception as error:
            for part in self._in_flight:
                if part not in in_flight:
                    _end(part, error)
        for part in in_flight:
            self._release(part)

    def is_writing(self, answer: Submission) -> bool:
        """True if the answer waits or is being written."""
        return any(part in self._submissions for part in answer.parts)

    def is_in_flight(self, answer: Submission) -> bool:
        """True if the answer is being written and does not wait."""
        return any(part in self._in_flight for part in answer.parts)

    def reading(self, answer: Submission) -> tuple[int, int] | None:
        """The number of tokens read of an answer's longest prompt, and its length; None if no prompt is being read.

        Callable from any thread.
        """
        slots = map(self._in_flight.get, answer.parts)
        return next((slot.progress for slot in slots if slot and not slot.is_ready), None)

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._in_flight

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @contextmanager
    def direct(self, needs: Needs) -> Iterator[Slot]:
        """Provide a slot without an answer, which the caller starts, feeds and reads."""
        self.check_open()
        slot = Slot(self, needs)
        self._direct.append(slot)
        are_broken = False
        try:
            slot.open()
            yield slot
        except InvalidLogits:
            are_broken = True
            raise
        finally:
            with suppress(Exception):
                self.lanes.wait()
            self._direct.remove(slot)
            self._release_slot(slot, are_broken=are_broken)

    @property
    def _slots(self) -> list[Slot]:
        return [*self._in_flight.values(), *self._direct]

    def step(self) -> list[tuple[Submission, list[Any]]]:
        """Write one more token of every answer in flight whose prompts are read, and return each answer with its new
        events.

        A failure in one answer ends that answer alone (``error``).  A failure of a lane ends all answers in flight.
        """
        with self._stepping:
            return [] if self._is_freed else self._step()

    def _step(self) -> list[tuple[Submission, list[Any]]]:
        self.n_steps += 1
        if not self.lanes.are_busy:
            self._admit()
        failed: Exception | None = None
        try:
            self._decode()
        except Exception as error:
            failed = error
        news: dict[Submission, list[Any]] = {}
        for answer, slot in list(self._in_flight.items()):
            submission = self._submissions[answer]
            news.setdefault(submission, []).extend(self._advance(answer, slot, failed))
            if answer.is_done or answer.begins_again:
                self._release(answer)
            if answer.begins_again and answer.engine is self:
                self._submissions[answer] = submission
                self._waiting.appendleft(answer)
        del failed  # its traceback refers to this frame, and so to the answers
        events = [(submission, submission.publish(of_parts)) for submission, of_parts in news.items()]
        for submission in news:
            if submission.is_done:  # a part failed, which ends the others
                self.cancel(submission)
        if not self._waiting and all(slot.is_ready for slot in self._in_flight.values()):
            self._launch()  # other lanes decode while the caller shows the events
        return events

    def _admit(self) -> None:
        """Give waiting answers their slots, while there is room."""
        while self._waiting and (self._waiting[0].is_done or self._has_room(self._waiting[0])):
            answer = self._waiting.popleft()
            if answer.is_done:  # it was interrupted
                del self._submissions[answer]
                continue
            slot = self._in_flight[answer] = Slot(self, answer.needs)
            try:
                slot.open()
                answer.begin(slot)
            except Exception as error:
                _end(answer, error)

    def _has_room(self, answer: EngineAnswer) -> bool:
        return self.lanes.have_room(answer.needs.n_views) if self.lanes.capacity else not self._slots

    def _advance(self, answer: EngineAnswer, slot: Slot, failed: Exception | None) -> list[Any]:
        """Decide an answer's next token, or end the answer, and return its events."""
        events: list[Any] = []
        if not answer.is_done:
            if not slot.is_ready and not failed:  # its prompts are still being read
                return []
            try:
                if failed:
                    _end(answer, failed)
                else:
                    events = answer.decide()
            except Exception as error:
                _end(answer, error)
        if answer.is_done:
            try:
                events += answer.finish(slot)
            except Exception as error:
                _end(answer, error)
        return events

    def _release(self, answer: EngineAnswer) -> None:
        """Release an answer's sequences.  Their caches stay, for prompts with the same beginning.

        llama.cpp multiplies the values in emptied cells by 0, and NaN times 0 is NaN.  It cannot erase one sequence,
        so all sequences of a lane are erased when none is in use.
        """
        self._submissions.pop(answer, None)  # a KeyboardInterrupt may have come in between
        self._release_slot(self._in_flight.pop(answer), are_broken=isinstance(answer.error, InvalidLogits))

    def _release_slot(self, slot: Slot, *, are_broken: bool = False) -> None:
        self._n_released += 1
        slot.close()
        for sequence in slot.sequences:
            sequence.release()
            sequence.released = self._n_released
            sequence.is_broken |= are_broken
        for lane in {sequence.lane for sequence in slot.sequences}:
            if any(each.is_broken for each in lane.sequences) and not any(each.in_use for each in lane.sequences):
                lane.erase()

    def settle(self, slot: Slot) -> None:
        """Decode until a slot's logits are computed.  Raises Interrupted or ModelError."""
        while not slot.is_settled:
            self._decode()

    def decode_alone(self, sequence: CacheSequence) -> None:
        """Decode the tokens fed to one sequence, and nothing else."""
        with self.lanes.recovering():
            job = partial(sequence.lane.feed, [sequence], self._n_threads)
            self.lanes.start({sequence.lane: job}, len(sequence.fed))
            self.lanes.wait()

    # Decoding.

    def _decode(self) -> None:
        """Read a piece of a prompt, then decode the fed tokens of all answers whose prompts are read."""
        with self.lanes.recovering():
            if not self.lanes.are_busy:
                if self.interrupt.is_set():
                    raise Interrupted
                self._read_prompts()
                self._launch()
            self.lanes.wait()

    def _read_prompts(self) -> None:
        """Read about one batch of prompt tokens, or a small piece while other answers are being written."""
        reading = [slot for slot in self._slots if not slot.is_ready]
        is_alone = len(reading) == len(self._slots)
        piece = (self.lanes.capacity.prompt_piece if self.lanes.capacity else PROMPT_PIECE) if not is_alone else None
        n_read = 0
        while reading and n_read < (piece or self.settings.n_batch):
            slot = min(reading, key=_due)
            if slot.has_to_read:
                n_read += self._read_piece(slot, piece and piece - n_read)
            else:
                slot.start_next_stage()
            if slot.is_ready:
                reading.remove(slot)

    def _read_piece(self, slot: Slot, n_most: int | None) -> int:
        """Read the next tokens of a slot's prompts: a batch in every lane, or ``n_most`` in all.  Returns their
        number."""
        by_lane: dict[Lane, list[CacheSequence]] = {}
        for sequence in slot.sequences:
            if sequence.to_read:
                by_lane.setdefault(sequence.lane, []).append(sequence)
        jobs: dict[Lane, Job] = {}
        most = 0
        for lane, sequences in by_lane.items():
            n = min(lane.context.n_batch, max(1, n_most // len(by_lane))) if n_most else lane.context.n_batch
            pieces = _first_of(sequences, n)
            n_tokens = sum(len(piece) for _, piece in pieces)
            most = max(most, n_tokens)
            jobs[lane] = partial(lane.read, pieces, self.lanes.n_threads if slot.reads_alone else self._n_threads)
        self.lanes.start(jobs, most)
        slot.read_s += self.lanes.wait()
        return most * len(jobs)

    def _launch(self) -> None:
        """Start decoding the fed tokens of the answers whose prompts are read."""
        by_lane: dict[Lane, list[CacheSequence]] = {}
        for slot in self._slots:
            if slot.is_ready:
                for sequence in slot.sequences:
                    if sequence.fed:
                        by_lane.setdefault(sequence.lane, []).append(sequence)
        jobs = {lane: partial(lane.feed, _in_order(each), self._n_threads) for lane, each in by_lane.items()}
        self.lanes.start(jobs, max((sum(len(s.fed) for s in each) for each in by_lane.values()), default=0))

    @property
    def _n_threads(self) -> int:
        """The number of threads of each lane: the lanes of all answers in flight share the cores."""
        lanes = {sequence.lane for slot in self._slots for sequence in slot.sequences}
        return max(1, self.lanes.n_threads // max(1, len(lanes)))

    def _clean_up(self) -> None:
        """Return to a state without answers after a KeyboardInterrupt, which may be raised anywhere."""
        self._waiting.clear()
        self.lanes.abandon()
        for answer in list(self._in_flight):
            self._release(answer)
        self._submissions.clear()  # of those that waited
        for sequence in self.lanes:
            sequence.release()
        self.lanes.recover()


def _end(answer: EngineAnswer, error: Exception) -> None:
    if isinstance(error, Interrupted):
        answer.interrupt()
    else:
        answer.error = answer.error or error


def _due(slot: Slot) -> int:
    """The sort key of prompts: a short prompt is read before a long one, unless it was admitted much later.

    No prompt waits for ever, because later prompts get larger keys.
    """
    return PROMPT_PIECE * slot.admitted_at + slot.n_to_read


def _first_of(sequences: Sequence[CacheSequence], n: int) -> list[tuple[CacheSequence, list[int]]]:
    """The first n of the tokens that the sequences have to read, one sequence after the other."""
    pieces = []
    for sequence in _in_order(sequences):
        if n > 0:
            piece = sequence.to_read[:n]
            pieces.append((sequence, piece))
            n -= len(piece)
    return pieces


def _in_order(sequences: Iterable[CacheSequence]) -> list[CacheSequence]:
    """The sequences sorted by number: llama.cpp computes tokens together only if they are in this order."""
    return sorted(sequences, key=lambda sequence: sequence.number)
