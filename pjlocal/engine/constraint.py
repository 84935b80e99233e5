"""Constraints on the answer: a JSON schema, a regular expression or a Lark grammar, enforced by llguidance.

All views read the same emitted tokens, so they share one matcher; its mask is applied to each view's logits.
"""

from __future__ import annotations

import ctypes
import json
import re
import textwrap
import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from ..errors import RefusedError, UsageError
from ..settings import Sampling
from .model import Model

if TYPE_CHECKING:  # imported only for a constraint, because it takes time
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

# llguidance recurses for each rule that refers to another, and crashes on 3,000.
_MOST_RULES = 1000
_RULE = re.compile(r"^[ \t]*[!?]*\w+[^:\n\"/]*:", re.MULTILINE)

_MOST_CHOICES = 100_000  # its default of 2,000 is too small for an object of 510 properties, and not faster

_NARROW = 8  # if fewer than one in 8 words has bits, a mask is read token by token

#: White space between JSON's tokens: a space, or a new line with its indentation.  A small model may write white space
#: without end; this is the limit of llama.cpp's own grammar.
_WHITE_SPACE = r"(?: |\n[ \t]{0,20})"
_ESCAPES = 'nrbtf\\"'  # without \u, which would allow two spellings of a name
_JSON: JsonCompileOptions = {
    "whitespace_pattern": _WHITE_SPACE,
    "json_allowed_escapes": _ESCAPES,
    "lenient": False,
    "coerce_one_of": False,
}


class Mask:
    """The tokens that are allowed next.

    Args:
        words: a bit a token, uint32 [(n_vocab + 31) // 32].
    """

    def __init__(self, words: NDArray[np.uint32], n_vocab: int) -> None:
        self._words = words
        self._n_vocab = n_vocab
        (self._used,) = words.nonzero()
        self.narrow = len(self._used) * _NARROW <= len(words)

    def allows(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """A boolean for each of these tokens: True if it is allowed."""
        found: NDArray[np.bool_] = (self._words[ids >> 5] >> (ids & 31).astype(np.uint32) & 1).astype(np.bool_)
        return found

    @cached_property
    def ids(self) -> NDArray[np.intp]:
        """All allowed tokens, ascending."""
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
    text: NDArray[np.uint32]  # a bit for each token that prints something
    ends: NDArray[np.uint32]  # a bit for each token that ends the answer


class Constraint:
    """The state of an answer under its constraint.

    Views share it: each reports every emitted token with its position, and the first report counts.

    Raises:
        UsageError: this model's tokens cannot spell the constraint.
    """

    def __init__(self, model: Model, grammar: str) -> None:
        self._model = model
        self._vocabulary = _vocabulary(model)
        self._matcher = _matcher(self._vocabulary.tokenizer, grammar)
        self._lock = threading.Lock()  # views that decode side by side run in threads of their own
        self._position = 0
        self._mask: Mask | None = None
        if error := self._matcher.get_error():
            raise UsageError(f"the constraint cannot be used with this model: {_reason(error)}")

    def clone(self) -> Constraint:
        """A copy for looking ahead."""
        twin = object.__new__(Constraint)
        with self._lock:
            twin.__dict__ = self.__dict__ | {"_matcher": self._matcher.deep_copy(), "_lock": threading.Lock()}
        return twin

    def accept(self, position: int, token: int) -> None:
        """Learn of the token emitted at a position of the answer; a known position is ignored."""
        with self._lock:
            if position < self._position:
                return
            self._position += 1
            if not self._model.is_end(token):  # after it, an answer continues only with --ignore-end
                self._mask = None
                self._matcher.consume_token(token)

    def mask(self) -> Mask:
        """The tokens that are allowed next.  Tokens that end the answer are allowed exactly when it is complete.

        Raises:
            RefusedError: no token is allowed, or the text so far violates the constraint.
        """
        with self._lock:
            if self._mask is None:
                known = self._vocabulary
                bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
                words = bits[: len(known.text)] & known.text
                if self._matcher.is_accepting():
                    words |= known.ends
                if (error := self._matcher.get_error()) or not words.any():
                    raise RefusedError(
                        f"the answer cannot continue under the constraint: {_reason(error) or 'no token is allowed'}"
                    )
                self._mask = Mask(words, known.n_vocab)
            return self._mask


def make_constraint(model: Model, sampling: Sampling) -> Constraint | None:
    """The constraint of an answer, or None.  Raises what `check_constraint` does."""
    grammar = _grammar(sampling)
    return None if grammar is None else Constraint(model, grammar)


def check_constraint(sampling: Sampling) -> None:
    """Refuse a constraint that no model could satisfy.  No model is needed: the matcher is tried on bytes.

    Raises:
        UsageError: the schema, expression or grammar is wrong or not supported; the message names the part.
    """
    grammar = _grammar(sampling)
    if grammar is None:
        return
    from llguidance import LLTokenizer

    matcher = _matcher(LLTokenizer("byte"), grammar)
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
    """The bytes that are allowed next, and the end; empty if the matcher failed."""
    words = b"" if matcher.is_error() else matcher.compute_bitmask()
    allowed: NDArray[np.intp] = np.unpackbits(np.frombuffer(words, np.uint8), bitorder="little").nonzero()[0]
    return allowed


_NAMES = {"json_schema": "the JSON schema", "regex": "the regular expression", "lark": "the Lark grammar"}


def _grammar(sampling: Sampling) -> str | None:
    """The grammar that llguidance compiles."""
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


#: ASCII meanings of these classes, instead of digits, letters and spaces of all scripts; valid within brackets too.
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
    """The fault that llguidance finds in a schema, empty if none."""
    from llguidance import LLMatcher

    return _reason(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON)))


def _matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_CHOICES)
    return LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _reason(error: str) -> str:
    """The line of an error of llguidance that says what is wrong."""
    error = error.removesuffix("<non-verbose/>").strip()
    found = re.search(r"^error: (.*)", error, re.MULTILINE)
    line = found[1] if found else error.partition("\n")[0]
    if "NoExtensionBias" in line:  # llguidance's name for that
        line = "nothing satisfies it"
    if line.startswith("oneOf"):
        line = "oneOf is supported where its schemas plainly exclude each other; write anyOf if they need not"
    return textwrap.shorten(line.removeprefix("Unsatisfiable schema: "), 160, placeholder=" …")


_vocabularies: WeakKeyDictionary[Model, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(model: Model) -> _Vocabulary:
    """A model's tokens, read once: 0.7 s for 151,936."""
    if model not in _vocabularies:
        _vocabularies[model] = _read_vocabulary(model)
    return _vocabularies[model]


def _read_vocabulary(model: Model) -> _Vocabulary:
    """Read the tokens as answers show them: tokens without text, such as control tokens, count as no text."""
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
    text = _bits(np.array([bool(piece) for piece in pieces]))
    is_end = np.zeros(model.n_vocab, np.bool_)
    is_end[ends] = True
    return _Vocabulary(tokenizer, model.n_vocab, text, _bits(is_end))


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint32]:
    padded = np.zeros(-(-len(flags) // 32) * 32, np.bool_)
    padded[: len(flags)] = flags
    return np.packbits(padded, bitorder="little").view(np.uint32)
