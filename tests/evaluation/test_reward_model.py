"""Reward models in GGUF: they rank answers with their head, and are refused without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import tiny_models
from evaluated import make_answer

from pjlocal import Engine, Prompting
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError
from pjlocal.evaluation.reward_model import Ranker

PREFER = ["vivid", "Talk like a pirate."]


def rank(path: Path, text: str) -> dict[str, float]:
    with closing(Ranker(path, Engine(n_threads=1), Prompting(), Interrupt())) as ranker:
        return ranker.scores([make_answer(text)], PREFER)[0]


@pytest.mark.parametrize("kind", ["cross_encoder", "reranker"])
def test_a_model_with_a_head_ranks_answers(tiny: Callable[[str], Path], kind: str) -> None:
    ranks = rank(tiny(kind), "the cat sees the sun")
    assert set(ranks) == {"rank:vivid", "rank:Talk like a pirate."}
    assert rank(tiny(kind), "the cat sees the sun") == ranks
    assert rank(tiny(kind), "a dog and a dog " * 8) != ranks  # longer than what was there room for, too


def test_a_reranker_without_its_own_template_reads_the_chat(tmp_path: Path) -> None:
    path = tiny_models.write_reranker(tmp_path / "chat.gguf", template=False)
    assert all(0 < value < 1 for value in rank(path, "the cat").values())


def test_a_split_model_has_its_head_in_any_part(tmp_path: Path) -> None:
    tiny_models.write_reranker(tmp_path / "split.gguf", tensors_a_part=8)
    whole = tiny_models.write_reranker(tmp_path / "whole.gguf")
    first = min(tmp_path.glob("split-*.gguf"))
    assert rank(first, "the cat") == rank(whole, "the cat")


def test_an_answer_that_is_too_long_has_no_rank(tiny: Callable[[str], Path]) -> None:
    assert rank(tiny("cross_encoder"), "the cat " * 600) == {}


@pytest.mark.parametrize("kind", ["llama", "embedding", "recurrent"])
def test_a_model_without_a_head_is_refused(tiny: Callable[[str], Path], kind: str) -> None:
    with pytest.raises(ModelError, match="is not a reward model: it has no output"):
        rank(tiny(kind), "the cat")


def test_a_head_that_would_give_every_text_the_same_number_is_refused(tmp_path: Path) -> None:
    path = tiny_models.write_reranker(tmp_path / "one.gguf", labels=["good"])
    with pytest.raises(ModelError, match="always 1"):
        rank(path, "the cat")


def test_a_missing_file_gives_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        rank(tmp_path / "none.gguf", "the cat")
