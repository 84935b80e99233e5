"""Compute the scores and verdicts that are missing in a run's folder: checks, scores by models, verdicts of a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..engine.interrupt import Interrupt
from ..engine.model import Model
from ..gguf.ollama import shown_name
from ..settings import Engine, Prompting
from . import checks
from .judges import Judge, LocalJudge
from .records import AnswerRecord, Folder, Score, Verdict
from .reward import Scorer
from .reward_model import Ranker
from .run import Run
from .scoring import Judging, pairs_of, score_answers

#: Called with the name of a task, the number done, and the total.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ScoringModels:
    """The models that score answers.

    scorers: models whose likelihoods give the implicit rewards and the fluency.
    reward_model: a model with a head for ranking.
    judge: a model that compares two answers; instead of it, ``judge_url`` names a server, and ``judge_model`` the model
        there.
    judge_pairs: the number of each system's answers that are judged; None for all.
    """

    scorers: Sequence[Path] = ()
    reward_model: Path | None = None
    judge: Path | None = None
    judge_url: str | None = None
    judge_model: str = ""
    judge_pairs: int | None = None


def written_answers(folder: Folder, run: Run) -> list[AnswerRecord]:
    """The answers of the run that exist already, in the order of its keys."""
    written = folder.read(AnswerRecord)
    return [written[key] for key in run.keys if key in written]


def score_run(
    folder: Folder,
    run: Run,
    scoring: ScoringModels,
    prompting: Prompting,
    engine: Engine,
    interrupt: Interrupt,
    progress: Progress,
    announce: Callable[[str], None],
) -> None:
    """Compute the missing scores and verdicts, and save each immediately.

    Args:
        announce: called with a message before requests are sent to a server.

    Raises:
        Interrupted: on request; finished scores are saved.
        UsageError, ModelError, OutputError: a score cannot be computed or saved.
    """
    answers = written_answers(folder, run)
    _check(folder, run, answers, progress)
    for path in scoring.scorers:
        with ExitStack() as stack:
            model = Model(path, engine, interrupt)
            stack.callback(model.close)
            scorer = stack.enter_context(Scorer(model, engine, prompting, interrupt))
            scorer.name = _name(path, scoring.scorers)
            _score(folder, run, answers, scorer, progress)
    if scoring.reward_model:
        with Ranker(scoring.reward_model, engine, prompting, interrupt) as ranker:
            _score(folder, run, answers, ranker, progress)
    with ExitStack() as stack:
        judge = _judge(scoring, engine, interrupt, stack)
        if judge:
            _judge_all(folder, run, answers, judge, scoring, progress, announce)


def check_scoring_models(scoring: ScoringModels, prompting: Prompting, engine: Engine, interrupt: Interrupt) -> None:
    """Refuse models that cannot score; to be called before answers are written.

    Raises:
        UsageError, ModelError: a model cannot be used.
    """
    with ExitStack() as stack:
        for path in scoring.scorers:
            Model(path, engine, interrupt).close()
        if scoring.reward_model:
            stack.enter_context(Ranker(scoring.reward_model, engine, prompting, interrupt))
        _judge(scoring, engine, interrupt, stack)


def _name(path: Path, others: Sequence[Path]) -> str:
    """A scorer's name in the report: the model's name if it is unique, else its path."""
    name = shown_name(path)
    return name if sum(shown_name(other) == name for other in others) == 1 else str(path)


def _check(folder: Folder, run: Run, answers: Sequence[AnswerRecord], progress: Progress) -> None:
    """Compute the scores that need no model.  Some compare with the plain answer to the same prompt and seed."""
    known = folder.read(Score)
    objectives = {one.name: one for one in run.suite.objectives}
    unpreferred = {system.name for system in run.suite.systems if system.settings.get("mode") == "plain"}
    plain = {(a.prompt_id, a.seed): a for a in answers if a.system in unpreferred}
    for number, answer in enumerate(answers, 1):
        of = objectives[answer.objectives]
        for score in checks.scores(answer, of, plain.get((answer.prompt_id, answer.seed))):
            if score.key not in known:
                folder.append(score)
        progress("checks", number, len(answers))


def _score(
    folder: Folder, run: Run, answers: Sequence[AnswerRecord], scorer: Scorer | Ranker, progress: Progress
) -> None:
    objectives = {one.name: one for one in run.suite.objectives}
    what = f"scores by {scorer.name}"
    scores = score_answers(
        answers, objectives, scorer, folder.read(Score), lambda done, total: progress(what, done, total)
    )
    for score in scores:
        folder.append(score)


def _judge(scoring: ScoringModels, engine: Engine, interrupt: Interrupt, stack: ExitStack) -> Judge | None:
    if scoring.judge_url:
        from .endpoint import EndpointJudge  # loads the client, which takes 0.8 s

        return EndpointJudge(scoring.judge_url, scoring.judge_model, interrupt)
    if not scoring.judge:
        return None
    model = Model(scoring.judge, engine, interrupt)
    stack.callback(model.close)
    judge = LocalJudge(model, engine, interrupt)
    stack.callback(judge.close)
    return judge


def _judge_all(
    folder: Folder,
    run: Run,
    answers: Sequence[AnswerRecord],
    judge: Judge,
    scoring: ScoringModels,
    progress: Progress,
    announce: Callable[[str], None],
) -> None:
    objectives = {one.name: one for one in run.suite.objectives}
    pairs = pairs_of(answers, run.suite, scoring.judge_pairs)
    judging = Judging(pairs, objectives, judge, folder.read(Verdict))
    if scoring.judge_url and judging.n_calls:
        announce(f"{judging.n_calls:,} calls of {judge.name}, about {judging.n_tokens:,} tokens to read")
    for verdict in judging.verdicts(lambda done, total: progress(f"verdicts by {judge.name}", done, total)):
        folder.append(verdict)
