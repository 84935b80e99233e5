"""The latest few checkpoints are kept, within a limit of bytes."""

from __future__ import annotations

import ctypes

import pytest

from pjlocal.engine import checkpoints as module
from pjlocal.engine.checkpoints import Checkpoint, Checkpoints


def checkpoint(n_tokens: int, n_bytes: int = 8, **kind: bool) -> Checkpoint:
    return Checkpoint(n_tokens, (ctypes.c_uint8 * n_bytes)(), **kind)


def lengths(some: Checkpoints) -> list[int]:
    return [one.n_tokens for one in some]


def test_the_latest_four_are_kept_and_one_more_for_a_guess() -> None:
    some = Checkpoints()
    for n in range(10, 70, 10):
        some.add(checkpoint(n))
    assert lengths(some) == [30, 40, 50, 60]
    for n in (61, 62):
        some.add(checkpoint(n, for_a_guess=True))
    assert lengths(some) == [30, 40, 50, 60, 62], "what was kept for the guess before is of no use"
    some.add(checkpoint(70))
    assert lengths(some) == [40, 50, 60, 62, 70]


def test_checkpoints_beyond_the_truncated_length_are_dropped() -> None:
    some = Checkpoints(map(checkpoint, (10, 30, 20)))
    latest = some.latest(25)
    assert latest and latest.n_tokens == 20
    assert lengths(some) == [10, 20] and some.holds(20) and not some.holds(30)
    assert some.latest(9) is None


def test_fewer_large_checkpoints_are_kept_but_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHECKPOINT_BYTES", 100)
    some = Checkpoints()
    for n in (1, 2, 3):
        some.add(checkpoint(n, 45))
    assert lengths(some) == [2, 3]
    some.add(checkpoint(4, 1000))
    assert lengths(some) == [4]
