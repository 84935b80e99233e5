"""A person votes without seeing the systems.  Every vote is saved immediately, and voting can be continued."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from evaluated import IN_TESTS, SUITE, answer, answers, printed
from terminal import Terminal

from pjlocal.errors import UsageError
from pjlocal.evaluation.compare import Results, compare
from pjlocal.evaluation.records import Folder, Verdict, voter
from pjlocal.evaluation.side_by_side import SideBySide, side_by_side
from pjlocal.evaluation.vote import Question, Voting, all_pairs, outcome, questions, render_question

VOTE = """
import json
import sys
from pathlib import Path
from evaluated import SUITE, answers
from pjlocal.evaluation.records import Folder
from pjlocal.evaluation.side_by_side import side_by_side
from pjlocal.evaluation.vote import Voting, questions, run_vote
from pjlocal.screen.console import make_console
with Folder(Path(sys.argv[1])) as folder:
    of = side_by_side(answers(2, objectives=("bright",)), SUITE)
    run_vote(Voting(questions(of, [("both", "prompt")], ["quality"], seed=1), folder), make_console(sys.stdout))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder(tmp_path) as folder:
        yield folder


def make_questions(prompts: int = 3, seed: int = 1, aspects: tuple[str, ...] = ("quality",)) -> list[Question]:
    of = side_by_side(answers(prompts, objectives=("bright",)), SUITE)
    return questions(of, [("both", "prompt"), ("judge", "prompt")], aspects, seed)


def test_the_order_is_drawn_with_the_seed() -> None:
    def order(seed: int) -> list[tuple[str, str]]:
        return [(q.first.key, q.second.key) for q in make_questions(20, seed)]

    assert order(1) == order(1) != order(2)
    firsts = sum(q.first.system == "prompt" for q in make_questions(20))
    assert 8 < firsts < 32, "of 40"


def test_all_aspects_of_two_answers_come_together_and_in_one_order() -> None:
    found = make_questions(4, aspects=())
    assert [q.aspect for q in found] == ["vivid", "creative", "quality"] * 8
    for at in range(0, len(found), 3):
        assert len({(q.first.key, q.second.key) for q in found[at : at + 3]}) == 1


def test_identical_answers_need_no_vote() -> None:
    same = [answer("both", 1, "The same."), answer("prompt", 1, " The same.\n"), answer("judge", 1, "Another.")]
    found = questions(side_by_side(same, SUITE), [("both", "prompt"), ("judge", "prompt")], ["quality"], 0)
    assert [{q.first.system, q.second.system} for q in found] == [{"judge", "prompt"}]


def test_pairs_are_those_with_the_baseline_or_the_two_that_are_named() -> None:
    of = side_by_side(answers(1), SUITE)
    assert all_pairs(of, SUITE) == [("judge", "prompt"), ("both", "prompt")]
    assert all_pairs(of, SUITE, ["both"]) == [("both", "prompt")]
    assert all_pairs(of, SUITE, ["prompt"]) == all_pairs(of, SUITE), "the baseline is in all of them"
    assert all_pairs(of, SUITE, ["both", "judge"]) == [("both", "judge")]
    assert all_pairs(of, SUITE, ["judge", "both", "judge"]) == [("judge", "both")], "each pair once"
    with pytest.raises(UsageError, match="no system 'x' in these answers: there are prompt, judge, both"):
        all_pairs(of, SUITE, ["x"])
    with pytest.raises(UsageError, match="fewer than two systems to choose between"):
        all_pairs(of, replace(SUITE, baseline="nobody"))


def test_a_vote_is_kept_at_once_as_a_verdict_of_a_persons(folder: Folder) -> None:
    voting = Voting(make_questions(), folder, by=voter("Ada"))
    for choice, expected in ((1, (1.0, 0.0, 0.0)), (2, (0.0, 1.0, 0.0)), (0, (0.0, 0.0, 1.0))):
        question = voting.question
        assert question
        voting.vote(choice)
        kept = [*Folder(folder.path).read(Verdict).values()][-1]
        assert (kept.first, kept.second, kept.aspect) == (question.first.key, question.second.key, "quality")
        assert (kept.p_first, kept.p_second, kept.p_tie) == expected and kept.by == "person Ada"


def test_open_questions_remain_for_the_next_vote_with_any_seed(folder: Folder) -> None:
    with Folder(folder.path) as before:
        voting = Voting(make_questions(seed=1), before)
        for _ in range(4):
            voting.vote(1)
    for seed in (1, 2):
        again = Voting(make_questions(seed=seed), folder)
        assert again.n_done == 4 and len(again.votes()) == 4
    assert Voting(make_questions(), folder, by=voter("another")).n_done == 0
    again.vote(2), again.vote(2)
    assert again.question is None and len(again.votes()) == 6


