"""Views of one model on llama.cpp: each view a prompt and a KV cache of its own, the weights shared.

Where the views live is a *layout*.  `ContextsLayout` gives each view a llama context and decodes them side by side.
"""

from __future__ import annotations

import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from .errors import ModelError, UsageError
from .interrupt import Interrupt, Interrupted
from .model import Model, forget_errors, last_error
from .settings import Engine

Logits = NDArray[np.float32]

DEFAULT_N_CTX = 8192

#: KV cache types by name, with the bytes a value takes in llama.cpp's blocks of 32.
CACHE_TYPES: dict[str, tuple[int, float]] = {
    "f32": (lib.GGML_TYPE_F32, 4),
    "f16": (lib.GGML_TYPE_F16, 2),
    "bf16": (30, 2),  # GGML_TYPE_BF16, which the binding does not name
    "q8_0": (lib.GGML_TYPE_Q8_0, 34 / 32),
    "q5_1": (lib.GGML_TYPE_Q5_1, 24 / 32),
    "q5_0": (lib.GGML_TYPE_Q5_0, 22 / 32),
    "q4_1": (lib.GGML_TYPE_Q4_1, 20 / 32),
    "q4_0": (lib.GGML_TYPE_Q4_0, 18 / 32),
}
_FLASH_ATTENTION = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}


class Batch:
    """A llama_batch whose columns are NumPy arrays, so that filling it costs no Python a token."""

    def __init__(self, capacity: int) -> None:
        self.token = np.zeros(capacity, np.int32)
        self.pos = np.zeros(capacity, np.int32)
        self.seq = np.zeros(capacity, np.int32)
        self.logits = np.zeros(capacity, np.int8)
        self._n_seq_id = np.ones(capacity, np.int32)
        self._seq_id = self.seq.ctypes.data + np.arange(capacity, dtype=np.uintp) * self.seq.itemsize
        int32_p = ctypes.POINTER(ctypes.c_int32)
        self.struct = lib.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self.token.ctypes.data, ctypes.POINTER(lib.llama_token)),
            embd=None,
            pos=ctypes.cast(self.pos.ctypes.data, ctypes.POINTER(lib.llama_pos)),
            n_seq_id=ctypes.cast(self._n_seq_id.ctypes.data, int32_p),
            seq_id=ctypes.cast(self._seq_id.ctypes.data, ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            logits=ctypes.cast(self.logits.ctypes.data, ctypes.POINTER(ctypes.c_int8)),
        )


class Context:
    """One llama_context with ``n_seq`` sequences of ``n_ctx`` tokens each.

    Raises:
        ModelError: llama.cpp cannot make it; most often there is not enough memory.
    """

    def __init__(
        self, model: Model, engine: Engine, n_ctx: int, n_seq: int, n_threads: int, interrupt: Interrupt
    ) -> None:
        self.model = model
        self.n_batch = min(engine.n_batch, n_ctx * n_seq)
        self._interrupt = interrupt
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx * n_seq
        params.n_batch = self.n_batch
        params.n_ubatch = min(self.n_batch, params.n_ubatch)
        params.n_seq_max = n_seq
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = CACHE_TYPES[engine.cache_type_k][0]
        params.type_v = CACHE_TYPES[engine.cache_type_v][0]
        params.flash_attn_type = _FLASH_ATTENTION[engine.flash_attn]
        params.swa_full = False
        params.abort_callback = ctypes.cast(interrupt.abort_callback, lib.ggml_abort_callback)
        params.abort_callback_data = interrupt.abort_data
        forget_errors()
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ModelError(
                f"cannot make a context of {n_ctx} tokens a view: {last_error() or 'not enough memory'} "
                "(a smaller --ctx or --cache-type-k/-v q8_0 needs less memory)"
            )
        self.memory = lib.llama_get_memory(self.handle)
        self._batch = Batch(self.n_batch)
        self._logits: dict[int, Logits] = {}

    def close(self) -> None:
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None

    def decode(self, tokens: Sequence[int], start: Sequence[int], seq: Sequence[int], wanted: Sequence[bool]) -> None:
        """One llama_decode of at most n_batch tokens, each with its position, sequence and wish for logits.

        Raises:
            Interrupted: the abort callback stopped it.
            ModelError: llama.cpp failed.
        """
        n = len(tokens)
        batch = self._batch
        batch.token[:n] = tokens
        batch.pos[:n] = start
        batch.seq[:n] = seq
        batch.logits[:n] = wanted
        batch.struct.n_tokens = n
        status = lib.llama_decode(self.handle, batch.struct)
        if status == 0:
            return
        if status == 2 or self._interrupt.is_set():
            raise Interrupted
        if status == 1:
            raise ModelError("the context is full: give a larger --ctx")
        raise ModelError(f"llama.cpp could not decode (status {status}): {last_error() or 'no reason given'}")

    def logits(self, i: int) -> Logits:
        """The logits of the i-th token of the last batch, float32 [n_vocab]; llama.cpp's own memory, not a copy."""
        pointer = lib.llama_get_logits_ith(self.handle, i)
        address = ctypes.addressof(pointer.contents) if pointer else 0
        if not address:
            raise ModelError("llama.cpp returned no logits")
        if address not in self._logits:
            buffer = (ctypes.c_float * self.model.n_vocab).from_address(address)
            self._logits[address] = np.ctypeslib.as_array(buffer)
        return self._logits[address]

    def forget(self, seq: int, start: int) -> bool:
        """Drop a sequence's tokens from position ``start`` on; False where the memory cannot be trimmed."""
        return bool(lib.llama_memory_seq_rm(self.memory, seq, start, -1))

    def length(self, seq: int) -> int:
        """Tokens of the sequence in memory."""
        return int(lib.llama_memory_seq_pos_max(self.memory, seq)) + 1


