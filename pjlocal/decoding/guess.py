"""Guesses of the next tokens, so that several can be decided in one forward pass.

A guess never changes the text: `schedule.lockstep` replays its own decisions over the guessed tokens' logits and drops
wrong guesses.  Guessing pays where the answer repeats its context and a wider batch costs little.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

_MAX_NGRAM, _MIN_NGRAM = 3, 2
_MEMORY = 0.2  # weight of the newest observation in the running hit rate
_STREAK = 3  # right guesses in a row that look like copying
_COPYING_HIT_RATE = 0.9  # assumed for copying, before it is measured
_MARGIN = 1.1  # a guess must promise so much more speed
_MARGIN_UNTRIED = 1.3  # and so much as the first guess of its width
_SAMPLES = 9  # recent step times kept for each width
_MOST_LOSS = 0.02  # of the decoding time


class PromptLookup:
    """An index of the text that finds the tokens after an earlier occurrence of its end.

    It maps every n-gram of the conversation to its last end, and is extended a token at a time: constant work per
    token, while a search of the whole conversation (llama-cpp-python's ``LlamaPromptLookupDecoding``) grows with its
    length.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> the position after its last but one occurrence
        for token in tokens:
            self.accept(token)

    def accept(self, token: int) -> None:
        # The n-grams that end here are entered with the next token, when they have a successor.
        n = len(self._tokens)
        for length in range(_MIN_NGRAM, min(_MAX_NGRAM, n) + 1):
            self._ends[tuple(self._tokens[n - length :])] = n
        self._tokens.append(token)

    def guess(self, n_tokens: int) -> list[int]:
        """``n_tokens`` tokens that may come next, or none.  A repetition that has just ended is assumed to go on."""
        n = len(self._tokens)
        for length in range(min(_MAX_NGRAM, n), _MIN_NGRAM - 1, -1):
            if (end := self._ends.get(tuple(self._tokens[n - length :]))) is not None:
                return [self._tokens[end + i % (n - end)] for i in range(n_tokens)]
        return []


class Lookahead:
    """The choice of when to guess, and how many tokens.

    Guesses are first made without being fed: one token later it is known, at no cost, whether the guess was right.
    The hit rate and the measured cost of steps of each width give the width with the most tokens per second; a width of
    1 means no guess.  The cost of an untried width is assumed to be that of prompt tokens.  If guessing has lost 2 % of
    the decoding time, it pauses until the loss is smaller again.

    Args:
        tokens: the conversation so far.
        most: the most tokens to guess at a time.
        token_cost: returns the seconds of one more token in a wide batch, as in prompts; None if not known.
        clock: returns seconds; for tests.
    """

    def __init__(
        self,
        tokens: Sequence[int],
        most: int,
        token_cost: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._lookup = PromptLookup(tokens)
        # In llama.cpp's CPU kernels, batches of a multiple of four tokens are cheap for their width.
        self._widths = sorted({width for width in (4, 8, 16, 32) if width <= most + 1} | {most + 1})
        self._costs: dict[int, deque[float]] = {}
        self._token_cost = token_cost
        self._clock = clock
        self._spent = 0.0  # seconds of all steps
        self._gain = 0.0  # seconds that guessing saved; negative for a loss
        self._emitted = 0  # tokens since the current step began
        self._fed: tuple[int, float] | None = None  # width of the current step, and its start
        self._in_mind: int | None = None
        self._streak = 0  # right guesses in a row, fed or not
        self._hit_rates = {False: 0.0, True: _COPYING_HIT_RATE}  # outside and inside a streak

    def accept(self, token: int) -> None:
        """Learn of an emitted token."""
        self._emitted += 1
        if self._in_mind is not None:
            hit = self._in_mind == token
            self._hit_rates[self._copying] += _MEMORY * (hit - self._hit_rates[self._copying])
            self._streak = self._streak + 1 if hit else 0
        else:
            self._streak = 0
        self._lookup.accept(token)
        self._in_mind = next(iter(self._lookup.guess(1)), None)

    def guess(self) -> list[int]:
        """The tokens to feed after the one just emitted; often none."""
        now = self._clock()
        if self._fed:
            width, began = self._fed
            self._costs.setdefault(width, deque(maxlen=_SAMPLES)).append(now - began)
            self._spent += now - began
            if width > 1:
                self._gain += self._emitted * (self._tried(1) or 0.0) - (now - began)
        self._emitted = 0
        tokens = self._lookup.guess(self._widths[-1] - 1)
        width = self._best_width(len(tokens) + 1)
        self._fed = (width, now)
        return tokens[: width - 1]

    def _best_width(self, most: int) -> int:
        """The width, 1 to ``most``, with the most expected tokens per second."""
        plain = self._tried(1)
        if plain is None or self._gain < -_MOST_LOSS * self._spent:
            return 1
        best, best_speed = 1, 1 / plain
        for width in self._widths:
            tried = self._tried(width)
            margin = _MARGIN if tried else _MARGIN_UNTRIED
            speed = self._expected_tokens(width) / (tried or self._prior(width, plain)) / margin
            if width <= most and speed > best_speed:
                best, best_speed = width, speed
        return best

    def _expected_tokens(self, width: int) -> float:
        """Expected tokens of a step of that width: 1 + r + r^2 + ..., for a hit rate r."""
        return sum(self._hit_rates[self._copying] ** i for i in range(width))

    @property
    def _copying(self) -> bool:
        return self._streak >= _STREAK

    def _prior(self, width: int, plain: float) -> float:
        """The assumed cost of a step of an untried width.

        On the 2-core machine with SmolLM2, such steps took 1.1 to 1.4 times a plain step, plus the cost of the
        additional tokens in a wide batch.
        """
        more = self._token_cost()
        return 1.25 * (plain + (width - 1) * (plain / 2 if more is None else more))

    def _tried(self, width: int) -> float | None:
        costs = self._costs.get(width)
        return median(costs) if costs else None
