"""Mode rewrite: a plain first answer, and its correction by the preferences, which alone is shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from talking import TEXT_ONLY, prompt_text, talk

import pjlocal.answer
from pjlocal import Engine, Message, PersonaJudge, Sampling
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError, UsageError
from pjlocal.prompting.preferences import PRESETS
from pjlocal.request import Request, place


@pytest.fixture
def judge(tiny):
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=TEXT_ONLY) as judge:
        yield judge


def test_the_first_answer_is_the_plain_one_and_the_second_is_asked_to_correct_it(judge: PersonaJudge) -> None:
    options = {"seed": 1, "max_tokens": 12, "ignore_end": True, "avoid": ("humorous",)}
    answer = judge.stream("Hello", mode="rewrite", **options)
    events = list(answer)
    plain = judge("Hello", seed=1, max_tokens=12, ignore_end=True, mode="plain")
    assert answer.result.draft.text == plain.text == "".join(event.text for event in answer.drafted)
    assert answer.result.text == "".join(event.text for event in events) != plain.text
    prompt = judge.model.text(answer.plan.prompts[0])
    asked = f"these instructions:\n{PRESETS['vivid']}\n{PRESETS['formal']}\nDo not follow these:\n{PRESETS['humorous']}"
    assert prompt.index("Hello") < prompt.index(plain.text) < prompt.index(asked)
    assert (answer.result.mode, answer.result.preferences) == ("rewrite", {"a": ["vivid"], "b": ["formal"]})
    draft = answer.result.as_dict()["draft"]
    assert (draft["text"], draft["usage"]["completion_tokens"]) == (plain.text, 12) and draft["timings"]["decode_s"] > 0
    assert plain.as_dict()["draft"] is None


def test_the_correction_reads_only_tokens_after_the_first_answer(judge: PersonaJudge) -> None:
    answer = judge.stream("Hello", mode="rewrite", seed=1, max_tokens=12, ignore_end=True)
    list(answer)
    fed = judge.decoder.lanes.n_fed
    assert fed == len(answer.plan.prompts[0]) + 12 - 1, "the prompt with the first answer in it, once, and the answer"


def test_a_first_answer_leaves_room_for_its_correction(tiny) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid"], sampling=TEXT_ONLY, engine=Engine(n_ctx=400)) as judge:
        result = judge("Hello", mode="rewrite", seed=1, max_tokens=1000, ignore_end=True)
        n = result.draft.statistics.completion_tokens
        assert 10 < n < 200
        assert abs(result.statistics.completion_tokens - n) < 40, "a text may take more tokens than it was written in"
        assert max(result.statistics.prompt_tokens) + result.statistics.completion_tokens == 400
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid"], engine=Engine(n_ctx=64)) as judge,
        pytest.raises(UsageError, match="larger n_ctx"),
    ):
        judge("Hello", mode="rewrite")


def test_a_first_answer_is_not_shortened_by_the_tokens_of_the_thinking(tiny) -> None:
    """The correction does not read the thinking."""
    with PersonaJudge(tiny("llama"), prefer=["vivid"], sampling=TEXT_ONLY, engine=Engine(n_ctx=400)) as judge:
        result = judge("Hello", mode="rewrite", seed=1, max_tokens=20, think_tokens=300, ignore_end=True)
    assert result.draft.statistics.completion_tokens == 20


def test_another_model_may_correct_it_and_is_loaded_once(tiny, monkeypatch) -> None:
    aligner = tiny("sliding_window")
    options = {"mode": "rewrite", "aligner": str(aligner), "seed": 1, "max_tokens": 8, "ignore_end": True}
    with PersonaJudge(tiny("llama"), prefer=["vivid"]) as judge:
        for prompt in ("Hello", "And again?"):
            result = judge(prompt, **options)
            assert (result.draft.model, result.model) == ("llama.gguf", "sliding_window.gguf")
        corrected = judge.stream("Hello", **options)
        next(iter(corrected))
        judge("Hello", max_tokens=1)
        assert list(corrected) == [], "the judge wrote another answer meanwhile"
        inner = judge._aligner[1]
        assert inner.decoder.lanes.n_fed > 0
        with pytest.raises(ModelError, match="no such model file"):
            judge("Hello", mode="rewrite", aligner="./nowhere.gguf")
        assert judge._aligner[1] is inner
    assert inner.decoder.closed


def test_answers_with_different_aligners_do_not_end_each_other_before_they_start(tiny) -> None:
    options = {"mode": "rewrite", "max_tokens": 8, "ignore_end": True, "seed": 1}
    with PersonaJudge(tiny("llama"), prefer=["vivid"]) as judge:
        first = judge.stream("Hello", aligner=str(tiny("sliding_window")), **options)
        life = judge._aligner[1].model.lifetime
        second = judge.stream("Hello", aligner=str(tiny("llama")), **options)
        assert len(list(second)) == len(list(first)) == 8
        assert not life.is_over
        del first
        judge("Hello", aligner=str(tiny("sliding_window")), **options)
        assert life.is_over, "a model that no answer needs is freed before another is loaded"


def test_a_missing_aligner_is_reported_before_the_model_is_loaded(tmp_path: Path, pjlocal) -> None:
    result = pjlocal("run", "-p", "vivid", "--mode", "rewrite", "--aligner", "./nowhere.gguf", "hi")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "pjlocal: no such model file: ./nowhere.gguf\n"


@pytest.mark.parametrize("when", [0, 3])
def test_ctrl_c_in_the_first_answer_leaves_no_answer_and_reports_the_draft(judge, monkeypatch, when: int) -> None:
    told = []

    def stop(token: int) -> bool:
        told.append(token)
        if len(told) > when:
            judge.interrupt.set()
        return False

    monkeypatch.setattr(pjlocal.answer, "_is_never_end", stop)
    answer = judge.stream("Hello", mode="rewrite", seed=1, max_tokens=50, ignore_end=True)
    assert list(answer) == []
    monkeypatch.undo()
    assert (answer.finish_reason, answer.result.text) == ("interrupted", "")
    assert len(answer.drafted) == answer.result.draft.statistics.completion_tokens < 50
    judge.interrupt.clear()
    assert judge("Hello", mode="rewrite", seed=1, max_tokens=5).draft


def test_ctrl_c_in_the_correction_keeps_what_was_written(judge: PersonaJudge) -> None:
    answer = judge.stream("Hello", mode="rewrite", seed=1, max_tokens=50, ignore_end=True)
    for event in answer:
        if event.position == 4:
            judge.interrupt.set()
    judge.interrupt.clear()
    assert answer.finish_reason == "interrupted" and 4 < answer.statistics.completion_tokens < 50
    assert answer.result.draft.finish_reason == "length"


def test_a_first_answer_that_says_nothing_is_not_corrected(tiny) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid"], sampling=Sampling(grammar='root ::= " "')) as judge:
        result = judge("Hello", mode="rewrite", seed=1)
    assert (result.text, result.finish_reason, result.draft.text) == ("", "stop", " ")


def test_a_chat_keeps_the_correction_alone(tiny) -> None:
    with talk(tiny("llama"), mode="rewrite", sampling=TEXT_ONLY, ignore_end=True) as chat:
        first = chat.ask("Why?")
        (turn,) = chat.turns
        draft = turn.statistics["draft"]["text"]
        assert draft and draft != turn.answer and turn.answer == "".join(e.text for e in first.events)
        writing = chat.conversation.ask("And then?")
        begun = chat.judge.model.text(writing.answer.plan.prompts[0])
        assert turn.answer in begun and draft not in begun and "Rewrite your answer" not in begun
        assert "Rewrite your answer" in prompt_text(chat, chat.ask("", writing))
        assert chat.say("/mode judge") == ["mode judge"]
        chat.ask("So?")
        assert "draft" not in chat.turns[-1].statistics


def test_ctrl_c_in_a_chats_first_answer_leaves_no_trace(tiny, monkeypatch) -> None:
    with talk(tiny("llama"), mode="rewrite", sampling=TEXT_ONLY, ignore_end=True) as chat:
        monkeypatch.setattr(pjlocal.answer, "_is_never_end", lambda token: bool(chat.judge.interrupt.set()))
        writing = chat.conversation.ask("Why?")
        assert list(writing) == [] and chat.turns == []


@pytest.mark.slow
def test_the_oldest_turns_leave_room_for_two_answers(tiny) -> None:
    options = {"engine": Engine(n_ctx=700), "sampling": TEXT_ONLY, "max_tokens": 60, "ignore_end": True}
    with talk(tiny("llama"), mode="rewrite", **options) as chat:
        for n in range(8):
            chat.ask(f"Question number {n}, and some words more")
        assert chat.turns[-1].first > 0
        assert all(turn.statistics["usage"]["completion_tokens"] > 30 for turn in chat.turns)


def test_settings_without_effect_in_a_mode_are_reported_once(tiny, caplog) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], interrupt=Interrupt()) as judge:
        avoid = {"mode": "plain", "strength": "2", "avoid": ("formal",)}
        for options, says in (
            (avoid, "--strength and --avoid have no effect in mode plain"),
            ({"mode": "rewrite", "strength": "2"}, "--strength has no effect in mode rewrite"),
            ({"mode": "rewrite", "floor": 0.5, "lam": 2}, "--floor and --lambda have no effect in mode rewrite"),
            ({"mode": "prompt", "lam": 2}, "--lambda has no effect in mode prompt"),
            ({"mode": "judge", "aligner": "smollm2"}, "--aligner has no effect in mode judge"),
        ):  # fmt: skip
            caplog.clear()
            with caplog.at_level(logging.WARNING, "pjlocal"):
                for _ in range(2):
                    judge("Hello", max_tokens=2, **options)
            ignored = ["preferences have no effect in mode plain"] if options is avoid else []
            assert [record.message for record in caplog.records] == [says, *ignored]


def test_preferences_of_the_defaults_rest_silently_in_mode_plain_and_others_are_reported(tiny, caplog) -> None:
    lasting = Request(place(["vivid"])).as_defaults()
    with PersonaJudge(tiny("llama"), request=lasting) as judge:
        result = judge("Hello", max_tokens=2, mode="plain")
        assert result.preferences == {"a": [], "b": []} and not caplog.records
        judge("Hello", max_tokens=2, mode="plain", prefer=["formal"])
    assert [record.message for record in caplog.records] == ["preferences have no effect in mode plain"]


def test_strengths_without_effect_are_reported(tiny, caplog) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid:2", "formal"]) as judge:
        judge("Hello", max_tokens=2, mode="rewrite", strength="2", avoid=("humorous:3",))
    says = "--strength, the strength of vivid:2 and the strength of humorous:3 have no effect in mode rewrite"
    assert [record.message for record in caplog.records] == [says]


@pytest.mark.slow
def test_the_trace_and_the_statistics_tell_the_first_answer(pjlocal, tiny, tmp_path) -> None:
    import json

    args = ("run", "-m", tiny("llama"), "-p", "vivid", "--mode", "rewrite", "-n", "6", "--ignore-end", "--seed", "2")
    result = pjlocal(*args, "--stats", "--json", "--trace", tmp_path / "t", "hi")
    report = json.loads(result.stdout)
    lines = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    first = [line for line in lines if line.get("first_answer")]
    assert "".join(line["text"] for line in first) == report["draft"]["text"]
    assert "".join(line["text"] for line in lines[len(first) :]) == report["text"]
    assert "first answer 6 tokens in " in result.stderr
    assert pjlocal(*args, "hi").stdout == report["text"] + "\n"


def test_a_conversation_is_corrected_in_its_last_answer(judge: PersonaJudge) -> None:
    said = [Message("user", "One"), Message("assistant", "Two"), Message("user", "Three")]
    answer = judge.stream(said, mode="rewrite", seed=1, max_tokens=6, ignore_end=True)
    list(answer)
    prompt = judge.model.text(answer.plan.prompts[0])
    assert prompt.index("Two") < prompt.index("Three") < prompt.index(answer.result.draft.text)
