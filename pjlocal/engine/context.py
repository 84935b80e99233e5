"""One llama.cpp context: its KV cache, its batch, and the logits it computes."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from ..errors import DeviceMemoryError, ModelError, byte_size, join_names
from ..gguf.header import TENSOR_TYPES
from ..gguf.offload import needed_by_place
from ..settings import DEFAULT_N_CTX, Engine
from .adapters import Adapters, apply_adapters
from .backend import check_process, device_ran_out_of_memory, forget_errors, last_error, ran_out_of_memory
from .checkpoints import Checkpoint, Checkpoints
from .devices import for_layers
from .interrupt import Interrupt, Interrupted
from .lifetime import Lifetime
from .machine import memory
from .model import Model
from .threads import ThreadCount

Logits = NDArray[np.float32]

_TYPES = {name.lower(): number for number, (name, *_) in TENSOR_TYPES.items()}  # of GGUF and of KV caches
_FLASH_ATTENTION = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}


#: Prompt tokens to read between two tokens of other answers.  Near the end of a prompt of 6,000 tokens, a batch of 512
#: takes 12 s on two cores, and a piece of 32 less than a second.
PROMPT_PIECE = 32

#: The most snapshots of a running state, each a copy of it.  As many tokens can be removed again.
_MOST_SNAPSHOTS = 7


class Batch:
    """A llama_batch whose columns are NumPy arrays, so that filling it needs no Python loop over tokens."""

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

    Args:
        n_rows: the most tokens per sequence with logits in one batch.  llama.cpp reserves memory for these logits
            alone: 22 MiB for SmolLM2 with 8192 tokens, instead of 98 for the logits of a whole batch.

    Raises:
        DeviceMemoryError: there is not enough memory on a device.
        ModelError: llama.cpp cannot make the context; most often there is not enough memory.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        n_ctx: int,
        n_seq: int,
        n_threads: int,
        interrupt: Interrupt,
        n_rows: int = 1,
    ) -> None:
        self.model = model
        # Room for the next token of every sequence, and for all tokens of one that are judged at once.
        self.n_batch = max(n_seq, n_rows, min(engine.n_batch, n_ctx * n_seq))
        self._n_seq = n_seq
        self._interrupt = interrupt
        params = context_params(engine, n_ctx * n_seq, self.n_batch, n_seq, n_threads, interrupt)
        self._n_logits = params.n_outputs_max = min(self.n_batch, n_seq * n_rows)
        params.offload_kqv = not model.offload.caches_on_cpu
        if model.recurrent:
            params.n_rs_seq = min(_MOST_SNAPSHOTS, self._n_logits // n_seq - 1)
        forget_errors()
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise no_context(f"{n_ctx} tokens per view", model)
        self._free = freed_with(self, self.handle, model)
        self.memory = lib.llama_get_memory(self.handle)
        #: Tokens at the end of the last batch that can be removed from a running state; 0 if the architecture cannot
        #: remove any.
        self.n_snapshots = int(lib.llama_n_rs_seq(self.handle)) if model.recurrent else 0
        self._checkpoints = [Checkpoints() for _ in range(n_seq)]
        self.adapters = Adapters()
        self._batch = Batch(self.n_batch)
        self._last_shape: tuple[list[int], int] = ([], 0)
        self._n_threads = self._most_threads = n_threads
        self._threads = _thread_count(model, n_seq, n_threads)
        self._logits: dict[int, Logits] = {}

    def close(self) -> None:
        self._free()
        self.handle = None

    def adapt(self, adapters: Adapters) -> None:
        """Use these adapters from now on.  The caller must empty the KV cache, which other adapters computed.

        Raises:
            ModelError: an adapter cannot be loaded.
        """
        if adapters != self.adapters:
            apply_adapters(self.handle, self.model, adapters)
            self.adapters = adapters

    def decode(
        self, token: Sequence[int], pos: Sequence[int], seq: list[int], n_rows: int, n_threads: int | None = None
    ) -> None:
        """Run one llama_decode of at most n_batch tokens, each with its position and sequence.

        Args:
            n_rows: number of tokens at the end whose logits are computed.
            n_threads: number of threads, instead of that of the context.

        Raises:
            Interrupted: the abort callback stopped it.
            ModelError: llama.cpp failed, or cannot be used in this process.
            ValueError: there is no memory for so many rows of logits; llama.cpp would abort the process.
        """
        check_process()
        if n_rows > self._n_logits:
            raise ValueError(f"a batch needs {n_rows} rows of logits, and the context has room for {self._n_logits}")
        n = len(token)
        batch = self._batch
        batch.token[:n] = token
        batch.pos[:n] = pos
        if (seq, n_rows) != self._last_shape:  # most tokens have the shape of the last one
            self._last_shape = (seq, n_rows)
            batch.seq[:n] = seq
            batch.logits[: n - n_rows] = 0
            batch.logits[n - n_rows : n] = 1
        batch.struct.n_tokens = n
        status = self._step(n, seq[0] != seq[-1] and n == n_rows, n_threads or self._most_threads)
        check_decoded(status, self._interrupt)

    def _step(self, n: int, together: bool, n_threads: int) -> int:
        """Run llama_decode on the batch.  The number of threads adapts if views read the same tokens ``together``.

        Otherwise it is fixed.  From 256 tokens on, flash attention over a single sequence splits its sums by the number
        of threads, so the same seed would give another text on a busy machine (logits of SmolLM2 differed by up to 0.7;
        those of two sequences agree to the bit).
        """
        threads = self._threads if together and n_threads == self._most_threads else None
        n_threads = threads.now if threads else n_threads
        if n_threads != self._n_threads:
            self._n_threads = n_threads
            lib.llama_set_n_threads(self.handle, n_threads, n_threads)
        if threads is None:
            return int(lib.llama_decode(self.handle, self._batch.struct))
        started, started_cpu = time.perf_counter(), time.process_time()
        status = int(lib.llama_decode(self.handle, self._batch.struct))
        ended, ended_cpu = time.perf_counter(), time.process_time()
        if n == self._n_seq:
            threads.learn(ended, ended - started, ended_cpu - started_cpu)
        return status

    def wait(self) -> None:
        """Wait for a device, which computes after llama_decode has returned."""
        lib.llama_synchronize(self.handle)

    def logits(self, i: int) -> Logits:
        """The logits of the i-th token of the last batch: float32 [n_vocab] in llama.cpp's memory, not a copy."""
        pointer = lib.llama_get_logits_ith(self.handle, i)
        address = ctypes.addressof(pointer.contents) if pointer else 0
        if not address:
            raise ModelError("llama.cpp returned no logits")
        if address not in self._logits:
            buffer = (ctypes.c_float * self.model.n_vocab).from_address(address)
            self._logits[address] = np.ctypeslib.as_array(buffer)
        return self._logits[address]

    def truncate(self, seq: int, n_tokens: int) -> int:
        """Truncate a sequence to at most its first ``n_tokens``, and return the number of tokens that are left.

        If the cache cannot be rolled back to there, the last checkpoint before it is restored, or nothing is left.
        """
        if n_tokens and self._truncates_to(seq, n_tokens) and lib.llama_memory_seq_rm(self.memory, seq, n_tokens, -1):
            self._checkpoints[seq].latest(n_tokens)
            return n_tokens
        return self.restore_checkpoint(seq, n_tokens)

    def _truncates_to(self, seq: int, n_tokens: int) -> bool:
        """True if the cache can be rolled back to ``n_tokens``.

        llama.cpp does not check this for running states: it has snapshots of the last batch only, and would use those
        of earlier batches instead.
        """
        if self.model.recurrent:
            n_back = self.length(seq) - n_tokens
            return n_back == 0 or n_back < min(1 + self.n_snapshots, self._last_shape[0].count(seq))
        oldest = lib.llama_memory_seq_pos_min(self.memory, seq)
        return not self.model.n_swa or bool(oldest <= max(0, n_tokens + 1 - self.model.n_swa))

    def restore_checkpoint(self, seq: int, n_tokens: int) -> int:
        """Restore a sequence's last checkpoint of at most ``n_tokens``, or empty it, and return the tokens left."""
        checkpoint = self._checkpoints[seq].latest(n_tokens)
        if checkpoint and self._load_checkpoint(seq, checkpoint):
            return checkpoint.n_tokens
        lib.llama_memory_seq_rm(self.memory, seq, 0, -1)
        self._checkpoints[seq] = Checkpoints()
        return 0

    def _load_checkpoint(self, seq: int, checkpoint: Checkpoint) -> bool:
        partly = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = len(checkpoint.memory)
        taken = lib.llama_state_seq_set_data_ext(self.handle, checkpoint.memory, size, seq, partly)
        # The rest of the cache may hold more tokens; the sliding windows are complete now.
        return taken == size and bool(lib.llama_memory_seq_rm(self.memory, seq, checkpoint.n_tokens, -1))

    def mark(self, seq: int, *, for_a_guess: bool = False) -> None:
        """Make a checkpoint of a sequence, unless it has one here or its cache can be truncated anywhere."""
        n_tokens = self.length(seq)
        if self.model.keeps_all_tokens or not n_tokens or self._checkpoints[seq].holds(n_tokens):
            return
        partly = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = lib.llama_state_seq_get_size_ext(self.handle, seq, partly)
        memory: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        if lib.llama_state_seq_get_data_ext(self.handle, memory, size, seq, partly) == size:
            self._checkpoints[seq].add(Checkpoint(n_tokens, memory, for_a_guess))

    def checkpoints(self, seq: int) -> list[Checkpoint]:
        """The checkpoints of a sequence, for `restore` in another context."""
        return [*self._checkpoints[seq]]

    def state(self, seq: int) -> ctypes.Array[ctypes.c_uint8]:
        """A copy of a sequence's cache, for `restore` in any context on the same model."""
        size = lib.llama_state_seq_get_size(self.handle, seq)
        buffer: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
        lib.llama_state_seq_get_data(self.handle, buffer, size, seq)
        return buffer

    def restore(self, seq: int, state: ctypes.Array[ctypes.c_uint8], checkpoints: Sequence[Checkpoint] = ()) -> bool:
        """Fill an empty sequence from a copy, with its checkpoints.  Returns False if llama.cpp refuses it."""
        self._checkpoints[seq] = Checkpoints(checkpoints)
        return bool(lib.llama_state_seq_set_data(self.handle, state, len(state), seq))

    def save(self, seq: int, tokens: Sequence[int], path: Path) -> int:
        """Write a sequence's tokens and cache to a file.  Returns the file's size in bytes, 0 on failure."""
        array = (lib.llama_token * len(tokens))(*tokens)
        return int(lib.llama_state_seq_save_file(self.handle, os.fsencode(path), seq, array, len(tokens)))

    def load(self, seq: int, path: Path, n_ctx: int) -> list[int]:
        """Fill an empty sequence from a file.  Returns its tokens, none if the file cannot be loaded."""
        array = (lib.llama_token * n_ctx)()
        n = ctypes.c_size_t(0)
        if not lib.llama_state_seq_load_file(self.handle, os.fsencode(path), seq, array, n_ctx, ctypes.byref(n)):
            self.truncate(seq, 0)
            return []
        return list(array[: n.value])

    def erase(self) -> None:
        """Empty every sequence, and overwrite its cells."""
        lib.llama_memory_clear(self.memory, True)
        self._checkpoints = [Checkpoints() for _ in self._checkpoints]

    def length(self, seq: int) -> int:
        """The number of the sequence's tokens in the cache."""
        return int(lib.llama_memory_seq_pos_max(self.memory, seq)) + 1


