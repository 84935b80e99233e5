"""The filters have the same results as in llama.cpp, with and without the short list."""

from __future__ import annotations

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib

from pjlocal import PersonaJudge, Sampling
from pjlocal.decoding.judge import Distribution
from pjlocal.engine.filters import FilterChain
from pjlocal.engine.policies import Row
from pjlocal.engine.shortlist import InvalidLogits, make_shortlist
from pjlocal.errors import UsageError
from pjlocal.request import Request


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    with np.errstate(over="ignore"):
        weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return weights / weights.sum()


def distribution(judge: PersonaJudge, logits: np.ndarray, prompt: tuple[int, ...] = (), **filters) -> Distribution:
    chain = FilterChain(judge.model, Sampling(**filters), prompt, (0, 1))
    return chain(chain.shorten(logits))


@pytest.fixture(scope="module")
def logits(vivid_and_creative: PersonaJudge) -> np.ndarray:
    n_vocab = vivid_and_creative.model.n_vocab
    return (3 * np.random.default_rng(1).standard_normal(n_vocab)).astype(np.float32)


@pytest.mark.parametrize("n", [50, 600, 4096, 49_152, 50_001, 100_003, 128_256, 262_144])
@pytest.mark.parametrize("k", [1, 20, 64])
def test_the_short_list_contains_the_k_greatest(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    for _ in range(20):
        logits = rng.standard_normal(n).astype(np.float32)
        if rng.random() < 0.5:
            logits = np.round(logits)  # many equals
        if rng.random() < 0.2:
            logits[-3:] = 9
        ids = make_shortlist(k, n)(logits)
        assert np.all(np.diff(ids) > 0)
        kth = np.sort(logits)[-min(k, n)]
        assert set(np.flatnonzero(logits > kth)) <= set(ids.tolist())
        assert np.sum(logits[ids] >= kth) >= min(k, n)


def test_the_default_filters_by_hand(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    """Top-k 20, then top-p 0.9 of what is left, then temperature 0.7: llama.cpp's order."""
    got = distribution(vivid_and_creative, logits)
    top = np.argsort(-logits)[:20]
    keep = top[: int(np.searchsorted(np.cumsum(softmax(logits[top])), 0.9)) + 1]
    expected = dict(zip(keep.tolist(), softmax(logits[keep] / np.float32(0.7)), strict=True))
    assert got.ids.tolist() == sorted(expected)
    np.testing.assert_allclose(got.probs, [expected[i] for i in got.ids.tolist()], rtol=1e-5)


def test_no_filter_at_all_is_the_models_own_softmax(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    got = distribution(vivid_and_creative, logits, temperature=1.0, top_k=0, top_p=1.0)
    assert len(got.ids) == len(logits)
    np.testing.assert_allclose(got.probs, softmax(logits), rtol=1e-5)


def test_temperature_0_keeps_only_the_greatest_logit(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    for filters in ({}, {"top_k": 0, "top_p": 1.0}):
        got = distribution(vivid_and_creative, logits, temperature=0.0, **filters)
        assert got.ids.tolist() == [int(logits.argmax())]
        assert got.probs.tolist() == [1.0]


def test_min_p_drops_below_a_share_of_the_best(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    got = distribution(vivid_and_creative, logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.1)
    p = softmax(logits)
    assert got.ids.tolist() == np.flatnonzero(p >= 0.1 * p.max()).tolist()


def test_top_n_sigma_drops_what_is_too_many_deviations_below_the_best(vivid_and_creative, logits: np.ndarray) -> None:
    got = distribution(vivid_and_creative, logits, top_n_sigma=1.5, top_k=0, top_p=1.0)
    assert got.ids.tolist() == np.flatnonzero(logits >= logits.max() - 1.5 * logits.std()).tolist()


def test_the_repeat_penalty_sees_the_prompts_end_and_the_answer(vivid_and_creative, logits: np.ndarray) -> None:
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    best = int(logits.argmax())
    penalized = logits.copy()
    penalized[best] /= np.float32(1.5)
    got = distribution(vivid_and_creative, logits, prompt=(best,), repeat_penalty=1.5, **off)
    np.testing.assert_allclose(got.probs, softmax(penalized), rtol=1e-4)
    chain = FilterChain(vivid_and_creative.model, Sampling(repeat_penalty=1.5, **off), [], (0, 1))
    np.testing.assert_allclose(chain(chain.shorten(logits)).probs, softmax(logits), rtol=1e-4)
    ahead = chain.clone()
    ahead.accept(best)
    np.testing.assert_allclose(ahead(ahead.shorten(logits)).probs, softmax(penalized), rtol=1e-4)
    np.testing.assert_allclose(chain(chain.shorten(logits)).probs, softmax(logits), rtol=1e-4)


def test_logit_bias_by_id_and_by_text(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    (hello,) = vivid_and_creative.model.tokenize("hello", special=False)
    biased = logits.copy()
    biased[hello] += np.float32(7)
    for name in ("hello", str(hello)):
        got = distribution(vivid_and_creative, logits, logit_bias=(f"{name}=7",), **off)
        np.testing.assert_allclose(got.probs, softmax(biased), rtol=1e-4)
    assert distribution(vivid_and_creative, logits, logit_bias=(f"{hello}=-inf",), **off).prob(hello) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_invalid_logit_is_enough(logits: np.ndarray, bad: float) -> None:
    """A `Row` is checked before the filters read it."""
    damaged = logits.copy()
    damaged[777] = bad
    with pytest.raises(InvalidLogits, match="invalid logits"):
        Row(damaged)


def test_xtc_acts_by_chance_and_only_where_there_is_a_choice(vivid_and_creative, logits: np.ndarray) -> None:
    """With probability 1/2 the top choices above the threshold but the least of them go; the chance is by position."""
    filters = Sampling(temperature=1.0, xtc_probability=0.5, xtc_threshold=0.05, top_k=20, top_p=1.0)
    chain = FilterChain(vivid_and_creative.model, filters, [], (0, 1))
    twin = chain.clone()
    best = int(logits.argmax())

    def keeps(chain: FilterChain) -> bool:
        kept = chain(chain.shorten(logits)).prob(best) > 0
        chain.accept(best)
        return kept

    kept = [keeps(chain) for _ in range(200)]
    assert 60 < sum(kept) < 140, "outside this a fair chance falls once in ten million runs"
    assert [keeps(twin) for _ in range(200)] == kept, "the chance belongs to the position"


def test_the_filters_keep_the_same_tokens_as_llama_cpp(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    """The same filters run by llama.cpp alone over the whole vocabulary, without the short list."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_top_k(40), lib.llama_sampler_init_typical(0.9, 1), lib.llama_sampler_init_top_p(0.95, 1),
        lib.llama_sampler_init_min_p(0.05, 1), lib.llama_sampler_init_temp(0.8), lib.llama_sampler_init_dist(1),
    ):  # fmt: skip
        lib.llama_sampler_chain_add(chain, sampler)
    data = (lib.llama_token_data * len(logits))(*[(i, float(x), 0.0) for i, x in enumerate(logits)])
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(chain, array)
    expected = {array.data[i].id: array.data[i].p for i in range(array.size)}
    lib.llama_sampler_free(chain)
    got = distribution(
        vivid_and_creative, logits, top_k=40, typical_p=0.9, top_p=0.95, min_p=0.05, temperature=0.8
    )  # fmt: skip
    assert got.ids.tolist() == sorted(expected)
    np.testing.assert_allclose(got.probs, [expected[i] for i in got.ids.tolist()], rtol=1e-4)


def test_a_grammar_needs_no_room_for_temporary_files(
    vivid_and_creative: PersonaJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, or one that cannot be written to."""

    def full() -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    vivid_and_creative.check(Request(sampling=Sampling(grammar='root ::= "yes"')))
    with pytest.raises(UsageError, match="cannot be parsed"):
        vivid_and_creative.check(Request(sampling=Sampling(grammar="root ::= (")))


@pytest.mark.parametrize("grammar", ['root ::= "a"{3,1}', 'root ::= "a"{2,0}', 'root ::= "a"{99999999999999999999}'])
def test_a_grammar_with_an_impossible_repetition_is_refused(vivid_and_creative, grammar: str) -> None:
    """llama.cpp would take all memory."""
    with pytest.raises(UsageError, match="the grammar cannot be parsed: it repeats something"):
        vivid_and_creative.check(Request(sampling=Sampling(grammar=grammar)))


def test_a_grammar_may_write_what_looks_like_a_repetition(vivid_and_creative: PersonaJudge) -> None:
    vivid_and_creative.check(Request(sampling=Sampling(grammar='root ::= "{3,1}" [{}3,1] "b"{1,3} # {9,1}')))


def test_the_vocabularys_last_tokens_are_on_the_short_list_only_if_they_are_probable() -> None:
    """Else an improbable one would take the place of a better token where others are forbidden."""
    n, k = 2048 * 3 + 1, 20  # one token is outside the table
    logits = np.random.default_rng(3).standard_normal(n).astype(np.float32)
    for value, is_listed in ((-9.0, False), (9.0, True)):
        logits[-1] = value
        assert (n - 1 in make_shortlist(k, n)(logits)) is is_listed
    logits[-1] = np.nan
    with pytest.raises(InvalidLogits):
        make_shortlist(k, n)(logits)
