"""The filters (top-k, temperature, ...) of a view: llama.cpp's own samplers, so that each works as in llama.cpp."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from ..decoding.judge import Distribution, Uniforms
from ..errors import RefusedError, UsageError
from ..settings import Generation, Sampling, split_bias
from .constraint import Constraint, Gate, Mask, cannot_begin
from .gbnf import parse_grammar
from .model import Model
from .shortlist import INVALID_LOGITS, LONGEST, Shortlist, make_shortlist

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_ROOM = 256  # candidates that fit at first

#: Temperatures for which llama.cpp computes the softmax, in float32; outside, NumPy does.  Below, rounding errors of
#: 2e-6 in logits near 20 grow to 2e-3 and more (NaN at 1e-38); above, float32 makes the temperature infinite.
_COLDEST, _HOTTEST = 1e-3, float(np.finfo(np.float32).max)
_LEAST_SHARE = 1e-37  # of the best token's probability: float32 can still divide it by the sum of all probabilities
_FARTHEST = 2**20  # the most tokens to look back: llama.cpp allocates memory for all of them


class _TokenDataArray(ctypes.Structure):
    """llama_token_data_array with its pointer as an integer, which Python reads ten times as fast."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    ]


def against_repetition(sampling: Sampling) -> Sampling:
    """The settings with a DRY penalty on what the answer repeats; unchanged if they have a penalty, or DRY is set to 0.

    The sum of several pushes is sharper than any one view, and a small model then repeats itself.  If no other length
    is set, six tokens are allowed, which is more than most names have.
    """
    if sampling.dry_multiplier is not None or _has_penalties(sampling):
        return sampling
    length = sampling.dry_allowed_length
    if length == Sampling().dry_allowed_length:
        length = 6
    return sampling.replace(dry_multiplier=0.8, dry_allowed_length=length)


def _has_penalties(s: Sampling) -> bool:
    return bool(s.repeat_penalty != 1.0 or s.frequency_penalty or s.presence_penalty)


class NothingLeft(RefusedError):
    """The filters drop every token."""


class Candidates(NamedTuple):
    """Tokens for the filters: ids (integers [n]) and their logits (float32 [n])."""

    ids: NDArray[Any]
    logits: NDArray[np.float32]


