"""Constraints on the answer: a JSON schema, a regular expression or a Lark grammar, enforced by llguidance; or a least
number of tokens.

All views read the same emitted tokens, so they share one matcher; its mask is applied to each view's logits.
"""

from __future__ import annotations

import ctypes
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..errors import RefusedError, UsageError
from ..settings import Sampling

if TYPE_CHECKING:  # imported only for a constraint, because it takes time; a configuration is checked without llama.cpp
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

    from .model import Model

# llguidance recurses at each rule that refers to another, and crashes on 3,000.
_MOST_RULES = 1000
_RULE = re.compile(r"^[ \t]*[!?]*\w+[^:\n\"/]*:", re.MULTILINE)

_TOKEN = re.compile(r"<\[(\d+)\]>")  # a token by its number, in a Lark grammar

_MOST_CHOICES = 100_000  # llguidance's default of 2,000 is too small for an object of 510 properties, and not faster

_NARROW = 8  # a mask is narrow if fewer than one in 8 of its words has bits

#: White space between JSON's tokens: a space, or a line break with indentation, as in llama.cpp's own grammar.  A small
#: model may write white space without end.
_WHITE_SPACE = r"(?: |\n[ \t]{0,20})"
_ESCAPES = 'nrbtf\\"'  # without \u, which would allow two spellings of a name
_JSON: JsonCompileOptions = {
    "whitespace_pattern": _WHITE_SPACE,
    "json_allowed_escapes": _ESCAPES,
    "lenient": False,
    "coerce_one_of": False,
}


class Gate(Protocol):
    """The part of a text to which a constraint or grammar applies."""

    @property
    def start(self) -> int | None:
        """The position of the first token of that part; None before it begins."""

    @property
    def openings(self) -> Collection[int]:
        """Tokens that may begin the text even if the constraint does not allow them."""


class Mask:
    """The tokens that are allowed next.

    Args:
        words: one bit per token, uint32 [(n_vocab + 31) // 32].
    """

    def __init__(self, words: NDArray[np.uint32], n_vocab: int) -> None:
        self._words = words
        self._n_vocab = n_vocab
        (self._used,) = words.nonzero()
        self.is_narrow = len(self._used) * _NARROW <= len(words)

    def with_tokens(self, ids: Collection[int]) -> Mask:
        """A mask that allows these tokens too."""
        words = self._words.copy()
        for token in ids:
            words[token >> 5] |= np.uint32(1 << (token & 31))
        return Mask(words, self._n_vocab)

    def allows(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """A boolean for each of these tokens: True if it is allowed."""
        allowed: NDArray[np.bool_] = (self._words[ids >> 5] >> (ids & 31).astype(np.uint32) & 1).astype(np.bool_)
        return allowed

    @cached_property
    def ids(self) -> NDArray[np.intp]:
        """The allowed tokens, ascending."""
        bits = np.unpackbits(self._words[self._used].view(np.uint8), bitorder="little").reshape(-1, 32)
        word, bit = bits.nonzero()
        ids: NDArray[np.intp] = self._used[word] * 32 + bit
        return ids

    @cached_property
    def forbidden(self) -> NDArray[np.bool_]:
        """A boolean for every token: True if it is forbidden."""
        bits = np.unpackbits(self._words.view(np.uint8), count=self._n_vocab, bitorder="little")
        forbidden: NDArray[np.bool_] = bits == 0
        return forbidden


@dataclass(frozen=True)
class _Vocabulary:
    """A model's tokens, for llguidance and the masks."""

    tokenizer: LLTokenizer
    n_vocab: int
    all: NDArray[np.uint32]  # a bit is set for every token
    text: NDArray[np.uint32]  # a bit is set for each token with text
    ends: NDArray[np.uint32]  # a bit is set for each token that ends the answer

    @cached_property
    def mask_of_thoughts(self) -> Mask:
        """All tokens except those that end the answer."""
        return Mask(self.all & ~self.ends, self.n_vocab)


class Constraint:
    """The state of an answer under its constraint.

    Views share it: each calls `accept` for every emitted token, and only the first call for a position counts.

    Args:
        grammar: the grammar for llguidance; None if any text is allowed.
        min_tokens: least length of the answer in tokens; it ends earlier only if no other token is allowed.
        stop_tokens: further tokens that end the answer.

    Raises:
        UsageError: this model's tokens cannot spell the constraint.
    """

    def __init__(
        self, model: Model, grammar: str | None, min_tokens: int = 0, stop_tokens: Collection[int] = ()
    ) -> None:
        self._model = model
        self._vocabulary = _vocabulary(model)
        self._matcher = None if grammar is None else _matcher(self._vocabulary.tokenizer, grammar)
        self._text = self._vocabulary.text
        if named := [int(token) for token in _TOKEN.findall(grammar or "")]:  # these may be tokens without text
            self._text = self._text | _bits((token for token in named if token < model.n_vocab), model.n_vocab)
        self._min_tokens = min_tokens
        self._stops = _bits(stop_tokens, model.n_vocab)
        self._n_tokens = 0  # accepted
        self._position = 0
        self._mask: Mask | None = None
        if self._matcher and (error := self._matcher.get_error()):
            raise UsageError(f"the constraint cannot be used with this model: {_reason(error)}")

    def begin(self, tokens: Sequence[int]) -> None:
        """Advance by tokens that precede the first written one.

        Raises:
            UsageError: the answer cannot begin with them.
        """
        if self._matcher is None:
            return
        self._matcher.consume_tokens(list(tokens))
        if self._matcher.get_error():
            raise cannot_begin(self._model.text(tokens))

    def clone(self) -> Constraint:
        """A copy, to try tokens on."""
        twin = object.__new__(Constraint)
        twin.__dict__ = self.__dict__ | {"_matcher": self._matcher and self._matcher.deep_copy()}
        return twin

    def accept(self, position: int, token: int) -> None:
        """Advance by the token emitted at a position of the answer; ignore a position that was accepted before."""
        if position < self._position:
            return
        self._position = position + 1
        self._n_tokens += 1
        if self._n_tokens == self._min_tokens:
            self._mask = None
        if self._matcher and not self._model.is_end(token):  # after it, an answer continues only with --ignore-end
            self._mask = None
            self._matcher.consume_token(token)

    @property
    def mask_of_thoughts(self) -> Mask:
        """The tokens that are allowed before the constraint applies: all except those that end the answer."""
        return self._vocabulary.mask_of_thoughts

    def mask(self) -> Mask:
        """The tokens that are allowed next.  Tokens that end the answer are allowed exactly when it is complete.

        Raises:
            RefusedError: no token is allowed, or the text so far violates the constraint.
        """
        if self._mask is None:
            words, may_end, error = self._next()
            if self._n_tokens < self._min_tokens and (words & ~self._stops).any():
                words, may_end = words & ~self._stops, False
            if may_end:
                words |= self._vocabulary.ends
            if error or not words.any():
                raise RefusedError(
                    f"the answer cannot continue under the constraint: {_reason(error) or 'no token is allowed'}"
                )
            self._mask = Mask(words, self._vocabulary.n_vocab)
        return self._mask

    def _next(self) -> tuple[NDArray[np.uint32], bool, str]:
        """Return a bit for each token that is allowed next, apart from end tokens; whether end tokens are allowed; and
        the matcher's error."""
        known, matcher = self._vocabulary, self._matcher
        if matcher is None:
            return known.all & ~known.ends, True, ""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint32)
        return bits[: len(known.text)] & self._text, matcher.is_accepting(), matcher.get_error()


