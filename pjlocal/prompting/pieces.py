"""Tokenize a prompt that consists of text, plain text without control tokens, and given tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.model import Model

_WHITE = " \t\n\v\f\r"  # white space in C


@dataclass(frozen=True)
class Hidden:
    """The text that a placeholder stands for, and its tokens; None for plain text, in which no control token is
    recognized."""

    text: str
    tokens: tuple[int, ...] | None = None


class Placeholders:
    """Placeholders for parts of messages that the template and the tokenizer must not change."""

    def __init__(self, contents: str) -> None:
        """Choose placeholders that do not occur in ``contents``, the texts that they will be put into."""
        self._hidden: dict[str, Hidden] = {}
        self._open = "\ue000"
        while self._open in contents:
            self._open += "\ue000"
        self._pattern = re.compile(f"({self._open}[0-9]+\ue001)")

    def hide(self, text: str, tokens: tuple[int, ...] | None = None) -> str:
        placeholder = f"{self._open}{len(self._hidden)}\ue001"
        self._hidden[placeholder] = Hidden(text, tokens)
        return placeholder

    def reveal(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._hidden[match[0]].text, text)

    def split(self, text: str) -> list[str | Hidden]:
        """Split a text at its placeholders, and replace them by the hidden texts."""
        return [self._hidden.get(piece, piece) for piece in self._pattern.split(text) if piece]


def tokens_of(model: Model, pieces: Sequence[str | Hidden]) -> list[int]:
    """Tokenize a text in pieces, with the same result as for the whole text except for the hidden pieces.

    llama.cpp first cuts a text at all control tokens.  Then it tokenizes each part between them by itself, with a space
    before it if the vocabulary requires one.  So pieces are first joined to such parts.
    """
    joint = _Joint(model)
    for piece in pieces:
        if isinstance(piece, str):
            joint.add_text(piece)
        elif piece.tokens is None:
            joint.plain += piece.text
        else:
            joint.add_tokens(piece.tokens)
    joint.add_tokens(())
    return joint.tokens


class _Joint:
    """The tokens so far, and the plain text after them up to the next control token or given token."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.tokens: list[int] = []
        self.plain = ""

    def add_text(self, text: str) -> None:
        """Add text in which control tokens are recognized."""
        model = self._model
        tokens = model.tokenize(text, special=True)
        end, controls = 0, []  # each control token: index, and its begin and end in the text
        for number, token in enumerate(tokens):
            if not model.is_cut_out(token):
                continue
            spelling = model.special_text(token)
            begin = text.find(spelling, end)
            if begin >= 0:  # otherwise it replaces a character that the vocabulary lacks
                end = begin + len(spelling)
                if model.is_control(token):
                    controls.append((number, begin, end))
        if not controls:
            self.plain += text
            return
        (first, begin, _), (last, _, end) = controls[0], controls[-1]
        self.plain += text[:begin]
        self.add_tokens(tokens[first : last + 1])
        self.plain = text[end:]

    def add_tokens(self, tokens: Sequence[int]) -> None:
        """Tokenize the plain text so far, and add tokens after it."""
        model, before = self._model, self.tokens[-1:]
        if before and model.strips_right(before[0]):
            self.plain = self.plain.lstrip(_WHITE)
        if tokens and model.strips_left(tokens[0]):
            self.plain = self.plain.rstrip(_WHITE)
        if self.plain:
            self.tokens += self._split(self.plain, continues=bool(before) and not model.is_cut_out(before[0]))
            self.plain = ""
        self.tokens += tokens

    def _split(self, text: str, continues: bool) -> list[int]:
        model = self._model
        tokens = model.tokenize(text, special=False, continues=continues)
        control = next(filter(model.is_control, tokens), None)
        spelling = "" if control is None else model.special_text(control)
        if len(spelling) < 2 or spelling not in text:
            return tokens
        # SentencePiece merges "</" and "s>" into a control token, if both are tokens, but not across a cut.
        first, rest = spelling[0], spelling[1:]
        head, *others = text.split(spelling)
        tokens = self._split(head + first, continues)
        for other in others[:-1]:
            tokens += self._split(rest + other + first, True)
        return tokens + self._split(rest + others[-1], True)


def tokens_after(model: Model, before: Sequence[int], text: str) -> list[int]:
    """Tokenize plain text that continues given tokens, as an answer continues its prompt."""
    joint = _Joint(model)
    joint.tokens = list(before)
    joint.plain = text
    joint.add_tokens(())
    return joint.tokens[len(before) :]
