"""Compute the scores and verdicts that are missing in a run's folder: checks, scores by models, verdicts of a judge."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.interrupt import Interrupt
from ..engine.model import Model
from ..gguf.ollama import shown_name
from ..prompting.preferences import resolve, without_strength
from ..settings import Engine, Prompting
from . import checks
from .judges import Group, LocalJudge
from .question import QUALITY, QUALITY_CRITERION, SYSTEM, Question
from .records import AnswerRecord, Folder, Score, Verdict, key_of
from .reward import Scorer
from .reward_model import Ranker
from .run import Run, written_answers
from .suite import Objectives, Scoring, Suite, unique_labels

if TYPE_CHECKING:
    from .endpoint import EndpointJudge

    Judge = LocalJudge | EndpointJudge

log = logging.getLogger("pjlocal")

_BYTES_PER_TOKEN = 4  # of English text
_TOGETHER = 8  # answers to one prompt that are scored together


def score_run(
    folder: Folder,
    run: Run,
    scoring: Scoring,
    prompting: Prompting,
    engine: Engine,
    interrupt: Interrupt,
    progress: Callable[[str, int, int], None],
    announce: Callable[[str], None],
) -> None:
    """Compute the missing scores and verdicts, and save each immediately.

    Args:
        progress: called with the name of a task, the number done, and the total.
        announce: called with a message before requests are sent to a server.

    Raises:
        Interrupted: on request; finished scores are saved.
        UsageError, ModelError, OutputError: a score cannot be computed or saved.
    """
    answers = written_answers(folder, run)
    objectives = {one.name: one for one in run.suite.objectives}

    def score(scorer: Scorer | Ranker) -> None:
        done = partial(progress, f"scores by {scorer.name}")
        for score in score_answers(answers, objectives, scorer, folder.read(Score), done):
            folder.append(score)

    _check(folder, run, answers, objectives, progress)
    names = unique_labels([shown_name(Path(path)) for path in scoring.scorer], scoring.scorer)
    for path, name in zip(scoring.scorer, names, strict=True):
        with (
            closing(Model(Path(path), engine, interrupt)) as model,
            closing(Scorer(model, engine, prompting, interrupt)) as scorer,
        ):
            scorer.name = name
            score(scorer)
    if scoring.reward_model:
        with closing(Ranker(Path(scoring.reward_model), engine, prompting, interrupt)) as ranker:
            score(ranker)
    with _judge(scoring, engine, interrupt) as judge:
        if not judge:
            return
        pairs, done = pairs_of(answers, run.suite, scoring.judge_pairs), folder.read(Verdict)
        groups = [questions_of(pair, objectives[pair[0].objectives].prefer, judge) for pair in pairs]
        todo = [question for group in groups for question in group if question.key not in done]
        if scoring.judge_url and todo:
            n_tokens = sum(len((SYSTEM + question.text).encode()) for question in todo) // _BYTES_PER_TOKEN
            announce(f"{len(todo):,} calls of {judge.name}, about {n_tokens:,} tokens to read")
        for verdict in verdicts(groups, judge, done, partial(progress, f"verdicts by {judge.name}")):
            folder.append(verdict)


def check_scoring_models(scoring: Scoring, prompting: Prompting, engine: Engine, interrupt: Interrupt) -> None:
    """Refuse models that cannot score; to be called before answers are written.

    Raises:
        UsageError, ModelError: a model cannot be used.
    """
    for path in scoring.scorer:
        Model(Path(path), engine, interrupt).close()
    if scoring.reward_model:
        Ranker(Path(scoring.reward_model), engine, prompting, interrupt).close()
    with _judge(scoring, engine, interrupt):
        pass


def _check(
    folder: Folder,
    run: Run,
    answers: Sequence[AnswerRecord],
    objectives: Mapping[str, Objectives],
    progress: Callable[[str, int, int], None],
) -> None:
    """Compute the scores that need no model.  Some compare with the plain answer of the same model, prompt and seed; of
    several plain systems, with that of the baseline."""
    known, suite = folder.read(Score), run.suite
    unpreferred = {each.name for each in suite.systems if suite.in_force(each, "mode") == "plain"}
    models, baselines = {each.name: each.model for each in suite.systems}, {*suite.baselines.values()}
    baseline_last = sorted(answers, key=lambda a: (a.system in baselines, a.system == suite.baseline))
    plain = {(models[a.system], a.prompt_id, a.seed): a for a in baseline_last if a.system in unpreferred}
    for number, answer in enumerate(answers, 1):
        of = objectives[answer.objectives]
        for score in checks.scores(answer, of, plain.get((models[answer.system], answer.prompt_id, answer.seed))):
            if score.key not in known:
                folder.append(score)
        progress("checks", number, len(answers))


@contextmanager
def _judge(scoring: Scoring, engine: Engine, interrupt: Interrupt) -> Iterator[Judge | None]:
    if scoring.judge_url:
        from .endpoint import EndpointJudge  # loads the client, which takes 0.8 s

        yield EndpointJudge(scoring.judge_url, scoring.judge or "", interrupt)
    elif scoring.judge:
        with (
            closing(Model(Path(scoring.judge), engine, interrupt)) as model,
            closing(LocalJudge(model, engine, interrupt)) as judge,
        ):
            yield judge
    else:
        yield None


def score_answers(
    answers: Iterable[AnswerRecord],
    objectives: Mapping[str, Objectives],
    scorer: Scorer | Ranker,
    done: Collection[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Score]:
    """Yield the scores by one model whose keys are not in ``done``.

    Answers to the same prompt are scored together, in groups that do not depend on ``done``.  So every score is the
    same to the bit, whichever scores were known before.

    Args:
        objectives: the objectives by name.
        progress: called with the number done and the total.

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


#: An answer, and the baseline's to the same objectives, prompt and seed.
Pair = tuple[AnswerRecord, AnswerRecord]


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
            pairs.append((answer, other))
    return pairs


def _place(answer: AnswerRecord, system: str | None) -> tuple[str, str, int, str | None]:
    return answer.objectives, answer.prompt_id, answer.seed, system


def questions_of(pair: Pair, prefer: Sequence[str], judge: Judge) -> list[Question]:
    """The questions about each preference and about quality, in both orders."""
    aspects = {without_strength(wish): resolve(wish) for wish in prefer} | {QUALITY: QUALITY_CRITERION}
    return [
        Question(first, second, aspect, text, judge.identity)
        for first, second in (pair, pair[::-1])
        for aspect, text in aspects.items()
    ]


def verdicts(
    groups: Sequence[Group], judge: Judge, done: Collection[str], progress: Callable[[int, int], None]
) -> Iterator[Verdict]:
    """Yield a judge's verdicts on the questions whose keys are not in ``done``.

    Raises:
        Interrupted: on request; the verdicts yielded so far are complete.
        ModelError: the judge cannot judge.
    """
    missing = [group for group in groups if any(question.key not in done for question in group)]
    total = sum(map(len, groups))
    n_done = sum(question.key in done for group in groups for question in group)
    progress(n_done, total)
    for question, p in judge.ask(missing, done):
        yield Verdict(question.key, question.first.key, question.second.key, question.aspect, judge.name, *p)
        n_done += 1
        progress(n_done, total)
    for reason, n in judge.failures.most_common():
        log.warning("%s gave no verdict on %d of %d questions: %s", judge.name, n, total, reason)