def freed_with(owner: object, handle: Any, model: Model) -> weakref.finalize[..., object]:
    """Return a function that frees a llama_context; it also runs when the owner is garbage collected.  It keeps the
    model loaded until then."""
    model.lifetime.acquire()
    free = weakref.finalize(owner, _free, handle, model.lifetime)
    free.atexit = False  # another thread may be using it
    return free


def _free(handle: Any, of_model: Lifetime) -> None:
    lib.llama_free(handle)
    of_model.release()


def context_params(
    engine: Engine, n_ctx: int, n_batch: int, n_seq: int, n_threads: int, interrupt: Interrupt
) -> lib.llama_context_params:
    """The parameters of a context with ``n_ctx`` tokens over all its sequences."""
    params = lib.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = n_batch
    params.n_ubatch = min(n_batch, params.n_ubatch)
    params.n_seq_max = n_seq
    params.n_threads = params.n_threads_batch = n_threads
    params.type_k = _TYPES[engine.cache_type_k]
    params.type_v = _TYPES[engine.cache_type_v]
    params.flash_attn_type = _FLASH_ATTENTION[engine.flash_attn]
    params.swa_full = False
    params.abort_callback = ctypes.cast(interrupt.abort_callback, lib.ggml_abort_callback)
    params.abort_callback_data = interrupt.abort_data
    return params


