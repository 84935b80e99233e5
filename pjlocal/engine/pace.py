"""The number of prompt tokens that a device reads at a time."""

from __future__ import annotations

import math

_FIRST = 64  # tokens a read, until one was timed
_LEAST = 16
_READ_S = 0.5  # duration of a read


class Pace:
    """A number of prompt tokens that a device reads in half a second, at most a whole batch.

    llama.cpp's abort callback works on the CPU only, so Ctrl-C takes effect after the read under way.

    llama.cpp rounds differently in batches of different widths.  So the number is set once, at the second read, and
    afterwards only lowered if a read takes more than twice as long: a prompt gives the same text in every process on a
    device that reads 1,024 tokens/s or more, and on others as long as their speed stays between two powers of two.

    Args:
        n_batch: the most tokens.
    """

    def __init__(self, n_batch: int) -> None:
        self.n = min(_FIRST, n_batch)  #: tokens of the next read
        self._n_batch = n_batch
        self._is_settled = False
        self._is_first = True  # of its size: kernels are compiled and buffers made

    def learn(self, n_tokens: int, seconds: float) -> None:
        """Adapt to the duration of a read."""
        if n_tokens <= self.n // 2:  # the rest of a prompt takes longer by the token
            return
        if self._is_first:
            self._is_first = False
        elif not self._is_settled or seconds > 2 * _READ_S:
            fits = n_tokens * _READ_S / max(seconds, 1e-6)
            n = min(self._n_batch, max(_LEAST, 2 ** int(math.log2(max(1.0, fits)))))
            self._is_first = n != self.n
            self._is_settled = True
            self.n = n
