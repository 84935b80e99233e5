"""The views of one model: each a prompt and a KV cache of its own, the weights shared.

Where the views live is a *layout*.  ``contexts`` gives each view a llama context of its own and decodes them at the
same time from one thread each, which suits a small model on a CPU; ``batched`` gives them one context and decodes one
batch of a token each, which suits a GPU and whatever else is bound by memory, where the second sequence is nearly free.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..settings import Engine, FixedLayout
from .adapters import Adapters
from .backend import check_process
from .checkpoints import Checkpoint
from .context import PROMPT_PIECE, Context, Logits
from .interrupt import Interrupt
from .machine import physical_cores
from .model import Model
from .tokens import common_prefix
from .worker import Worker, apart

#: Up to here the first context is decoded by the thread that waits for it.  A thread more than there are cores would
#: have to push aside llama.cpp's own, which spin between decodes: on the 2-core machine a step then took twice as long.
#: Longer prompts are read apart, so that the main thread waits on a lock, where Ctrl-C reaches it.
_FEW_TOKENS = 64

_TRUNK = 32  # tokens that prompts begin with in common, from which they are read once for all
_FEW_VIEWS = 4  # whose caches may change places
_ENOUGH_TO_TIME = 16  # prompt tokens from which their speed says something


def _copy(view: int, row: int, logits: Logits) -> Logits:
    return logits.copy()


def _as_it_is(view: int, row: int, logits: Logits) -> Any:
    return logits


@dataclass(frozen=True)
class ViewState:
    """The tokens that a view has read, llama.cpp's copy of what it remembers of them, and the adapters it read with."""

    cached: list[int]
    memory: ctypes.Array[ctypes.c_uint8]
    adapters: Adapters
    checkpoints: Sequence[Checkpoint] = ()


