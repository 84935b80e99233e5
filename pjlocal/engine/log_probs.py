"""Log-probabilities of an answer's tokens in the view that decided them, as in OpenAI's ``logprobs``; and the tokens
that each view finds most probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.combine import log_normalizer
from ..decoding.judge import Decision
from ..decoding.schedule import Policy, Rows
from ..events import Alternative
from .model import Model
from .policies import Forced, SingleView, Steered

IMPOSSIBLE = -9999.0  # OpenAI's value for the logarithm of 0, which JSON cannot express


@dataclass(frozen=True)
class LogProbs:
    """The log-probability of a token before any filter.

    piece: the token's bytes.
    top: bytes and log-probability of the most probable tokens, the best first.
    """

    piece: bytes
    log_prob: float
    top: Sequence[tuple[bytes, float]]


class TokenLogProbs:
    """An `answer.Observer` that stores the log-probabilities of each token, before any filter.

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
            return
        known, log_probs = judge.unfiltered(rows)
        ids = np.arange(len(log_probs)) if known is None else known
        at = int(ids.searchsorted(decision.token))
        found = at < len(ids) and ids[at] == decision.token
        piece = self._model.piece
        self._seen[decision.position] = LogProbs(
            piece(decision.token),
            float(log_probs[at]) if found else IMPOSSIBLE,
            [(piece(int(ids[i])), float(log_probs[i])) for i in _most(log_probs, self._top)],
        )

    def take(self, position: int) -> LogProbs | None:
        """Remove and return the log-probabilities of the token at a position; None if there are none."""
        return self._seen.pop(position, None)


class ViewTokens:
    """An `answer.Observer` that stores the most probable tokens of every view at the last decision, before any filter.

    Args:
        names: of every view.
        n: tokens of each view.
    """

    def __init__(self, model: Model, names: Sequence[str], n: int) -> None:
        self._model = model
        self._names = names
        self._n = n
        #: Those of any view, the most probable first.
        self.alternatives: list[Alternative] = []

    def __call__(self, judge: Policy, rows: Rows, decision: Decision) -> None:
        logits = [rows(view).logits for view in range(len(self._names))]
        log_z = [log_normalizer(each) for each in logits]
        ids = {int(token) for each in logits for token in _most(each, self._n)}
        found = [Alternative(token, _text(self._model.piece(token)), {}) for token in ids]
        for each in found:
            for name, row, z in zip(self._names, logits, log_z, strict=True):
                each.p[name] = float(np.exp(row[each.id] - z))
        self.alternatives = sorted(found, key=lambda each: (-max(each.p.values()), each.id))


def _text(piece: bytes) -> str:
    """The text of a token; empty for a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return ""


def _most(values: NDArray[Any], k: int) -> NDArray[np.intp]:
    """The indices of the k greatest of [m] values, the greatest first."""
    if k < len(values):
        best = np.argpartition(values, -k)[len(values) - k :]
    else:
        best = np.arange(len(values))
    return best[np.argsort(-values[best], kind="stable")]
