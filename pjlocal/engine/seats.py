"""Many answers' views in one context: each has sequences of its own, and what all of them feed is decoded together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from ..errors import ModelError, UsageError
from ..settings import Engine, FixedLayout
from .adapters import Adapters
from .context import PROMPT_PIECE, Context, Logits, check_memory
from .interrupt import Interrupt
from .machine import physical_cores
from .model import Model
from .shortlist import NotNumbers
from .tokens import common_prefix
from .worker import apart

_WORTH_COPYING = 16  # tokens that need not be read, from which they are copied from another sequence,
_OF_AS_MANY = 10  # and at least one of so many that are copied: a copy is as much cheaper at the least


@dataclass
class _Sequence:
    """One of the context's sequences: the tokens in its memory, and those still to be decoded."""

    number: int
    cached: list[int] = field(default_factory=list)
    head: list[int] = field(default_factory=list)  # whose logits nobody asks for
    wanted: list[int] = field(default_factory=list)  # whose logits are asked for
    rows: list[Logits] = field(default_factory=list)  # behind each of those decoded last
    mates: Sequence[_Sequence] = ()  # the views of the answer that has it; empty where none has
    left: int = 0  # when an answer left it last, counted in answers
    is_broken: bool = False  # its memory holds values that are not numbers
    n_held: int = 0  # tokens of its answer's prompt that need not be read
    came: int = 0  # the decode before which its answer came

    @property
    def is_free(self) -> bool:
        return not self.mates and not self.is_broken

    @property
    def ready(self) -> bool:
        """Whether the prompts of its answer are read: rows of one view are gone when those of another come."""
        return not any(mate.head for mate in self.mates)


