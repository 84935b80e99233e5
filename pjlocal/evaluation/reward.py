"""The probability of an answer under preferences: implicit rewards, fluency, and the likelihood under direct prompting.

For an answer y to a prompt x, and log P(y | x, prefix) the mean log-probability a token:

    reward:PREFERENCE   log P(y | x, the preference's prefix) - log P(y | x)
    fluency             log P(y | x)
    prompting           log P(y | x, all preferences in one prefix)

The prefix stands in the system message, whichever way the answer was asked for: the question is whether the text is
likely under the preference, not under its place.  Any model may say so, and need not be the one that wrote the answer:
the text is tokenized anew, behind that model's own chat template.  Where an answer came to its end by itself, the token
that ends it is a token of it, since stopping is part of what a preference like ``concise`` asks for; where a limit has
cut it off, it is not.

What answers to one prompt begin with alike is read once; of quantized models that rounds otherwise than reading each by
itself: SmolLM2's mean log-probabilities differed by up to 0.03, those of a model in float32 by 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..decoding.combine import log_normalizer
from ..engine.context import context_limit
from ..engine.interrupt import Interrupt
from ..engine.model import Model
from ..engine.scoring import TextReader, Tokens
from ..engine.shortlist import NOT_NUMBERS
from ..errors import ModelError
from ..prompting.pieces import tokens_after
from ..prompting.preferences import prefix, split_strength
from ..prompting.prompt import ChatTemplate, Message
from ..settings import Engine, Prompting
from .records import AnswerRecord, computed_with, digest_of


class Scorer:
    """A loaded model that tells how probable answers are.

    Args:
        model: stays open when this is closed.
        prompting: the system text that all prompts share, and whether a reasoning model thinks.
        interrupt: stops a decode under way.
    """

    def __init__(self, model: Model, engine: Engine, prompting: Prompting, interrupt: Interrupt) -> None:
        self.name = model.name
        self._model = model
        self._prompting: Prompting = prompting.replace(placement="system")
        self._template = ChatTemplate(model)
        self._limit = context_limit(model, engine)
        self._reader = TextReader(model, engine, interrupt)
        #: What its scores depend on, besides the answer and the preferences.
        self.identity = {
            "model": digest_of(model.path),
            "system": prompting.system,
            "think": prompting.think,
            **computed_with(engine),
        }

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def n_fed(self) -> int:
        """Tokens read so far."""
        return self._reader.n_fed

    def close(self) -> None:
        self._reader.close()
        self._template.close()

    def metrics(self, prefer: Sequence[str]) -> dict[str, str]:
        """The preference prefix that each metric is read under, by the metric's name."""
        rewards = {f"reward:{split_strength(wish)[0]}": prefix([wish]) for wish in prefer}
        return rewards | {"fluency": "", "prompting": prefix(prefer)}

    def scores(self, answers: Sequence[AnswerRecord], prefer: Sequence[str]) -> list[dict[str, float]]:
        """Each metric's value of every answer; none where it has no token, or the model's context is too short for it.

        Raises:
            Interrupted: it was stopped.
            ModelError: llama.cpp failed.
        """
        prefixes = self.metrics(prefer)
        texts = list(dict.fromkeys(prefixes.values()))
        items = [[self._item(answer, text) for text in texts] for answer in answers]
        fit = [all(tokens and len(prompt) + len(tokens) <= self._limit for prompt, tokens in of) for of in items]
        likely = iter(self.log_likelihoods([item for of, fits in zip(items, fit, strict=True) if fits for item in of]))
        return [_metrics(prefixes, {text: next(likely) for text in texts}) if fits else {} for fits in fit]

    def log_likelihoods(self, items: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        """The mean log-probability a token of each answer, as its prompt's tokens and its own (one or more).

        Exponentials in float32, sums in float64: over vocabularies of 49k to 262k tokens that differs by less than 1e-9
        of its size from a computation in float64.

        Raises:
            Interrupted: it was stopped.
            ModelError: llama.cpp failed.
        """
        texts = [[*prompt, *tokens[:-1]] for prompt, tokens in items]
        sums = [0.0] * len(items)
        for i, place, logits in self._reader.read(texts, [len(tokens) for _, tokens in items]):
            prompt, tokens = items[i]
            sums[i] += float(logits[tokens[place + 1 - len(prompt)]]) - log_normalizer(logits)
        if not all(map(math.isfinite, sums)):
            raise ModelError(NOT_NUMBERS)
        return [total / len(tokens) for total, (_, tokens) in zip(sums, items, strict=True)]

    def _item(self, answer: AnswerRecord, preference: str) -> tuple[list[int], list[int]]:
        prompt = self._template.tokens([Message("user", answer.prompt)], preference, self._prompting)
        tokens = tokens_after(self._model, prompt, answer.text)
        end = None if self._template.stops else self._model.end  # a plain dialogue has no token that ends a turn
        if answer.finish_reason == "stop" and end is not None:
            tokens.append(end)
        return prompt, tokens


def _metrics(prefixes: Mapping[str, str], likely: Mapping[str, float]) -> dict[str, float]:
    """The metrics, from log P(y | x, prefix) by prefix."""
    return {
        metric: likely[text] - likely[""] if metric.startswith("reward:") else likely[text]
        for metric, text in prefixes.items()
    }