def no_context(size: str, model: Model) -> ModelError:
    """The error for a context that llama.cpp could not make."""
    reason = last_error()
    on_device = model.offload.n_gpu_layers and device_ran_out_of_memory(reason)
    if not reason or ran_out_of_memory(reason):
        what = f"{reason}." if reason else "is there enough memory?"
        fewer_layers = ", or fewer --gpu-layers" if model.offload.n_gpu_layers else ""
        reason = f"{what} Give a smaller --ctx, --cache-type-k and --cache-type-v q8_0{fewer_layers}"
    error = DeviceMemoryError if on_device else ModelError
    return error(f"cannot make a context of {size}: {reason}")


def check_decoded(status: int, interrupt: Interrupt) -> None:
    """Raise the error for llama_decode's status, if any.

    Raises:
        Interrupted: the abort callback stopped it.
        ModelError: llama.cpp failed.
    """
    if status == 0:
        return
    if status == 2 or interrupt.is_set():
        raise Interrupted
    if status == 1:
        raise ModelError("the context is full: give a larger --ctx")
    raise ModelError(f"llama.cpp could not decode (status {status}): {last_error() or 'no reason given'}")


def _thread_count(model: Model, n_seq: int, n_threads: int) -> ThreadCount | None:
    """A thread count that adapts to a busy machine; None with a single thread, a single view, or layers on a GPU."""
    on_gpu = model.offload.n_gpu_layers
    return ThreadCount(n_threads) if n_seq > 1 and n_threads > 1 and not on_gpu else None


