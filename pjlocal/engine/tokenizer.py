"""Tokenize texts of any length, although llama.cpp splits some models' texts with a recursive parser."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from ..errors import UsageError
from .interrupt import Interrupt
from .worker import in_thread

# For many byte-pair vocabularies (tekken, gpt-4o, deepseek, bloom, ...), llama.cpp splits texts by regular expressions
# of the C++ library, which recurses at each character of a run: 305 bytes of stack each, with all 21 such splitters and
# 26 kinds of characters (x86-64, GCC).  A run that is too long for the stack crashes the process.
_SHALLOW = 256  # characters that fit in any thread's stack
_MOST = 16_384  # characters to split at a time; they fit in _STACK at 4 KiB each, 13 times the measured size
_STACK = 64 * 2**20  # bytes; only the used part takes memory

#: Places where a text may be cut: before a mark between two letters.  A word ends there in all splitters except
#: superbpe's and exaone-moe's, whose words may contain spaces, and which seldom join a line with the next.
_CUTS = tuple(re.compile(rf"(?<=[^\W\d_])(?={mark}[^\W\d_])") for mark in (r"\n", r"[ .,。，、]"))

# Texts for SentencePiece are cut for speed: llama.cpp reallocates at each character that the vocabulary lacks.  A
# million of them took 270 s, and take 3 s in pieces.

#: Put before a text that continues another, and removed again with the space that the tokenizer adds.  Unicode will
#: never assign this code point, so no vocabulary has a token with it, and its bytes are not merged with others.
_LEAD = "\U0010ffff"

#: The attributes of tokens whose spelling llama.cpp searches in a text before it splits the rest: control tokens, if
#: requested, and the tokens that the model's makers added to the vocabulary.
CUT_OUT = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN | lib.LLAMA_TOKEN_ATTR_USER_DEFINED

_stack_size = threading.Lock()  # the stack size is one setting for the whole process


class Tokenizer:
    """A model's own tokenizer, safe from stack overflow.

    Args:
        vocab: llama.cpp's vocabulary; its model must stay open while the tokenizer is used.
    """

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        kind = lib.llama_vocab_type(vocab)
        self._cuts = kind in (lib.LLAMA_VOCAB_TYPE_BPE, lib.LLAMA_VOCAB_TYPE_SPM)
        self._lead = _LEAD if kind == lib.LLAMA_VOCAB_TYPE_SPM else ""

    def __call__(self, text: str, special: bool, continues: bool = False) -> list[int]:
        """Tokens of a text, without BOS.

        A text of more than 16,384 characters is split into pieces at ends of words.  If no word ends within 8,192
        characters, as in a run of letters or spaces, it is cut anywhere, and the tokens at the cut may differ from
        those of the whole text (on which llama.cpp would crash).

        Args:
            special: whether text that spells a control token becomes that token.
            continues: whether the text continues other text, so that no space is added.

        Raises:
            UsageError: the text is not valid Unicode.
            MemoryError: there is no memory for a thread.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"the text is not valid UTF-8 (at character {error.start})") from None
        if not self._cuts or len(text) <= _SHALLOW:
            return self._tokens(text, special, continues)
        return self._in_a_thread(text, special, continues)

    def _tokens(self, text: str, special: bool, continues: bool) -> list[int]:
        if continues and text and self._lead:
            return self._split(self._lead + text, special)[self._n_lead :]
        return self._split(text, special)

    @cached_property
    def _n_lead(self) -> int:
        return len(self._split(self._lead, False))

    def _split(self, text: str, special: bool) -> list[int]:
        data = text.encode("utf-8")
        n = len(data) + 16
        while True:
            buffer = np.empty(n, np.int32)
            pointer = buffer.ctypes.data_as(ctypes.POINTER(lib.llama_token))
            n_tokens = lib.llama_tokenize(self._vocab, data, len(data), pointer, n, False, special)
            if n_tokens >= 0:
                return [int(token) for token in buffer[:n_tokens].tolist()]
            n = -n_tokens

    def _in_a_thread(self, text: str, special: bool, continues: bool) -> list[int]:
        """Tokenize in a thread with a large stack.  It stops between two pieces if the caller is interrupted."""
        tokens: list[int] = []
        stop = Interrupt()

        def work() -> None:
            for piece in self._pieces(text):
                if stop.is_set():
                    return
                tokens.extend(self._tokens(piece, special, continues or bool(tokens)))

        in_thread(work, stop, _deep_stack())
        return tokens

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > _MOST:
            end = self._cut(text, start)
            yield text[start:end]
            start = end
        yield text[start:]

    def _cut(self, text: str, start: int) -> int:
        """The end of the piece that begins at ``start``, in its second half, so that pieces are few."""
        end = start + _MOST
        for cuts in _CUTS:
            places = [match.start() for match in cuts.finditer(text, start + _MOST // 2, end)]
            for place in reversed(places):
                if self._outside(text, place) == place:
                    return place
        return self._outside(text, end)

    def _outside(self, text: str, place: int) -> int:
        """The position; if it is within a text that must become one token, the beginning of that text."""
        for spelling in self._whole:
            begin = text.find(spelling, max(0, place - len(spelling) + 1), place + len(spelling) - 1)
            if begin >= 0:
                return begin
        return place

    @cached_property
    def _whole(self) -> list[str]:
        """The texts of control tokens and others that no splitter divides, longest first."""
        texts = {
            lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
            for token in range(lib.llama_vocab_n_tokens(self._vocab))
            if lib.llama_vocab_get_attr(self._vocab, token) & CUT_OUT
        }
        return sorted((text for text in texts if 1 < len(text) < _MOST // 2), key=len, reverse=True)


@contextmanager
def _deep_stack() -> Iterator[None]:
    """Give threads that are started in the body a deep stack."""
    with _stack_size:
        before = threading.stack_size(_STACK)
        try:
            yield
        except RuntimeError:  # for lack of memory
            raise MemoryError from None
        finally:
            threading.stack_size(before)
