"""Every number that a setting accepts has the right effect, also beyond the limits of float32, which llama.cpp uses."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import test_filters
from test_filters import softmax

from pjlocal import PersonaJudge, Sampling
from pjlocal.errors import ModelError

SEEN = (1, 2, 3, 400, 1, 2, 3, 400, 1, 2, 3)  # the prompt: what DRY would go on with is 400
TINY = [1e-30, 1e-38, 1e-40, 1e-45, 1e-46, 1e-320]
ALL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}  # no filter


@pytest.fixture(scope="module")
def logits(vivid_and_creative: PersonaJudge) -> np.ndarray:
    """The second greatest is the next float32 below the greatest."""
    rng = np.random.default_rng(1)
    logits = (5 * rng.standard_normal(vivid_and_creative.model.n_vocab)).astype(np.float32)
    logits[400] = logits.max() + 1
    logits[4_000] = np.nextafter(logits[400], np.float32(0))
    return logits


distribution = partial(test_filters.distribution, prompt=SEEN)


def reference(logits: np.ndarray, s: Sampling) -> dict[int, float]:
    """The filters in float64, as their papers and llama.cpp's documentation have them; XTC's chance is certainty."""
    x = logits.astype(np.float64)
    for entry in s.logit_bias:
        token, _, bias = entry.partition("=")
        x[int(token)] += float(bias)
    for token, count in Counter(SEEN[-s.penalty_last_n :]).items():
        x[token] = x[token] * s.repeat_penalty if x[token] <= 0 else x[token] / s.repeat_penalty
        x[token] -= count * s.frequency_penalty + s.presence_penalty
    if s.dry_multiplier:
        with np.errstate(over="ignore"):
            # "1 2 3" came before 400 and stands at the end, "1 2 3 400 1 2 3" only at the end
            x[400] -= np.float64(s.dry_multiplier) * np.float64(s.dry_base) ** (3 - s.dry_allowed_length)
    ids = np.argsort(-x, kind="stable")
    ids = ids[x[ids] > -np.inf]
    ids = ids[: s.top_k or None]
    if s.typical_p < 1:
        p = softmax(x[ids])
        find_unusual = -np.log(np.maximum(p, 1e-300))
        order = np.argsort(abs(find_unusual - (p * find_unusual).sum()), kind="stable")
        ids = ids[order][: int(np.searchsorted(np.cumsum(p[order]), s.typical_p, side="right")) + 1]
        ids = ids[np.argsort(-x[ids], kind="stable")]
    if s.top_p < 1:
        ids = ids[: int(np.searchsorted(np.cumsum(softmax(x[ids])), s.top_p)) + 1]
    if s.min_p:
        p = softmax(x[ids])
        ids = ids[p >= s.min_p * p[0]]
    if s.xtc_probability and (above := int((softmax(x[ids]) >= s.xtc_threshold).sum())) > 1:
        ids = ids[above - 1 :]
    return dict(zip(ids.tolist(), softmax(x[ids], s.temperature).tolist(), strict=True))


EXTREMES = [
    *({"temperature": t, "top_k": k, "top_p": 1.0} for t in (1e-3, 1e-6, *TINY) for k in (0, 20)),
    *({"temperature": t, "top_k": k, "top_p": 0.9} for t in (1e4, 1e30, 3e38, 1e39, 1e308) for k in (0, 20)),
    *({"temperature": t, "top_k": 0, "logit_bias": ("7=-inf", "8=-1e6")} for t in (1e-38, 1e30, 1e308)),
    *({"temperature": t, "logit_bias": ("7=1000000",)} for t in (1e-38, 1.0)),
    *({**ALL, "temperature": 1e-38, "xtc_probability": 1.0, "xtc_threshold": x} for x in (0.0, 0.1)),
    *({**ALL, "min_p": p} for p in (*TINY, 1 - 1e-12, 1.0)),
    *({**ALL, "top_p": p} for p in (*TINY, 1 - 1e-12)),
    *({**ALL, "typical_p": p} for p in (*TINY, 0.9)),
    *({**ALL, "typical_p": 0.9, "logit_bias": (b,)} for b in ("7=-inf", "7=-1e30", "7=1000", "7=1000000")),
    *({**ALL, "top_k": 20, "typical_p": 0.9, "logit_bias": (b,)} for b in ("7=-inf", "7=1000")),
    *({**ALL, "repeat_penalty": r} for r in (0.001, 1000.0)),
    *({**ALL, "repeat_penalty": r, "logit_bias": ("1=1000000", "2=-3e38")} for r in (0.001, 1000.0)),
    *({**ALL, "frequency_penalty": f, "presence_penalty": -f} for f in (-1000.0, 1e-46, 1000.0)),
    *({**ALL, "logit_bias": (f"7={b}",)} for b in ("1e-320", "1000000", "-1e30", "-1e308", "-1e400")),
    *({**ALL, "dry_multiplier": m, "dry_base": 1.75} for m in (1e-46, 1e30, 1e308)),
    *({**ALL, "dry_multiplier": 1.0, "dry_base": b} for b in (1.0, 1e30, 1e39, 1e308)),
    *({**ALL, "xtc_probability": 1.0, "xtc_threshold": x} for x in (0.0, *TINY, 0.5, 1.0)),
    *({**ALL, "xtc_probability": 1.0, "xtc_threshold": 0.0, "logit_bias": (b,)} for b in ("7=-inf", "7=-1000")),
]


@pytest.mark.parametrize("filters", EXTREMES, ids=str)
def test_an_extreme_value_gives_what_float64_gives(vivid_and_creative, logits: np.ndarray, filters) -> None:
    got = distribution(vivid_and_creative, logits, **filters)
    expected = reference(logits, Sampling(**filters))
    probs = np.array([expected.pop(i, 0.0) for i in got.ids.tolist()])
    np.testing.assert_allclose(got.probs, probs, rtol=2e-3, atol=1e-7)
    assert sum(expected.values()) < 1e-7, "what is not there is no more than rounding"


def test_the_coldest_temperature_is_not_zero(vivid_and_creative: PersonaJudge, logits: np.ndarray) -> None:
    """At 0 the first of equals is taken; in the limit they share."""
    equals = logits.copy()
    equals[40_000] = equals[400]
    assert distribution(vivid_and_creative, equals, temperature=0.0).ids.tolist() == [400]
    for t in TINY:
        got = distribution(vivid_and_creative, equals, temperature=t)
        assert (got.ids.tolist(), got.probs.tolist()) == ([400, 40_000], [0.5, 0.5])


@pytest.mark.parametrize(
    "filters", [{}, {"temperature": 0.0}, {"top_k": 1}, {"typical_p": 0.9}, {"xtc_probability": 1.0, "min_p": 0.1}]
)
def test_no_token_is_written_if_all_are_forbidden(vivid_and_creative, logits: np.ndarray, filters) -> None:
    forbidden = ("a=-inf",)
    with pytest.raises(ModelError, match="the filters drop every token"):
        distribution(vivid_and_creative, logits, grammar='root ::= "a"', logit_bias=forbidden, **filters)


@pytest.mark.parametrize("threshold", [0.0, 1e-46, 0.1])
def test_xtc_never_leaves_a_token_that_the_grammar_forbids(vivid_and_creative, logits, threshold: float) -> None:
    xtc = {"xtc_probability": 1.0, "xtc_threshold": threshold}
    got = distribution(vivid_and_creative, logits, **ALL, **xtc, grammar='root ::= "a" | "b"')
    text = [vivid_and_creative.model.piece(i) for i in got.ids.tolist()]
    assert text and set(text) <= {b"a", b"b"}


def test_unlimited_look_back_needs_limited_memory(vivid_and_creative, logits: np.ndarray) -> None:
    """llama.cpp allocates memory for every token to look back on: 8 GiB and more for these values."""
    most = 2**31 - 1
    penalties = {"repeat_penalty": 1.5, "penalty_last_n": most, "dry_multiplier": 1.0, "dry_last_n": most}
    got = distribution(vivid_and_creative, logits, **ALL, **penalties)
    enough = distribution(vivid_and_creative, logits, **ALL, **{**penalties, "penalty_last_n": 64, "dry_last_n": 64})
    assert got.probs.tolist() == enough.probs.tolist()