def context_limit(model: Model, engine: Engine) -> int:
    """The most tokens that a view may hold.

    It is --ctx; by default the model's training length, at most 8192, or less if that makes room for layers on a
    device.
    """
    return engine.n_ctx or model.offload.n_ctx or min(model.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)


def check_memory(model: Model, engine: Engine, n_views: int, n_ctx: int) -> None:
    """Refuse KV caches that do not fit in the memory of the machine, its container, or the devices that hold them.

    The system would kill the process if the host's memory ran out.

    Raises:
        DeviceMemoryError: there is not enough memory on a device.
        ModelError: there is not enough on the host.  The messages have the bytes needed and the bytes free.
    """
    there = for_layers() if model.offload.n_gpu_layers else []
    free = {device.name: device.free for device in there if device.total}  # some devices report no memory
    for devices, needed in needed_by_place(model.header, engine, model.offload, n_views, n_ctx).items():
        if devices and not free.keys() >= set(devices):
            continue
        host = memory()
        available = sum(free[name] for name in devices) if devices else host.amount
        if needed > available:
            where, less = f" of {join_names(devices)}", ", or fewer --gpu-layers"
            if not devices:
                where, less = host.where, ""
            error = DeviceMemoryError if devices else ModelError
            raise error(
                f"not enough memory{where}: the KV cache of {n_views} x {n_ctx} tokens takes {byte_size(needed)} "
                f"and {byte_size(available)} is free. Give a smaller --ctx, --cache-type-k and --cache-type-v "
                f"q8_0{less}"
            )
