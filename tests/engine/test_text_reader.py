"""Reading texts for scores: the same logits as one by one, in limited batches, with shared beginnings read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pjlocal import Engine
from pjlocal.engine.context import Context
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.model import Model
from pjlocal.engine.scoring import TextReader

TEXTS = [[1, 20, 21, 22, 23, 30, 31], [1, 20, 21, 22, 23, 40], [1, 20, 21, 22, 23, 30, 50, 51], [1, 60, 61]]
N_DIFFERENT = 12  # tokens, of which each stands behind another beginning


def read(reader: TextReader, texts: Sequence[Sequence[int]], n_rows: Sequence[int]) -> dict:
    return {(i, place): logits.copy() for i, place, logits in reader.read(texts, n_rows)}


@contextmanager
def reading(path: Path, **settings: int) -> Iterator[TextReader]:
    interrupt, engine = Interrupt(), Engine(n_threads=1, **settings)  # type: ignore[arg-type]
    with closing(Model(path, engine, interrupt)) as model, closing(TextReader(model, engine, interrupt)) as reader:
        yield reader


@pytest.mark.parametrize("architecture", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize("n_batch", [512, 5])
def test_texts_read_together_have_the_logits_that_each_has_alone(
    tiny: Callable[[str], Path], architecture: str, n_batch: int
) -> None:
    n_rows = [3, 1, 4, 2]
    with reading(tiny(architecture), n_batch=n_batch) as reader:
        together = read(reader, TEXTS, n_rows)
        again = read(reader, TEXTS, n_rows)
        alone = {
            (i, place): logits
            for i, text in enumerate(TEXTS)
            for (_, place), logits in read(reader, [text], [n_rows[i]]).items()
        }
    assert set(together) == {(i, len(t) - 1 - k) for i, t in enumerate(TEXTS) for k in range(n_rows[i])}
    for key, logits in together.items():
        np.testing.assert_allclose(logits, alone[key], atol=2e-3)
        np.testing.assert_array_equal(logits, again[key])


def test_a_shared_beginning_of_texts_is_read_once(tiny: Callable[[str], Path]) -> None:
    with reading(tiny("llama")) as reader:
        read(reader, TEXTS, [1] * 4)
        assert reader.n_fed == N_DIFFERENT
        read(reader, TEXTS, [1] * 4)
        assert reader.n_fed == 2 * N_DIFFERENT, "but not what earlier calls have read, which would round otherwise"


def test_tokens_with_requested_logits_are_read_for_every_text(tiny: Callable[[str], Path]) -> None:
    """Its logits are not kept from one text to the next."""
    with reading(tiny("llama")) as reader:
        assert len(read(reader, [[1, 20, 21], [1, 20, 21, 22]], [2, 2])) == 4
        assert reader.n_fed == 3 + 2


def test_a_long_text_grows_the_context_and_changes_no_logits(tiny: Callable[[str], Path]) -> None:
    texts = [[1, *range(5, 5 + 100), i] for i in range(20, 40)] + [[1, *range(5, 305)], [2, *range(5, 205)]]
    with reading(tiny("llama")) as reader:
        alone = read(reader, [texts[13]], [1])[0, 101]
        logits = read(reader, texts, [1] * len(texts))
        assert len(logits) == len(texts)
        np.testing.assert_allclose(alone, logits[13, 101], atol=2e-3)
        np.testing.assert_allclose(read(reader, [texts[13]], [1])[0, 101], alone, atol=2e-3)


@pytest.mark.parametrize("n_rows", [1, 7, 40])
def test_the_number_of_rows_at_a_time_is_limited(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    from pjlocal.engine import scoring

    text = [1, *range(5, 60)]
    with reading(tiny("llama")) as reader:
        expected = read(reader, [text], [n_rows])
    monkeypatch.setattr(scoring, "_LOGITS_BYTES", 4 * 400 * 3)
    with reading(tiny("llama")) as reader:
        assert 1 < reader._n_rows < 7
        few = read(reader, [text], [n_rows])
    assert few.keys() == expected.keys() == {(0, place) for place in range(56 - n_rows, 56)}
    for key, logits in few.items():
        np.testing.assert_allclose(logits, expected[key], atol=2e-3)


def test_an_interrupt_ends_reading_at_once(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt, step = Interrupt(), Context._step

    def interrupted(context: Context, *args: Any) -> int:
        interrupt.set()  # llama.cpp sees it at the first node of its graph
        return step(context, *args)

    with (
        closing(Model(tiny("llama"), Engine(), interrupt)) as model,
        closing(TextReader(model, Engine(), interrupt)) as reader,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Context, "_step", interrupted)
            with pytest.raises(Interrupted):
                read(reader, [[1, *range(5, 300)]], [1])
        assert reader.n_fed == 0
        interrupt.clear()
        assert read(reader, [[1, 2, 3]], [1])  # and it can go on
