"""The sequences of one answer, a view each: satisfies `decoding.schedule.Views`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from ..errors import UsageError
from ..settings import FixedLayout
from . import prefix
from .context import Logits
from .lanes import Lanes, LaneSet, Needs
from .model import Model
from .sequence import Sequence as CacheSequence

_ENOUGH_TO_TIME = 16  # fewer prompt tokens are too few to time


class Decoder(Protocol):
    """The methods of the engine that a slot uses."""

    model: Model
    lanes: Lanes
    n_steps: int

    def settle(self, slot: Slot) -> None:
        """Decode until the slot's logits are there."""

    def decode_alone(self, sequence: CacheSequence) -> None:
        """Decode the tokens that one sequence is fed, and nothing else."""


class Slot:
    """The sequences of one answer.

    Logits are decoded on request, if they are not there yet.
    """

    def __init__(self, engine: Decoder, needs: Needs) -> None:
        self.sequences: list[CacheSequence] = []
        #: Reduces the row-th row of a view's logits (float32 [n_vocab], llama.cpp's memory, overwritten by the next
        #: decode) to the part that the answer needs, in the thread that decoded the row.
        self.reduce: Callable[[int, int, Logits], Any] = lambda view, row, logits: logits
        self.reads_alone = False  # one sequence reads for all
        self.came = engine.n_steps  # when its answer was admitted
        self.n_held = 0  # prompt tokens that were in the caches
        self.read_s = 0.0  # spent reading prompts
        #: Seconds that a prompt token takes in all views together, in a wide batch; None until it was timed.
        self.prefill_s_per_token: float | None = None
        self._engine = engine
        self._needs = needs
        self._stages: Iterator[None] | None = None
        self._n_ahead = 0  # prompt tokens, until the first of them is read
        self._lengths: list[int] = []  # of the prompts
        self._lanes: LaneSet

    def open(self) -> None:
        """Make lanes with room for the answer.  The errors are those of `Lanes.for_answer`."""
        self._lanes = self._engine.lanes.for_answer(self._needs)

    @property
    def layout(self) -> FixedLayout | None:
        """The layout of the views; None for a single view."""
        if self._needs.n_views == 1:
            return None
        return "contexts" if self._engine.lanes.separates(self._needs.n_views) else "batched"

    # The state of its prompts.

    @property
    def is_ready(self) -> bool:
        """True if all prompts are read up to their last tokens."""
        return self._stages is None

    @property
    def is_settled(self) -> bool:
        """True if no tokens are left to decode."""
        return self.is_ready and not any(sequence.fed for sequence in self.sequences)

    @property
    def n_to_read(self) -> int:
        return self._n_ahead + sum(len(sequence.to_read) for sequence in self.sequences)

    @property
    def progress(self) -> tuple[int, int]:
        """The tokens of the longest prompt that are read, and all of them.

        All views count.  What one sequence reads for all of them counts for each.
        """
        cached = [] if self._n_ahead else [len(sequence.cached) for sequence in self.sequences]
        if cached and self.reads_alone:
            cached = [max(cached)] * len(cached)
        n_read = sum(map(min, cached, self._lengths))
        longest = max(self._lengths, default=0)
        return longest * n_read // max(1, sum(self._lengths)), longest

    @property
    def has_to_read(self) -> bool:
        return any(sequence.to_read for sequence in self.sequences)

    def go_on(self) -> None:
        """Start the next stage of reading the prompts if the last one is done."""
        if self._stages and next(self._stages, True):
            self._stages = None

    def close(self) -> None:
        self._stages = None

    # Methods that the schedules call.

    @property
    def can_truncate(self) -> bool:
        """True if the last tokens can be removed without reading others again."""
        return self._engine.model.can_truncate

    @property
    def most_rows(self) -> int:
        """The most tokens that can be fed at once, with logits after each."""
        return self._lanes.lanes[0].most_rows

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Bring each view's cache to its prompt, and decode the logits after it.

        The last token is read by itself, because llama.cpp rounds differently in batches of different shapes.  A
        prompt then gives the same logits on a CPU, whether its beginning was in the cache or not, if

        - batches have up to 63 tokens: from 64 on, flash attention takes another path (SmolLM2's logits were seen to
          differ by up to 1), and without it the sums depend on the batch's width;
        - the weights are in Q4_0, Q4_1, Q5_0 or Q8_0: kernels for F16, BF16, F32 and K-quants round differently for one
          token and for several;
        - attention is not windowed.  llama.cpp reuses the cells of a sliding window, in an order that depends on the
          number of tokens read at a time and on rollbacks, and sums in that order (a random model in the shape of Gemma
          3 270M: up to 0.4; with a cache that keeps all cells, `swa_full`: 0);
        - a single sequence has one thread, from 256 tokens on (see `Context`).
        """
        is_first = not self.sequences
        for sequence in self.sequences:
            sequence.release()
        self.sequences = self._engine.lanes.place(self._needs, prompts)
        for view, sequence in enumerate(self.sequences):
            sequence.reduce = partial(self._reduce, view)
            if is_first and not self._needs.reuses:
                sequence.keep(0)
        held = _held(self.sequences, prompts)
        self._lengths = [*map(len, prompts)]
        self._n_ahead = sum(map(len, prompts)) - sum(held)
        self._stages = self._reading(prompts, held)

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view, with logits after each."""
        is_guess = len(tokens) > 1 and not self.can_truncate and not self.sequences[0].lane.context.n_snapshots
        if is_guess:
            # Read unread tokens in the guess's own batch, which saves a pass, until they are as many as the guess.
            if len(self.sequences[0].unread) >= len(tokens):
                self._stages = self._catching_up(tokens)
                return
            for sequence in self.sequences:
                sequence.mark(for_a_guess=True)
        for sequence in self.sequences:
            sequence.fed[:] = tokens

    def logits(self, view: int, row: int = 0) -> Any:
        """The result of `reduce` for the logits after the row-th of the tokens fed last.

        Raises:
            Interrupted, ModelError: the logits could not be decoded.
            NotNumbers: the logits are not numbers.
        """
        if not self.is_settled:
            self._engine.settle(self)
        sequence = self.sequences[view]
        if sequence.error:
            raise sequence.error
        return sequence.rows[row]

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view in one batch.  Returns the results of `reduce` for the logits after the last
        ``rows``.

        Raises:
            UsageError: a batch has no room for so many tokens.
        """
        sequence = self.sequences[view]
        if rows > sequence.lane.context.n_batch:
            raise UsageError(
                f"--batch-size {sequence.lane.context.n_batch} is too small: {rows} tokens are judged at once"
            )
        if not self.is_settled:
            self._engine.settle(self)
        cut = len(tokens) - rows
        sequence.unread += tokens[:cut]
        sequence.fed[:] = tokens[cut:]
        reduce, sequence.reduce = sequence.reduce, lambda row, logits: logits.copy()
        try:
            self._engine.decode_alone(sequence)
        finally:
            sequence.reduce = reduce
        return [reduce(1 + row, logits) for row, logits in enumerate(sequence.rows)]

    def rewind(self, n_tokens: int) -> None:
        """Remove the last tokens of every view."""
        for view in range(len(self.sequences)):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Remove the last tokens of a view.  If the memory loses more, those tokens are read again with the tokens fed
        next."""
        sequence = self.sequences[view]
        text = sequence.cached[: len(sequence.cached) - n_tokens]
        sequence.unread[:] = text[sequence.keep(len(text)) :]

    # Behind it.

    def _reduce(self, view: int, row: int, logits: Logits) -> Any:
        return self.reduce(view, row, logits)

    def _reading(self, prompts: Sequence[Sequence[int]], held: Sequence[int]) -> Iterator[None]:
        """Put prompt tokens into the sequences, in stages: the next stage begins when the tokens of the last one are
        read.

        If the memory cannot be truncated freely, checkpoints are made: where an earlier answer ended and this prompt
        goes on, or where earlier prompts differ from it, and at its end.
        """
        self._n_ahead = 0
        each = list(zip(self.sequences, prompts, strict=True))
        if self._needs.reuses:
            held = [self._copy_beginning(*pair, n) for pair, n in zip(each, held, strict=True)]
        self.n_held = sum(min(n, len(prompt) - 1) for n, prompt in zip(held, prompts, strict=True))
        if self._needs.shares_prefix and not self._needs.is_separate and len(prompts) > 1:
            n_shared = prefix.shared_prefix(prompts)
            if n_shared - min(held) >= self._engine.lanes.worth_copying:
                yield from self._reading_shared(prompts[0][:n_shared], held)
                held = _held(self.sequences, prompts)
        keeps = [max(0, min(n, len(prompt) - 1)) for n, prompt in zip(held, prompts, strict=True)]
        for (sequence, prompt), keep in zip(each, keeps, strict=True):
            kept = sequence.keep(keep)
            if keep - kept >= prefix.WORTH_COPYING:
                sequence.to_read[:] = prompt[kept:keep]
        yield
        for sequence, prompt in each:
            sequence.mark()
            sequence.to_read[:] = prompt[len(sequence.cached) : -1]
        self.read_s, longest = 0.0, max(len(sequence.to_read) for sequence in self.sequences)
        yield
        if longest >= _ENOUGH_TO_TIME:
            self.prefill_s_per_token = self.read_s / longest
        for sequence, prompt in each:
            sequence.mark()
            sequence.fed[:] = prompt[-1:]

    def _copy_beginning(self, sequence: CacheSequence, prompt: Sequence[int], held: int) -> int:
        """Copy the beginning of a prompt from another sequence, if that is faster than reading it.

        Returns:
            The number of the prompt's tokens that are in memory then.
        """
        others = self._engine.lanes.sources(sequence)
        found = prefix.source(prompt, held, [other.cached for other in others], self._engine.lanes.worth_copying)
        if found is None:
            return held
        number, n_tokens = found
        sequence.fill(others[number].state())
        return sequence.keep(n_tokens)

    def _reading_shared(self, shared: Sequence[int], held: Sequence[int]) -> Iterator[None]:
        """Read the shared prefix of all prompts in one sequence, on all threads, and copy it to the others."""
        most, reader = max(zip(held, self.sequences, strict=True), key=lambda pair: min(pair[0], len(shared)))
        reader.keep(min(most, len(shared)))
        reader.to_read[:] = shared[len(reader.cached) :]
        self.reads_alone = True
        yield
        self.reads_alone = False
        state = reader.state()
        for sequence, n_held in zip(self.sequences, held, strict=True):
            if sequence is not reader and n_held < len(shared):
                sequence.fill(state)

    def _catching_up(self, tokens: Sequence[int]) -> Iterator[None]:
        """Read the unread tokens, then feed the guess."""
        for sequence in self.sequences:
            sequence.to_read[:] = sequence.unread
            sequence.unread.clear()
        yield
        for sequence in self.sequences:
            sequence.mark(for_a_guess=True)
            sequence.fed[:] = tokens


def _held(sequences: Sequence[CacheSequence], prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of each view's prompt that its cache holds."""
    return [prefix.common_prefix(sequence.cached, prompt) for sequence, prompt in zip(sequences, prompts, strict=True)]
