"""Answers side by side: their order, the writers of their parts, and their margins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evaluated import SUITE, answer, answers, score, verdict

from pjlocal.evaluation.records import AnswerRecord
from pjlocal.evaluation.side_by_side import (
    Legend,
    SideBySide,
    Span,
    leads,
    legends,
    side_by_side,
    spans,
)


def test_answers_to_one_prompt_stand_together_in_the_suites_order() -> None:
    found = side_by_side([*answers(2), answer("judge", 1, seed=7)], SUITE)
    assert [(row.objectives, row.prompt_id, row.seed) for row in found] == [
        ("bright", "p1", 0), ("bright", "p1", 7), ("bright", "p2", 0), ("sea", "p1", 0), ("sea", "p2", 0),
    ]  # fmt: skip
    assert [*found[0].answers] == ["prompt", "judge", "both"] and [*found[1].answers] == ["judge"]
    assert found[3].prefer == ("Talk like a pirate.", "concise")


def test_adjacent_tokens_of_one_view_are_one_span_and_characters_stay_whole() -> None:
    parts = [["e", "accepted", "a"], ["\u0301t", "bonus", "b"], ["\u0301", "bonus", "b"], ["é!", "bonus", "b"],
             ["", "resampled", "a"], [" yes\r\n", "resampled", None], ["\x1b", "plain", None]]  # fmt: skip
    assert spans(answer("both", 1, "x", pieces=parts)) == [
        Span("e\u0301t\u0301", "accepted", "a"),
        Span("é!", "bonus", "b"),
        Span(" yes\n", "resampled", "all"),
        Span("␛", "plain", None),
    ]


def of(*systems: AnswerRecord, prefer: tuple[str, ...] = ("vivid", "creative", "concise")) -> SideBySide:
    return SideBySide("bright", prefer, "p1", "What is 1?", 0, {answer.system: answer for answer in systems})


def test_an_answer_without_pieces_has_no_writer() -> None:
    plain = answer("prompt", 1, "All of it")
    assert spans(plain) == [Span("All of it", "plain", None)] and legends(of(plain, prefer=("vivid",)), SUITE) == []


def test_a_given_beginning_of_a_plain_answer_has_no_writer() -> None:
    begun = answer("prompt", 1, "All of it", pieces=[["All", "given", None], [" of it", "plain", None]])
    assert spans(begun) == [Span("All", "given", None), Span(" of it", "plain", None)]
    assert legends(of(begun), SUITE) == []
    judged = answer("judge", 1, pieces=[["All", "given", None], [" of it", "accepted", "a"]])
    assert legends(of(judged), SUITE)[0].agreed is False


def test_the_views_have_the_preferences_that_were_dealt_to_them() -> None:
    judge, both, alone = answer("judge", 1), answer("both", 1), answer("prompt", 1)
    dealt = {"a": ["vivid", "concise"], "b": ["creative"]}
    assert legends(of(judge, both, alone), SUITE) == [Legend(dealt, agreed=True)], "the same views are said once"
    three = answer("judge", 1, pieces=[["x", "accepted", "c"]])
    each = {"a": ["vivid"], "b": ["creative"], "c": ["concise"]}
    assert legends(of(three, both), SUITE) == [Legend(each, agreed=False), Legend(dealt, agreed=True)]
    three = answer("both", 1, pushes={"a": 0.5, "b": 0.25, "c": 0.0, "avoid 1": 0.0})
    assert legends(of(three), SUITE) == [Legend(each, agreed=True)], "also of a view that wrote nothing"
    two = answer("both", 1, pushes={"a": 0.5, "b": 0.25, "avoid 1": 0.0})
    assert legends(of(two), SUITE) == [Legend(dealt, agreed=True)]
    panel = replace(SUITE, settings={"panel": True})  # of an earlier version
    assert legends(of(judge), panel) == [Legend(each, agreed=True)], "also of a view that wrote and pushed nothing"


def test_leads_are_measured_by_the_verdicts_in_both_orders() -> None:
    base, judge, both = answer("prompt", 1), answer("judge", 1), answer("both", 1)
    verdicts = [verdict(judge, base, 0.9), verdict(base, judge, 0.7), verdict(base, both, 1.0), verdict(judge, both, 1)]
    found, measured_by = leads(
        side_by_side([base, judge, both], SUITE), SUITE, verdicts, [score(judge, "reward:vivid", 9)]
    )
    assert measured_by == "the judges' verdicts"
    assert [(lead.system, pytest.approx(lead.margin)) for lead in found] == [("judge", 0.2), ("both", -1.0)]


def test_without_verdicts_the_rewards_decide() -> None:
    base, judge, both = answer("prompt", 1), answer("judge", 1), answer("both", 1)
    values = [score(base, "reward:vivid", 0.1), score(base, "reward:creative", 0.3), score(judge, "reward:vivid", 0.1),
              score(both, "reward:vivid", 0.6), score(both, "words", 900)]  # fmt: skip
    found, measured_by = leads(side_by_side([base, judge, both], SUITE), SUITE, [], values)
    assert measured_by == "the implicit rewards"
    assert [(lead.system, pytest.approx(lead.margin)) for lead in found] == [("both", 1.0), ("judge", -0.25)]
    assert leads(side_by_side([judge], SUITE), SUITE, [], values)[0] == []
