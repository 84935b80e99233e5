"""A short list that contains the k greatest of many logits, made in one pass over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

INVALID_LOGITS = (
    "the model computes invalid logits (NaN or infinity): its file or an adapter is probably broken, or has a type "
    "that is not supported. Download it again, or use another model"
)


class InvalidLogits(ModelError):
    """Some logits are NaN or infinite.  The KV cache holds such values too, and must not be used again."""

    def __init__(self) -> None:
        super().__init__(INVALID_LOGITS)


#: A function from [n] logits to the ascending ids of a short list that contains the k greatest of them; not reentrant.
Shortlist = Callable[[NDArray[np.float32]], NDArray[np.intp]]

LONGEST = 64  # the longest list that is faster than a sort
_COLUMNS = 2048  # of the table; from 1024 to 4096, the time is nearly the same


def check_numbers(logits: NDArray[np.float32]) -> None:
    """Refuse a row of logits with NaN or infinity.  Minus infinity is allowed, but not for all tokens.

    A row of 49,152 logits takes 3 µs.  (One token of two views of SmolLM2 takes 11 ms.)

    Raises:
        InvalidLogits: the row cannot be used.
    """
    if not -np.inf < logits.max() < np.inf:  # comparisons with NaN are false
        raise InvalidLogits


def make_shortlist(k: int, n: int) -> Shortlist:
    """A short list for the k greatest of n logits (k at most `LONGEST`).

    The logits are laid out as a table.  The k-th greatest of the column maxima is a lower bound of the k-th greatest
    logit, and the k greatest logits are in the columns whose maxima reach it.  That takes one pass over the vocabulary;
    a partial sort takes many times as long (of one core, 293 instead of 16 µs for 49,152 tokens, and 2,600 instead of
    39 for 262,144).
    """
    k, n_rows = min(k, n), max(1, n // _COLUMNS)
    n_columns = n // n_rows
    rest = np.arange(n_rows * n_columns, n)  # ids outside the table
    row_starts = n_columns * np.arange(n_rows)[:, np.newaxis]
    maxima = np.empty(n_columns, np.float32)

    def shortlist(logits: NDArray[np.float32]) -> NDArray[np.intp]:
        np.maximum.reduce(logits[: n - rest.size].reshape(n_rows, n_columns), out=maxima)
        order = np.partition(maxima, (n_columns - k, n_columns - 1))
        if not order.item(-1) < np.inf or (rest.size and not logits[rest].max() < np.inf):  # NaN is sorted last
            raise InvalidLogits
        bound = order.item(n_columns - k)
        (columns,) = (maxima >= bound).nonzero()
        ids = (row_starts + columns).ravel()
        ids = np.concatenate((ids, rest))
        listed: NDArray[np.intp] = ids[logits[ids] >= bound]
        return listed

    return shortlist
