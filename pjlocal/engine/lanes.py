"""The llama contexts of an engine: made when an answer needs them, decoded side by side, and enlarged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DeviceMemoryError, NoRoom, UsageError
from ..gguf.memory import padded_context
from ..settings import DEFAULT_VIEWS, FixedLayout
from ..settings import Engine as EngineSettings
from . import prefix
from .adapters import Adapters
from .backend import check_process
from .context import PROMPT_PIECE, check_memory, context_limit
from .interrupt import Interrupt
from .machine import cores
from .model import Model
from .sequence import Lane, State
from .sequence import Sequence as CacheSequence
from .worker import Worker, in_thread

#: Up to this number of tokens, the thread that waits decodes the first lane itself: a thread more than cores competes
#: with llama.cpp's own threads, which spin between decodes, and a step took twice as long on 2 cores.  Longer prompts
#: are read in another thread, so that the main thread waits on a lock, which Ctrl-C interrupts.
_FEW_TOKENS = 64

Job = Callable[[], None]
T = TypeVar("T")

log = logging.getLogger("pjlocal")


@dataclass(frozen=True)
class Capacity:
    """Room for several answers at once, allocated in advance.

    n_answers, n_views: number of answers, and of the views that most of them have.
    n_ctx: the most tokens of a view.
    n_rows: the most tokens that a view is fed at once, with logits after each.
    prompt_piece: prompt tokens read in a step while other answers are being written; None for whole batches, which are
        faster but make the other answers wait for seconds.
    worth_copying: the least length in tokens of a shared beginning that is copied from another sequence.
    """

    n_answers: int
    n_views: int
    n_ctx: int
    n_rows: int = 1
    prompt_piece: int | None = PROMPT_PIECE
    worth_copying: int = prefix.WORTH_COPYING


@dataclass(frozen=True)
class Needs:
    """The requirements of an answer.

    n_ctx: the most tokens of a view.
    adapters: the adapters of each view.
    n_rows: the most tokens that a view is fed at once, with logits after each.
    shares_prefix: whether the shared beginning of all prompts is read once and copied.
    reuses: whether caches of earlier answers are reused.  Without reuse, an answer has the same bytes as on a model
        just loaded: llama.cpp rounds differently if a prompt is read in batches of other widths.
    """

    n_ctx: int
    adapters: Sequence[Adapters]
    n_rows: int = 1
    shares_prefix: bool = False
    reuses: bool = True

    @property
    def n_views(self) -> int:
        return len(self.adapters)

    @property
    def is_separate(self) -> bool:
        """True if the views need contexts of their own: llama.cpp applies adapters to a whole context."""
        return len(set(self.adapters)) > 1


def needs(n_views: int, n_ctx: int, **others: Any) -> Needs:
    """The needs of views without adapters."""
    return Needs(n_ctx, [Adapters()] * n_views, **others)


class LaneSet:
    """The lanes of answers with the same number of views."""

    def __init__(self, lanes: Sequence[Lane], layout: FixedLayout) -> None:
        self.lanes = list(lanes)
        self.layout = layout
        #: In the order of the views of the last answer.
        self.sequences = [sequence for lane in lanes for sequence in lane.sequences]

    @property
    def n_ctx(self) -> int:
        return self.lanes[0].n_ctx

    @property
    def n_rows(self) -> int:
        return self.lanes[0].n_rows

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()


class Lanes:
    """The lanes of an engine.

    Without a ``capacity`` there is a set of lanes for each number of views, which one answer uses at a time.  So the
    caches of a mode with several views survive an answer in a mode with one.

    Args:
        model: stays open when the lanes are closed.
        interrupt: stops the current decode.

    Raises:
        ModelError: there is not enough memory for the capacity.
    """

    def __init__(self, model: Model, settings: EngineSettings, interrupt: Interrupt, capacity: Capacity | None) -> None:
        self.model = model
        self.settings = settings
        self.capacity = capacity
        self.worth_copying = capacity.worth_copying if capacity else prefix.WORTH_COPYING
        self.n_threads = settings.n_threads or cores().amount
        #: The most tokens of a view.
        self.context_limit = context_limit(model, settings)
        self.n_decodes = 0  # calls of llama_decode
        self.n_fed = 0  # tokens decoded
        self.decode_s = 0.0  # seconds in llama_decode; of lanes that decode at the same time, the slowest counts
        self._interrupt = interrupt
        self._sets: dict[int, LaneSet] = {}  # by number of views; shared lanes are under 0
        self._under_way: list[Lane] = []  # lanes whose jobs have started
        self._own_job: Job | None = None  # the job of the first of them, which the thread in `wait` runs
        if capacity:
            self.context_limit = min(self.context_limit, capacity.n_ctx)
            self._sets[0] = self._make_shared(capacity)
            self._most_views = len(self._sets[0].sequences)

    def layout(self, n_views: int, *, separate: bool = False) -> FixedLayout:
        """The layout of an answer with ``n_views`` views.

        ``auto`` means ``contexts`` if a CPU decodes two views with one thread each, because no thread then waits for
        another: 12 to 29 % faster on 2 cores.  Otherwise it means ``batched``, which reads the weights once.

        Three views or more are ``batched`` if they do not have a core each: on 2 cores, three views of SmolLM2 take 22
        ms a step in contexts and 15 in one batch.

        Args:
            separate: whether the views have different adapters, which llama.cpp applies to a whole context.

        Raises:
            UsageError: the views are separate, and the settings say ``batched``.
        """
        layout = self.settings.layout
        if separate:
            if layout == "batched":
                raise UsageError(
                    "an adapter of one view (--lora-a, --control-vector-a, ...) changes a whole context, and "
                    "--layout batched has one context for all views: use --layout contexts"
                )
            return "contexts"
        if layout == "auto":
            a_thread_each = n_views == self.n_threads == 2 and not self.model.offload.n_gpu_layers
            return "contexts" if a_thread_each else "batched"
        return "batched" if n_views > max(2, self.n_threads) else layout

    @property
    def layouts(self) -> dict[int, FixedLayout]:
        """The layouts in use, by the number of views (two or more)."""
        return {n: of_set.layout for n, of_set in sorted(self._sets.items()) if n > 1}

    def check_room(self, n_views: int) -> None:
        """Refuse an answer that has more views than the capacity.

        Raises:
            NoRoom: the answer has too many views.
        """
        if self.capacity and n_views > self._most_views:
            least = -(-n_views // self.capacity.n_views)
            raise NoRoom(
                f"this answer needs {n_views} views, and the server has room for {self._most_views}: give fewer "
                f"preferences, or start it with --parallel {least}"
            )

    def have_room(self, n_views: int) -> bool:
        """True if shared lanes have free sequences for an answer."""
        n_free = [sum(sequence.is_free for sequence in lane.sequences) for lane in self._sets[0].lanes]
        return (sum(map(bool, n_free)) if self.separates(n_views) else sum(n_free)) >= n_views

    def separates(self, n_views: int) -> bool:
        """True if each of an answer's views goes to a lane of its own."""
        of_set = self._sets[0] if self.capacity else self._sets[n_views]
        return of_set.layout == "contexts" and n_views <= len(of_set.lanes)

    def _make_shared(self, capacity: Capacity) -> LaneSet:
        layout = self.layout(capacity.n_views)
        n_lanes = capacity.n_views if layout == "contexts" else 1
        # A lane holds an answer in mode both, whatever mode the capacity is for.
        n_seq = max(DEFAULT_VIEWS, capacity.n_answers * capacity.n_views // n_lanes)
        n_rows = 1 if self.model.recurrent else capacity.n_rows
        return self._make(n_lanes, n_seq, capacity.n_ctx, n_rows, layout)

    def _with_memory(self, make: Callable[[], T]) -> T:
        """Call a function that needs memory on devices.  If there is too little, the KV caches stay on the CPU from now
        on, and it is called again."""
        try:
            return make()
        except DeviceMemoryError as error:
            if self.settings.gpu_layers is not None or self.model.offload.caches_on_cpu:
                raise
            log.warning("%s. The KV caches are kept on the CPU instead, which is slower", error)
        self.model.offload = replace(self.model.offload, caches_on_cpu=True)
        return make()

    def _check_memory(self, n_views: int, n_ctx: int) -> None:
        self._with_memory(partial(check_memory, self.model, self.settings, n_views, n_ctx))

    def _make(self, n_lanes: int, n_seq: int, n_ctx: int, n_rows: int, layout: FixedLayout) -> LaneSet:
        self._check_memory(n_lanes * n_seq, n_ctx)
        return self._with_memory(partial(self._make_lanes, n_lanes, n_seq, n_ctx, n_rows, layout))

    def _make_lanes(self, n_lanes: int, n_seq: int, n_ctx: int, n_rows: int, layout: FixedLayout) -> LaneSet:
        lanes: list[Lane] = []
        n_threads = max(1, self.n_threads // n_lanes)
        try:
            for number in range(n_lanes):
                lane = Lane(self.model, self.settings, n_ctx, n_seq, n_threads, self._interrupt, n_rows)
                lanes.append(lane)
                lane.worker = Worker() if number else None
        except BaseException:
            for lane in lanes:
                lane.close()
            raise
        return LaneSet(lanes, layout)

    def for_answer(self, needs: Needs) -> LaneSet:
        """Return lanes with room for an answer; make or enlarge them if necessary.

        Raises:
            ModelError: there is not enough memory, or an adapter cannot be loaded.
            UsageError: the layout or the other answers do not allow its adapters.
        """
        if self.capacity:
            if any(needs.adapters):
                raise UsageError(
                    "a LoRA adapter or control vector changes a whole context, and answers written at once share "
                    "one: write them one at a time (--parallel 1)"
                )
            return self._sets[0]
        layout = self.layout(needs.n_views, separate=needs.is_separate)
        missing = [file for each in needs.adapters for file, _ in each.loras if file not in self.model.loras]
        for n, of_set in list(self._sets.items()):  # llama.cpp loads adapters before it makes contexts
            if missing or (n == needs.n_views and needs.is_separate and of_set.layout != layout):
                del self._sets[n]
                of_set.close()
        for file in missing:
            self.model.lora(file)
        before = self._sets.get(needs.n_views)
        if before and before.n_ctx >= needs.n_ctx and before.n_rows >= needs.n_rows:
            return before
        return self._grow(before, needs, layout)

    def _grow(self, before: LaneSet | None, needs: Needs, layout: FixedLayout) -> LaneSet:
        """Make lanes for these needs and return them.  If there were smaller ones, double the number of tokens and move
        the KV caches."""
        n_ctx, n_rows = needs.n_ctx, needs.n_rows
        states: list[State] = []
        if before:
            layout = before.layout
            n_rows = max(n_rows, before.n_rows)
            n_ctx = max(n_ctx, before.n_ctx * (2 if before.n_ctx < n_ctx else 1))
        n_ctx = min(padded_context(n_ctx), max(self.context_limit, needs.n_ctx))
        n_lanes = needs.n_views if layout == "contexts" else 1
        if before:
            self._check_memory(needs.n_views, n_ctx)
            states = [sequence.state() for sequence in before.sequences]
            del self._sets[needs.n_views]
            before.close()
        lane_set = self._make(n_lanes, needs.n_views // n_lanes, n_ctx, n_rows, layout)
        self._sets[needs.n_views] = lane_set
        for sequence, state in zip(lane_set.sequences, states, strict=False):
            sequence.fill(state)
        return lane_set

    def close(self) -> None:
        """Free the contexts and their KV caches."""
        with self._interrupt.stopping():
            for of_set in self._sets.values():
                of_set.close()
        self._sets.clear()

    def place(self, needs: Needs, prompts: Sequence[Sequence[int]]) -> list[CacheSequence]:
        """Acquire a sequence for each prompt, so that caches hold as much of the prompts as possible."""
        of_set = self.for_answer(needs)
        free = [sequence for sequence in of_set.sequences if sequence.is_free]
        numbers = {lane: number for number, lane in enumerate(of_set.lanes)}
        caches = [
            prefix.Cache(each.cached, each.lane.context.adapters, numbers[each.lane], each.number, each.released)
            for each in free
        ]
        separate = self.separates(needs.n_views)
        if needs.reuses:
            order = prefix.assign(prompts, needs.adapters, caches, separate=separate)
        else:
            order = prefix.fresh(needs.n_views, caches, separate=separate)
        chosen = [free[i] for i in order]
        for sequence, adapters in zip(chosen, needs.adapters, strict=True):
            sequence.in_use = True
            sequence.adapt(adapters)
        if not self.capacity:
            of_set.sequences = chosen
        return chosen

    def sources(self, sequence: CacheSequence) -> list[CacheSequence]:
        """The sequences whose cache can be copied to this one.

        llama.cpp cannot copy a sequence to a context with another number of sequences.
        """
        if not self.model.keeps_all_tokens:
            return []
        lane = sequence.lane
        return [
            other
            for each in self._sets.values()
            for other in each.sequences
            if other is not sequence
            and not other.is_broken
            and len(other.lane.sequences) == len(lane.sequences)
            and other.lane.context.adapters == lane.context.adapters
        ]

    # Caches on disk.

    def save(self, files: Sequence[Path]) -> int:
        """Write the caches of the last answer that had as many views as there are files, one to a file.

        Returns:
            The bytes written, 0 if a file cannot be written.
        """
        sizes = [sequence.save(file) for sequence, file in zip(self._sets[len(files)].sequences, files, strict=True)]
        return sum(sizes) if all(sizes) else 0

    def adapters(self, n_views: int) -> list[Adapters] | None:
        """The adapters of the last answer with ``n_views`` views; None if there was none."""
        of_set = self._sets.get(n_views)
        return [sequence.lane.context.adapters for sequence in of_set.sequences] if of_set else None

    def load(self, files: Sequence[Path], n_ctx: int, adapters: Sequence[Adapters]) -> None:
        """Make views with room for ``n_ctx`` tokens, and fill their caches from files that `save` wrote.

        A file that cannot be loaded leaves its cache empty.
        """
        sequences = self.for_answer(Needs(n_ctx, adapters)).sequences
        for sequence, own, file in zip(sequences, adapters, files, strict=True):
            sequence.adapt(own)
            sequence.load(file)

    def __iter__(self) -> Iterator[CacheSequence]:
        return (sequence for of_set in self._sets.values() for lane in of_set.lanes for sequence in lane.sequences)

    # Jobs.

    @property
    def are_busy(self) -> bool:
        """True if jobs have started that `wait` has not joined."""
        return bool(self._under_way)

    def start(self, jobs: Mapping[Lane, Job], n_tokens: int) -> None:
        """Start a job of at most ``n_tokens`` tokens in each lane.

        Jobs run in the lanes' own threads, except for one, which the waiting thread runs.
        """
        check_process()  # after a fork, the workers' threads do not exist
        for lane in sorted(jobs, key=lambda lane: lane.worker is not None):  # the lane without a thread first
            lane.begin_job()
            self._under_way.append(lane)
            if lane.worker and lane is not self._under_way[0]:
                lane.worker.submit(jobs[lane])
            else:
                self._own_job = (
                    jobs[lane] if n_tokens <= _FEW_TOKENS else partial(in_thread, jobs[lane], self._interrupt)
                )

    def wait(self) -> float:
        """Wait for the jobs that `start` started.  Returns the seconds that the slowest spent in llama_decode.

        Raises:
            Interrupted: the jobs were stopped.
            ModelError: llama.cpp failed.
        """
        own_job, self._own_job = self._own_job, None
        others = [lane.worker.wait for lane in self._under_way[1:] if lane.worker]
        errors = []
        for wait in (own_job, *others):
            try:
                if wait:
                    wait()
            except Exception as error:
                errors.append(error)
        seconds = max((lane.decode_s for lane in self._under_way), default=0.0)
        self.decode_s += seconds
        self.n_decodes += sum(lane.n_decodes for lane in self._under_way)
        self.n_fed += sum(lane.n_fed for lane in self._under_way)
        self._under_way.clear()
        try:
            if errors:
                raise errors[0]
        finally:
            errors.clear()  # their tracebacks refer to this frame, and so keep the answers alive
        return seconds

    def drop(self) -> None:
        """Drop the job that the thread in `wait` would run."""
        self._own_job = None

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Call `recover` if the decoding within fails."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C without a handler
                self.abandon()
            self.recover()
            raise

    def abandon(self) -> None:
        """End all jobs that have started, and ignore their results."""
        self.drop()
        with self._interrupt.stopping():
            for of_set in self._sets.values():
                for lane in of_set.lanes:
                    with suppress(Exception):
                        if lane.worker:
                            lane.worker.wait()
        self._under_way.clear()

    def recover(self) -> None:
        """Drop the tokens to decode, and make each sequence's record agree with llama.cpp's cache."""
        for sequence in self:
            sequence.recover()
