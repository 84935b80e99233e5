"""The probability of an answer under preferences: implicit rewards, fluency, and the likelihood under direct prompting.

For an answer y to a prompt x, where log P(y | x, prefix) is the mean log-probability per token:

    reward:PREFERENCE   log P(y | x, the preference's prefix) - log P(y | x)
    fluency             log P(y | x)
    prompting           log P(y | x, all preferences in one prefix)

The prefix is always in the system message, because the score should not depend on the placement.  Any model can score,
not only the one that wrote the answer: the text is tokenized again, after the scoring model's own chat template.  If
the answer was not cut off, its end token is scored too, because a preference such as ``concise`` is about the length.

The shared beginning of several answers to one prompt is read once.  With quantized models this rounds differently from
reading each answer by itself: SmolLM2's mean log-probabilities differed by up to 0.03, those of a model in float32 by
1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..decoding.combine import log_normalizer
from ..engine.context import context_limit
from ..engine.interrupt import Interrupt
from ..engine.model import Model
from ..engine.scoring import TextReader, Tokens
from ..engine.shortlist import INVALID_LOGITS
from ..errors import ModelError
from ..prompting.preferences import prefix, without_strength
from ..prompting.prompt import ChatTemplate, Message
from ..settings import Engine, Prompting
from .records import AnswerRecord, computed_with, digest_of


class Scorer:
    """A loaded model that scores answers by their probability.

    Args:
        model: the loaded model; it stays open when the scorer is closed.
        prompting: the system text of all prompts, and whether a reasoning model thinks.
        interrupt: stops the current decode.
    """

    def __init__(self, model: Model, engine: Engine, prompting: Prompting, interrupt: Interrupt) -> None:
        self.name = model.name
        self._model = model
        self._prompting: Prompting = prompting.replace(placement="system")
        self._template = ChatTemplate(model)
        self._limit = context_limit(model, engine)
        self.reader = TextReader(model, engine, interrupt)
        #: The other inputs of the scores besides the answer and the preferences, for the cache key.
        self.identity = {
            "model": digest_of(model.path),
            "system": prompting.system,
            "think": prompting.think,
            **({"reasoning_effort": prompting.reasoning_effort} if prompting.reasoning_effort else {}),
            **computed_with(engine),
        }

    def close(self) -> None:
        self.reader.close()
        self._template.close()

    def metrics(self, prefer: Sequence[str]) -> dict[str, str]:
        """The preference prefix of each metric, by the metric's name."""
        rewards = {f"reward:{without_strength(wish)}": prefix([wish]) for wish in prefer}
        return rewards | {"fluency": "", "prompting": prefix(prefer)}

    def scores(self, answers: Sequence[AnswerRecord], prefer: Sequence[str]) -> list[dict[str, float]]:
        """The values of each answer by metric; empty if the answer has no tokens or exceeds the model's context.

        Raises:
            Interrupted: on request.
            ModelError: llama.cpp failed.
        """
        prefixes = self.metrics(prefer)
        texts = list(dict.fromkeys(prefixes.values()))
        items = [[self._item(answer, text) for text in texts] for answer in answers]
        fit = [all(tokens and len(prompt) + len(tokens) <= self._limit for prompt, tokens in of) for of in items]
        likely = iter(self._log_likelihoods([item for of, fits in zip(items, fit, strict=True) if fits for item in of]))
        return [_metrics(prefixes, {text: next(likely) for text in texts}) if fits else {} for fits in fit]

    def _log_likelihoods(self, items: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        """The mean log-probability per token of each answer, from the tokens of its prompt and its own.

        Exponentials are float32 and sums float64.  For vocabularies of 49k to 262k tokens, the relative error against
        float64 is below 1e-9.
        """
        texts = [[*prompt, *tokens[:-1]] for prompt, tokens in items]
        sums = [0.0] * len(items)
        for i, place, logits in self.reader.read(texts, [len(tokens) for _, tokens in items]):
            prompt, tokens = items[i]
            sums[i] += float(logits[tokens[place + 1 - len(prompt)]]) - log_normalizer(logits)
        if not all(map(math.isfinite, sums)):
            raise ModelError(INVALID_LOGITS)
        return [total / len(tokens) for total, (_, tokens) in zip(sums, items, strict=True)]

    def _item(self, answer: AnswerRecord, preference: str) -> tuple[list[int], list[int]]:
        prompt = self._template.tokens([Message("user", answer.prompt)], preference, self._prompting)
        tokens = self._template.answer_tokens(prompt, answer.text)
        end = None if self._template.is_dialogue else self._model.end  # a plain dialogue has no token that ends a turn
        if answer.finish_reason == "stop" and end is not None:
            tokens.append(end)
        return prompt, tokens


def _metrics(prefixes: Mapping[str, str], likely: Mapping[str, float]) -> dict[str, float]:
    return {
        metric: likely[text] - likely[""] if metric.startswith("reward:") else likely[text]
        for metric, text in prefixes.items()
    }
