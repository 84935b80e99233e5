"""``best``: of several answers to one prompt, the one is kept whose least-met preference is met best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny_models
from talking import ENDLESS

from pjlocal import Engine, PersonaJudge
from pjlocal.best import BestAnswer
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import UsageError
from pjlocal.events import Result

#: With one thread, answers have the same bytes alone and side by side.
ENGINE = Engine(n_threads=1)
BOTH: dict[str, Any] = {"mode": "both", "seed": 5, "max_tokens": 12}


@pytest.fixture(scope="module")
def judge(tiny) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=ENDLESS, engine=ENGINE) as judge:
        yield judge


def chosen(result: Result) -> int:
    (number,) = (number for number, candidate in enumerate(result.candidates) if candidate.is_chosen)
    return number


def test_the_answers_are_those_of_the_seeds_that_follow_and_one_of_them_is_the_result(judge: PersonaJudge) -> None:
    answer = judge.stream("Hello", best=4, **BOTH)
    events = list(answer)
    result = answer.result
    alone = [judge("Hello", **BOTH | {"seed": seed}) for seed in range(5, 9)]
    assert [candidate.result.text for candidate in result.candidates] == [each.text for each in alone]
    assert [candidate.result.seed for candidate in result.candidates] == [5, 6, 7, 8]
    best = chosen(result)
    assert result.candidates[best].score == max(candidate.score for candidate in result.candidates)
    assert result.text == "".join(event.text for event in events) == alone[best].text
    assert (result.seed, result.statistics.pushed) == (5 + best, alone[best].statistics.pushed)
    assert result.n_written == 4 * 12
    assert events == list(judge.stream("Hello", **BOTH | {"seed": 5 + best}))


def test_best_of_one_is_the_plain_run(judge: PersonaJudge) -> None:
    assert not isinstance(judge.stream("Hello", best=1, **BOTH), BestAnswer)
    assert list(judge.stream("Hello", best=1, **BOTH)) == list(judge.stream("Hello", **BOTH))
    assert judge("Hello", best=1, **BOTH).candidates == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "prompt", "strength": "1.5"},
        {"mode": "judge", "strength": "2"},
        {"mode": "base", "strength": "2"},
        {"mode": "judge", "avoid": ["humorous"]},
        {"mode": "both", "prefer": ["vivid", "formal", "concise:2"]},
        {"mode": "both", "regex": "[a-z ]+"},
        {"mode": "both", "lookahead": 4},
        {"mode": "both", "schedule": "reference"},
        {"mode": "both", "begin": "word "},
    ],
)
def test_every_mode_with_a_neutral_view_can_choose(judge: PersonaJudge, settings: dict[str, Any]) -> None:
    result = judge("Hello", best=3, seed=1, max_tokens=6, **settings)
    scores = [candidate.score for candidate in result.candidates]
    assert len(scores) == 3 and result.candidates[chosen(result)].result.text == result.text
    assert scores[chosen(result)] == max(scores)


@pytest.mark.parametrize(
    "settings",
    [{"mode": "judge"}, {"mode": "plain"}, {"mode": "rewrite"}],
)
def test_a_mode_without_a_neutral_view_is_refused_with_a_line(judge: PersonaJudge, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"best chooses by pushes.* has none: (add|use) mode both"):
        judge.stream("Hello", best=2, **settings)


def test_without_a_preference_there_is_nothing_to_choose_by(tiny) -> None:
    with pytest.raises(UsageError, match="best needs a preference"):
        PersonaJudge(tiny("llama"), best=2)


def test_a_finished_answer_is_chosen_before_one_that_was_cut(judge: PersonaJudge) -> None:
    result = judge("Hello", best=8, stop=["a", "e", " ", "1", "2", "3", "o", "t"], **BOTH)
    reasons = {candidate.result.finish_reason for candidate in result.candidates}
    assert reasons == {"stop", "length"}, "else this shows nothing"
    assert result.finish_reason == "stop"


def test_the_prompt_is_read_once_for_all_answers(tiny) -> None:
    """The views differ behind the question, so each view's end is read for the first answer and copied for others."""
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=ENDLESS, engine=ENGINE) as judge:
        answer = judge.stream("word " * 60, best=4, **BOTH)
        list(answer)
        longest = max(map(len, answer.plan.prompts))
        assert answer.engine.lanes.n_fed < 3 * longest + 4 * 3 * 12 + 4 * 3 * 16, "less than two prompts of four views"


def test_a_chat_keeps_the_contexts_of_its_answers(judge: PersonaJudge) -> None:
    first = judge.stream("Hello", best=2, **BOTH)
    list(first)
    second = judge.stream("Hello again", best=2, **BOTH)
    list(second)
    assert second.engine is first.engine
    more = judge.stream("Hello", best=3, **BOTH)
    list(more)
    assert more.engine is not first.engine


@pytest.mark.parametrize("other", [{"best": 3}, {"best": 1}])
def test_an_answer_can_be_started_after_others_and_ends_when_one_starts(judge: PersonaJudge, other: dict) -> None:
    first, second = judge.stream("Hello", best=2, **BOTH), judge.stream("Hello", **BOTH | other)
    assert len(list(second)) == len(list(first)) == 12
    first = judge.stream("Hello", best=2, **BOTH)
    next(iter(first))
    judge("Hello", **BOTH | other)
    assert list(first) == []