def cannot_begin(text: str) -> UsageError:
    """The error for a beginning of an answer that violates the constraint."""
    return UsageError(f"the answer cannot begin with {text!r:.100}: the constraint does not allow it")


def make_constraint(
    model: Model, sampling: Sampling, min_tokens: int = 0, stop_tokens: Collection[int] = ()
) -> Constraint | None:
    """The constraint of an answer, or None.  Raises the errors of `check_constraint`."""
    grammar = _grammar(sampling)
    return Constraint(model, grammar, min_tokens, stop_tokens) if grammar is not None or min_tokens else None


def check_constraint(sampling: Sampling) -> None:
    """Refuse a constraint that no model could satisfy.  This needs no model, because it tries the matcher on bytes.

    Raises:
        UsageError: the schema, expression or grammar is wrong or not supported; the message names the part.
    """
    grammar = _grammar(sampling)
    if grammar is None:
        return
    from llguidance import LLTokenizer

    matcher = _matcher(LLTokenizer("byte"), _TOKEN.sub("<[0]>", grammar))
    allowed = _allowed(matcher)
    reason = _reason(matcher.get_error())
    if not reason and len(allowed) <= 1 and matcher.is_stopped() and not matcher.is_accepting():
        reason = "nothing satisfies it"
    if not reason and len(allowed):  # the matcher reports a grammar that is too large after the first byte
        matcher.consume_token(int(allowed[0]))
        _allowed(matcher)
        reason = _reason(matcher.get_error())
    if reason:
        what = next(name for name in _NAMES if getattr(sampling, name) is not None)
        raise UsageError(f"{_NAMES[what]} cannot be used: {reason}")


def _allowed(matcher: LLMatcher) -> NDArray[np.intp]:
    """The tokens of the byte tokenizer (bytes and the end) that are allowed next; empty if the matcher failed."""
    words = b"" if matcher.is_error() else matcher.compute_bitmask()
    allowed: NDArray[np.intp] = np.unpackbits(np.frombuffer(words, np.uint8), bitorder="little").nonzero()[0]
    return allowed


def json_rule(schema: str) -> str:
    """A JSON schema, written for a rule of a Lark grammar.

    Raises:
        UsageError: the schema is wrong or not supported.
    """
    from .json_schema import for_llguidance

    return f"%json {json.dumps({'x-guidance': _JSON, **for_llguidance(schema, _error_of_schema)})}"


