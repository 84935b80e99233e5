"""Scores and verdicts of answers: resumed without repeating work, and the same whichever were known before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from evaluated import make_answer
from tiny_models import write_llama

from pjlocal import Engine, Prompting
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.model import Model
from pjlocal.evaluation import score as scoring
from pjlocal.evaluation.judges import Group, LocalJudge, Opinion
from pjlocal.evaluation.question import Question
from pjlocal.evaluation.records import AnswerRecord, Folder, Score, Verdict
from pjlocal.evaluation.reward import Scorer
from pjlocal.evaluation.run import Run, written_answers, written_scores, written_verdicts
from pjlocal.evaluation.score import Pair, pairs_of, questions_of, score_answers, score_run, verdicts
from pjlocal.evaluation.suite import Check, Objectives, Scoring, Suite, System, with_models

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
def model(load: Callable[..., Model]) -> Model:
    return load("llama")


def score(model: Model, done: Collection[str] = ()) -> list:
    with closing(make_scorer(model)) as scorer:
        return list(score_answers(ANSWERS, OBJECTIVES, scorer, done))


def make_scorer(model: Model, engine: Engine = Engine(n_threads=1), interrupt: Interrupt | None = None) -> Scorer:
    return Scorer(model, engine, Prompting(), interrupt or Interrupt())


def test_every_answer_gets_every_score_once_and_resuming_changes_no_bit(model: Model) -> None:
    scores = score(model)
    assert Counter(s.metric for s in scores) == dict.fromkeys(
        ("reward:vivid", "reward:Talk like a pirate.", "fluency", "prompting"), len(ANSWERS)
    )
    assert {s.by for s in scores} == {"llama.gguf"} and len({s.key for s in scores}) == len(scores)
    assert score(model, {s.key for s in scores}) == []
    known = {s.key for s in scores[::3]}
    assert score(model, known) == [s for s in scores if s.key not in known]


def test_another_model_scores_again(load: Callable[..., Model]) -> None:
    done = {s.key for s in score(load("llama"))}
    assert len(score(load("space_prefix"), done)) == len(done)


@pytest.mark.slow
def test_a_model_file_that_changed_scores_and_judges_again(tmp_path: Path) -> None:
    """Also where its head, its end and its size are the same, as those of a merged adapter may be."""
    path = write_llama(tmp_path / "m.gguf", n_vocab=12_000)

    def identities(engine: Engine = Engine(n_threads=1)) -> list[object]:
        with (
            closing(Model(path, engine, Interrupt())) as model,
            closing(make_scorer(model, engine)) as scorer,
            closing(LocalJudge(model, engine, Interrupt())) as judge,
        ):
            return [scorer.identity, judge.identity]

    first = identities()
    assert identities(Engine(n_threads=2, n_ctx=300)) == first
    assert all(a != b for a, b in zip(first, identities(Engine(n_threads=1, cache_type_k="f32")), strict=True))
    data = bytearray(path.read_bytes())
    assert len(data) > 5 << 20
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert all(a != b for a, b in zip(first, identities(), strict=True))


def test_the_score_of_the_last_used_file_counts(tmp_path: Path) -> None:
    """Two files of one name, one after the other: the report has the numbers of the one that was asked last."""
    path = tmp_path / "m.gguf"

    def fluency(seed: int) -> list[float]:
        write_llama(path, seed=seed)
        return [score.value for score in scored(tmp_path / "out", [path]) if score.metric == "fluency"]

    first, other = fluency(1), fluency(2)
    assert fluency(1) == first != other and len(first) == len(ANSWERS)
    size = (tmp_path / "out" / "scores.jsonl").stat().st_size
    assert fluency(1) == first and (tmp_path / "out" / "scores.jsonl").stat().st_size == size


def scored(
    path: Path, scorers: Sequence[Path] = (), suite: Suite = SUITE, answers: Sequence[AnswerRecord] = ANSWERS
) -> list[Score]:
    """The scores in a folder after these models have scored the answers."""
    run, scoring = Run(suite, (), tuple(answer.key for answer in answers)), Scoring(scorer=tuple(map(str, scorers)))
    with Folder(path) as folder:
        for answer in answers:
            folder.append(answer)
        score_run(folder, run, scoring, Prompting(), Engine(n_threads=1), Interrupt(), lambda *_: None, print)
        return [*folder.read(Score).values()]


@pytest.mark.parametrize("models", [[], ["a.gguf", "b.gguf"]])
def test_answers_are_compared_with_the_plain_system_that_is_the_baseline(tmp_path: Path, models: list[str]) -> None:
    objectives = Objectives("o", ("vivid",), (Check("shorter", shorter_than=0.9),))
    systems = (System("first", {"mode": "plain"}), System("long", {"mode": "plain"}), System("judge"))
    suite = with_models(Suite("s", "S", (objectives,), systems, baseline="first"), models)
    words = {"first": "It purrs.", "long": "It purrs because it is happy.", "judge": "It purrs happily."}
    answers = [make_answer(words[each.name.split()[0]], system=each.name) for each in suite.systems]
    shorter = {score.answer: score.value for score in scored(tmp_path, (), suite, answers) if "shorter" in score.metric}
    assert [*shorter.values()] == [0] * len(suite.systems)


def test_two_scorers_with_the_same_file_name_have_different_names(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "m.gguf" for folder in "ab"]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        write_llama(path, seed=seed)
    assert {score.by for score in scored(tmp_path / "out", paths) if score.by} == {str(path) for path in paths}


def test_answers_that_cannot_be_scored_give_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, int]] = []
    answers = [make_answer("", finish_reason="length"), make_answer("the cat " * 600), make_answer("the cat")]
    with closing(make_scorer(model)) as scorer:
        scores = list(score_answers(answers, OBJECTIVES, scorer, (), lambda *n: told.append(n)))
    assert {s.answer for s in scores} == {answers[2].key}
    assert told == [(0, 3), (3, 3)]  # all answer one prompt
    assert "cannot score 2 answers" in caplog.text


def test_an_interrupt_leaves_whole_answers(model: Model) -> None:
    interrupt = Interrupt()
    scores = []
    with closing(make_scorer(model, interrupt=interrupt)) as scorer:
        running = score_answers(ANSWERS, OBJECTIVES, scorer, ())
        scores += [next(running) for _ in range(12)]  # those of the first prompt, whose answers are read together
        interrupt.set()
        with pytest.raises(Interrupted):
            next(running)
    assert {s.answer for s in scores} == {answer.key for answer in ANSWERS[:3]}


def test_pairs_have_the_same_objectives_prompt_and_seed() -> None:
    lonely = make_answer("x", system="judge", prompt="Why?", seed=1)
    pairs = pairs_of([*ANSWERS, lonely], SUITE)
    assert [(answer.system, answer.prompt, base.system, base.prompt) for answer, base in pairs] == [
        (system, prompt, "plain", prompt) for prompt in ("Why?", "How so?") for system in ("judge", "both")
    ]


def test_a_system_is_judged_against_its_named_opponent_within_the_limit() -> None:
    suite = Suite("s", "S", (OBJECTIVES["o"],), (*SYSTEMS[:2], System("both", against="judge")), baseline="plain")
    pairs = pairs_of(ANSWERS, suite, most=1)
    assert [(answer.system, base.system, answer.prompt) for answer, base in pairs] == [
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
            yield from ((q, (1.0, 0.0, 0.0)) for q in group if q.key not in done)


def verdicts_by(
    judge: LocalJudge | SaysOne,
    pairs: list[Pair],
    done: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Verdict]:
    groups = [questions_of(pair, OBJECTIVES["o"].prefer, judge) for pair in pairs]
    return verdicts(groups, judge, done, progress)


def test_a_judge_that_always_says_1_has_a_win_rate_of_half_and_flips_all_verdicts() -> None:
    pairs = pairs_of(ANSWERS, SUITE)
    by_pair = {(v.first, v.second, v.aspect): v for v in verdicts_by(SaysOne(), pairs)}
    assert len(by_pair) == len(pairs) * 2 * len(ASPECTS)
    for answer, base in pairs:
        for aspect in ASPECTS:
            there, back = by_pair[answer.key, base.key, aspect], by_pair[base.key, answer.key, aspect]
            assert there.p_first + back.p_second == 1.0  # of two
            assert (there.p_first > there.p_second) == (back.p_first > back.p_second)  # turned over


def judge(model: Model, pairs: list[Pair], done: Collection[str] = ()) -> list:
    with closing(make_judge(model)) as local:
        return list(verdicts_by(local, pairs, done))


def make_judge(model: Model, interrupt: Interrupt | None = None) -> LocalJudge:
    return LocalJudge(model, Engine(n_ctx=2048, n_threads=1), interrupt or Interrupt())


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
    with closing(make_judge(model)) as local:
        groups = [questions_of(pair, OBJECTIVES["o"].prefer, local) for pair in pairs_of(ANSWERS, SUITE)]
        assert len(list(verdicts(groups, local, (), lambda *_: None))) == 24
        one_by_one = sum(len(local.prompt(question)) for group in groups for question in group)
        assert local.reader.n_fed < one_by_one / 2


def test_calls_and_tokens_are_counted_before_the_judge_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_judge", lambda *_: nullcontext(SaysOne()))
    run, there = Run(SUITE, (), tuple(answer.key for answer in ANSWERS)), Scoring(judge="one", judge_url="http://h")
    said: list[str] = []
    told: list[tuple[str, int, int]] = []
    with Folder(tmp_path) as folder:
        for answer in ANSWERS:
            folder.append(answer)
        for _ in range(2):
            score_run(folder, run, there, Prompting(), Engine(), Interrupt(), lambda *n: told.append(n), said.append)
    (announced,) = said
    n_calls, n_tokens = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", announced))
    assert n_calls == 24 and 24 * 100 < n_tokens < 24 * 300
    judged = [n for name, *n in told if name == "verdicts by one"]
    assert judged == [[n, 24] for n in range(25)] + [[24, 24]], "nothing is asked again"


def test_answers_too_long_for_the_judge_give_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    long = [make_answer("the cat " * 1200, system=system) for system in ("plain", "judge")]
    assert judge(model, pairs_of(long, SUITE)) == []
    assert "no verdict on 6 of 6 questions: the two answers are too long" in caplog.text


def test_a_local_judge_stops_at_once(model: Model) -> None:
    interrupt = Interrupt()
    with closing(make_judge(model, interrupt)) as local:
        asking = verdicts_by(local, pairs_of(ANSWERS, SUITE))
        first = next(asking)
        interrupt.set()
        with pytest.raises(Interrupted):
            list(asking)
    assert first.aspect == "vivid"


def test_a_report_leaves_out_scores_of_checks_preferences_and_answers_that_the_suite_no_longer_has(
    tmp_path: Path,
) -> None:
    mine, other = make_answer("the cat", system="judge"), make_answer("the dog", system="gone")
    objectives = Objectives("o", ("vivid:1.5",), (Check("brief", max_words=3),))
    run = Run(Suite("s", "S", (objectives,), (System("judge"),), baseline="judge"), (), (mine.key,), {})
    metrics = ["words", "check:brief", "check:all", "reward:vivid", "check:short", "reward:formal"]
    with Folder(tmp_path) as folder:
        for answer in (mine, other):
            folder.append(answer)
            for metric in metrics:
                folder.append(Score(f"{answer.key}{metric}", answer.key, metric, 1.0))
        folder.append(Verdict("v", mine.key, other.key, "quality", "m", 1.0, 0.0, 0.0))
        answers = written_answers(folder, run)
        assert [score.metric for score in written_scores(folder, run, answers)] == metrics[:4]
        assert written_verdicts(folder, answers) == []