def test_the_work_is_told_until_the_choice(judge: PersonaJudge) -> None:
    said: list[str] = []
    answer = judge.stream("Hello", best=3, **BOTH)
    answer.on_progress = said.append
    events = iter(answer)
    next(events)
    assert said[0] == "Writing 3 answers: 1 of 12 tokens" and said[-1] == "Writing 3 answers: 11 of 12 tokens"


def test_an_interrupt_leaves_the_best_of_what_there_is(tiny) -> None:
    interrupt = Interrupt()
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=ENDLESS, interrupt=interrupt) as judge:
        answer = judge.stream("Hello", best=3, **BOTH)
        answer.on_progress = lambda text: "5 of 12" in text and interrupt.set()
        events = list(answer)
        interrupt.clear()
        assert answer.finish_reason == answer.result.finish_reason == "interrupted"
        assert answer.result.text == "".join(event.text for event in events)
        assert 0 < len(events) <= 6
        assert len(judge("Hello", best=3, **BOTH).candidates) == 3, "the next answer is written as usual"


def test_answers_that_ctrl_c_left_in_the_queue_are_forgotten(judge: PersonaJudge) -> None:
    """Python may raise KeyboardInterrupt before the queue is emptied."""
    answer = judge.stream("Hello", best=3, **BOTH)
    judge.decoder.submit(answer)
    assert judge.decoder.is_writing(answer)
    judge("Why?", **BOTH)
    assert not judge.decoder.is_writing(answer)


def test_an_answer_that_fails_ends_all(tmp_path) -> None:
    model = tiny_models.write_broken_word(tmp_path / "broken.gguf")
    with PersonaJudge(model, prefer=["vivid", "formal"], engine=ENGINE) as judge:
        answer = judge.stream("Hello", best=3, **BOTH | {"max_tokens": 200, "temperature": 5.0, "ignore_end": True})
        with pytest.raises(Exception, match="invalid logits"):
            list(answer)
        assert answer.error


def test_an_answer_that_fails_ends_no_other(tmp_path) -> None:
    model = tiny_models.write_broken_word(tmp_path / "broken.gguf")
    failing = BOTH | {"max_tokens": 200, "temperature": 5.0, "ignore_end": True, "best": 3}
    with PersonaJudge(model, prefer=["vivid", "formal"], engine=ENGINE) as judge:
        plans = [
            judge.plan_request("Hello", judge.request.replace(**failing)),
            judge.plan_request(
                "Hello", judge.request.replace(**failing | {"temperature": 0.0, "max_tokens": 90, "best": 1})
            ),
        ]
        done = {n: answer for n, answer, _ in judge.write(plans, 2, keep_errors=True) if answer.is_done}
        assert "invalid logits" in str(done[0].error) and done[1].result.finish_reason == "length"


def test_answers_that_cannot_share_a_context_are_written_one_after_the_other(tiny, tmp_path) -> None:
    adapter = tiny_models.write_lora(tmp_path / "lora.gguf")
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=ENDLESS, engine=ENGINE) as judge:
        of_view_a = {"lora_a": [str(adapter)], **BOTH}
        result = judge("Hello", best=2, **of_view_a)
        alone = [judge("Hello", **of_view_a | {"seed": seed}).text for seed in (5, 6)]
        assert [candidate.result.text for candidate in result.candidates] == alone


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_several_prompts_side_by_side_get_their_best_answers(judge: PersonaJudge, parallel: int) -> None:
    prompts = ["Hello", "Why?", "word word"]
    expected = [judge(prompt, best=3, **BOTH).text for prompt in prompts]
    texts = dict.fromkeys(range(3), "")
    for number, event in judge.answers(prompts, parallel, best=3, **BOTH):
        texts[number] += event.text
    assert [*texts.values()] == expected


def test_a_result_with_its_answers_survives_the_way_to_another_process(judge: PersonaJudge) -> None:
    result = judge("Hello", best=2, **BOTH)
    again = Result.from_whole(json.loads(json.dumps(result.whole())))
    assert again == result


def test_run_prints_the_score_of_every_answer_and_the_choice(pjlocal: Callable[..., Any], tiny, tmp_path) -> None:
    options = ["-p", "vivid", "-p", "formal", "--mode", "both", "--seed", "3", "-n", "8", "--no-server"]
    done = pjlocal("run", "-m", tiny("llama"), *options, "--best", "3", "--json", "--stats", "--trace", "t", "Hello")
    report = json.loads(done.stdout)
    scores = [each["score"] for each in report["candidates"]]
    (best,) = (each for each in report["candidates"] if each["chosen"])
    assert len(scores) == 3 and best["score"] == max(scores)
    assert {key: best[key] for key in ("text", "seed", "pushes")} == {
        key: report[key] for key in ("text", "seed", "pushes")
    }
    assert "best of 3 answers with " in done.stderr
    trace = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert len(trace) == report["usage"]["completion_tokens"]
    (tmp_path / "rows.txt").write_text("Hello\nWhy?\n")
    done = pjlocal("run", "-m", tiny("llama"), *options, "--best", "2", "--batch", "rows.txt")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(row["candidates"]) for row in rows] == [2, 2]