_NAMES = {"json_schema": "the JSON schema", "regex": "the regular expression", "lark": "the Lark grammar"}


def _grammar(sampling: Sampling) -> str | None:
    return _translated(sampling.json_schema, sampling.regex, sampling.lark)


@lru_cache(maxsize=8)  # checked before a model is loaded, and used again by every answer
def _translated(json_schema: str | None, regex: str | None, lark: str | None) -> str | None:
    if json_schema is not None:
        from llguidance import LLMatcher

        from .json_schema import for_llguidance

        schema = json.dumps(for_llguidance(json_schema, _error_of_schema))
        try:
            return LLMatcher.grammar_from_json_schema(schema, overrides=_JSON)
        except ValueError as error:
            raise UsageError(f"the JSON schema cannot be used: {_reason(str(error))}") from None
    if regex is None and lark is None:
        return None
    from llguidance import LLMatcher

    try:
        if lark is None:
            return LLMatcher.grammar_from_regex(_in_ascii(regex or ""))
        if len(_RULE.findall(lark)) > _MOST_RULES:
            raise UsageError(f"the Lark grammar cannot be used: it has more than {_MOST_RULES} rules")
        return LLMatcher.grammar_from_lark(lark)
    except UnicodeEncodeError:
        raise UsageError("the constraint is not valid UTF-8") from None


#: These classes without the digits, letters and spaces of other scripts, in a form that is valid within brackets too.
_ASCII = {
    r"\d": "[[:digit:]]",
    r"\D": "[[:^digit:]]",
    r"\w": "[[:word:]]",
    r"\W": "[[:^word:]]",
    r"\s": "[[:space:]]",
    r"\S": "[[:^space:]]",
}


def _in_ascii(regex: str) -> str:
    """The expression with ``\\d``, ``\\w``, ``\\s`` and their opposites limited to ASCII, as in RE2.

    An invalid expression is returned unchanged: a replacement at the end of a range, as in ``[!-\\d]``, could make it
    valid.

    Raises:
        UsageError: it ends in a backslash, which llguidance ignores.
    """
    from llguidance import LLMatcher

    if not re.fullmatch(r"[^\\]*(?:\\.[^\\]*)*", regex, re.DOTALL):
        raise UsageError("the regular expression cannot be used: it ends in a backslash")
    if LLMatcher.validate_grammar(LLMatcher.grammar_from_regex(regex)):
        return regex
    return re.sub(r"\\.", lambda match: _ASCII.get(match[0], match[0]), regex, flags=re.DOTALL)


def _error_of_schema(schema: Any) -> str:
    from llguidance import LLMatcher

    return _reason(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON)))


def _matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_CHOICES)
    return LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _reason(error: str) -> str:
    """The line of llguidance's error that describes the problem."""
    error = error.removesuffix("<non-verbose/>").strip()
    found = re.search(r"^error: (.*)", error, re.MULTILINE)
    line = found[1] if found else error.partition("\n")[0]
    if "NoExtensionBias" in line:  # llguidance's name for this
        line = "nothing satisfies it"
    if line.startswith("oneOf"):
        line = "oneOf needs schemas that plainly exclude each other: use anyOf if they need not"
    return textwrap.shorten(line.removeprefix("Unsatisfiable schema: "), 160, placeholder=" …")


_vocabularies: WeakKeyDictionary[Model, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(model: Model) -> _Vocabulary:
    """A model's tokens, read once (0.7 s for 151,936)."""
    if model not in _vocabularies:
        _vocabularies[model] = _read_vocabulary(model)
    return _vocabularies[model]


def _read_vocabulary(model: Model) -> _Vocabulary:
    """Read the tokens as answers show them: control tokens have no text."""
    from llama_cpp import llama_cpp as lib
    from llguidance import LLTokenizer

    ends = [token for token in range(model.n_vocab) if model.is_end(token)]
    pieces = [model.piece(token) for token in range(model.n_vocab)]
    for token in ends:
        pieces[token] = b""
    tokenize = ctypes.cast(lib._lib.llama_tokenize, ctypes.c_void_p)
    tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
        tokens=[piece or b"\xff[%d]" % token for token, piece in enumerate(pieces)],
        vocab_ptr=model.vocab,
        tokenize_fptr=tokenize.value,
        eos_token=ends or [0],
    )
    text = [token for token, piece in enumerate(pieces) if piece]
    bits = (_bits(tokens, model.n_vocab) for tokens in (range(model.n_vocab), text, ends))
    return _Vocabulary(tokenizer, model.n_vocab, *bits)


def _bits(tokens: Iterable[int], n_vocab: int) -> NDArray[np.uint32]:
    """A bit for every token, which is set for the given ones."""
    flags = np.zeros(-(-n_vocab // 32) * 32, np.bool_)
    flags[list(tokens)] = True
    return np.packbits(flags, bitorder="little").view(np.uint32)