class Worker:
    """A thread that runs one job at a time.

    llama.cpp computes in workers so that the main thread only ever waits on a lock, where Ctrl-C reaches it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        self._busy = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="pjlocal-decode")
        self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put(None)

    def submit(self, job: Callable[[], None]) -> None:
        self._busy = True
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait for the job under way, if any, and raise what it raised."""
        if self._busy:
            error = self._results.get()
            self._busy = False
            if error is not None:
                raise error

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()


class Layout(ABC):
    """The views of one model; satisfies `schedule.Views`.

    ``cached[view]`` are the tokens whose keys and values the view holds.

    Args:
        n_ctx: tokens each view has room for.
    """

    def __init__(self, model: Model, n_views: int, n_ctx: int, interrupt: Interrupt) -> None:
        self.model = model
        self.n_views = n_views
        self.n_ctx = n_ctx
        self.interrupt = interrupt
        self.cached: list[list[int]] = [[] for _ in range(n_views)]
        #: Counts for tests and statistics: llama_decode calls and tokens fed, over all views.
        self.n_decodes = 0
        self.n_fed = 0
        self.trimmable = not model.recurrent and model.n_swa == 0

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _place(self, view: int) -> tuple[Context, int]:
        """The context a view lives in, and its sequence there."""

    @abstractmethod
    def _submit(self, tokens: dict[int, Sequence[int]], rows: int) -> None:
        """Start appending tokens to the named views, keeping the logits behind the last ``rows`` of each."""

    @abstractmethod
    def wait(self) -> None:
        """Wait for what was submitted."""

    @abstractmethod
    def logits(self, view: int, row: int = 0) -> Logits:
        """Logits behind the row-th of the rows kept by the last feed (float32 [n_vocab], llama.cpp's memory)."""

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read each view's prompt; what its cache already holds of it is kept."""
        todo: dict[int, Sequence[int]] = {}
        for view, prompt in enumerate(prompts):
            keep = min(_common(self.cached[view], prompt), len(prompt) - 1)
            if keep < len(self.cached[view]):
                keep = self._keep(view, max(keep, 0))
            todo[view] = prompt[keep:]
        self._append(todo, rows=1)

    def feed(self, tokens: Sequence[int]) -> None:
        self._append(dict.fromkeys(range(self.n_views), tokens), rows=len(tokens))

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Logits]:
        self._append({view: tokens}, rows)
        return [self.logits(view, row).copy() for row in range(rows)]

    def rewind(self, n_tokens: int) -> None:
        for view in range(self.n_views):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        if n_tokens:
            self._keep(view, len(self.cached[view]) - n_tokens, partly=False)

    def _keep(self, view: int, n_tokens: int, partly: bool = True) -> int:
        """Trim a view's cache to its first ``n_tokens``; where it cannot be trimmed, empty it. Returns what is left."""
        self.wait()
        context, seq = self._place(view)
        if n_tokens and not (self.trimmable and context.forget(seq, n_tokens)):
            if not partly:
                raise ModelError("this model's memory cannot be trimmed")
            n_tokens = 0
        if not n_tokens:
            context.forget(seq, 0)
        del self.cached[view][n_tokens:]
        return n_tokens

    def _append(self, tokens: dict[int, Sequence[int]], rows: int) -> None:
        self.wait()
        self._submit({view: new for view, new in tokens.items() if new}, rows)
        for view, new in tokens.items():
            self.cached[view].extend(new)
            self.n_fed += len(new)

    def _recover(self) -> None:
        """After an interrupted or failed decode: make ``cached`` say again what the memory holds."""
        for view, cached in enumerate(self.cached):
            context, seq = self._place(view)
            length = context.length(seq)
            if length != len(cached) and (length > len(cached) or not self.trimmable):
                context.forget(seq, 0)
                length = 0
            del cached[length:]


