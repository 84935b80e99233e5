"""Views that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ToyViews:
    """Views that keep what they have read.  A subclass computes the row behind it."""

    def __init__(self) -> None:
        self.cache: list[list[int]] = []
        self.rows = 1

    def row(self, view: int, index: int, read: Sequence[int]) -> Any:
        """The row of a view behind the tokens that it has read: number 0 of `feed`, and so on, or 1 of `read`."""
        raise NotImplementedError

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        self.cache = [list(prompt) for prompt in prompts]

    def feed(self, tokens: Sequence[int]) -> None:
        self.rows = len(tokens)
        for cache in self.cache:
            cache.extend(tokens)

    def logits(self, view: int, row: int = 0) -> Any:
        cache = self.cache[view]
        return self.row(view, row, cache[: len(cache) - self.rows + 1 + row])

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        cache = self.cache[view]
        cache.extend(tokens)
        return [self.row(view, 1 + i, cache[: len(cache) - rows + 1 + i]) for i in range(rows)]

    def rewind(self, n_tokens: int) -> None:
        for view in range(len(self.cache)):
            self.rewind_view(view, n_tokens)

    def rewind_view(self, view: int, n_tokens: int) -> None:
        del self.cache[view][len(self.cache[view]) - n_tokens :]