class ModelViews:
    """``n_views`` views of a model on llama.cpp; satisfies `schedule.Views`.

    ``cached[view]`` are the tokens whose keys and values the view holds.

    Args:
        n_ctx: tokens each view has room for.
        n_rows: tokens that each may be fed at a time with the logits behind each; fewer where a batch has no room.
        interrupt: stops a decode under way, which then raises `Interrupted` where it is waited for.

    Raises:
        ModelError: the contexts cannot be made; most often there is not enough memory.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        n_views: int,
        n_ctx: int,
        layout: FixedLayout,
        interrupt: Interrupt,
        n_rows: int = 1,
    ) -> None:
        self.model = model
        self.n_views = n_views
        self.n_ctx = n_ctx
        self.n_rows = n_rows
        self.layout = layout
        self.trimmable = model.trimmable
        self.rewinds = True  # what was fed last can be taken back, by reading again what the memory cannot keep
        self.cached: list[list[int]] = [[] for _ in range(n_views)]
        self._unread: list[list[int]] = [[] for _ in range(n_views)]  # behind them: forgotten, to be read again first
        self._slots = list(range(n_views))  # the context or sequence of each view
        #: What is kept of a view's row of logits (float32 [n_vocab], llama.cpp's memory, gone with the next feed).
        #: Runs in the thread that computed them: what one view needs is done while another still decodes.
        self.reduce: Callable[[int, int, Logits], Any] = _as_it_is
        #: Whether what all prompts begin with is read once, by one view, and handed to the others.
        self.shares_trunk = False
        #: Called between the pieces of a long prompt, when nothing is under way: lets others go on, and says whether
        #: there are any, for whom the next piece is small.
        self.meanwhile: Callable[[], bool] | None = None
        #: What each view is to read with, from the next `start` on; the same for all that share a context.
        self.adapters = [Adapters()] * n_views
        #: Seconds that a prompt token took in every view at once, in a wide batch; None while none was timed.
        self.prefill_s_per_token: float | None = None
        self.decode_s = 0.0  # spent in llama_decode: of contexts that decode at the same time, the slower one's
        self.n_decodes = 0  # llama_decode calls, and tokens fed, over all views: for tests and statistics
        self.n_fed = 0
        self._interrupt = interrupt
        self._reducing = threading.Lock()  # one view after the other is faster than two that fight for Python's lock
        self._contexts: list[Context] = []
        self._workers: list[Worker] = []  # of all contexts but the first
        self._own_job: Callable[[], None] | None = None  # decoded by whoever waits
        self._decoding_s: list[float] = []
        self._rows: list[list[Any]] = [[] for _ in range(n_views)]
        n_contexts = n_views if layout == "contexts" else 1
        self._n_threads = engine.n_threads or physical_cores()
        n_threads = max(1, self._n_threads // n_contexts)
        try:
            for number in range(n_contexts):
                context = Context(model, engine, n_ctx, n_views // n_contexts, n_threads, interrupt, n_rows)
                self._contexts.append(context)
                if number:
                    self._workers.append(Worker())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._own_job = None
        with self._interrupt.stopping():
            for worker in self._workers:
                worker.close()
        for context in self._contexts:
            context.close()
        self._workers, self._contexts = [], []

    @property
    def most_rows(self) -> int:
        """The most tokens that can be fed at once with the logits behind each."""
        context = self._contexts[0]
        n_rows = min(self.n_rows, context.n_batch * len(self._contexts) // self.n_views)
        return min(n_rows, 1 + context.n_snapshots) if context.n_snapshots else n_rows

    # What the schedules call.

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read each view's prompt; what its cache already holds of it is kept.

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

        Where the memory cannot be trimmed at will there are checkpoints: where an answer has ended and this prompt goes
        on, or where earlier prompts have parted from it, and behind it.
        """
        todo: dict[int, Sequence[int]] = {}
        self._unread = [[] for _ in prompts]
        helds = self._held(prompts)
        if self.shares_trunk:
            helds = self._read_trunk(prompts, helds)
        for view, (held, prompt) in enumerate(zip(helds, prompts, strict=True)):
            keep = max(0, min(held, len(prompt) - 1))
            kept = self._keep(view, keep)
            todo[view] = prompt[kept:keep] if keep - kept >= _TRUNK else ()
        self._read(todo)
        self._mark()
        todo = {view: prompt[len(self.cached[view]) : -1] for view, prompt in enumerate(prompts)}
        self._read(todo)
        longest = max(map(len, todo.values()))
        if longest >= _ENOUGH_TO_TIME and not self.meanwhile:
            started = time.perf_counter()
            self.wait()
            self.prefill_s_per_token = (time.perf_counter() - started) / longest
        self._mark()
        self._append({view: prompt[-1:] for view, prompt in enumerate(prompts)}, rows=1)

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view, keeping the logits behind each; returns at once."""
        if len(tokens) > 1 and not self.trimmable and not self._contexts[0].n_snapshots:
            # What is unread is read in the guess's own batch, which saves a pass, until it is as much as the guess.
            if len(self._unread[0]) >= len(tokens):
                self._append(dict.fromkeys(range(self.n_views), ()), rows=0)
            self._mark(for_a_guess=True)
        self._append(dict.fromkeys(range(self.n_views), tokens), rows=len(tokens))

    def logits(self, view: int, row: int = 0) -> Any:
        """What `reduce` kept of the logits behind the row-th token of the last feed."""
        self.wait()
        return self._rows[view][row]

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view in one batch; what `reduce` keeps of the logits behind the last ``rows``."""
        reduce, self.reduce = self.reduce, _copy
        try:
            self._append({view: tokens}, rows)
            self.wait()
        finally:
            self.reduce = reduce
        return [reduce(view, 1 + row, logits) for row, logits in enumerate(self._rows[view])]

    def rewind(self, n_tokens: int) -> None:
        for view in range(self.n_views):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Forget the last tokens of a view; what the memory forgets besides, it reads again with what is fed next."""
        text = self.cached[view][: len(self.cached[view]) - n_tokens]
        self._unread[view] = text[self._keep(view, len(text)) :]

    def wait(self) -> None:
        """Wait for what was fed.

        Raises:
            Interrupted: it was stopped.
            ModelError: llama.cpp failed.
        """
        errors = []
        own_job, self._own_job = self._own_job, None
        try:
            for wait in (own_job, *(worker.wait for worker in self._workers)):
                try:
                    if wait:
                        wait()
                except Exception as error:
                    errors.append(error)
        except BaseException:  # Ctrl-C, where nobody takes it over
            self._abandon()
            raise
        if self._decoding_s:
            self.decode_s += max(self._decoding_s)
            self._decoding_s.clear()
        if errors:
            self._recover()
            raise errors[0]

    # What lets a conversation grow.

    def state(self) -> list[ViewState]:
        """Copies of all views' caches, for `restore` in views with more room."""
        self.wait()
        states = []
        for view, cached in enumerate(self.cached):
            number, seq = self._place(view)
            context = self._contexts[number]
            states.append(ViewState(list(cached), context.state(seq), context.adapters, context.checkpoints(seq)))
        return states

    def restore(self, states: Sequence[ViewState | None]) -> None:
        """Fill new views with the caches of others on the same model.  What cannot be taken will be read again."""
        for view, state in enumerate(states):
            if state is not None:
                self._fill(view, state)

    def _fill(self, view: int, state: ViewState) -> None:
        """Fill an empty view; it stays empty where that cannot be taken."""
        number, seq = self._place(view)
        context = self._contexts[number]
        context.adapt(state.adapters)
        if len(state.cached) < self.n_ctx and context.restore(seq, state.memory, state.checkpoints):
            self.cached[view] = list(state.cached)
        else:
            context.trim(seq, 0)

    def save(self, files: Sequence[Path]) -> int:
        """Write each view's cache to a file of its own; returns their bytes, 0 where one could not be written."""
        self.wait()
        sizes = []
        for view, file in enumerate(files):
            number, seq = self._place(view)
            sizes.append(self._contexts[number].save(seq, self.cached[view], file))
        return sum(sizes) if all(sizes) else 0

    def load(self, files: Sequence[Path]) -> None:
        """Fill new views with what `save` wrote; what cannot be taken will be read again."""
        self._adapt()
        for view, file in enumerate(files):
            number, seq = self._place(view)
            self.cached[view] = self._contexts[number].load(seq, file, self.n_ctx)

    # Behind it.

    def _place(self, view: int) -> tuple[int, int]:
        """The number of the context that a view lives in, and its sequence there."""
        slot = self._slots[view]
        return (slot, 0) if len(self._contexts) == self.n_views else (0, slot)

    def _length(self, view: int) -> int:
        """Tokens of a view in memory."""
        number, seq = self._place(view)
        return self._contexts[number].length(seq)

    def _held(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """How many of each prompt's tokens its view's cache begins with.

        Views exchange their caches first where that holds more: preferences were swapped.
        """
        self.wait()
        if any(self._length(view) != len(cached) for view, cached in enumerate(self.cached)):
            self._recover()  # Ctrl-C came just as something was fed
        if self.n_views <= _FEW_VIEWS:  # of more there are too many ways to exchange them
            self._exchange(prompts)
        self._adapt()
        return list(map(common_prefix, self.cached, prompts))

    def _exchange(self, prompts: Sequence[Sequence[int]]) -> None:
        """Give each view the cache that holds most of its prompt, of those that were read with its adapters."""
        read_with = (self._contexts[self._place(view)[0]].adapters for view in range(self.n_views))
        caches = list(zip(self.cached, read_with, strict=True))
        alike = [
            [common_prefix(cached, prompt) if adapters == wanted else 0 for cached, adapters in caches]
            for prompt, wanted in zip(prompts, self.adapters, strict=True)
        ]

        def held(order: Sequence[int]) -> int:
            return sum(row[view] for row, view in zip(alike, order, strict=True))

        best = max(permutations(range(self.n_views)), key=held)  # the first one: none moves
        self.cached = [self.cached[view] for view in best]
        self._slots = [self._slots[view] for view in best]

    def _adapt(self) -> None:
        """Put each view's adapters in force; what its context has read with others is dropped."""
        for view, adapters in enumerate(self.adapters):
            number, _ = self._place(view)
            if self._contexts[number].adapters != adapters:
                for other in range(self.n_views):
                    if self._place(other)[0] == number:
                        self._keep(other, 0)
                self._contexts[number].adapt(adapters)

    def _read_trunk(self, prompts: Sequence[Sequence[int]], helds: list[int]) -> list[int]:
        """Have one view read what all prompts begin with, on all threads, and give the others a copy of its memory."""
        trunk = min(min(common_prefix(prompts[0], prompt) for prompt in prompts), min(map(len, prompts)) - 1)
        reader = max(range(self.n_views), key=lambda view: min(helds[view], trunk))
        if trunk - min(helds) < _TRUNK or self.n_views == 1 or len(set(self.adapters)) > 1:
            return helds
        self._keep(reader, min(helds[reader], trunk))
        number, seq = self._place(reader)
        with self._contexts[number].more_threads(self._n_threads):
            self._read({reader: prompts[reader][len(self.cached[reader]) : trunk]})
            self.wait()
        context = self._contexts[number]
        state = ViewState(list(self.cached[reader]), context.state(seq), context.adapters)
        for view, held in enumerate(helds):
            if view != reader and held < trunk:
                self._keep(view, 0)
                self._fill(view, state)
        return list(map(common_prefix, self.cached, prompts))

    def _read(self, tokens: dict[int, Sequence[int]]) -> None:
        """Append prompt tokens, in the batches that `_decode` makes, or in smaller ones while others go on."""
        self.wait()
        while self.meanwhile and any(tokens.values()):
            n_batch = self._contexts[0].n_batch
            n = min(n_batch, PROMPT_PIECE // len(self._contexts)) if self.meanwhile() else n_batch
            piece = self._first_of(tokens, n)
            tokens = {view: new[len(piece[view]) :] for view, new in tokens.items()}
            self._append(piece, rows=0)
            self.wait()
        self._append(tokens, rows=0)

    def _first_of(self, tokens: dict[int, Sequence[int]], n: int) -> dict[int, Sequence[int]]:
        """The first n tokens that each context would read."""
        left = dict.fromkeys(range(len(self._contexts)), max(1, n))
        piece = {}
        for view, new in tokens.items():
            number, _ = self._place(view)
            piece[view] = new[: left[number]]
            left[number] -= len(piece[view])
        return piece

    def _append(self, tokens: dict[int, Sequence[int]], rows: int) -> None:
        check_process()  # whose threads may be gone
        self.wait()
        jobs: dict[int, list[tuple[int, int, Sequence[int]]]] = {}
        for view, fed in tokens.items():
            new = [*self._unread[view], *fed]
            self._unread[view] = []
            if new:
                jobs.setdefault(self._place(view)[0], []).append((view, len(self.cached[view]), new))
                self.cached[view].extend(new)
                self.n_fed += len(new)
        for number, job in jobs.items():
            decode = partial(self._decode, self._contexts[number], job, rows)
            if number:
                self._workers[number - 1].submit(decode)
            elif max(len(new) for _, _, new in job) <= _FEW_TOKENS:
                self._own_job = decode
            else:
                self._own_job = partial(apart, decode, self._interrupt)

    def _decode(self, context: Context, job: list[tuple[int, int, Sequence[int]]], rows: int) -> None:
        """Decode each view's (start, tokens) in batches; the last one holds the rows whose logits are wanted."""
        token: list[int] = []
        pos: list[int] = []
        seq: list[int] = []
        for wanted in (False, True):
            for view, start, new in job:
                cut = len(new) - rows
                i, j = (cut, len(new)) if wanted else (0, cut)
                if i < j:
                    token += new[i:j]
                    pos += range(start + i, start + j)
                    seq += [self._place(view)[1]] * (j - i)
        n_wanted = rows * len(job)
        if n_wanted > context.n_batch:
            raise UsageError(f"--batch {context.n_batch} is too small: {n_wanted} tokens are judged at a time")
        n_head = len(token) - n_wanted
        started = time.perf_counter()
        i = 0
        while len(token) - i > context.n_batch:
            j = min(i + context.n_batch, n_head)
            context.decode(token[i:j], pos[i:j], seq[i:j], n_wanted=0)
            self.n_decodes += 1
            i = j
        context.decode(token[i:], pos[i:], seq[i:], n_wanted)
        self.n_decodes += 1
        at = n_head - i
        logits = [context.logits(at + row) for row in range(n_wanted)]  # waits for a GPU
        self._decoding_s.append(time.perf_counter() - started)
        with self._reducing:
            for n, (view, _, _) in enumerate(job):
                of_view = logits[n * rows : (n + 1) * rows]
                self._rows[view] = [self.reduce(view, row, row_logits) for row, row_logits in enumerate(of_view)]

    def _keep(self, view: int, n_tokens: int) -> int:
        """Trim a view's cache to its first ``n_tokens``, or to fewer where its memory does not go back to there; what
        is left."""
        self.wait()
        if n_tokens < len(self.cached[view]):
            number, seq = self._place(view)
            del self.cached[view][self._contexts[number].trim(seq, n_tokens) :]
        return len(self.cached[view])

    def _mark(self, *, for_a_guess: bool = False) -> None:
        """Make a checkpoint of each view as it is, where its memory cannot be trimmed at will."""
        if self.model.keeps_all:
            return
        self.wait()
        for view in range(self.n_views):
            number, seq = self._place(view)
            self._contexts[number].mark(seq, for_a_guess=for_a_guess)

    def _abandon(self) -> None:
        """Have all that is under way end, whatever becomes of it."""
        with self._interrupt.stopping():
            for worker in self._workers:
                with suppress(Exception):
                    worker.wait()
        self._recover()

    def _recover(self) -> None:
        """After an interrupted or failed decode: make ``cached`` say again what the memory holds.

        A running state is then neither what it was nor what it should be.
        """
        for view, cached in enumerate(self.cached):
            number, seq = self._place(view)
            context = self._contexts[number]
            if not self.trimmable:
                del cached[context.go_back(seq, len(cached) - 1) :]
            elif (length := context.length(seq)) != len(cached):
                del cached[context.trim(seq, length if length < len(cached) else 0) :]


def dealt(states: Sequence[ViewState], prompts: Sequence[Sequence[int]]) -> list[ViewState | None]:
    """For each prompt the state that holds most of it, each given once; None where none holds any."""
    left = list(states)
    chosen: list[ViewState | None] = []
    for prompt in prompts:
        best = max(left, key=lambda state: common_prefix(state.cached, prompt), default=None)
        if best is not None and common_prefix(best.cached, prompt):
            left = [state for state in left if state is not best]
            chosen.append(best)
        else:
            chosen.append(None)
    return chosen