class FilterChain:
    """The filters of one view, which turn logits into candidates, and candidates into a `judge.Distribution`.

    The order is llama.cpp's: grammar (or constraint), logit bias, penalties, DRY, top-n-sigma, top-k, typical, top-p,
    min-p, XTC, temperature.
    Penalties and DRY also count the tokens at the end of the prompt, as in llama.cpp's own programs.

    Args:
        prompt: the view's prompt tokens.
        randomness: seed of XTC, whose draws depend on the position alone, so that all schedules agree.
        constraint: the constraint on the answer, shared by all views.
        gate: where the answer begins; by default at the first token.
        counted: where the tokens begin that penalties and DRY count; DRY then finds repetitions across lines and quotes
            too.  By default they count all tokens and the prompt's end, and DRY stops at lines, as in llama.cpp.

    Raises:
        UsageError: the grammar or a logit bias cannot be parsed.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        prompt: Sequence[int],
        randomness: tuple[int, ...],
        constraint: Constraint | None = None,
        gate: Gate | None = None,
        counted: Gate | None = None,
    ) -> None:
        self._model = model
        self._sampling = sampling
        self._position = 0  # position of the next token in the answer
        self._xtc_chance = Uniforms(randomness, columns=1)
        self._make_room(_ROOM)
        self._constraint = constraint
        self._gate = gate
        self._counted = counted
        biases = [parse_bias(model, entry) for entry in sampling.logit_bias]
        self._favoured = np.array(sorted({token for token, bias in biases if bias > 0}), np.intp)
        self._grammar = parse_grammar(model, sampling.grammar) if sampling.grammar is not None else None
        whole = _sees_whole_vocabulary(model, sampling, biases, breaks=counted is None)
        cut = _cutting(sampling)
        xtc = sampling.xtc_probability > 0
        self._in_float32 = sampling.temperature == 0 or _COLDEST <= sampling.temperature <= _HOTTEST
        end = _softmax_by_llama(sampling) if self._in_float32 else []
        self._whole = _chain(whole) if whole else None
        #: The place of DRY in that chain; None without it.
        self._dry = next((i for i, each in enumerate(whole) if lib.llama_sampler_name(each) == b"dry"), None)
        self._shortlist = self._make_shortlist()
        self._masked: NDArray[np.float32] | None = None  # a row of logits without the forbidden tokens
        self._cut = _chain(cut if xtc else [*cut, *end])
        self._xtc = _chain([lib.llama_sampler_init_xtc(1.0, sampling.xtc_threshold, 1, 0)]) if xtc else None
        self._end = _chain(end) if xtc else None
        self._own()
        if self._whole and counted is None:
            for token in prompt[-max(sampling.penalty_last_n, sampling.dry_last_n) :]:
                lib.llama_sampler_accept(self._whole, token)

    def _own(self) -> None:
        samplers = filter(None, (self._grammar, self._whole, self._cut, self._xtc, self._end))
        weakref.finalize(self, _free, [*samplers]).atexit = False  # another thread may be using the samplers

    def _make_shortlist(self) -> Shortlist | None:
        """The short list for top-k; None if the filters must see the whole vocabulary."""
        top_k, n_vocab = self._sampling.top_k, self._model.n_vocab
        if self._grammar or self._whole or not 0 < top_k <= LONGEST:
            return None
        return make_shortlist(top_k, n_vocab)

    def clone(self) -> FilterChain:
        twin = object.__new__(FilterChain)
        twin.__dict__ = self.__dict__.copy()
        for name in ("_grammar", "_whole", "_cut", "_xtc", "_end"):
            if sampler := getattr(self, name):
                setattr(twin, name, lib.llama_sampler_clone(sampler))
        if self._constraint:
            twin._constraint = self._constraint.clone()
        twin._shortlist = twin._make_shortlist()
        twin._masked = None
        twin._make_room(_ROOM)
        twin._own()
        return twin

    def accept(self, token: int) -> None:
        """Advance by an emitted token."""
        if self._binds:
            if self._constraint:
                self._constraint.accept(self._position, token)
            if self._grammar:
                lib.llama_sampler_accept(self._grammar, token)
        if self._whole and self._has_begun(self._counted):
            lib.llama_sampler_accept(self._whole, token)
        self._position += 1

    def shorten(self, logits: NDArray[np.float32]) -> Candidates:
        """The candidates in float32 [n_vocab] logits: a short list if top-k is the first filter, else all tokens."""
        governed = self._grammar and self._binds  # the mask is applied after the grammar
        if not governed and (mask := self._mask()):
            return self._permitted(logits, mask)
        if self._shortlist is None:
            return Candidates(np.arange(len(logits), dtype=np.int32), logits)
        ids = self._shortlist(logits)
        return Candidates(ids, logits[ids])

    def _permitted(self, logits: NDArray[np.float32], mask: Mask) -> Candidates:
        """The candidates that the constraint allows, as if the logits of all other tokens were minus infinity."""
        if self._shortlist is None or mask.is_narrow:
            return Candidates(mask.ids, logits[mask.ids])
        ids = self._shortlist(logits)
        ids = ids[mask.allows(ids)]
        if len(ids) < self._sampling.top_k:  # forbidden tokens took places in the list
            if self._masked is None:
                self._masked = np.empty_like(logits)
            np.copyto(self._masked, logits)
            np.copyto(self._masked, -np.inf, where=mask.forbidden)
            ids = self._shortlist(self._masked)
            ids = ids[mask.allows(ids)]
        return Candidates(ids, logits[ids])

    @property
    def _binds(self) -> bool:
        """True if the constraint or grammar applies to the next token."""
        return self._has_begun(self._gate)

    def _has_begun(self, part: Gate | None) -> bool:
        return part is None or (part.start is not None and self._position >= part.start)

    @property
    def _openings(self) -> Collection[int]:
        """Tokens that are allowed regardless of the constraint or grammar."""
        return self._gate.openings if self._gate and self._position == 0 else ()

    def _mask(self) -> Mask | None:
        """The tokens that the constraint allows next; None for all."""
        if self._constraint is None:
            return None
        if not self._binds:
            return self._constraint.mask_of_thoughts
        mask = self._constraint.mask()
        return mask.with_tokens(self._openings) if self._openings else mask

    def begin(self, tokens: Sequence[int], spelled: Sequence[int]) -> None:
        """Advance by the answer's tokens that precede the first written one; see `Constraint.begin` for constraints.

        Args:
            spelled: the tokens that spell this beginning for the grammar.

        Raises:
            UsageError: the answer cannot begin with them.
        """
        for token in spelled if self._grammar else ():
            self._fill(Candidates(np.array([token], np.int32), np.zeros(1, np.float32)))
            lib.llama_sampler_apply(self._grammar, self._array_pointer)
            if self._logits[0] == -np.inf:  # accepting it, llama.cpp would abort the process
                raise cannot_begin(self._model.text(tokens))
            lib.llama_sampler_accept(self._grammar, token)
        for token in tokens if self._whole and self._counted else ():
            lib.llama_sampler_accept(self._whole, token)

    def _apply_grammar(self) -> None:
        n = self._array.size
        before = self._data[:n].copy() if self._openings else None
        lib.llama_sampler_apply(self._grammar, self._array_pointer)
        if before is not None:
            spared = np.isin(before["id"], list(self._openings))
            self._logits[:n][spared] = before["logit"][spared]
        if mask := self._mask():  # of --min-tokens: an answer ends earlier only if the grammar allows nothing else
            logits, allowed = self._logits[:n], mask.allows(self._ids[:n])
            if logits[allowed].max(initial=-np.inf) > -np.inf:
                logits[~allowed] = -np.inf

    def permitted(
        self, logits: NDArray[np.float32], choose: Callable[[NDArray[np.float32]], NDArray[np.intp]]
    ) -> NDArray[np.intp]:
        """Ascending ids of the tokens that ``choose`` selects from the [m] logits of the allowed tokens."""
        mask = self._mask()
        if mask is None:
            return choose(logits)
        ids = mask.ids
        chosen: NDArray[np.intp] = ids[choose(logits[ids])]
        return chosen

    def favoured(self) -> list[NDArray[np.intp]]:
        """The ids of the tokens with a positive logit bias that the constraint allows, in one array; none if empty."""
        if not self._favoured.size:
            return []
        mask = self._mask()
        return [self._favoured if mask is None else self._favoured[mask.allows(self._favoured)]]

    def repeated(self, ids: NDArray[np.intp]) -> NDArray[np.intp]:
        """The ids of those tokens that DRY penalizes next."""
        if self._dry is None:
            return ids[:0]
        self._fill(Candidates(ids, np.zeros(len(ids), np.float32)))
        lib.llama_sampler_apply(lib.llama_sampler_chain_get(self._whole, self._dry), self._array_pointer)
        return ids[self._logits[: len(ids)] < 0]

    def __call__(self, row: NDArray[np.float32] | Candidates) -> Distribution:
        """The distribution of the next token, from logits or candidates."""
        if isinstance(row, np.ndarray):
            row = self.shorten(row)
        self._fill(row)
        array = self._array_pointer
        if self._grammar and self._binds:
            self._apply_grammar()
        if self._whole:
            lib.llama_sampler_apply(self._whole, array)
        if self._shortlist is None:
            self._drop_forbidden()
        lib.llama_sampler_apply(self._cut, array)
        if self._xtc:
            if self._xtc_chance[self._position][0] < self._sampling.xtc_probability:
                lib.llama_sampler_apply(self._xtc, array)
            lib.llama_sampler_apply(self._end, array)
        ids, logits, probs = self._survivors()
        return _distribution(ids, probs if self._in_float32 else _softmax(logits, self._sampling.temperature))

    def _fill(self, candidates: Candidates) -> None:
        n = len(candidates.ids)
        if len(self._ids) < n:
            self._make_room(n)
        self._ids[:n] = candidates.ids
        self._logits[:n] = candidates.logits
        array = self._array
        array.data = self._address
        array.size = n
        array.selected = -1
        array.sorted = False

    def _make_room(self, n: int) -> None:
        """Make a llama_token_data_array for n candidates.  It is reused, because making it costs more than filling."""
        self._data = np.empty(n, _TOKEN_DATA)
        self._ids, self._logits, self._probs = (self._data[name] for name in ("id", "logit", "p"))
        self._address = self._data.ctypes.data
        self._array = _TokenDataArray()
        self._array_pointer = ctypes.cast(ctypes.byref(self._array), lib.llama_token_data_array_p)

    def _drop_forbidden(self) -> None:
        """Drop tokens whose logit is -inf, because llama.cpp's filters count them.

        Such a token has probability 1 when it is alone, is XTC's least probable token, and makes the entropy in
        typical NaN, so that nearly all tokens pass.
        """
        n = self._array.size
        allowed = self._logits[:n] > -np.inf
        if allowed.all():
            return
        left = self._data[:n][allowed]
        if not left.size:
            raise NothingLeft("the filters drop every token: loosen them")
        self._data[: left.size] = left
        self._array.size = left.size

    def _survivors(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Ids, logits and probabilities in the array after the filters; llama.cpp may have moved the array."""
        size = self._array.size
        if self._array.data == self._address:
            return self._ids[:size], self._logits[:size], self._probs[:size]
        buffer = (ctypes.c_char * (size * _TOKEN_DATA.itemsize)).from_address(self._array.data)
        data = np.frombuffer(buffer, _TOKEN_DATA)
        return data["id"], data["logit"], data["p"]


