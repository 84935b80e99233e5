"""Several texts read together, for the logits behind their last tokens; what they begin with in common is read once.

For texts that are there already, as when answers are scored: nothing is written behind them, and nothing of them kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from ..errors import ModelError
from ..settings import Engine
from .backend import forget_errors
from .context import Batch, Logits, check_decoded, check_memory, context_params, freed_with, no_context
from .interrupt import Interrupt
from .machine import physical_cores
from .model import Model
from .shortlist import check_numbers
from .tokens import common_prefix
from .worker import apart

Tokens = Sequence[int]

_LOGITS_BYTES = 64 * 2**20  # of the rows that are kept at a time: 110 of a vocabulary of 152k tokens, 341 of 49k
_MOST_TEXTS = 32
_CELLS = 2048  # of the KV cache, unless one text alone is longer: what does not fit is read in turn


@dataclass(frozen=True)
class Run:
    """Tokens ``start`` to ``end`` of several texts, in which they are the same."""

    texts: list[int]
    start: int
    end: int


def tree(texts: Sequence[Tokens], members: list[int] | None = None, start: int = 0) -> Iterator[Run]:
    """What the texts are made of, each stretch once: a walk through the tree that their common beginnings make."""
    members = list(range(len(texts))) if members is None else members
    end = start
    shortest = min(len(texts[i]) for i in members)
    first = texts[members[0]]
    while end < shortest and all(texts[i][end] == first[end] for i in members):
        end += 1
    if end > start:
        yield Run(members, start, end)
    branches: dict[int, list[int]] = {}
    for i in members:
        if len(texts[i]) > end:
            branches.setdefault(texts[i][end], []).append(i)
    for branch in branches.values():
        yield from tree(texts, branch, end)


class PackedReader:
    """A context of its own on a loaded model, in which many texts are read in one batch.

    A token of the batch belongs to all texts that begin alike up to there: one cell of the KV cache serves them all.
    Models with a running state read one text after the other.

    On the 2-core machine, which arithmetic bounds, that pays where much is shared: the four prompts of an answer, which
    part in their system messages, take as long packed as one by one (SmolLM2 7.6 and 7.8 s for four answers of 100
    tokens, Qwen 0.5B 12.0 and 12.3).

    How texts are packed depends on those of a call alone, so the same call gives the same logits to the bit.

    Args:
        model: stays open when this is closed.
        interrupt: stops a decode under way.
    """

    def __init__(self, model: Model, engine: Engine, interrupt: Interrupt) -> None:
        self.model = model
        self.n_decodes = 0  # llama_decode calls, and tokens fed: for tests and statistics
        self.n_fed = 0
        self._engine = engine
        self._interrupt = interrupt
        self._most_texts = 1 if model.recurrent else _MOST_TEXTS
        self._n_batch = max(self._most_texts, engine.n_batch)  # llama.cpp wants a token for each
        self._n_rows = max(self._most_texts, min(self._n_batch, _LOGITS_BYTES // (4 * model.n_vocab)))
        self._batch = _SharedBatch(self._n_batch)
        self._handle: Any = None
        self._n_ctx = 0

    def __enter__(self) -> PackedReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            self._free()
            self._handle = None

    def read(self, texts: Sequence[Tokens], n_wanted: Sequence[int]) -> Iterator[tuple[int, int, Logits]]:
        """The logits behind each of the last ``n_wanted`` tokens of every text.

        Yields:
            The text's number, the token's place in it, and float32 [n_vocab], which is gone with the next.

        Raises:
            Interrupted: it was stopped.
            ModelError: llama.cpp failed, or there is not enough memory.
        """
        for group in self._groups(texts):
            for i, place, logits in self._read_group([texts[i] for i in group], [n_wanted[i] for i in group]):
                yield group[i], place, logits

    def _groups(self, texts: Sequence[Tokens]) -> Iterator[list[int]]:
        """The texts in as many turns as the KV cache asks for."""
        group: list[int] = []
        n_tokens = 0
        for i, text in enumerate(texts):
            new = len(text) - max((common_prefix(texts[j], text) for j in group), default=0)
            if group and (len(group) == self._most_texts or n_tokens + new > _CELLS):
                yield group
                group, n_tokens, new = [], 0, len(text)
            group.append(i)
            n_tokens += new
        if group:
            yield group

    def _read_group(self, texts: Sequence[Tokens], n_wanted: Sequence[int]) -> Iterator[tuple[int, int, Logits]]:
        runs = list(tree(texts))
        self._make_room(sum(run.end - run.start for run in runs))
        wanted_from = [len(text) - n for text, n in zip(texts, n_wanted, strict=True)]
        rows: list[tuple[int, int, list[int]]] = []  # places in the batch and in the text, and the texts that want it
        n = 0
        for run in runs:
            sequences = np.array(run.texts, np.int32)
            for place in range(run.start, run.end):
                wanting = [i for i in run.texts if place >= wanted_from[i]]
                if n == self._n_batch or (wanting and len(rows) == self._n_rows):
                    yield from self._decode(n, rows)
                    rows, n = [], 0
                self._batch.put(n, texts[run.texts[0]][place], place, sequences, bool(wanting))
                if wanting:
                    rows.append((n, place, wanting))
                n += 1
        yield from self._decode(n, rows)

    def _decode(self, n: int, rows: Sequence[tuple[int, int, list[int]]]) -> Iterator[tuple[int, int, Logits]]:
        self._batch.struct.n_tokens = n
        apart(self._decode_batch, self._interrupt)
        self.n_decodes += 1
        self.n_fed += n
        for i, place, wanting in rows:
            logits = self._logits(i)
            for text in wanting:
                yield text, place, logits

    def _decode_batch(self) -> None:
        check_decoded(int(lib.llama_decode(self._handle, self._batch.struct)), self._interrupt)
        lib.llama_synchronize(self._handle)

    def _logits(self, i: int) -> Logits:
        pointer = lib.llama_get_logits_ith(self._handle, i)
        if not pointer:
            raise ModelError("llama.cpp returned no logits")
        logits: Logits = np.ctypeslib.as_array(pointer, (self.model.n_vocab,))
        check_numbers(logits)
        return logits

    def _make_room(self, n_tokens: int) -> None:
        """An empty memory for so many tokens."""
        if n_tokens > self._n_ctx:
            self.close()
            self._n_ctx = -(-max(n_tokens, _CELLS) // 256) * 256
            check_memory(self.model, self._engine, 1, self._n_ctx)
            n_threads = self._engine.n_threads or physical_cores()
            params = context_params(
                self._engine, self._n_ctx, self._n_batch, self._most_texts, n_threads, self._interrupt
            )
            params.kv_unified = True  # one cell can belong to several texts
            params.n_outputs_max = self._n_rows
            forget_errors()
            self._handle = lib.llama_init_from_model(self.model.handle, params)
            if not self._handle:
                self._n_ctx = 0
                raise no_context(f"{n_tokens} tokens", self.model)
            self._free = freed_with(self, self._handle, self.model)
        lib.llama_memory_clear(lib.llama_get_memory(self._handle), False)


class _SharedBatch(Batch):
    """A batch whose tokens may belong to several sequences."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._held: list[NDArray[np.int32] | None] = [None] * capacity  # what llama.cpp is given pointers to

    def put(self, n: int, token: int, pos: int, sequences: NDArray[np.int32], wanted: bool) -> None:
        """Make this the n-th token."""
        self.token[n] = token
        self.pos[n] = pos
        self.logits[n] = wanted
        self._n_seq_id[n] = len(sequences)
        self._seq_id[n] = sequences.ctypes.data
        self._held[n] = sequences
