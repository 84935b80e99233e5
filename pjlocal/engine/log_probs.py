"""Log-probabilities of an answer's tokens in the view that decided them, as in OpenAI's ``logprobs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.judge import Decision
from ..decoding.schedule import Policy, Rows
from .model import Model
from .policies import Forced, SingleView, Steered

IMPOSSIBLE = -9999.0  # OpenAI's value for the logarithm of 0, which JSON cannot express


@dataclass(frozen=True)
class LogProbs:
    """The log-probability of a token before any filter.

    piece: the token's bytes.
    top: bytes and log-probabilities of the most probable tokens, in descending order.
    """

    piece: bytes
    log_prob: float
    top: Sequence[tuple[bytes, float]]


class TokenLogProbs:
    """A `decoding.schedule.Observer` that stores the log-probabilities of each token, before any filter.

    Args:
        top: the number of alternatives stored for each token.
        ignore_end: whether end tokens are ordinary tokens; if not, they are not stored.
    """

    def __init__(self, model: Model, top: int, ignore_end: bool) -> None:
        self._model = model
        self._top = top
        self._ignore_end = ignore_end
        self._seen: dict[int, LogProbs] = {}  # by position, until `take`

    def __call__(self, judge: Policy, rows: Rows, decision: Decision) -> None:
        assert isinstance(judge, SingleView | Steered | Forced)
        if self._model.is_end(decision.token) and not self._ignore_end:
            self._seen.pop(decision.position, None)  # of the first answer in mode rewrite
            return
        known, log_probs = judge.unfiltered(rows)
        ids = np.arange(len(log_probs)) if known is None else known
        at = int(ids.searchsorted(decision.token))
        found = at < len(ids) and ids[at] == decision.token
        piece = self._model.piece
        self._seen[decision.position] = LogProbs(
            piece(decision.token),
            float(log_probs[at]) if found else IMPOSSIBLE,
            [(piece(int(ids[i])), float(log_probs[i])) for i in most(log_probs, self._top)],
        )

    def take(self, position: int) -> LogProbs | None:
        """Remove and return the log-probabilities of the token at a position; None if there are none."""
        return self._seen.pop(position, None)


def most(values: NDArray[Any], k: int) -> NDArray[np.intp]:
    """The indices of the k greatest of [m] values, in descending order of the values."""
    if k < len(values):
        best = np.argpartition(values, -k)[len(values) - k :]
    else:
        best = np.arange(len(values))
    return best[np.argsort(-values[best], kind="stable")]
