"""Implicit rewards, fluency, and the likelihood under direct prompting, against a computation by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from answer_records import make_answer

from pjlocal import Engine, Message, Prompting
from pjlocal.decoding.combine import log_normalizer
from pjlocal.engine.context import Context
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.engine.prefix import common_prefix
from pjlocal.evaluation.records import AnswerRecord
from pjlocal.evaluation.reward import Scorer
from pjlocal.prompting.pieces import tokens_after
from pjlocal.prompting.prompt import ChatTemplate

PIRATE = "Talk like a pirate."
PREFER = ["vivid:1.5", PIRATE]
TEXT = "Arr, matey! Ye cat be purrin' because it be content, by the seven seas."


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Iterator[Model]:
    model = Model(smollm2, Engine(), Interrupt())
    yield model
    model.close()


@pytest.fixture(scope="module")
def scorer(model: Model) -> Iterator[Scorer]:
    with Scorer(model, Engine(n_threads=1), Prompting(placement="question"), Interrupt()) as scorer:
        yield scorer


def scores_of(scorer: Scorer, answer: AnswerRecord, prefer: list[str]) -> dict[str, float]:
    return scorer.scores([answer], prefer)[0]


def by_hand(model: Model, engine: Engine, prefix: str, answer_tokens: list[int]) -> float:
    """Every token by itself, and a softmax in float64."""
    prompt = ChatTemplate(model).tokens([Message("user", "Why do cats purr?")], prefix, Prompting(placement="system"))
    context = Context(model, engine, 512, 1, 1, Interrupt())
    total = 0.0
    try:
        for place, token in enumerate([*prompt, *answer_tokens[:-1]]):
            context.decode([token], [place], [0], 1)
            if place >= len(prompt) - 1:
                logits = context.logits(0).astype(np.float64)
                logits -= logits.max()
                total += logits[answer_tokens[place + 1 - len(prompt)]] - np.log(np.exp(logits).sum())
    finally:
        context.close()
    return total / len(answer_tokens)


def assert_as_by_hand(model: Model, engine: Engine, tolerance: float) -> None:
    tokens = [*model.tokenize(TEXT, special=False), model.end]
    neutral, under_pirate = (by_hand(model, engine, text, tokens) for text in ("", PIRATE))
    with Scorer(model, engine, Prompting(), Interrupt()) as scorer:
        scores = scores_of(scorer, make_answer(TEXT), [PIRATE])
    by_name = {f"reward:{PIRATE}": under_pirate - neutral, "fluency": neutral, "prompting": under_pirate}
    assert scores == pytest.approx(by_name, abs=tolerance)


def test_scores_are_those_of_a_direct_computation(tiny: Callable[[str], Path]) -> None:
    engine = Engine(n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
    model = Model(tiny("llama"), engine, Interrupt())
    try:
        assert_as_by_hand(model, engine, 1e-5)
    finally:
        model.close()


@pytest.mark.slow
def test_scores_of_a_quantized_model_differ_by_its_rounding_alone(model: Model) -> None:
    """Where a text lies in the cache changes the last bits of its attention, and 4-bit weights make 0.03 of that."""
    assert_as_by_hand(model, Engine(n_threads=1), 0.05)


@pytest.mark.slow
def test_an_answer_scores_higher_under_what_it_was_written_for(scorer: Scorer) -> None:
    plain = "Cats purr when they are content. The sound comes from muscles in the throat."
    metric = f"reward:{PIRATE}"
    assert (
        scores_of(scorer, make_answer(TEXT), PREFER)[metric]
        > scores_of(scorer, make_answer(plain), PREFER)[metric] + 0.1
    )


def test_the_normaliser_loses_nothing_that_counts() -> None:
    rng = np.random.default_rng(0)
    for size in (49_152, 151_936):
        for scale in (1, 4, 12):
            logits = rng.normal(0, scale, size).astype(np.float32)
            exact = np.log(np.exp(logits.astype(np.float64) - logits.max()).sum()) + logits.max()
            assert log_normalizer(logits) == pytest.approx(exact, rel=1e-8)


@pytest.mark.slow
def test_the_token_that_ends_an_answer_counts_where_it_ended_by_itself(model: Model, scorer: Scorer) -> None:
    tokens = model.tokenize(TEXT, special=False)
    cut, ended = (scores_of(scorer, make_answer(TEXT, finish_reason=r), PREFER)["fluency"] for r in ("length", "stop"))
    end = ended * (len(tokens) + 1) - cut * len(tokens)
    assert end < 0 and abs(end) < 20
    assert not np.isclose(cut, ended, atol=1e-6)


def test_a_prompt_is_read_once_for_all_its_answers(tiny: Callable[[str], Path]) -> None:
    """But for its last token, whose logits every answer is scored with; the answers share nothing."""
    engine = Engine(n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
    answers = [make_answer(text) for text in (TEXT, "the cat", "a dog sees")]
    model = Model(tiny("llama"), engine, Interrupt())
    try:
        with Scorer(model, engine, Prompting(), Interrupt()) as scorer:
            template, prefixes = ChatTemplate(model), {*scorer.metrics(PREFER).values()}
            question = [Message("user", answers[0].prompt)]
            prompts = sorted(template.tokens(question, text, Prompting(placement="system")) for text in prefixes)
            template.close()
            one_by_one = [scores_of(scorer, answer, PREFER) for answer in answers]
            n_alone = scorer.n_fed
            together = scorer.scores(answers, PREFER)
            n_together = scorer.n_fed - n_alone
    finally:
        model.close()
    n_shared = [0, *(common_prefix(a, b) for a, b in pairwise(prompts))]  # with the prompt before, also of one answer
    saved = sum(len(prompt) - 1 - n for prompt, n in zip(prompts, n_shared, strict=True))
    assert n_alone - n_together == 2 * saved > n_alone / 3
    for alone, beside in zip(one_by_one, together, strict=True):
        assert beside == pytest.approx(alone, abs=1e-5)


def test_an_answer_that_cannot_be_scored_has_no_scores(tiny: Callable[[str], Path]) -> None:
    model = Model(tiny("llama"), Engine(), Interrupt())  # with a context of 512 tokens
    try:
        with Scorer(model, Engine(n_threads=1), Prompting(), Interrupt()) as scorer:
            assert scores_of(scorer, make_answer("", finish_reason="length"), PREFER) == {}
            assert scores_of(scorer, make_answer("the cat " * 600), PREFER) == {}
            to_say_nothing = scores_of(scorer, make_answer(""), PREFER)  # is an answer
            assert set(to_say_nothing) == set(scorer.metrics(PREFER))
    finally:
        model.close()


@pytest.mark.slow
def test_the_same_answer_has_the_same_scores_to_the_bit(scorer: Scorer) -> None:
    first, other, again = (scores_of(scorer, make_answer(text), PREFER) for text in (TEXT, TEXT[:20], TEXT))
    assert first == again != other


@pytest.mark.parametrize("kind", ["llama", "space_prefix", "tekken", "recurrent", "sliding_window"])
def test_every_kind_of_model_scores(tiny: Callable[[str], Path], kind: str) -> None:
    model = Model(tiny(kind), Engine(n_threads=1), Interrupt())
    try:
        with Scorer(model, Engine(n_threads=1), Prompting(), Interrupt()) as scorer:
            assert set(scores_of(scorer, make_answer("the cat sees <|im_end|> the sun"), ["vivid"])) == {
                "reward:vivid",
                "fluency",
                "prompting",
            }
    finally:
        model.close()


def test_an_answer_is_tokenized_as_a_continuation_of_its_prompt(tiny: Callable[[str], Path]) -> None:
    model = Model(tiny("space_prefix"), Engine(n_threads=1), Interrupt())
    try:
        prompt = model.tokenize("<|im_start|>assistant\n", special=True)
        words = tokens_after(model, prompt, "cat")
        assert model.text(words) == "cat"  # without the space that begins a text
        assert not any(map(model.is_control, tokens_after(model, prompt, "<|im_end|>cat</s>")))
    finally:
        model.close()