def test_votes_can_be_undone_and_repeated(folder: Folder) -> None:
    voting = Voting(make_questions(), folder)
    voting.undo()
    assert voting.notice == "no vote to undo"
    first = voting.question
    voting.vote(1), voting.vote(1)
    voting.undo(), voting.undo()
    assert voting.question is first and voting.n_done == 0
    assert folder.read(Verdict) == {}, "gone from the folder, too"
    voting.vote(2)
    assert [v.p_second for v in folder.read(Verdict).values()] == [1.0]


def test_a_vote_followed_by_other_writers_lines_is_replaced_by_the_next_vote(tmp_path: Path) -> None:
    """On a file system without locks."""
    with Folder(tmp_path) as folder:
        voting = Voting(make_questions(), folder)
        voting.vote(1)
        theirs = Verdict("k", "x", "y", "quality", "m", 0.2, 0.7, 0.1)
        with open(tmp_path / "verdicts.jsonl", "a") as file:
            file.write(json.dumps(asdict(theirs)) + "\n")
        voting.undo()
        assert "the vote stays until you vote again" in voting.notice
        voting.vote(2)
        assert folder.read(Verdict)["k"] == theirs
        assert [v.p_second for v in voting.votes()] == [1.0]


def test_the_question_does_not_show_the_systems(folder: Folder) -> None:
    of: list[SideBySide] = side_by_side([answer("both", 1, "One.\x1b[2J"), answer("prompt", 1, "Two.")], SUITE)
    voting = Voting(questions(of, [("both", "prompt")], ["vivid"], 0), folder)
    text = "".join(printed(render_question(voting, n), width=n, force_terminal=True) for n in (40, 120))
    assert "both" not in text and "prompt" not in text and "accepted" not in text
    assert "\x1b[2J" not in text and "Which answer is more: vivid?" in text


def test_votes_have_the_same_statistics_as_a_judges_verdicts(folder: Folder) -> None:
    voting = Voting(make_questions(8), folder)
    while question := voting.question:
        voting.vote(1 if question.first.system == "both" else 2 if question.second.system == "both" else 0)
    told = compare(Results(SUITE, answers(8, objectives=("bright",)), (), voting.votes()))
    rates = {row.system: (row.result.rate.value, row.result.wins, row.result.ties, row.incomplete) for row in told.wins}
    assert rates == {"both": (1.0, 8, 0, 0), "judge": (0.5, 0, 8, 0)}
    assert told.judges == {}, "of a person nobody knows what another order would have changed"


def test_the_result_shows_the_systems(folder: Folder) -> None:
    voting = Voting(make_questions(2), folder)
    while question := voting.question:
        is_both = [a.system == "both" for a in (question.first, question.second)]
        voting.vote(is_both.index(True) + 1 if any(is_both) else 0)
    shown = " ".join(printed(outcome(voting, SUITE)).split())
    assert shown.endswith("both prompt quality 2 0 0 judge prompt quality 0 2 0")


def test_a_system_is_counted_against_its_baseline(folder: Folder) -> None:
    suite = replace(SUITE, systems=(*SUITE.systems[:2], replace(SUITE.systems[2], against="judge")))
    of = side_by_side(answers(1, objectives=("bright",)), SUITE)
    voting = Voting(questions(of, [("judge", "both")], ["quality"], seed=1), folder)
    voting.vote(1 if voting.question and voting.question.first.system == "both" else 2)
    assert " ".join(printed(outcome(voting, suite)).split()).endswith("both judge quality 1 0 0")


@pytest.mark.parametrize("leave", ["q\r", "\x03", "\x04"])
def test_voting_on_a_terminal(on_terminal: Callable[..., Terminal], tmp_path: Path, leave: str) -> None:
    terminal = on_terminal(sys.executable, "-c", VOTE, str(tmp_path / "run"), columns=100, lines=24, **IN_TESTS)
    terminal.until("0/2")
    terminal.until("Which answer is better?")
    terminal.type("1\r")
    terminal.until("1/2")
    terminal.type("u\r")
    terminal.until("the vote is undone · 0/2")
    terminal.type("3\r")
    terminal.until("Please select one of the available options")
    terminal.type("2\r")
    terminal.until("1/2")
    terminal.type("0\r")
    terminal.until("All questions are answered")
    terminal.type(leave)
    assert terminal.end() == 0
    kept = [(v.p_first, v.p_second, v.p_tie) for v in Folder(tmp_path / "run").read(Verdict).values()]
    assert kept == [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
