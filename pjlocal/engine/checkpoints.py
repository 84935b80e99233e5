"""Copies of the parts of a KV cache that cannot be truncated: sliding windows, or a running state."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..gguf.memory import MOST_CHECKPOINT_BYTES, MOST_CHECKPOINTS


@dataclass(frozen=True)
class Checkpoint:
    """A copy, made after ``n_tokens``, of the part of a sequence's cache that cannot be truncated.

    for_a_guess: made before guessed tokens were read; not needed after the next guess.
    """

    n_tokens: int
    memory: ctypes.Array[ctypes.c_uint8]
    for_a_guess: bool = False


class Checkpoints:
    """The latest few checkpoints of a sequence, the oldest first.

    A checkpoint beyond the end of a truncated sequence is dropped.
    """

    def __init__(self, kept: Iterable[Checkpoint] = ()) -> None:
        self._kept = list(kept)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self._kept)

    def holds(self, n_tokens: int) -> bool:
        """True if there is a checkpoint of exactly ``n_tokens``."""
        return any(checkpoint.n_tokens == n_tokens for checkpoint in self._kept)

    def add(self, new: Checkpoint) -> None:
        if new.for_a_guess:
            self._kept = [checkpoint for checkpoint in self._kept if not checkpoint.for_a_guess]
        self._kept.append(new)
        while len(self._kept) > 1 and self._too_many:
            del self._kept[0]

    def latest(self, n_tokens: int) -> Checkpoint | None:
        """Return the last checkpoint of at most ``n_tokens``, and drop longer ones."""
        self._kept = [checkpoint for checkpoint in self._kept if checkpoint.n_tokens <= n_tokens]
        return max(self._kept, key=lambda checkpoint: checkpoint.n_tokens, default=None)

    @property
    def _too_many(self) -> bool:
        lasting = [len(checkpoint.memory) for checkpoint in self._kept if not checkpoint.for_a_guess]
        return len(lasting) > MOST_CHECKPOINTS or sum(lasting) > MOST_CHECKPOINT_BYTES
