"""Texts read together: the same logits as one by one, in bounded batches, with common beginnings read once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pjlocal import Engine
from pjlocal.engine import packed
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.model import Model
from pjlocal.engine.packed import PackedReader, Run, tree

TEXTS = [[1, 20, 21, 22, 23, 30, 31], [1, 20, 21, 22, 23, 40], [1, 20, 21, 22, 23, 30, 50, 51], [1, 60, 61]]


def read(reader: PackedReader, texts: Sequence[Sequence[int]], n_wanted: Sequence[int]) -> dict:
    return {(i, place): logits.copy() for i, place, logits in reader.read(texts, n_wanted)}


def test_common_beginnings_are_one_stretch() -> None:
    assert list(tree(TEXTS)) == [
        Run([0, 1, 2, 3], 0, 1),
        Run([0, 1, 2], 1, 5),
        Run([0, 2], 5, 6),
        Run([0], 6, 7),
        Run([2], 6, 8),
        Run([1], 5, 6),
        Run([3], 1, 3),
    ]
    assert list(tree([[1, 2], [1, 2], [1]])) == [Run([0, 1, 2], 0, 1), Run([0, 1], 1, 2)]


@pytest.mark.parametrize("architecture", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize("n_batch", [512, 5])
def test_packed_texts_have_the_logits_that_each_has_alone(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, architecture: str, n_batch: int
) -> None:
    monkeypatch.setattr(packed, "_MOST_TEXTS", 4)
    model = Model(tiny(architecture), Engine(n_threads=1), Interrupt())
    n_wanted = [3, 1, 4, 2]
    try:
        with PackedReader(model, Engine(n_batch=n_batch, n_threads=1), Interrupt()) as reader:
            together = read(reader, TEXTS, n_wanted)
            assert reader.n_fed == (sum(map(len, TEXTS)) if architecture == "recurrent" else 12)
            again = read(reader, TEXTS, n_wanted)
        with PackedReader(model, Engine(n_threads=1), Interrupt()) as reader:
            alone = {
                (i, place): logits
                for i, text in enumerate(TEXTS)
                for (_, place), logits in read(reader, [text], [n_wanted[i]]).items()
            }
    finally:
        model.close()
    assert set(together) == {(i, len(t) - 1 - k) for i, t in enumerate(TEXTS) for k in range(n_wanted[i])}
    for key, logits in together.items():
        np.testing.assert_allclose(logits, alone[key], atol=2e-3)
        np.testing.assert_array_equal(logits, again[key])


def test_more_texts_than_there_is_room_for_are_read_in_turn(tiny, monkeypatch) -> None:
    monkeypatch.setattr(packed, "_CELLS", 256)
    monkeypatch.setattr(packed, "_MOST_TEXTS", 8)
    texts = [[1, *range(5, 5 + 100), i] for i in range(20, 40)] + [[1, *range(5, 305)], [2, *range(5, 205)]]
    model = Model(tiny("llama"), Engine(n_threads=1), Interrupt())
    try:
        with PackedReader(model, Engine(n_threads=1), Interrupt()) as reader:
            logits = read(reader, texts, [1] * len(texts))
            assert len(logits) == len(texts)
            np.testing.assert_allclose(read(reader, [texts[13]], [1])[0, 101], logits[13, 101], atol=2e-3)
    finally:
        model.close()


@pytest.mark.timed
def test_an_interrupt_ends_reading_at_once(smollm2: Path) -> None:
    interrupt = Interrupt()
    model = Model(smollm2, Engine(), interrupt)
    try:
        with PackedReader(model, Engine(), interrupt) as reader:
            threading.Timer(0.3, interrupt.set).start()
            started = time.monotonic()
            with pytest.raises(Interrupted):
                read(reader, [[1, *range(1000, 3000)]], [1])
            assert time.monotonic() - started < 1.5
            interrupt.clear()
            assert read(reader, [[1, 2, 3]], [1])  # and it can go on
    finally:
        model.close()


def test_a_model_file_is_known_again_wherever_it_lies(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    copied = tmp_path / "copy.gguf"
    copied.write_bytes(tiny("llama").read_bytes())
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(copied.read_bytes()[:-4] + b"\0\0\0?")
    fingerprints = []
    for path in (tiny("llama"), copied, changed):
        model = Model(path, Engine(), Interrupt())
        fingerprints.append(model.fingerprint)
        model.close()
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
