"""Scores and verdicts of answers: resumed without repeating work, and the same whichever were known before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pytest
from answer_records import make_answer
from tiny_models import write_llama

from pjlocal import Engine, Prompting
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.model import Model
from pjlocal.evaluation.judges import Group, LocalJudge, Opinion
from pjlocal.evaluation.question import Question
from pjlocal.evaluation.records import Folder, Score
from pjlocal.evaluation.reward import Scorer
from pjlocal.evaluation.run import Run
from pjlocal.evaluation.score import ScoringModels, score_run
from pjlocal.evaluation.scoring import Judging, Pair, pairs_of, score_answers
from pjlocal.evaluation.suite import Objectives, Suite, System

OBJECTIVES = {"o": Objectives("o", ("vivid:1.5", "Talk like a pirate."))}
SYSTEMS = (System("plain"), System("judge"), System("both"))
SUITE = Suite("s", "S", (OBJECTIVES["o"],), SYSTEMS, baseline="plain")
ANSWERS = [
    make_answer(f"the {what} sees the sun", system=system, prompt=prompt)
    for prompt in ("Why?", "How so?")
    for system, what in (("plain", "dog"), ("judge", "cat"), ("both", "cat and a dog"))
]
ASPECTS = ("vivid", "Talk like a pirate.", "quality")


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> Iterator[Model]:
    model = Model(tiny("llama"), Engine(n_threads=1), Interrupt())
    yield model
    model.close()


def score(model: Model, done: Collection[str] = (), interrupt: Interrupt | None = None) -> list:
    with Scorer(model, Engine(n_threads=1), Prompting(), interrupt or Interrupt()) as scorer:
        return list(score_answers(ANSWERS, OBJECTIVES, scorer, done))


def test_every_answer_gets_every_score_once_and_resuming_changes_no_bit(model: Model) -> None:
    scores = score(model)
    assert Counter(s.metric for s in scores) == dict.fromkeys(
        ("reward:vivid", "reward:Talk like a pirate.", "fluency", "prompting"), len(ANSWERS)
    )
    assert {s.by for s in scores} == {"llama.gguf"} and len({s.key for s in scores}) == len(scores)
    assert score(model, {s.key for s in scores}) == []
    known = {s.key for s in scores[::3]}
    assert score(model, known) == [s for s in scores if s.key not in known]


def test_another_model_scores_again(model: Model, tiny: Callable[[str], Path]) -> None:
    done = {s.key for s in score(model)}
    other = Model(tiny("space_prefix"), Engine(n_threads=1), Interrupt())
    try:
        assert len(score(other, done)) == len(done)
    finally:
        other.close()


@pytest.mark.slow
def test_a_model_file_that_changed_scores_and_judges_again(tmp_path: Path) -> None:
    """Also where its head, its end and its size are the same, as those of a merged adapter may be."""
    path = write_llama(tmp_path / "m.gguf", n_vocab=12_000)

    def identities(engine: Engine = Engine(n_threads=1)) -> list[object]:
        model = Model(path, engine, Interrupt())
        try:
            with Scorer(model, engine, Prompting(), Interrupt()) as scorer:
                judge = LocalJudge(model, engine, Interrupt())
                judge.close()
                return [scorer.identity, judge.identity]
        finally:
            model.close()

    first = identities()
    assert identities(Engine(n_threads=2, n_ctx=300)) == first
    assert all(a != b for a, b in zip(first, identities(Engine(n_threads=1, cache_type_k="f32")), strict=True))
    data = bytearray(path.read_bytes())
    assert len(data) > 5 << 20
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert all(a != b for a, b in zip(first, identities(), strict=True))


def test_the_score_of_the_last_used_file_counts(tiny: Callable[[str], Path], tmp_path) -> None:
    """Two files of one name, one after the other: the report has the numbers of the one that was asked last."""
    run, path = Run(SUITE, (), tuple(answer.key for answer in ANSWERS)), tmp_path / "m.gguf"
    with Folder(tmp_path / "out") as folder:
        for answer in ANSWERS:
            folder.append(answer)

        def fluency(seed: int) -> list[float]:
            write_llama(path, seed=seed)
            scoring = ScoringModels(scorers=(path,))
            score_run(folder, run, scoring, Prompting(), Engine(n_threads=1), Interrupt(), lambda *_: None, print)
            return [score.value for score in folder.read(Score).values() if score.metric == "fluency"]

        first, other = fluency(1), fluency(2)
        assert fluency(1) == first != other and len(first) == len(ANSWERS)
        size = (tmp_path / "out" / "scores.jsonl").stat().st_size
        assert fluency(1) == first and (tmp_path / "out" / "scores.jsonl").stat().st_size == size


def test_two_scorers_with_the_same_file_name_have_different_names(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "m.gguf" for folder in "ab"]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        write_llama(path, seed=seed)
    run = Run(SUITE, (), tuple(answer.key for answer in ANSWERS))
    with Folder(tmp_path / "out") as folder:
        for answer in ANSWERS:
            folder.append(answer)
        scoring = ScoringModels(scorers=paths)
        score_run(folder, run, scoring, Prompting(), Engine(n_threads=1), Interrupt(), lambda *_: None, print)
        by = {score.by for score in folder.read(Score).values() if score.by}
    assert by == {str(path) for path in paths}


def test_answers_that_cannot_be_scored_give_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, int]] = []
    answers = [make_answer("", finish_reason="length"), make_answer("the cat " * 600), make_answer("the cat")]
    with Scorer(model, Engine(n_threads=1), Prompting(), Interrupt()) as scorer:
        scores = list(score_answers(answers, OBJECTIVES, scorer, (), lambda *n: told.append(n)))
    assert {s.answer for s in scores} == {answers[2].key}
    assert told == [(0, 3), (3, 3)]  # all answer one prompt
    assert "cannot score 2 answers" in caplog.text


def test_an_interrupt_leaves_whole_answers(model: Model) -> None:
    interrupt = Interrupt()
    scores = []
    with Scorer(model, Engine(n_threads=1), Prompting(), interrupt) as scorer:
        running = score_answers(ANSWERS, OBJECTIVES, scorer, ())
        scores += [next(running) for _ in range(12)]  # those of the first prompt, whose answers are read together
        interrupt.set()
        with pytest.raises(Interrupted):
            next(running)
    assert {s.answer for s in scores} == {answer.key for answer in ANSWERS[:3]}


def test_pairs_have_the_same_objectives_prompt_and_seed() -> None:
    lonely = make_answer("x", system="judge", prompt="Why?", seed=1)
    pairs = pairs_of([*ANSWERS, lonely], SUITE)
    assert [(p.answer.system, p.answer.prompt, p.baseline.system, p.baseline.prompt) for p in pairs] == [
        (system, prompt, "plain", prompt) for prompt in ("Why?", "How so?") for system in ("judge", "both")
    ]


def test_a_system_is_judged_against_its_named_opponent_within_the_limit() -> None:
    suite = Suite("s", "S", (OBJECTIVES["o"],), (*SYSTEMS[:2], System("both", against="judge")), baseline="plain")
    pairs = pairs_of(ANSWERS, suite, most=1)
    assert [(p.answer.system, p.baseline.system, p.answer.prompt) for p in pairs] == [
        ("judge", "plain", "Why?"),
        ("both", "judge", "Why?"),
    ]


class SaysOne:
    """A judge that always says that the first answer is the better one."""

    name, identity = "one", "one"

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()

    def ask(self, groups: Iterable[Group], done: Collection[str]) -> Iterator[tuple[Question, Opinion]]:
        for group in groups:
            yield from ((q, Opinion(1.0, 0.0, 0.0)) for q in group if q.key not in done)

    def close(self) -> None:
        pass


def test_a_judge_that_always_says_1_has_a_win_rate_of_half_and_flips_all_verdicts() -> None:
    pairs = pairs_of(ANSWERS, SUITE)
    verdicts = {(v.first, v.second, v.aspect): v for v in Judging(pairs, OBJECTIVES, SaysOne(), ()).verdicts()}
    assert len(verdicts) == len(pairs) * 2 * len(ASPECTS)
    for pair in pairs:
        for aspect in ASPECTS:
            there = verdicts[pair.answer.key, pair.baseline.key, aspect]
            back = verdicts[pair.baseline.key, pair.answer.key, aspect]
            assert there.p_first + back.p_second == 1.0  # of two
            assert (there.p_first > there.p_second) == (back.p_first > back.p_second)  # turned over


def judge(model: Model, pairs: list[Pair], done: Collection[str] = ()) -> list:
    local = LocalJudge(model, Engine(n_ctx=2048, n_threads=1), Interrupt())
    try:
        return list(Judging(pairs, OBJECTIVES, local, done).verdicts())
    finally:
        local.close()


@pytest.mark.slow
def test_a_local_judge_asks_both_orders_and_resuming_changes_no_bit(model: Model) -> None:
    pairs = pairs_of(ANSWERS, SUITE)
    verdicts = judge(model, pairs)
    assert len(verdicts) == len({v.key for v in verdicts}) == len(pairs) * 2 * len(ASPECTS)
    assert all(
        v.p_first + v.p_second + v.p_tie == pytest.approx(1) and min(v.p_first, v.p_second) > 0 for v in verdicts
    )
    known = {v.key for v in verdicts[::4]}
    assert judge(model, pairs, known) == [v for v in verdicts if v.key not in known]
    assert judge(model, pairs, {v.key for v in verdicts}) == []


def test_the_shared_beginning_of_questions_is_read_once(model: Model) -> None:
    local = LocalJudge(model, Engine(n_ctx=2048, n_threads=1), Interrupt())
    try:
        judging = Judging(pairs_of(ANSWERS, SUITE), OBJECTIVES, local, ())
        assert len(list(judging.verdicts())) == 24
        one_by_one = sum(len(local.prompt(question)) for question in judging.todo)
        assert local.n_fed < one_by_one / 2
    finally:
        local.close()


def test_calls_and_tokens_are_counted_before_the_judge_runs() -> None:
    pairs = pairs_of(ANSWERS, SUITE)
    judging = Judging(pairs, OBJECTIVES, SaysOne(), ())
    assert judging.n_questions == judging.n_calls == 24
    assert 24 * 100 < judging.n_tokens < 24 * 300
    done = {v.key for v in judging.verdicts()}
    left = Judging(pairs, OBJECTIVES, SaysOne(), done)
    assert (left.n_questions, left.n_calls, left.n_tokens) == (24, 0, 0)
    told: list[tuple[int, int]] = []
    assert list(left.verdicts(lambda *n: told.append(n))) == [] and told == [(24, 24)]


def test_answers_too_long_for_the_judge_give_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    long = [make_answer("the cat " * 1200, system=system) for system in ("plain", "judge")]
    assert judge(model, pairs_of(long, SUITE)) == []
    assert "no verdict on 6 of 6 questions: the two answers are too long" in caplog.text


def test_a_local_judge_stops_at_once(model: Model) -> None:
    interrupt = Interrupt()
    local = LocalJudge(model, Engine(n_ctx=2048, n_threads=1), interrupt)
    try:
        verdicts = Judging(pairs_of(ANSWERS, SUITE), OBJECTIVES, local, ()).verdicts()
        first = next(verdicts)
        interrupt.set()
        with pytest.raises(Interrupted):
            list(verdicts)
    finally:
        local.close()
    assert first.aspect == "vivid"
