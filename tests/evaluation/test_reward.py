"""Implicit rewards, fluency, and the likelihood under direct prompting, against a computation by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from evaluated import make_answer

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


EXACT = Engine(n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")


@pytest.fixture
def model(smollm2: Path, opened: Callable) -> Model:
    return opened(Model(smollm2, Engine(), Interrupt()))


@pytest.fixture
def scorer(model: Model, opened: Callable) -> Scorer:
    return opened(make_scorer(model, Prompting(placement="question")))


def make_scorer(model: Model, prompting: Prompting = Prompting(), engine: Engine = Engine(n_threads=1)) -> Scorer:
    return Scorer(model, engine, prompting, Interrupt())


def scores_of(scorer: Scorer, answer: AnswerRecord, prefer: list[str]) -> dict[str, float]:
    return scorer.scores([answer], prefer)[0]


def by_hand(model: Model, engine: Engine, prefix: str, answer_tokens: list[int]) -> float:
    """Every token by itself, and a softmax in float64."""
    prompt = ChatTemplate(model).tokens([Message("user", "Why do cats purr?")], prefix, Prompting(placement="system"))
    total = 0.0
    with closing(Context(model, engine, 512, 1, 1, Interrupt())) as context:
        for place, token in enumerate([*prompt, *answer_tokens[:-1]]):
            context.decode([token], [place], [0], 1)
            if place >= len(prompt) - 1:
                logits = context.logits(0).astype(np.float64)
                logits -= logits.max()
                total += logits[answer_tokens[place + 1 - len(prompt)]] - np.log(np.exp(logits).sum())
    return total / len(answer_tokens)


def assert_as_by_hand(model: Model, engine: Engine, tolerance: float) -> None:
    tokens = [*model.tokenize(TEXT, special=False), model.end]
    neutral, under_pirate = (by_hand(model, engine, text, tokens) for text in ("", PIRATE))
    with closing(make_scorer(model, engine=engine)) as scorer:
        scores = scores_of(scorer, make_answer(TEXT), [PIRATE])
    by_name = {f"reward:{PIRATE}": under_pirate - neutral, "fluency": neutral, "prompting": under_pirate}
    assert scores == pytest.approx(by_name, abs=tolerance)


def test_scores_are_those_of_a_direct_computation(load: Callable[..., Model]) -> None:
    assert_as_by_hand(load("llama", EXACT), EXACT, 1e-5)


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


def test_a_prompt_is_read_once_for_all_its_answers(load: Callable[..., Model], opened: Callable) -> None:
    """But for its last token, whose logits every answer is scored with; the answers share nothing."""
    answers = [make_answer(text) for text in (TEXT, "the cat", "a dog sees")]
    model = load("llama", EXACT)
    scorer, template = opened(make_scorer(model, engine=EXACT)), opened(ChatTemplate(model))
    question, prefixes = [Message("user", answers[0].prompt)], {*scorer.metrics(PREFER).values()}
    prompts = sorted(template.tokens(question, text, Prompting(placement="system")) for text in prefixes)
    one_by_one = [scores_of(scorer, answer, PREFER) for answer in answers]
    n_alone = scorer.reader.n_fed
    together = scorer.scores(answers, PREFER)
    n_together = scorer.reader.n_fed - n_alone
    n_shared = [0, *(common_prefix(a, b) for a, b in pairwise(prompts))]  # with the prompt before, also of one answer
    saved = sum(len(prompt) - 1 - n for prompt, n in zip(prompts, n_shared, strict=True))
    assert n_alone - n_together == 2 * saved > n_alone / 3
    for alone, beside in zip(one_by_one, together, strict=True):
        assert beside == pytest.approx(alone, abs=1e-5)


def test_an_answer_that_cannot_be_scored_has_no_scores(load: Callable[..., Model], opened: Callable) -> None:
    scorer = opened(make_scorer(load("llama")))  # with a context of 512 tokens
    assert scores_of(scorer, make_answer("", finish_reason="length"), PREFER) == {}
    assert scores_of(scorer, make_answer("the cat " * 600), PREFER) == {}
    to_say_nothing = scores_of(scorer, make_answer(""), PREFER)  # is an answer
    assert set(to_say_nothing) == set(scorer.metrics(PREFER))


@pytest.mark.slow
def test_the_same_answer_has_the_same_scores_to_the_bit(scorer: Scorer) -> None:
    first, other, again = (scores_of(scorer, make_answer(text), PREFER) for text in (TEXT, TEXT[:20], TEXT))
    assert first == again != other


@pytest.mark.parametrize("kind", ["llama", "space_prefix", "tekken", "recurrent", "sliding_window"])
def test_every_kind_of_model_scores(load: Callable[..., Model], opened: Callable, kind: str) -> None:
    scores = scores_of(opened(make_scorer(load(kind))), make_answer("the cat sees <|im_end|> the sun"), ["vivid"])
    assert set(scores) == {"reward:vivid", "fluency", "prompting"}


def test_an_answer_is_tokenized_as_a_continuation_of_its_prompt(load: Callable[..., Model]) -> None:
    model = load("space_prefix")
    prompt = model.tokenize("<|im_start|>assistant\n", special=True)
    assert model.text(tokens_after(model, prompt, "cat")) == "cat"  # without the space that begins a text
    assert not any(map(model.is_control, tokens_after(model, prompt, "<|im_end|>cat</s>")))
