"""Guess the next tokens, so that one forward pass can decide several.

A guess never changes the text: `schedule.lockstep` makes its own decisions from the logits after the guessed tokens,
and drops wrong guesses.  Guessing is faster where the answer repeats its context and wider batches cost little more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

_MAX_NGRAM, _MIN_NGRAM = 3, 2
_MEMORY = 0.2  # weight of the newest observation in the running hit rate
_STREAK = 3  # right guesses in a row that count as copying
_COPYING_HIT_RATE = 0.9  # assumed for copying, before it is measured
_MARGIN = 1.1  # least expected speed-up of a guess
_MARGIN_UNTRIED = 1.3  # least expected speed-up of a width that was not tried yet
_SAMPLES = 9  # recent step times kept for each width
_MOST_LOSS = 0.02  # share of the decoding time that guessing may lose


class PromptLookup:
    """An index of the text that finds the tokens after an earlier occurrence of its last n-gram.

    The work per token is constant.  A search of the whole conversation (llama-cpp-python's
    ``LlamaPromptLookupDecoding``) gets slower with its length.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # the position after the latest occurrence with a successor
        for token in tokens:
            self.accept(token)

    def accept(self, token: int) -> None:
        # N-grams are entered when the token after them comes.
        n = len(self._tokens)
        for length in range(_MIN_NGRAM, min(_MAX_NGRAM, n) + 1):
            self._ends[tuple(self._tokens[n - length :])] = n
        self._tokens.append(token)

    def guess(self, n_tokens: int) -> list[int]:
        """``n_tokens`` tokens that may come next, or none.  If the occurrence found is near the end, its tokens are
        repeated."""
        n = len(self._tokens)
        for length in range(min(_MAX_NGRAM, n), _MIN_NGRAM - 1, -1):
            if (end := self._ends.get(tuple(self._tokens[n - length :]))) is not None:
                return [self._tokens[end + i % (n - end)] for i in range(n_tokens)]
        return []


class Lookahead:
    """Decides when to guess, and how many tokens.

    Every token is also compared with a guess that was not fed, so the hit rate is known at no cost.  The hit rate and
    the measured duration of steps of each width determine the width with the most tokens per second; a width of 1
    means no guess.  Before a width is tried, its tokens are assumed to cost as much as prompt tokens.  If guessing
    has lost 2 % of the decoding time, it pauses until the loss is a smaller share.

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
        # llama.cpp's CPU kernels are most efficient for multiples of four tokens.
        self._widths = sorted({width for width in (4, 8, 16, 32) if width <= most + 1} | {most + 1})
        self._costs: dict[int, deque[float]] = {}
        self._token_cost = token_cost
        self._clock = clock
        self._spent = 0.0  # seconds of all steps
        self._gain = 0.0  # seconds that guessing saved; negative for a loss
        self._emitted = 0  # tokens since the current step began
        self._fed: tuple[int, float] | None = None  # width of the current step, and its start
        self._next_guess: int | None = None  # guessed after the last token, fed or not
        self._streak = 0  # right guesses in a row, fed or not
        self._hit_rates = {False: 0.0, True: _COPYING_HIT_RATE}  # outside and inside a streak

    def accept(self, token: int) -> None:
        """Add an emitted token to the text."""
        self._emitted += 1
        if self._next_guess is not None:
            hit = self._next_guess == token
            self._hit_rates[self._copying] += _MEMORY * (hit - self._hit_rates[self._copying])
            self._streak = self._streak + 1 if hit else 0
        else:
            self._streak = 0
        self._lookup.accept(token)
        self._next_guess = next(iter(self._lookup.guess(1)), None)

    def guess(self) -> list[int]:
        """The tokens to feed after the last emitted one; often none."""
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
        """The width, from 1 to ``most``, with the most expected tokens per second."""
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
        """The expected tokens of a step of this width: 1 + r + r^2 + ..., for a hit rate r."""
        return sum(self._hit_rates[self._copying] ** i for i in range(width))

    @property
    def _copying(self) -> bool:
        return self._streak >= _STREAK

    def _prior(self, width: int, plain: float) -> float:
        """The assumed seconds of a step of an untried width.

        On the 2-core machine with SmolLM2, such steps took 1.1 to 1.4 times as long as a plain step plus the additional
        tokens in a wide batch.
        """
        more = self._token_cost()
        return 1.25 * (plain + (width - 1) * (plain / 2 if more is None else more))

    def _tried(self, width: int) -> float | None:
        costs = self._costs.get(width)
        return median(costs) if costs else None