def _softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """softmax(logits / t), for any t above 0."""
    with np.errstate(over="ignore"):  # an overflow to -inf gives the right probability, 0
        weights: NDArray[np.float64] = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    weights /= weights.sum()
    return weights


def _distribution(ids: NDArray[np.int32], probs: NDArray[np.floating[Any]]) -> Distribution:
    """The candidates that survived, in order of their ids."""
    order = ids.argsort()
    ids, p = ids[order], probs[order].astype(np.float64)
    if p[p.argmin()] > 0.0:
        return Distribution(ids, p)
    keep = p > 0.0  # a filter may leave forbidden tokens in place, with probability 0
    if not keep.any():
        raise NothingLeft(INVALID_LOGITS)
    return Distribution(ids[keep], p[keep])


def _sees_whole_vocabulary(model: Model, s: Sampling, biases: Sequence[tuple[int, float]], breaks: bool) -> list[Any]:
    samplers = []
    if biases:
        table = (lib.llama_logit_bias * len(biases))(*biases)
        samplers.append(lib.llama_sampler_init_logit_bias(model.n_vocab, len(biases), table))
    if _has_penalties(s):
        samplers.append(
            lib.llama_sampler_init_penalties(
                model.n_vocab,
                min(s.penalty_last_n, _FARTHEST),
                s.repeat_penalty,
                s.frequency_penalty,
                s.presence_penalty,
            )
        )
    if s.dry_multiplier:
        breakers = (ctypes.c_char_p * 4)(b"\n", b":", b'"', b"*")  # llama.cpp's own
        samplers.append(
            lib.llama_sampler_init_dry(
                model.vocab,
                s.dry_multiplier,
                s.dry_base,
                s.dry_allowed_length,
                min(s.dry_last_n, _FARTHEST),
                ctypes.cast(breakers, ctypes.POINTER(ctypes.c_char_p)),
                len(breakers) if breaks else 0,
            )
        )
    if s.top_n_sigma:
        samplers.append(lib.llama_sampler_init_top_n_sigma(s.top_n_sigma))
    return samplers