class SharedContext:
    """One llama context for answers that are written side by side.

    Answers take a `seat` each, feed it, and read its logits after the next `decode`, which reads what all of them have
    fed.  A row's logits are llama.cpp's memory and gone with the decode after that.

    What a prompt begins with is taken from whichever sequence holds most of it.

    llama.cpp rounds differently in batches of different widths: beside others, an answer may part from the one that its
    seed gives alone where two tokens are all but equally probable.

    Args:
        n_seq: sequences: a view of an answer takes one.
        n_ctx: tokens that each may hold.
        n_rows: tokens that each may feed at a time with the logits behind each; answers that want more get these.

    Raises:
        ModelError: there is not enough memory.
    """

    def __init__(
        self, model: Model, engine: Engine, n_seq: int, n_ctx: int, interrupt: Interrupt, n_rows: int = 1
    ) -> None:
        check_memory(model, engine, n_seq, n_ctx)
        self.model = model
        self.n_ctx = n_ctx
        self.n_seq = n_seq
        self.n_rows = n_rows if model.trimmable else 1
        self.interrupt = interrupt
        self.n_reads = 0  # calls of `decode`
        self.n_decodes = 0  # llama_decode calls, and tokens read, for tests and statistics
        self.n_fed = 0
        self.decode_s = 0.0  # spent in llama_decode
        self._n_left = 0  # answers that have left
        self._sequences = [_Sequence(number) for number in range(n_seq)]
        n_threads = engine.n_threads or physical_cores()
        self._context = Context(model, engine, n_ctx, n_seq, n_threads, interrupt, self.n_rows)

    def close(self) -> None:
        self._context.close()

    @property
    def n_free(self) -> int:
        """Sequences that an answer can have."""
        return sum(sequence.is_free for sequence in self._sequences)

    @property
    def most_rows(self) -> int:
        """The most tokens that every sequence may feed at once with the logits behind each."""
        return min(self.n_rows, self._context.n_batch // self.n_seq)

    def seat(self) -> Seat:
        """A place for one more answer; it takes sequences when its prompts are known."""
        return Seat(self)

    def take(self, prompts: Sequence[Sequence[int]]) -> list[_Sequence]:
        """A free sequence for each prompt, of which there must be as many: the one that holds most of it already.

        One that nothing was read into goes before one of which more would be lost than is of use, as of another
        conversation that only begins the same.  Among equals it is the one left longest ago.
        """
        taken: list[_Sequence] = []
        for prompt in prompts:
            free = [sequence for sequence in self._sequences if sequence.is_free]
            best = max(free, key=partial(_fitness, prompt=prompt))
            best.mates = taken
            taken.append(best)
        return taken

    def give_back(self, sequences: Sequence[_Sequence], *, are_broken: bool = False) -> None:
        """They may be taken by others; what is in their memory stays, for whoever begins with the same.

        Args:
            are_broken: their memory holds values that are not numbers.  llama.cpp multiplies those of emptied cells by
                0, which makes no numbers of them.  It cannot erase one sequence: all are erased when none is in use.
        """
        self._n_left += 1
        for sequence in sequences:
            sequence.head.clear()
            sequence.wanted.clear()
            sequence.mates = ()
            sequence.left = self._n_left
            sequence.is_broken = are_broken
        if any(each.is_broken for each in self._sequences) and not any(each.mates for each in self._sequences):
            self._context.erase()
            for sequence in self._sequences:
                sequence.cached.clear()
                sequence.is_broken = False

    def keep(self, sequence: _Sequence, n_tokens: int) -> int:
        """Trim a sequence to its first ``n_tokens``, or empty it where it cannot be trimmed; what is left."""
        if n_tokens < len(sequence.cached):
            del sequence.cached[self._context.trim(sequence.number, n_tokens) :]
        return len(sequence.cached)

    def decode(self, n_most: int | None = None) -> None:
        """Read what was fed: first what nobody asks logits of, then a batch of all that somebody does.

        Of long prompts it reads about a batch, or at most ``n_most`` tokens, and the rest the next times: answers that
        are being written go on meanwhile.  A `Seat` is ready when its own are read.

        Raises:
            Interrupted: it was stopped.
            ModelError: llama.cpp failed.
        """
        started = time.perf_counter()
        try:
            self._read_heads(n_most)
            self._read_wanted()
        except BaseException:
            self._recover()
            raise
        finally:
            self.n_reads += 1
            self.decode_s += time.perf_counter() - started

    # Behind it.

    def _read_heads(self, n_most: int | None) -> None:
        """One sequence after the other: what a prompt's tokens are rounded to then depends on no neighbour."""
        n_batch = self._context.n_batch
        enough = self.n_fed + (n_most or n_batch)
        for sequence in sorted((each for each in self._sequences if each.head), key=_due):
            if self.n_fed < enough and len(sequence.cached) == sequence.n_held:  # none is read yet
                self._copy_beginning(sequence)
            while sequence.head and self.n_fed < enough:
                part = sequence.head[: min(n_batch, enough - self.n_fed) if n_most else n_batch]
                apart(partial(self._decode, list(_numbered(sequence, part)), n_wanted=0), self.interrupt)
                sequence.cached += part
                del sequence.head[: len(part)]

    def _copy_beginning(self, sequence: _Sequence) -> None:
        """Take what another sequence holds of a prompt, as of the same system text, or of another view's prompt."""
        if not self.model.keeps_all:
            return
        prompt = sequence.cached + sequence.head
        sound = (other for other in self._sequences if not other.is_broken)
        best = max(sound, key=lambda other: common_prefix(other.cached, prompt))
        held = common_prefix(best.cached, prompt)
        n_more = held - len(sequence.cached)
        if n_more < _WORTH_COPYING or _OF_AS_MANY * n_more < len(best.cached):
            return
        taken = self._context.restore(sequence.number, self._context.state(best.number))
        sequence.cached = list(best.cached) if taken else []
        self.keep(sequence, held)
        sequence.head = prompt[len(sequence.cached) :]
        sequence.n_held = len(sequence.cached)

    def _read_wanted(self) -> None:
        asking = [sequence for sequence in self._sequences if sequence.wanted and sequence.ready]
        batch = [item for sequence in asking for item in _numbered(sequence, sequence.wanted)]
        self._decode(batch, n_wanted=len(batch))
        logits = map(self._context.logits, range(len(batch)))
        for sequence in asking:
            sequence.rows = list(islice(logits, len(sequence.wanted)))
            sequence.cached += sequence.wanted
            sequence.wanted.clear()

    def _decode(self, batch: Sequence[tuple[int, int, int]], n_wanted: int) -> None:
        if not batch:
            return
        token, pos, seq = map(list, zip(*batch, strict=True))
        self._context.decode(token, pos, seq, n_wanted)
        self.n_decodes += 1
        self.n_fed += len(batch)

    def _recover(self) -> None:
        """After a decode that was stopped or has failed: nothing is left to be read, and the memory holds what
        ``cached`` says."""
        for sequence in self._sequences:
            sequence.head.clear()
            sequence.wanted.clear()
            held = min(self._context.length(sequence.number), len(sequence.cached)) if self.model.trimmable else 0
            del sequence.cached[self._context.trim(sequence.number, held) :]


def _due(sequence: _Sequence) -> tuple[int, int]:
    """When a prompt is read: a short one goes before a long one, but not if it came much later.

    Counted in tokens, as if all prompts were read at the same time: so none waits for ever.
    """
    n_left = sum(len(mate.head) for mate in sequence.mates)
    return PROMPT_PIECE * sequence.came + n_left, sequence.number


def _fitness(sequence: _Sequence, prompt: Sequence[int]) -> tuple[bool, bool, int, int]:
    """How well a free sequence suits a prompt; the greatest does best."""
    held = common_prefix(sequence.cached, prompt)
    is_worth_it = 2 * held >= len(sequence.cached) > 0
    return is_worth_it, not sequence.cached, held, -sequence.left


class Seat:
    """The views of one answer on a `SharedContext`: what the schedules ask for, and where `Answer` lives."""

    def __init__(self, shared: SharedContext) -> None:
        self.model = shared.model
        self.interrupt = shared.interrupt
        self.context_limit = shared.n_ctx
        self.layout: FixedLayout = "batched"
        self.trimmable = self.rewinds = shared.model.trimmable
        self.reduce: Callable[[int, int, Logits], Any] = lambda view, row, logits: logits
        self.shares_trunk = False  # the context sees itself to what prompts have in common
        self.prefill_s_per_token: float | None = None
        self.n_held = 0  # tokens of the prompts that need not be read; known once it has left
        self._shared = shared
        self._sequences: list[_Sequence] = []
        self._rows: dict[tuple[int, int], Any] = {}

    def leave(self, error: Exception | None = None) -> None:
        """Let others have its sequences.

        Args:
            error: what ended the answer.
        """
        self.n_held = sum(sequence.n_held for sequence in self._sequences)
        self._shared.give_back(self._sequences, are_broken=isinstance(error, NotNumbers))
        self._sequences = []

    @property
    def ready(self) -> bool:
        """Whether the last decode has read its prompts to their ends."""
        return all(sequence.ready for sequence in self._sequences)

    # What an answer asks of its pool.

    def writing(self, writer: object) -> AbstractContextManager[None]:
        """Raises UsageError: nobody would decode for an answer that is iterated over here."""
        raise UsageError("an answer on a shared context is written by a Scheduler")

    def views(
        self,
        n_views: int,
        n_ctx: int,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[Adapters] = (),
        n_rows: int = 1,
    ) -> Seat:
        """Raises UsageError: adapters change a whole context."""
        if any(adapters):
            raise UsageError(
                "a LoRA adapter or control vector changes a whole context, which answers written side by side share: "
                "have them written one at a time (--parallel 1)"
            )
        return self

    # What the schedules call.

    @property
    def most_rows(self) -> int:
        return self._shared.most_rows

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        self._sequences = self._shared.take(prompts)
        self._rows.clear()
        for sequence, prompt in zip(self._sequences, prompts, strict=True):
            held = self._shared.keep(sequence, min(common_prefix(sequence.cached, prompt), len(prompt) - 1))
            sequence.n_held = held
            sequence.came = self._shared.n_reads
            sequence.head[:] = prompt[held:-1]
            sequence.wanted[:] = prompt[-1:]

    def feed(self, tokens: Sequence[int]) -> None:
        self._rows.clear()
        for sequence in self._sequences:
            sequence.wanted[:] = tokens

    def logits(self, view: int, row: int = 0) -> Any:
        """What `reduce` makes of the logits behind the row-th token of the last feed, once that was decoded."""
        if (view, row) not in self._rows:
            self._rows[view, row] = self.reduce(view, row, self._sequences[view].rows[row])
        return self._rows[view, row]

    def rewind(self, n_tokens: int) -> None:
        for view in range(len(self._sequences)):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        sequence = self._sequences[view]
        keep = len(sequence.cached) - n_tokens
        if self._shared.keep(sequence, keep) != keep:
            raise ModelError("this model's memory cannot be trimmed")

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        raise UsageError("--schedule reference writes one answer at a time")


def _numbered(sequence: _Sequence, tokens: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each token with its position and its sequence."""
    start = len(sequence.cached)
    return ((token, start + i, sequence.number) for i, token in enumerate(tokens))
