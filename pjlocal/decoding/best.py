"""Best of N: choose among several answers to one prompt, by the preference that each answer meets least.

Preference i pushes the t-th token of an answer by d_i,t, the change of the token's log-probability against the neutral
view.  The sum over an answer is the implicit reward of DPO (arXiv 2305.18290), with the view under the preference in
place of the trained model.  The chosen answer has the greatest worst reward, as in MaxMin-RLHF (arXiv 2402.08925):

    r_i = Σ_t d_i,t / √|y|
    score = min_i z(r_i) + μ z(mean of n)        z(x) = (x - mean of x) / (standard deviation of x)

The noise of a sum of |y| pushes grows with √|y|, so short and long answers are compared alike: the mean favours short
answers, and the sum long ones.  z compares the answers to the same prompt with each other, so every preference counts
alike, whatever its strength.  The second term protects fluency: n are the log-probabilities of the tokens in the
neutral view.  This module is NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: μ: not tuned.  It is small because the pushes contain -n: a large μ would undo them.
FLUENCY_WEIGHT = 0.25

_EQUAL = 1e-9  # standard deviation below which values count as equal


def scores(pushes: NDArray[np.float64], neutral: NDArray[np.float64], lengths: NDArray[np.intp]) -> NDArray[np.float64]:
    """The scores, float64 [N], of N answers to one prompt; the greatest is the best.

    A preference that pushes all answers alike is left out, since it prefers none of them.

    pushes: float64 [N, k], the sum of each of k preferences' pushes over an answer's tokens, in nats.
    neutral: float64 [N], the sum of the tokens' log-probabilities in the neutral view.
    lengths: [N], the number of tokens, each at least 1.
    """
    rewards = pushes / np.sqrt(lengths[:, np.newaxis])
    compared = [_standardized(reward) for reward in rewards.T]
    informative = [z for z in compared if z.any()]
    worst = np.minimum.reduce(informative) if informative else np.zeros(len(lengths))
    total: NDArray[np.float64] = worst + FLUENCY_WEIGHT * _standardized(neutral / lengths)
    return total


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values [N] with mean 0 and standard deviation 1; zeros if they are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > _EQUAL else np.zeros_like(values)


def choose(scores: Sequence[float | None], are_whole: Sequence[bool]) -> int:
    """The number of the best answer.  A complete answer is better than one that was cut off; then the higher score is
    better, and among equals the first.

    A cut answer cannot meet a preference about its ending.  An answer without a score is chosen last.
    """

    def rank(number: int) -> tuple[bool, bool, float]:
        score = scores[number]
        return score is not None, are_whole[number], score or 0.0

    return max(range(len(scores)), key=rank)