def _cutting(s: Sampling) -> list[Any]:
    samplers = []
    if s.top_k:
        samplers.append(lib.llama_sampler_init_top_k(s.top_k))
    if s.typical_p < 1:
        samplers.append(lib.llama_sampler_init_min_p(_LEAST_SHARE, 1))  # llama.cpp computes 0 log 0 as NaN
        samplers.append(lib.llama_sampler_init_typical(s.typical_p, 1))
    if s.top_p < 1:
        samplers.append(lib.llama_sampler_init_top_p(s.top_p, 1))
    if s.min_p:
        samplers.append(lib.llama_sampler_init_min_p(s.min_p, 1))
    return samplers


def _softmax_by_llama(s: Sampling) -> list[Any]:
    """The temperature, and the sampler that computes probabilities (its own draw is not used)."""
    return [lib.llama_sampler_init_temp(s.temperature), lib.llama_sampler_init_dist(0)]


_MOST_DIGITS = 18  # of a token's id; Python refuses to parse thousands of digits


def parse_bias(model: Model, entry: str) -> tuple[int, float]:
    """Parse ``TOKEN=BIAS``, where TOKEN is an id or the text of one token.

    Raises:
        UsageError: the form is wrong, the text is not one token, or the id does not exist.
    """
    text, bias = split_bias(entry)
    return parse_token(model, text, f"--logit-bias {entry!r}"), bias


def parse_token(model: Model, text: str, what: str) -> int:
    """The token with this id, or with this text if the text is a single token.

    Args:
        what: the setting and its value, for errors.

    Raises:
        UsageError: not one token, or no such id.
    """
    if text.isdecimal():
        if len(text) > _MOST_DIGITS or int(text) >= model.n_vocab:
            raise UsageError(f"{what}: the model has tokens 0 to {model.n_vocab - 1}")
        return int(text)
    tokens = model.tokenize(text, special=True)
    if len(tokens) != 1:
        raise UsageError(f"{what}: {text!r} is {len(tokens)} tokens of this model, not one: {tokens}")
    return tokens[0]


def parse_stop_tokens(model: Model, generation: Generation) -> set[int]:
    """The tokens of ``--stop-token``.  Raises the errors of `parse_token`."""
    return {parse_token(model, text, f"--stop-token {text!r}") for text in generation.stop_token}


def _chain(samplers: Sequence[Any]) -> Any:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in samplers:
        lib.llama_sampler_chain_add(chain, sampler)
    return chain


def _free(samplers: Sequence[Any]) -> None:
    for sampler in samplers:
        lib.llama_sampler_free(sampler)
