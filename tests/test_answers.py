"""Answers of the real model through the Python API have the properties that the algorithm promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pjlocal import Message, PersonaJudge, Sampling
from pjlocal.errors import UsageError

PROMPTS = [
    "Got any creative ideas for a 10 year old's birthday?",
    "How do I boil an egg?",
    "Tell me about the sea.",
    "Why is the sky blue?",
    "Write a haiku about rain.",
    "What should I cook tonight?",
    "Explain gravity to a child.",
    "Give me three names for a cat.",
    "How can I sleep better?",
    "What is a prime number?",
    "Describe a forest in autumn.",
    "Write a short thank-you note.",
    "How do planes fly?",
    "What is the capital of France?",
    "Suggest a weekend hobby.",
    "Tell me a joke.",
    "How do I learn to swim?",
    "What makes bread rise?",
    "Write one sentence about hope.",
    "Compare tea and coffee.",
]


def texts(judge: PersonaJudge, **changes) -> list[str]:
    return [judge(prompt, **{"seed": i, "max_tokens": 18} | changes).text for i, prompt in enumerate(PROMPTS)]


@pytest.mark.slow
def test_both_schedules_give_the_same_text_on_the_real_model(vivid_and_creative: PersonaJudge) -> None:
    assert texts(vivid_and_creative, schedule="lockstep") == texts(vivid_and_creative, schedule="reference")


@pytest.mark.slow
def test_the_schedules_agree_with_every_filter_on(smollm2: Path) -> None:
    sampling = Sampling(
        temperature=0.9, top_k=50, top_p=0.95, min_p=0.02, typical_p=0.95, repeat_penalty=1.2, frequency_penalty=0.1,
        presence_penalty=0.1, dry_multiplier=0.8, xtc_probability=0.5, xtc_threshold=0.1, logit_bias=(" the=-1",),
    )  # fmt: skip
    with PersonaJudge(smollm2, prefer=["vivid", "concise"], mode="judge", sampling=sampling) as judge:
        for seed in range(2):
            a, b = (judge(PROMPTS[2], seed=seed, max_tokens=30, schedule=s) for s in ("lockstep", "reference"))
            assert a.text == b.text


@pytest.mark.slow
def test_a_seed_fixes_the_text_and_another_seed_changes_it(vivid_and_creative: PersonaJudge) -> None:
    first, again, other = (vivid_and_creative(PROMPTS[2], seed=seed, max_tokens=40).text for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.slow
def test_without_a_seed_one_is_drawn_and_reported(vivid_and_creative: PersonaJudge) -> None:
    first = vivid_and_creative(PROMPTS[2], max_tokens=20)
    assert vivid_and_creative(PROMPTS[2], max_tokens=20, seed=first.seed).text == first.text
    other = vivid_and_creative(PROMPTS[2], max_tokens=20)
    assert other.seed != first.seed and max(first.seed, other.seed) < 2**53, (
        "JavaScript and JSON viewers keep them exact"
    )


@pytest.mark.slow
def test_the_trace_of_a_real_run_obeys_the_rules(vivid_and_creative: PersonaJudge) -> None:
    lam = 3
    answer = vivid_and_creative.stream(PROMPTS[0], seed=8, lam=lam, max_tokens=120)
    events = list(answer)
    assert [e.position for e in events] == list(range(len(events)))
    assert "".join(e.text for e in events) == answer.result.text
    round, accepted = 0, 0
    for e in events:
        assert e.round == round
        assert e.draft == "ab"[round % 2]
        if accepted == lam:
            assert e.kind == "bonus"
            assert e.q is None and e.accept_probability is None
        elif e.kind == "accepted":
            assert e.p > 0 and e.q > 0
            assert e.accept_probability == min(1.0, e.p / e.q)
            assert e.rejected is None
        else:
            assert e.kind == "resampled"
            assert e.p > e.q, "a resampled token has more mass under the judge than under the draft"
            assert e.accept_probability == min(1.0, e.rejected.p / e.rejected.q) < 1.0
        if e.kind == "accepted":
            accepted += 1
        else:
            round, accepted = round + 1, 0
    statistics = answer.result.statistics
    kinds = [e.kind for e in events]
    assert statistics.acceptance_rate == kinds.count("accepted") / (len(kinds) - kinds.count("bonus"))
    assert {"accepted", "resampled", "bonus"} <= set(kinds)


@pytest.mark.slow
def test_temperature_0_keeps_what_both_views_agree_on_and_else_takes_the_judges_choice(smollm2: Path) -> None:
    with PersonaJudge(smollm2, prefer=["vivid", "concise"], mode="judge", sampling=Sampling(temperature=0)) as judge:
        a, b = (list(judge.stream(PROMPTS[2], seed=seed, max_tokens=60)) for seed in (1, 2))
        assert [e.id for e in a] == [e.id for e in b], "greedy does not depend on the seed"
        for e in a:
            assert e.p == 1.0
            assert (e.kind == "resampled") == (e.accept_probability == 0.0)
        assert {"accepted", "resampled"} <= {e.kind for e in a}


@pytest.mark.slow
def test_base_mode_at_temperature_0_is_the_judges_own_greedy_text(smollm2: Path) -> None:
    greedy = Sampling(temperature=0)
    with PersonaJudge(smollm2, draft_prefer=["vivid"], judge_prefer=["concise"], sampling=greedy) as judge:
        base = judge(PROMPTS[2], mode="base", max_tokens=60).text
    with PersonaJudge(smollm2, prefer=["concise"], sampling=greedy) as judge:
        assert judge(PROMPTS[2], mode="prompt", max_tokens=60).text == base


@pytest.mark.slow
def test_modes_with_one_view(vivid_and_creative: PersonaJudge, smollm2: Path) -> None:
    for mode in ("prompt", "plain"):
        answer = vivid_and_creative.stream(PROMPTS[1], mode=mode, seed=1, max_tokens=12)
        events = list(answer)
        assert {e.kind for e in events} == {"plain"}
        assert events[0].draft is None and events[0].q is None
        assert answer.result.mode == mode
        assert len(answer.result.statistics.prompt_tokens) == 1
        assert answer.result.statistics.acceptance_rate is None
    with PersonaJudge(smollm2) as judge:
        assert judge(PROMPTS[1], max_tokens=3).mode == "plain", "no preference, nothing to judge"
        with pytest.raises(UsageError, match="needs a preference"):
            judge(PROMPTS[1], mode="judge")


@pytest.mark.slow
def test_the_length_limit_and_the_context_end_the_text(smollm2: Path) -> None:
    from pjlocal import Engine

    with PersonaJudge(smollm2, prefer=["vivid", "creative"], engine=Engine(n_ctx=64)) as judge:
        result = judge("Tell me a very long story.", seed=1, max_tokens=500)
        assert result.finish_reason == "length"
        s = result.statistics
        assert max(s.prompt_tokens) + s.completion_tokens == 64
        with pytest.raises(UsageError, match=r"\d+ tokens, and a context of 64 has room for 63"):
            judge("word " * 100)


@pytest.mark.slow
def test_a_stop_string_ends_the_text_even_across_tokens(vivid_and_creative: PersonaJudge) -> None:
    whole = vivid_and_creative(PROMPTS[0], seed=1).text
    stop = whole[17:29]
    result = vivid_and_creative(PROMPTS[0], seed=1, stop=(stop,))
    assert result.text == whole[: whole.index(stop)]
    assert result.finish_reason == "stop"


@pytest.mark.slow
def test_streaming_never_splits_a_character(smollm2: Path) -> None:
    """Emoji and CJK text span several tokens of this vocabulary."""
    wanted = "🎂🎉 日本語 🦄 ĉ"
    grammar = f'root ::= "{wanted}"'
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], sampling=Sampling(grammar=grammar)) as judge:
        answer = judge.stream("Celebrate!", seed=1)
        pieces = [e.text for e in answer]
        assert "".join(pieces) == wanted
        assert len(pieces) > len(wanted) and "\ufffd" not in wanted
        cut = judge("Celebrate!", seed=1, max_tokens=2).text
        assert wanted.startswith(cut), "half a character at the end is not shown"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "colour": {"enum": ["red", "black"]}},
    "required": ["name", "colour"],
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["judge", "base", "prompt", "plain"])
@pytest.mark.parametrize("schedule", ["lockstep", "reference"])
def test_with_a_schema_every_finished_text_conforms(smollm2: Path, mode: str, schedule: str) -> None:
    sampling = Sampling(json_schema=json.dumps(SCHEMA))
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], sampling=sampling) as judge:
        result = judge("Describe a cat as JSON.", seed=2, mode=mode, schedule=schedule)
    assert result.finish_reason == "stop"
    value = json.loads(result.text)
    assert isinstance(value["name"], str) and value["colour"] in ("red", "black")


def test_a_conversation_is_answered(vivid_and_creative: PersonaJudge) -> None:
    conversation = [
        Message("user", "My name is Ada."),
        Message("assistant", "Hello Ada!"),
        Message("user", "What is my name?"),
    ]
    answer = vivid_and_creative.stream(conversation, seed=1, max_tokens=5)
    assert list(answer)
    prompt = vivid_and_creative.model.text(answer.plan.prompts[0])
    assert prompt.index("Hello Ada!<|im_end|>") < prompt.index("What is my name?\n\nDescribe colors")
    assert prompt.count("<|im_start|>") == 5


@pytest.mark.slow
def test_one_answer_at_a_time_and_none_after_the_end(smollm2: Path) -> None:
    import threading

    with PersonaJudge(smollm2, prefer="vivid") as judge:
        alone = judge("ho", seed=2, max_tokens=6).text
        left = judge.stream("hi", seed=1)
        events = iter(left)
        next(events)
        assert judge("ho", seed=2, max_tokens=6).text == alone
        assert list(events) == [] and left.result.finish_reason == "interrupted"

        held = judge.stream("hi", seed=1)
        next(iter(held))
        refused: list[str] = []

        def elsewhere() -> None:
            with pytest.raises(UsageError) as error:
                judge("ho")
            refused.append(str(error.value))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "one answer at a time" in refused[0]
    assert list(held) == []
    with pytest.raises(UsageError, match="closed"):
        judge("hi")
