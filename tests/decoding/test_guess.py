"""Look-ahead guesses repetitions, and costs next to nothing where it is wrong."""

from __future__ import annotations

from pjlocal.decoding.guess import Lookahead, PromptLookup

# Guessing.


def test_prompt_lookup_finds_the_tokens_after_the_last_occurrence() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 9, 2, 3])
    assert lookup.guess(2) == [4, 9]
    lookup.accept(4)
    assert lookup.guess(3) == [9, 2, 3]
    assert lookup.guess(6) == [9, 2, 3, 4, 9, 2], "and where that reaches the end of the text, goes round once more"
    lookup.accept(7)
    assert lookup.guess(3) == []


class Machine:
    """A machine on which a step of each width takes its own time; runs a guesser over a known text."""

    def __init__(self, seconds: dict[int, float], token_cost: float) -> None:
        self.now, self.seconds, self.token_cost = 0.0, seconds, token_cost

    def run(self, prompt: list[int], text: list[int], lookahead: int) -> float:
        """The seconds for the text."""
        self.now = 0.0
        guesser = Lookahead(prompt, lookahead, lambda: self.token_cost, clock=lambda: self.now) if lookahead else None
        i = 0
        while i < len(text):
            if guesser:
                guesser.accept(text[i])
            ahead = guesser.guess() if guesser else []
            self.now += self.seconds[1 + len(ahead)]
            i += 1
            for token in ahead:
                if i < len(text) and token == text[i]:
                    guesser.accept(token)
                    i += 1
                else:
                    break
        return self.now


CHEAP = Machine({1: 4.2, 4: 12.0, 8: 18.7}, 1.35)  # ms, SmolLM2 Q4_0 on the 2-core machine
DEAR = Machine({1: 5.8, 4: 24.2, 8: 42.3}, 4.1)  # ms, Q4_1


def test_guessing_pays_on_a_copy_where_a_wide_batch_is_cheap() -> None:
    source = [i * 37 % 1009 for i in range(300)]
    assert CHEAP.run(source, source, 0) > 1.3 * CHEAP.run(source, source, 7)


def test_guessing_never_costs_more_than_3_percent() -> None:
    import random

    rng = random.Random(1)
    words = [rng.randrange(40) for _ in range(400)]  # n-grams recur, and what follows is chance
    half = [x for i in range(40) for x in (1, 2, 3, rng.choice([4, 5]), rng.choice([6, 7]))]
    source = [i * 37 % 1009 for i in range(300)]
    for machine in (CHEAP, DEAR):
        for prompt, text in ((words[:200], words[200:]), ([], half), (source, source), (source[:100], source[50:])):
            assert machine.run(prompt, text, 7) <= 1.03 * machine.run(prompt, text, 0)
