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

_ENOUGH_TO_TIME = 16  # prompt tokens from which their speed says something


class Decoder(Protocol):
    """The engine, as a slot knows it."""

    model: Model
    lanes: Lanes
    n_steps: int

    def settle(self, slot: Slot) -> None:
        """Decode until the slot's rows are there."""

    def decode_alone(self, sequence: CacheSequence) -> None:
        """Decode what one sequence is fed, and nothing else."""


class Slot:
    """The sequences of one answer.

    Logits that nobody has decoded yet are decoded when they are asked for.
    """

    def __init__(self, engine: Decoder, needs: Needs) -> None:
        self.sequences: list[CacheSequence] = []
        #: Makes of the row-th row of a view's logits (float32 [n_vocab], llama.cpp's memory, gone with the next decode)
        #: what the answer needs of it, in the thread that decoded it.
        self.reduce: Callable[[int, int, Logits], Any] = lambda view, row, logits: logits
        self.reads_alone = False  # a single sequence reads for all
        self.came = engine.n_steps  # when its answer was admitted
        self.n_held = 0  # prompt tokens that need not be read
        self.read_s = 0.0  # spent reading prompts
        #: Seconds that a prompt token takes in every view at once, in a wide batch; None while none was timed.
        self.prefill_s_per_token: float | None = None
        self._engine = engine
        self._needs = needs
        self._stages: Iterator[None] | None = None
        self._n_ahead = 0  # prompt tokens of which none is read yet
        self._lanes: LaneSet

    def open(self) -> None:
        """Have lanes with room made.  Raises what `Lanes.for_answer` does."""
        self._lanes = self._engine.lanes.for_answer(self._needs)

    @property
    def layout(self) -> FixedLayout | None:
        """Where the views live, if there are several."""
        if self._needs.n_views == 1:
            return None
        return "contexts" if self._engine.lanes.separates(self._needs.n_views) else "batched"

    # The state of its prompts.

    @property
    def is_ready(self) -> bool:
        """Whether all prompts are read up to their last tokens."""
        return self._stages is None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be decoded."""
        return self.is_ready and not any(sequence.fed for sequence in self.sequences)

    @property
    def n_to_read(self) -> int:
        return self._n_ahead + sum(len(sequence.to_read) for sequence in self.sequences)

    @property
    def has_to_read(self) -> bool:
        return any(sequence.to_read for sequence in self.sequences)

    def go_on(self) -> None:
        """Begin the next stage of reading the prompts, where the last one is done."""
        if self._stages and next(self._stages, True):
            self._stages = None

    def close(self) -> None:
        self._stages = None

    # Methods that the schedules call.

    @property
    def can_truncate(self) -> bool:
        """Whether the last tokens can be forgotten without reading others again."""
        return self._engine.model.trimmable

    @property
    def most_rows(self) -> int:
        """The most tokens that can be fed at once with the logits behind each."""
        return self._lanes.lanes[0].most_rows

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Bring each view's cache to its prompt, and have the logits behind it decoded.

        The last token is read by itself: llama.cpp rounds differently in batches of different shapes.  A prompt then
        gives the same logits on a CPU, whether its beginning was still in the cache or not, if

        - batches have up to 63 tokens: from 64 on, flash attention takes another path (SmolLM2's logits were seen to
          differ by up to 1), and without it the sums depend on the batch's width;
        - the weights are in Q4_0, Q4_1, Q5_0 or Q8_0: kernels for F16, BF16, F32 and K-quants round differently for one
          token and for several;
        - attention is whole.  Of a sliding window llama.cpp uses the cells again, in an order that depends on how many
          tokens were read at a time and on what was taken back, and sums in that order (a random Gemma 3 of 270M's
          shape: up to 0.4; with a cache that keeps all, `swa_full`, 0);
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
        self._n_ahead = sum(map(len, prompts)) - sum(held)
        self._stages = self._reading(prompts, held)

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view, with logits behind each."""
        is_guess = len(tokens) > 1 and not self.can_truncate and not self.sequences[0].lane.context.n_snapshots
        if is_guess:
            # What is unread is read in the guess's own batch, which saves a pass, until it is as much as the guess.
            if len(self.sequences[0].unread) >= len(tokens):
                self._stages = self._catching_up(tokens)
                return
            for sequence in self.sequences:
                sequence.mark(for_a_guess=True)
        for sequence in self.sequences:
            sequence.fed[:] = tokens

    def logits(self, view: int, row: int = 0) -> Any:
        """The result of `reduce` for the logits behind the row-th of the tokens fed last.

        Raises:
            Interrupted, ModelError: they could not be decoded.
            NotNumbers: they are of no use.
        """
        if not self.is_settled:
            self._engine.settle(self)
        sequence = self.sequences[view]
        if sequence.error:
            raise sequence.error
        return sequence.rows[row]

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view in one batch; what `reduce` makes of the logits behind the last ``rows``.

        Raises:
            UsageError: a batch has no room for so many.
        """
        sequence = self.sequences[view]
        if rows > sequence.lane.context.n_batch:
            raise UsageError(
                f"--batch-size {sequence.lane.context.n_batch} is too small: {rows} tokens are judged at a time"
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
        """Forget the last tokens of every view."""
        for view in range(len(self.sequences)):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Forget the last tokens of a view; what the memory forgets besides is read again with what is fed next."""
        sequence = self.sequences[view]
        text = sequence.cached[: len(sequence.cached) - n_tokens]
        sequence.unread[:] = text[sequence.keep(len(text)) :]

    # Behind it.

    def _reduce(self, view: int, row: int, logits: Logits) -> Any:
        return self.reduce(view, row, logits)

    def _reading(self, prompts: Sequence[Sequence[int]], held: Sequence[int]) -> Iterator[None]:
        """Put prompt tokens into the sequences, a stage at a time: each goes on when what it left to be read is read.

        Where the memory cannot be rolled back at will there are checkpoints: where an answer has ended and this prompt
        goes on, or where earlier prompts have parted from it, and behind it.
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
        """Take a copy of what another sequence holds of a prompt, where that pays; the tokens that are held then."""
        others = self._engine.lanes.sources(sequence)
        found = prefix.source(prompt, held, [other.cached for other in others], self._engine.lanes.worth_copying)
        if found is None:
            return held
        number, n_tokens = found
        sequence.fill(others[number].state())
        return sequence.keep(n_tokens)

    def _reading_shared(self, shared: Sequence[int], held: Sequence[int]) -> Iterator[None]:
        """Have one sequence read what all prompts begin with, on all threads, and the others take a copy."""
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
        """Read what is unread, then be fed a guess."""
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
