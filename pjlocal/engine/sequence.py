"""The sequences of a llama context: the tokens in memory, the tokens to read, and the logits behind them."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..settings import Engine as EngineSettings
from .adapters import Adapters
from .checkpoints import Checkpoint
from .context import Context, Logits
from .interrupt import Interrupt
from .model import Model
from .worker import Worker

#: Makes of a row of logits (float32 [n_vocab], llama.cpp's memory, gone with the next decode) what the answer needs of
#: it.  The first argument is the row's number.  Runs in the thread that decoded it.
Reduce = Callable[[int, Logits], Any]


def _unreduced(row: int, logits: Logits) -> Any:
    return logits


@dataclass(frozen=True)
class State:
    """A copy of a sequence: its tokens, llama.cpp's memory of them, the adapters they were read with, and the
    checkpoints."""

    cached: list[int]
    memory: ctypes.Array[ctypes.c_uint8]
    adapters: Adapters
    checkpoints: abc.Sequence[Checkpoint] = ()


@dataclass(eq=False)
class Sequence:
    """A sequence of a lane: the KV cache of one view of an answer, or what an earlier answer has left in it.

    cached: tokens in memory.
    to_read: prompt tokens that come next, whose logits are not needed.
    unread: tokens that a rewind has taken from the memory and that are read again before what is fed next.
    fed: tokens that come next, with logits behind each.
    rows: what `reduce` has made of the logits behind the tokens fed last, or the error that it raised.
    """

    lane: Lane
    number: int
    cached: list[int] = field(default_factory=list)
    to_read: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    error: Exception | None = None
    reduce: Reduce = _unreduced
    in_use: bool = False
    released: int = 0  # when an answer released it last, counted in answers
    is_broken: bool = False  # the memory holds values that are not numbers
    is_being_decoded: bool = False  # until a decode has succeeded

    @property
    def is_free(self) -> bool:
        return not self.in_use and not self.is_broken

    def keep(self, n_tokens: int) -> int:
        """Roll the cache back to its first ``n_tokens``, or to fewer where its memory does not go back to there.

        Returns:
            The tokens that are left.
        """
        if n_tokens < len(self.cached):
            del self.cached[self.lane.context.trim(self.number, n_tokens) :]
        return len(self.cached)

    def adapt(self, adapters: Adapters) -> None:
        """Compute with these adapters from now on; the lane's caches that were read with others are dropped.

        Raises:
            ModelError: one cannot be loaded.
        """
        if self.lane.context.adapters != adapters:
            for sequence in self.lane.sequences:
                sequence.keep(0)
            self.lane.context.adapt(adapters)

    def state(self) -> State:
        """A copy of the cache, for `fill`."""
        context = self.lane.context
        return State(list(self.cached), context.state(self.number), context.adapters, context.checkpoints(self.number))

    def fill(self, state: State) -> None:
        """Hold what another sequence held, with its adapters; nothing where the memory does not take it."""
        self.keep(0)
        context = self.lane.context
        context.adapt(state.adapters)
        if len(state.cached) < self.lane.n_ctx and context.restore(self.number, state.memory, state.checkpoints):
            self.cached = list(state.cached)
        else:
            context.trim(self.number, 0)

    def save(self, file: Path) -> int:
        """Write the cache to a file; its bytes, 0 where it cannot be written."""
        return self.lane.context.save(self.number, self.cached, file)

    def load(self, file: Path) -> None:
        """Fill the sequence from a file; with nothing where the file cannot be taken."""
        self.keep(0)
        self.cached = self.lane.context.load(self.number, file, self.lane.n_ctx)

    def mark(self, *, for_a_guess: bool = False) -> None:
        """Make a checkpoint, where the memory cannot be rolled back to any length."""
        self.lane.context.mark(self.number, for_a_guess=for_a_guess)

    def release(self) -> None:
        """Forget what was to be read; the cache stays for prompts that begin alike."""
        for queue in (self.to_read, self.unread, self.fed, self.rows):
            queue.clear()
        self.error, self.reduce, self.in_use = None, _unreduced, False

    def recover(self) -> None:
        """After a decode that was stopped or has failed: make ``cached`` and the memory agree.

        A running state is then neither what it was nor what it should be: it goes back to a checkpoint.
        """
        context, n_tokens = self.lane.context, len(self.cached)
        length = context.length(self.number)
        if self.is_being_decoded and not context.model.trimmable:
            del self.cached[context.go_back(self.number, n_tokens) :]
        elif length != n_tokens:
            del self.cached[context.trim(self.number, min(length, n_tokens)) :]
        self.is_being_decoded = False


class Lane:
    """A llama context with ``n_seq`` sequences, decoded by one thread at a time.

    Args:
        n_ctx: tokens that each sequence may hold.
        n_rows: tokens that each may be fed at a time with the logits behind each.

    Raises:
        ModelError: llama.cpp cannot make the context; most often there is not enough memory.
    """

    #: Lanes reduce their logits one after the other: faster than threads that fight for Python's lock.
    _reducing = threading.Lock()

    def __init__(
        self,
        model: Model,
        settings: EngineSettings,
        n_ctx: int,
        n_seq: int,
        n_threads: int,
        interrupt: Interrupt,
        n_rows: int,
    ) -> None:
        self.context = Context(model, settings, n_ctx, n_seq, n_threads, interrupt, n_rows)
        self.n_ctx = n_ctx
        self.n_rows = n_rows
        self.sequences = [Sequence(self, number) for number in range(n_seq)]
        #: Decodes beside the thread that waits; None for the first lane of several.
        self.worker: Worker | None = None
        self.n_decodes = 0  # llama_decode calls, tokens and seconds of the last job
        self.n_fed = 0
        self.decode_s = 0.0

    def close(self) -> None:
        if self.worker:
            self.worker.close()
        self.context.close()

    @property
    def most_rows(self) -> int:
        """Tokens that every sequence may be fed at once with the logits behind each."""
        context = self.context
        n_rows = min(self.n_rows, context.n_batch // len(self.sequences))
        return min(n_rows, 1 + context.n_snapshots) if context.n_snapshots else n_rows

    def erase(self) -> None:
        """Empty all sequences, and overwrite what their cells held."""
        self.context.erase()
        for sequence in self.sequences:
            sequence.cached.clear()
            sequence.is_broken = False

    def begin_job(self) -> None:
        self.n_decodes, self.n_fed, self.decode_s = 0, 0, 0.0

    def read(self, pieces: abc.Sequence[tuple[Sequence, list[int]]], n_threads: int) -> None:
        """Decode pieces of prompts, at most a batch in all, without logits."""
        self._decode([(sequence, len(sequence.cached), piece) for sequence, piece in pieces], 0, n_threads)
        for sequence, piece in pieces:
            sequence.cached += piece
            del sequence.to_read[: len(piece)]
            sequence.is_being_decoded = False

    def feed(self, sequences: abc.Sequence[Sequence], n_threads: int) -> None:
        """Decode what the sequences are fed, in one batch, and reduce the logits behind each token.

        What is unread comes first, in batches of its own where it is long.
        """
        parts = [(sequence, len(sequence.cached), sequence.unread) for sequence in sequences if sequence.unread]
        parts += [(s, len(s.cached) + len(s.unread), s.fed) for s in sequences]
        rows = self._decode(parts, sum(len(sequence.fed) for sequence in sequences), n_threads)
        for sequence in sequences:
            sequence.cached += [*sequence.unread, *sequence.fed]
        with self._reducing:
            for sequence in sequences:
                of_it = [next(rows) for _ in sequence.fed]
                sequence.unread.clear()
                sequence.fed.clear()
                sequence.is_being_decoded = False
                try:
                    sequence.rows = [sequence.reduce(row, logits) for row, logits in enumerate(of_it)]
                except Exception as error:  # of this answer alone
                    sequence.error = error

    def _decode(
        self, parts: Iterable[tuple[Sequence, int, abc.Sequence[int]]], n_rows: int, n_threads: int
    ) -> Iterator[Logits]:
        """Decode each sequence's tokens from a position on; the logits behind the last ``n_rows`` of all."""
        token: list[int] = []
        pos: list[int] = []
        seq: list[int] = []
        for sequence, start, tokens in parts:
            sequence.is_being_decoded = True
            token += tokens
            pos += range(start, start + len(tokens))
            seq += [sequence.number] * len(tokens)
        n_batch, n_head, i = self.context.n_batch, len(token) - n_rows, 0
        started = time.perf_counter()
        while len(token) - i > n_batch:
            j = min(i + n_batch, n_head)
            self.context.decode(token[i:j], pos[i:j], seq[i:j], 0, n_threads)
            self.n_decodes += 1
            i = j
        self.context.decode(token[i:], pos[i:], seq[i:], n_rows, n_threads)
        logits = [self.context.logits(n_head - i + row) for row in range(n_rows)]  # waits for a GPU
        self.decode_s += time.perf_counter() - started
        self.n_decodes += 1
        self.n_fed += len(token)
        return iter(logits)
