"""The sequences of one answer, one for each view; implements `decoding.schedule.Views`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ..settings import FixedLayout
from . import prefix
from .lanes import Lanes, LaneSet, Needs
from .model import Model
from .sequence import Reduce, unreduced
from .sequence import Sequence as CacheSequence

_ENOUGH_TO_TIME = 16  # prompt tokens; the speed of fewer says nothing


class Decoder(Protocol):
    """The methods of the engine that a slot uses."""

    model: Model
    lanes: Lanes
    n_steps: int

    def settle(self, slot: Slot) -> None:
        """Decode until the slot's logits are computed."""

    def decode_alone(self, sequence: CacheSequence) -> None:
        """Decode the tokens fed to one sequence, and nothing else."""


class Slot:
    """The sequences of one answer.

    Reading logits that are not computed yet decodes them.
    """

    def __init__(self, engine: Decoder, needs: Needs) -> None:
        self.sequences: list[CacheSequence] = []
        #: See `sequence.Reduce`.
        self.reduce: Reduce = unreduced
        self.reads_alone = False  # True while one sequence reads the shared beginning for all
        self.admitted_at = engine.n_steps
        self.n_held = 0  # prompt tokens that were in the caches
        self.read_s = 0.0  # seconds spent reading prompts
        #: Seconds for one prompt token in all views together, in a wide batch; None until it is measured.
        self.prefill_s_per_token: float | None = None
        self._engine = engine
        self._needs = needs
        self._stages: Iterator[None] | None = None
        self._n_ahead = 0  # prompt tokens to read, while no stage has started
        self._lengths: list[int] = []  # of the prompts
        self._lanes: LaneSet

    def open(self) -> None:
        """Make lanes with room for the answer.  Raises the errors of `Lanes.for_answer`."""
        self._lanes = self._engine.lanes.for_answer(self._needs)

    @property
    def layout(self) -> FixedLayout | None:
        """The layout of the views; None for a single view."""
        if self._needs.n_views == 1:
            return None
        return "contexts" if self._engine.lanes.separates(self._needs.n_views) else "batched"

    # Reading the prompts.

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
        """Progress of reading the prompts: tokens read, and tokens in all, scaled to the longest prompt.

        Tokens that one sequence reads for all views are counted once for each view.
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

    def start_next_stage(self) -> None:
        """Start the next stage of reading the prompts.  The tokens of the last one must be read."""
        if self._stages and next(self._stages, True):
            self._stages = None

    def close(self) -> None:
        self._stages = None

    # Used by the schedules.

    @property
    def most_rows(self) -> int:
        """The most tokens that can be fed at once, with logits after each."""
        return self._lanes.lanes[0].most_rows

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read each view's prompt, as far as its cache does not hold it, up to the logits after it.

        The last token is read by itself, because llama.cpp rounds differently in batches of different shapes.  On a
        CPU, a prompt then gives the same logits with and without its beginning in the cache, if

        - batches have at most 63 tokens: from 64 on, flash attention takes another path (logits of SmolLM2 differed by
          up to 1), and without it the sums depend on the batch's width;
        - the weights are in Q4_0, Q4_1, Q5_0 or Q8_0: kernels for F16, BF16, F32 and K-quants round differently for one
          token and for several;
        - attention has no sliding window: llama.cpp sums over the window's cells in an order that depends on earlier
          batches and rollbacks (random weights in the shape of Gemma 3 270M: up to 0.4; with ``swa_full``: 0);
        - from 256 tokens on, a single sequence has one thread (see `Context`).
        """
        is_first = not self.sequences
        for sequence in self.sequences:
            sequence.release()
        self.sequences = self._engine.lanes.place(self._needs, prompts)
        for sequence in self.sequences:
            sequence.reduce = self.reduce
            if is_first and not self._needs.reuses:
                sequence.keep(0)
        held = _held(self.sequences, prompts)
        self._lengths = [*map(len, prompts)]
        self._n_ahead = sum(map(len, prompts)) - sum(held)
        self._stages = self._reading(prompts, held)

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view, with logits after each."""
        is_guess = len(tokens) > 1 and self._engine.model.recurrent and not self.sequences[0].lane.context.n_snapshots
        if is_guess:
            # Fewer unread tokens than the guess has are read in the guess's batch, which saves a pass.
            if len(self.sequences[0].unread) >= len(tokens):
                self._stages = self._catching_up(tokens)
                return
            for sequence in self.sequences:
                sequence.mark(for_a_guess=True)
        for sequence in self.sequences:
            sequence.fed[:] = tokens

    def logits(self, view: int, row: int = 0) -> Any:
        """The result of `reduce` for the logits after the ``row``-th of the tokens fed last.

        Raises:
            Interrupted, ModelError: the logits cannot be decoded.
            InvalidLogits: the logits contain NaN or infinity.
        """
        if not self.is_settled:
            self._engine.settle(self)
        sequence = self.sequences[view]
        if sequence.error:
            raise sequence.error
        return sequence.rows[row]

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view, and return the results of `reduce` for the logits after the last ``rows``."""
        sequence = self.sequences[view]
        if not self.is_settled:
            self._engine.settle(self)
        cut = len(tokens) - rows
        sequence.unread += tokens[:cut]
        sequence.fed[:] = tokens[cut:]
        self._engine.decode_alone(sequence)
        if sequence.error:
            raise sequence.error
        return sequence.rows

    def rewind(self, n_tokens: int) -> None:
        """Remove the last ``n_tokens`` tokens of every view."""
        for view in range(len(self.sequences)):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Remove the last ``n_tokens`` tokens of a view.

        If the cache can only be rolled back further, the lost tokens are read again with the tokens fed next.
        """
        sequence = self.sequences[view]
        text = sequence.cached[: len(sequence.cached) - n_tokens]
        sequence.unread[:] = text[sequence.keep(len(text)) :]

    def _reading(self, prompts: Sequence[Sequence[int]], held: Sequence[int]) -> Iterator[None]:
        """Give the sequences prompt tokens to read, a stage at a time: continue when they are read.

        If the cache cannot be truncated anywhere, checkpoints are made at the end of the prompt, and where it leaves
        the text of an earlier answer or prompt.
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
            The number of the prompt's tokens in the cache.
        """
        others = self._engine.lanes.sources(sequence)
        found = prefix.source(prompt, held, [other.cached for other in others], self._engine.lanes.worth_copying)
        if found is None:
            return held
        number, n_tokens = found
        sequence.fill(others[number].state())
        return sequence.keep(n_tokens)

    def _reading_shared(self, shared: Sequence[int], held: Sequence[int]) -> Iterator[None]:
        """Read the shared prefix of all prompts in one sequence, with all threads, and copy it to the others."""
        most, reader = max(zip(held, self.sequences, strict=True), key=lambda pair: min(pair[0], len(shared)))
        reader.keep(min(most, len(shared)))
        reader.to_read[:] = shared[len(reader.cached) :]
        self.reads_alone = True
        yield
        state = reader.state()
        for sequence, n_held in zip(self.sequences, held, strict=True):
            if sequence is not reader and n_held < len(shared):
                sequence.fill(state)
        self.reads_alone = False  # now that the others hold it: `progress` must not fall back meanwhile

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
    """The number of tokens at the beginning of each prompt that its view's cache holds."""
    return [prefix.common_prefix(sequence.cached, prompt) for sequence, prompt in zip(sequences, prompts, strict=True)]
