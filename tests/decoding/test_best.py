"""The choice among several answers to one prompt."""

from __future__ import annotations

import numpy as np
import pytest

from pjlocal.decoding.best import FLUENCY_WEIGHT, choose, scores


def scored(pushes: list[list[float]], neutral: list[float], lengths: list[int]) -> list[float]:
    return scores(np.array(pushes), np.array(neutral), np.array(lengths)).tolist()


def test_the_least_served_preference_decides() -> None:
    pushes = [[9.0, 0.0], [5.0, 5.0], [0.0, 9.0]]
    found = scored(pushes, [-1.0] * 3, [1] * 3)
    assert found.index(max(found)) == 1
    assert found[0] == pytest.approx(found[2])


def test_the_score_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    pushes, neutral, lengths = rng.normal(size=(5, 3)), rng.normal(size=5), rng.integers(1, 9, 5)
    z = np.stack([(r - r.mean()) / r.std() for r in (*(pushes / lengths[:, None] ** 0.5).T, neutral / lengths)])
    assert scores(pushes, neutral, lengths) == pytest.approx(z[:-1].min(axis=0) + FLUENCY_WEIGHT * z[-1])


def test_strengths_do_not_change_the_choice() -> None:
    rng = np.random.default_rng(1)
    pushes, neutral, lengths = rng.normal(size=(4, 2)), rng.normal(size=4), np.full(4, 7)
    assert scores(pushes * [1.5, 0.1], neutral, lengths) == pytest.approx(scores(pushes, neutral, lengths))


def test_a_long_answer_needs_more_push_than_a_short_one_but_not_as_much_per_token() -> None:
    of_equal_sums = scored([[3.0], [3.0]], [-1.0, -4.0], [1, 4])
    assert of_equal_sums[0] > of_equal_sums[1]
    of_equal_means = scored([[3.0], [12.0]], [-1.0, -4.0], [1, 4])
    assert of_equal_means[0] < of_equal_means[1]


def test_among_equal_pushes_the_more_fluent_answer_wins() -> None:
    found = scored([[1.0, 2.0]] * 3, [-3.0, -1.0, -2.0], [1] * 3)
    assert found.index(max(found)) == 1


def test_a_preference_that_pushes_all_answers_alike_is_left_out() -> None:
    """As one of strength 0, or equal answers: its standard deviation is 0."""
    with_it = scored([[0.0, 1.0], [0.0, 3.0]], [-1.0, -1.0], [1, 1])
    assert with_it == scored([[1.0], [3.0]], [-1.0, -1.0], [1, 1]) == pytest.approx([-1.0, 1.0])
    assert scored([[1.0, 1.0]] * 3, [-1.0] * 3, [2] * 3) == [0.0] * 3
    assert scored([[1.0, 1.0]], [-1.0], [2]) == [0.0]


@pytest.mark.parametrize(
    ("found", "are_whole", "best"),
    [
        ([0.1, 0.9, 0.5], [True, True, True], 1),
        ([0.1, 0.9, 0.5], [True, False, True], 2),  # a cut answer meets no preference about its ending
        ([0.1, 0.9, 0.5], [False, False, False], 1),
        ([0.5, 0.5], [True, True], 0),
        ([None, -2.0], [True, False], 1),  # an empty answer, whole as it is, comes last
        ([None, None], [False, True], 1),
    ],
)
def test_whole_answers_come_first_then_the_score(found: list[float | None], are_whole: list[bool], best: int) -> None:
    assert choose(found, are_whole) == best