class ContextsLayout(Layout):
    """One llama context a view, decoded at the same time by one worker thread each."""

    def __init__(self, model: Model, engine: Engine, n_views: int, n_ctx: int, interrupt: Interrupt) -> None:
        super().__init__(model, n_views, n_ctx, interrupt)
        n_threads = max(1, (engine.n_threads or physical_cores()) // n_views)
        self._contexts: list[Context] = []
        self._workers: list[Worker] = []
        self._rows_at = [0] * n_views
        try:
            for _ in range(n_views):
                self._contexts.append(Context(model, engine, n_ctx, 1, n_threads, interrupt))
                self._workers.append(Worker())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        asked = self.interrupt.is_set()
        self.interrupt.set()  # a decode under way ends now
        for worker in self._workers:
            worker.close()
        if not asked:
            self.interrupt.clear()
        for context in self._contexts:
            context.close()
        self._workers, self._contexts = [], []

    def _place(self, view: int) -> tuple[Context, int]:
        return self._contexts[view], 0

    def _submit(self, tokens: dict[int, Sequence[int]], rows: int) -> None:
        for view, new in tokens.items():
            start = len(self.cached[view])
            self._workers[view].submit(partial(self._decode, view, new, start, rows))

    def _decode(self, view: int, tokens: Sequence[int], start: int, rows: int) -> None:
        context = self._contexts[view]
        for i, j in pieces(len(tokens), context.n_batch, rows):
            wanted = [position >= len(tokens) - rows for position in range(i, j)]
            context.decode(tokens[i:j], range(start + i, start + j), [0] * (j - i), wanted)
            self.n_decodes += 1
        self._rows_at[view] = max(0, (j - i) - rows)

    def wait(self) -> None:
        errors = []
        for worker in self._workers:
            try:
                worker.wait()
            except Exception as error:
                errors.append(error)
        if errors:
            self._recover()
            raise errors[0]

    def logits(self, view: int, row: int = 0) -> Logits:
        self.wait()
        return self._contexts[view].logits(self._rows_at[view] + row)


def pieces(n_tokens: int, n_batch: int, rows: int) -> list[tuple[int, int]]:
    """Cut n_tokens into pieces of at most n_batch so that the last ``rows`` tokens lie in the last piece."""
    if rows > n_batch:
        raise UsageError(f"--batch of {n_batch} is too small: {rows} tokens are judged at a time")
    head = n_tokens - rows
    bounds = list(range(0, max(head, 0), n_batch))
    if bounds and n_tokens - bounds[-1] > n_batch:
        bounds.append(head)
    bounds = bounds or [0]
    return list(zip(bounds, [*bounds[1:], n_tokens], strict=True))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def context_limit(model: Model, engine: Engine) -> int:
    """Tokens a view may hold: --ctx, or what the model was trained for, at most 8192."""
    return engine.n_ctx or min(model.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)


def check_memory(model: Model, engine: Engine, n_views: int, n_ctx: int) -> None:
    """Refuse KV caches that cannot fit in the machine's memory, before the system kills the process for it.

    Raises:
        ModelError: saying how much is needed and how much there is.
    """
    available = available_bytes()
    values = sum(CACHE_TYPES[t][1] for t in (engine.cache_type_k, engine.cache_type_v)) / 2
    needed = n_views * model.kv_bytes(n_ctx, values)
    if available is not None and needed > available:
        raise ModelError(
            f"not enough memory: {n_views} KV caches of {n_ctx} tokens take {needed / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are free. Give a smaller --ctx, or --cache-type-k/-v q8_0"
        )


def available_bytes() -> int | None:
    """Memory that can be had without swapping, where the system says so (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def physical_cores() -> int:
    """Cores this process may use, hyper-threads of one core counted once where the system says so (Linux)."""
    try:
        cpus = os.sched_getaffinity(0)
        siblings = {Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in cpus}
        return len(siblings)
    except (AttributeError, OSError):
        return os.cpu_count() or 1
