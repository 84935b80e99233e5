"""Compute scores of answers, and verdicts on pairs of answers, except those that are known already."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..prompting.preferences import resolve, split_strength
from .judges import Judge, Opinion
from .question import QUALITY, SYSTEM, Question, make_question
from .records import AnswerRecord, Score, Verdict, key_of
from .suite import Objectives, Suite

log = logging.getLogger("pjlocal")

_BYTES_PER_TOKEN = 4  # of English text
_TOGETHER = 8  # answers to one prompt that are scored together

#: Called with the number done and the total.
Progress = Callable[[int, int], None]


class Scorer(Protocol):
    """A model that scores answers, by likelihoods (`reward.Scorer`) or as a reward model (`reward_model.Ranker`).

    identity: the other inputs of the scores besides the answer and the preferences, for the cache key.
    """

    name: str
    identity: Any

    def metrics(self, prefer: Sequence[str]) -> Mapping[str, str]:
        """The prefix text of each metric under these preferences, by the metric's name."""

    def scores(self, answers: Sequence[AnswerRecord], prefer: Sequence[str]) -> Sequence[Mapping[str, float]]:
        """The values of each answer by metric; empty for an answer that cannot be scored."""


def no_progress(done: int, total: int) -> None:
    """Show no progress."""


def score_answers(
    answers: Iterable[AnswerRecord],
    objectives: Mapping[str, Objectives],
    scorer: Scorer,
    done: Collection[str],
    progress: Progress = no_progress,
) -> Iterator[Score]:
    """Yield the scores by one model whose keys are not in ``done``.

    Answers to the same prompt are scored together, in groups that do not depend on ``done``.  So every score is the
    same to the bit, whichever scores were known before.

    Args:
        objectives: the objectives by name.

    Raises:
        Interrupted: on request; the scores yielded so far are complete.
        ModelError: llama.cpp failed.
    """
    answers = list(answers)
    n_done = unscored = 0
    for group in _of_one_prompt(answers):
        progress(n_done, len(answers))
        prefer = objectives[group[0].objectives].prefer
        texts = scorer.metrics(prefer)
        keys = [{metric: _score_key(a, metric, texts[metric], scorer.identity) for metric in texts} for a in group]
        missing = [{metric: key for metric, key in of.items() if key not in done} for of in keys]
        values = scorer.scores(group, prefer) if any(missing) else [{}] * len(group)
        for answer, missing_keys, by_metric in zip(group, missing, values, strict=True):
            unscored += bool(missing_keys and not by_metric)
            for metric, key in missing_keys.items():
                if metric in by_metric:
                    yield Score(key, answer.key, metric, by_metric[metric], scorer.name)
        n_done += len(group)
    progress(len(answers), len(answers))
    if unscored:
        log.warning("%s cannot score %d answers, which are empty or too long for its context", scorer.name, unscored)


def _of_one_prompt(answers: Sequence[AnswerRecord]) -> Iterator[list[AnswerRecord]]:
    """The answers to the same prompt under the same objectives, at most ``_TOGETHER`` at a time."""
    groups: dict[tuple[str, str], list[AnswerRecord]] = {}
    for answer in answers:
        groups.setdefault((answer.objectives, answer.prompt), []).append(answer)
    for group in groups.values():
        for start in range(0, len(group), _TOGETHER):
            yield group[start : start + _TOGETHER]


def _score_key(answer: AnswerRecord, metric: str, prefix_text: str, identity: object) -> str:
    return key_of(
        answer=answer.key,
        text=answer.text,
        prompt=answer.prompt,
        finish_reason=answer.finish_reason,
        metric=metric,
        prefix=prefix_text,
        by=identity,
    )


@dataclass(frozen=True)
class Pair:
    """An answer, and the baseline's to the same objectives, prompt and seed."""

    answer: AnswerRecord
    baseline: AnswerRecord


def pairs_of(answers: Iterable[AnswerRecord], suite: Suite, most: int | None = None) -> list[Pair]:
    """The answers of every system paired with its baseline's, in the order of the answers.

    Args:
        most: the most pairs for each system and objectives; None for all.
    """
    answers = list(answers)
    by_place = {_place(answer, answer.system): answer for answer in answers}
    baselines = suite.baselines
    taken: Counter[tuple[str, str]] = Counter()
    pairs = []
    for answer in answers:
        other = by_place.get(_place(answer, baselines.get(answer.system)))
        group = answer.objectives, answer.system
        if other and (most is None or taken[group] < most):
            taken[group] += 1
            pairs.append(Pair(answer, other))
    return pairs


def _place(answer: AnswerRecord, system: str | None) -> tuple[str, str, int, str | None]:
    return answer.objectives, answer.prompt_id, answer.seed, system


def questions_of(pair: Pair, prefer: Sequence[str], judge: Judge) -> list[Question]:
    """The questions about each preference and about quality, in both orders."""
    aspects = {split_strength(wish)[0]: resolve(wish) for wish in prefer} | {QUALITY: ""}
    return [
        make_question(first, second, aspect, text, judge.identity)
        for first, second in ((pair.answer, pair.baseline), (pair.baseline, pair.answer))
        for aspect, text in aspects.items()
    ]


class Judging:
    """Asks one judge about pairs of answers, always in both orders.

    n_questions: the number of questions about all pairs.
    todo: the questions whose keys are not in ``done``.
    n_calls: the number of these questions.
    n_tokens: an estimate of their tokens, if each question is read separately.
    """

    def __init__(
        self, pairs: Iterable[Pair], objectives: Mapping[str, Objectives], judge: Judge, done: Collection[str]
    ) -> None:
        self._judge = judge
        self._done = done
        self._groups = [questions_of(pair, objectives[pair.answer.objectives].prefer, judge) for pair in pairs]
        self.todo = [question for group in self._groups for question in group if question.key not in done]
        self.n_questions = sum(map(len, self._groups))
        self.n_calls = len(self.todo)
        self.n_tokens = sum(len((SYSTEM + question.text).encode()) for question in self.todo) // _BYTES_PER_TOKEN

    def verdicts(self, progress: Progress = no_progress) -> Iterator[Verdict]:
        """Yield the missing verdicts.

        Raises:
            Interrupted: on request; the verdicts yielded so far are complete.
            ModelError: the judge cannot judge.
        """
        n_done = self.n_questions - self.n_calls
        progress(n_done, self.n_questions)
        groups = [group for group in self._groups if any(question.key not in self._done for question in group)]
        for question, opinion in self._judge.ask(groups, self._done):
            yield _verdict(question, opinion, self._judge.name)
            n_done += 1
            progress(n_done, self.n_questions)
        for reason, n in self._judge.failures.most_common():
            log.warning("%s gave no verdict on %d of %d questions: %s", self._judge.name, n, self.n_questions, reason)


def _verdict(question: Question, opinion: Opinion, by: str) -> Verdict:
    first, second = question.first.key, question.second.key
    return Verdict(question.key, first, second, question.aspect, by, opinion.p_first, opinion.p_second, opinion.p_tie)
