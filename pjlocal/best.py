"""The best of several answers to one prompt, as an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .answer import Answer, SingleAnswer
from .decoding.best import choose, scores
from .engine.engine import Engine
from .events import Candidate, Result, TokenEvent


class BestAnswer(Answer):
    """Several answers to one prompt, written side by side; then the best one, as `decoding.best` chooses it.

    Its events come at the end, when all answers are there; until then `on_progress` is called.  From then on its
    attributes are those of the chosen answer, and `Result.candidates` has the others.  An interrupt ends all answers,
    and the best of the texts so far is chosen.

    Args:
        parts: the answers; they have a neutral view.
        make_engine: makes the engine that writes them, when they start; by default it is ``engine``.
    """

    def __init__(
        self, engine: Engine, parts: Sequence[SingleAnswer], make_engine: Callable[[], Engine] | None = None
    ) -> None:
        first = parts[0]
        super().__init__(engine, first.plan, first.seed, first.statistics, first.observer)
        self._parts = parts
        self._make_engine = make_engine
        self._chosen = first
        self._candidates: tuple[Candidate, ...] = ()

    @property
    def parts(self) -> Sequence[SingleAnswer]:
        return self._parts

    @property
    def result(self) -> Result:
        reason = self.finish_reason or "interrupted"
        return replace(self._chosen.result, finish_reason=reason, candidates=self._candidates)

    @property
    def progress(self) -> str:
        left = [part for part in self._parts if not part.is_done]
        n_tokens = max((part.statistics.completion_tokens for part in left), default=0)
        n_done = len(self._parts) - len(left)
        if not n_tokens and not n_done:  # the prompt is being read
            return ""
        done = f", {n_done} done" if n_done else ""
        return f"Writing {len(self._parts)} answers: {n_tokens} of {self._chosen.limit} tokens{done}"

    def _choose_engine(self) -> Engine:
        if self._make_engine:
            self.engine = self._make_engine()
        return self.engine

    def interrupt(self) -> None:
        for part in self._parts:
            if not part.is_done:
                part.interrupt()

    def publish(self, events: list[TokenEvent]) -> list[TokenEvent]:
        if any(part.error or part.finish_reason == "interrupted" for part in self._parts):
            self.interrupt()
        if not all(part.is_done for part in self._parts):
            if progress := self.progress:
                self.on_progress(progress)
            return []
        self.error = next((part.error for part in self._parts if part.error), None)
        return [] if self.error else self._choose()

    def _choose(self) -> list[TokenEvent]:
        results = [part.result for part in self._parts]
        scored = self._scores(results)
        best = choose(scored, [result.finish_reason == "stop" for result in results])
        self._chosen = chosen = self._parts[best]
        self.plan, self.seed, self.statistics = chosen.plan, chosen.seed, chosen.statistics
        self.observer, self.layout = chosen.observer, chosen.layout
        self.n_held = sum(part.n_held for part in self._parts)
        self._candidates = tuple(
            Candidate(result, score, is_chosen=part is chosen, events=() if part is chosen else tuple(part.emitted))
            for part, result, score in zip(self._parts, results, scored, strict=True)
        )
        are_interrupted = any(result.finish_reason == "interrupted" for result in results)
        self.finish_reason = "interrupted" if are_interrupted else chosen.finish_reason
        return list(chosen.emitted)

    def _scores(self, results: Sequence[Result]) -> list[float | None]:
        """The score of each answer; None for one without text."""
        compared = {
            number: result.statistics
            for number, result in enumerate(results)
            if result.text.strip() and result.statistics.pushed
        }
        if not compared:
            return [None] * len(results)
        pushes = [[each.pushed[name] for name in self.pushing] for each in compared.values()]
        values = scores(
            np.array(pushes),
            np.array([each.neutral for each in compared.values()]),
            np.array([each.answer_tokens for each in compared.values()]),
        )
        by_number = dict(zip(compared, values.tolist(), strict=True))
        return [by_number.get(number) for number in range(len(results))]
