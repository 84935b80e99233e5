"""A short list that contains the k greatest of many logits, made in one pass over them."""

from __future__ import annotations

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


_COLUMNS = 256  # columns of the table in `Shortlist`
_WIDE_COLUMNS = 4096  # about as many columns has the table in `WideShortlist`
_LARGE = 100_000  # vocabulary size from which `WideShortlist` is not slower

#: The longest list that is faster than a sort.
LONGEST = _COLUMNS // 4


def check_numbers(logits: NDArray[np.float32]) -> None:
    """Refuse a row of logits with NaN or infinity.  Minus infinity is allowed, but not for all tokens.

    A row of 49,152 logits takes 3 µs.  (One token of two views of SmolLM2 takes 11 ms.)

    Raises:
        InvalidLogits: the row cannot be used.
    """
    if not -np.inf < logits.max() < np.inf:  # comparisons with NaN are false
        raise InvalidLogits


def make_shortlist(k: int, n: int) -> Shortlist | WideShortlist:
    """The fastest short list for the k greatest of n logits (k at most `LONGEST`)."""
    return WideShortlist(k, n) if n >= _LARGE else Shortlist(k, n)


class Shortlist:
    """A function from [n] logits to the ascending ids of a short list that contains the k greatest of them.

    The logits are laid out as a table.  The k-th greatest of the column maxima is a lower bound of the k-th greatest
    logit.  That takes one pass over the vocabulary; a partial sort takes many times as long (12 against 560 µs on
    49,152 tokens, one core of the 2-core machine).  After a decode, when the processor's caches are cold, reusing the
    arrays takes two thirds of the time of allocating them.
    """

    def __init__(self, k: int, n: int) -> None:
        self._k = k
        self._n_rows = n // _COLUMNS
        self._logits: NDArray[np.float32] | None = None
        self._maxima = np.empty(_COLUMNS, np.float32)
        self._keep = np.empty(n, np.bool_)

    @property
    def bound(self) -> float:
        """The lower bound of the logits in the last short list."""
        return self._maxima.item(_COLUMNS - self._k)

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        if self._n_rows < 2:
            return np.arange(len(logits))
        if logits is not self._logits:  # most often the same memory
            self._logits = logits
            self._table = logits[: self._n_rows * _COLUMNS].reshape(self._n_rows, _COLUMNS)
        np.maximum.reduce(self._table, out=self._maxima)
        self._maxima.sort()
        if not self._maxima.item(-1) < np.inf:  # NaN sorts last
            raise InvalidLogits
        np.greater_equal(logits, self.bound, out=self._keep)
        (ids,) = self._keep.nonzero()
        return ids


class WideShortlist:
    """The same for large vocabularies.

    The k greatest logits are in the columns with the k greatest maxima, so only logits in those columns are compared
    with the bound.  Right after a decode that takes 124 instead of 158 µs on 262,144 tokens.  It is as fast as
    `Shortlist` on 128,256 (118 and 123 µs), and slower on 49,152 (95 and 82).
    """

    def __init__(self, k: int, n: int) -> None:
        n_rows = n // _WIDE_COLUMNS
        self._n_columns = n // n_rows
        self._rest = np.arange(n_rows * self._n_columns, n)  # ids outside the table, which are always on the list
        self._logits: NDArray[np.float32] | None = None
        self._row_starts = self._n_columns * np.arange(n_rows)[:, np.newaxis]
        self._maxima = np.empty(self._n_columns, np.float32)
        self._columns = Shortlist(k, self._n_columns)

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        if logits is not self._logits:
            self._logits = logits
            self._table = logits[: logits.size - self._rest.size].reshape(-1, self._n_columns)
        np.maximum.reduce(self._table, out=self._maxima)
        columns = self._columns(self._maxima)
        ids = (self._row_starts + columns).ravel()
        ids = ids[logits[ids] >= self._columns.bound]
        return np.concatenate((ids, self._rest)) if self._rest.size else ids
