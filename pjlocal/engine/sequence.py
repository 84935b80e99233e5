"""The sequences of a llama context: their tokens in the KV cache, the tokens to decode, and the results."""

from __future__ import annotations

import ctypes
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

#: Takes logits (float32 [n_vocab], llama.cpp's memory, which the next decode overwrites), and returns the part that the
#: answer needs.  Called in the thread that decoded them.
Reduce = Callable[[Logits], Any]


def unreduced(logits: Logits) -> Any:
    return logits


@dataclass(frozen=True)
class State:
    """A copy of a sequence: its tokens, llama.cpp's cache, the adapters that computed it, and its checkpoints."""

    cached: list[int]
    memory: ctypes.Array[ctypes.c_uint8]
    adapters: Adapters
    checkpoints: abc.Sequence[Checkpoint] = ()


@dataclass(eq=False)
class Sequence:
    """A sequence of a lane: the KV cache of one view of an answer, or of an earlier answer.

    cached: tokens in the cache.
    to_read: prompt tokens to decode next; their logits are not needed.
    unread: tokens of the text that a rewind removed from the cache; they are read again before the tokens fed next.
    fed: tokens to decode next, with logits after each.
    rows: the results of `reduce` for the logits after the tokens fed last, or the error that it raised.
    """

    lane: Lane
    number: int
    cached: list[int] = field(default_factory=list)
    to_read: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    error: Exception | None = None
    reduce: Reduce = unreduced
    in_use: bool = False
    released: int = 0  # time of its last release, counted in answers
    is_broken: bool = False  # the cache holds NaN or infinity
    is_being_decoded: bool = False  # also after a decode that failed

    @property
    def is_free(self) -> bool:
        return not self.in_use and not self.is_broken

    def keep(self, n_tokens: int) -> int:
        """Truncate the cache to its first ``n_tokens``, or to fewer if it cannot be rolled back to there.

        Returns:
            The number of tokens that are left.
        """
        if n_tokens < len(self.cached):
            del self.cached[self.lane.context.truncate(self.number, n_tokens) :]
        return len(self.cached)

    def adapt(self, adapters: Adapters) -> None:
        """Use these adapters from now on.  If they differ, empty all sequences of the lane.

        Raises:
            ModelError: an adapter cannot be loaded.
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
        """Copy another sequence's state, with its adapters; the sequence is left empty if that fails."""
        self.keep(0)
        context = self.lane.context
        context.adapt(state.adapters)
        if len(state.cached) < self.lane.n_ctx and context.restore(self.number, state.memory, state.checkpoints):
            self.cached = list(state.cached)
        else:
            context.truncate(self.number, 0)

    def save(self, file: Path) -> int:
        """Write the cache to a file.  Returns the file's size in bytes, 0 on failure."""
        return self.lane.context.save(self.number, self.cached, file)

    def load(self, file: Path) -> None:
        """Fill the sequence from a file; the sequence is empty if the file cannot be loaded."""
        self.keep(0)
        self.cached = self.lane.context.load(self.number, file, self.lane.n_ctx)

    def mark(self, *, for_a_guess: bool = False) -> None:
        """Make a checkpoint, unless the cache can be truncated to any length."""
        self.lane.context.mark(self.number, for_a_guess=for_a_guess)

    def release(self) -> None:
        """Free the sequence for other answers.  Its cache stays, for prompts with the same beginning."""
        self._drop_tokens()
        self.rows.clear()
        self.error, self.reduce, self.in_use = None, unreduced, False

    def _drop_tokens(self) -> None:
        for queue in (self.to_read, self.unread, self.fed):
            queue.clear()

    def recover(self) -> None:
        """Drop the tokens to decode, and make ``cached`` agree with llama.cpp's cache, after a decode that was stopped
        or failed.

        A running state is invalid after that, and is restored from a checkpoint.
        """
        self._drop_tokens()
        context, n_tokens = self.lane.context, len(self.cached)
        length = context.length(self.number)
        if self.is_being_decoded and context.model.recurrent:
            del self.cached[context.restore_checkpoint(self.number, n_tokens) :]
        elif length != n_tokens:
            del self.cached[context.truncate(self.number, min(length, n_tokens)) :]
        self.is_being_decoded = False


class Lane:
    """A llama context with ``n_seq`` sequences, decoded by one thread at a time.

    Args:
        n_ctx: the most tokens of a sequence.
        n_rows: the most tokens that each sequence is fed at once, with logits after each.

    Raises:
        ModelError: llama.cpp cannot make the context; most often there is not enough memory.
    """

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
        #: Runs the lane's jobs; None for the first lane, whose jobs run in the thread that waits.
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
        """The most tokens that every sequence can be fed at once, with logits after each."""
        context = self.context
        n_rows = min(self.n_rows, context.n_batch // len(self.sequences))
        return min(n_rows, 1 + context.n_snapshots) if context.n_snapshots else n_rows

    def erase(self) -> None:
        """Empty all sequences, and overwrite their cells."""
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
        """Decode the tokens fed to the sequences in one batch, and reduce the logits after each token.

        Unread tokens come first, in batches of their own if they are many.
        """
        parts = [(sequence, len(sequence.cached), sequence.unread) for sequence in sequences if sequence.unread]
        parts += [(s, len(s.cached) + len(s.unread), s.fed) for s in sequences]
        rows = self._decode(parts, sum(len(sequence.fed) for sequence in sequences), n_threads)
        for sequence in sequences:
            sequence.cached += [*sequence.unread, *sequence.fed]
        for sequence in sequences:
            of_it = [next(rows) for _ in sequence.fed]
            sequence.unread.clear()
            sequence.fed.clear()
            sequence.is_being_decoded = False
            try:
                sequence.rows = [sequence.reduce(logits) for logits in of_it]
            except Exception as error:  # ends this answer alone
                sequence.error = error

    def _decode(
        self, parts: Iterable[tuple[Sequence, int, abc.Sequence[int]]], n_rows: int, n_threads: int
    ) -> Iterator[Logits]:
        """Decode each part (a sequence, the position of its first token, tokens), and return the logits after the last
        ``n_rows`` tokens of all."""
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
        self.context.wait()
        logits = [self.context.logits(n_head - i + row) for row in range(n_rows)]
        self.decode_s += time.perf_counter() - started
        self.n_decodes += 1
        self.n_fed += len(token)
        return iter(logits)
