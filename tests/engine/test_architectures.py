"""Each architecture answers in judge mode, with look-ahead and again, with the same text in every layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain

import numpy as np
import pytest
from talking import NO_CONTROL

from pjlocal import Engine, PersonaJudge, Prompting, Sampling
from pjlocal.engine.context import Context
from pjlocal.engine.engine import Engine as Decoder
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.lanes import needs
from pjlocal.engine.slot import Slot
from pjlocal.errors import UsageError
from pjlocal.gguf.header import in_words, read_header
from pjlocal.prompting.prompt import Message

ATTENTION = ["llama", "qwen2", "qwen3", "phi3", "qwen3moe"]
WINDOWS = ["gemma3"]
RUNNING_STATE = ["mamba", "jamba"]  # the second a hybrid
WITH_SNAPSHOTS = ["lfm2", "qwen35"]  # hybrids whose state llama.cpp can take back
NOT_AT_WILL = [*WINDOWS, *RUNNING_STATE, *WITH_SNAPSHOTS]
ARCHITECTURES = [*ATTENTION, *NOT_AT_WILL]
LAYOUTS = ["contexts", "batched"]
WISHES = ["vivid", "creative"]
PROMPTING = Prompting(placement="system")  # what a turn reads can be counted: prompts only grow
SAMPLING = Sampling(logit_bias=NO_CONTROL)


def engine(layout: str) -> Engine:
    return Engine(layout=layout, n_threads=1, n_batch=48)  # up to 63 tokens at a time round alike


@pytest.fixture(scope="module")
def judge(request, tiny) -> Iterator[PersonaJudge]:
    architecture, layout = request.param
    with PersonaJudge(
        tiny(architecture), WISHES, engine=engine(layout), prompting=PROMPTING, sampling=SAMPLING, mode="judge"
    ) as made:
        yield made


def on(architectures: Sequence[str]) -> pytest.MarkDecorator:
    """For each architecture, in both layouts; one judge for all tests."""
    pairs = [(architecture, layout) for architecture in architectures for layout in LAYOUTS]
    return pytest.mark.parametrize("judge", pairs, indirect=True, ids=map("-".join, pairs))


def ids(judge: PersonaJudge, prompt: str | Sequence[Message], **settings) -> list[int]:
    answer = judge.stream(prompt, **{"seed": 1, "max_tokens": 24, "ignore_end": True} | settings)
    return [event.id for event in answer]


def another(judge: PersonaJudge, **changes) -> PersonaJudge:
    """A judge with empty caches."""
    other = judge.engine.replace(**changes)
    return PersonaJudge(judge.model, WISHES, engine=other, prompting=PROMPTING, sampling=SAMPLING, mode="judge")


def alone(judge: PersonaJudge, prompt: str | Sequence[Message], **settings) -> list[int]:
    """The answer of a judge whose caches are empty."""
    with another(judge) as fresh:
        return ids(fresh, prompt, **settings)


def n_fed(judge: PersonaJudge) -> int:
    """Tokens read so far, by both views."""
    return judge.decoder.lanes.n_fed


def turns(judge: PersonaJudge, questions: Sequence[str], answers: Sequence[Sequence[int]]) -> list[Message]:
    """A conversation that ends with a question."""
    said = [Message("assistant", judge.model.text(answer), tuple(answer)) for answer in answers]
    asked = [Message("user", question) for question in questions]
    return [*chain.from_iterable(zip(asked, said, strict=False)), asked[-1]]


@on(ARCHITECTURES)
def test_each_answers_in_judge_mode_and_a_layout_changes_nothing(judge: PersonaJudge, tiny) -> None:
    with another(judge, layout=next(layout for layout in LAYOUTS if layout != judge.engine.layout)) as elsewhere:
        for settings in ({"mode": "judge"}, {"mode": "both"}):
            assert ids(judge, "Hello", **settings) == ids(elsewhere, "Hello", **settings)


class Scripted:
    """Guesses the right tokens, except from the n-th token of a guess on, with n = 0, 1, 2, 3 in turn."""

    def __init__(self, answer: Sequence[int], width: int) -> None:
        self.answer = answer
        self.wrong = next(token for token in range(5, 400) if token not in answer)
        self.width = width
        self.n = self.n_guessed = 0

    def accept(self, token: int) -> None:
        self.n += 1

    def guess(self) -> list[int]:
        right = list(self.answer[self.n : self.n + self.n % 4])
        guess = [*right, *[self.wrong] * self.width][: min(self.width, len(self.answer) - self.n)]
        self.n_guessed += len(guess)
        return guess


@pytest.mark.parametrize("width", [3, 15])
@on(ARCHITECTURES)
def test_look_ahead_gives_the_same_text_in_fewer_passes(judge: PersonaJudge, monkeypatch, width: int) -> None:
    n = 48
    expected = ids(judge, "Ahead", max_tokens=n)
    made: list[Scripted] = []

    def scripted(tokens: Sequence[int], most: int, token_cost: object) -> Scripted:
        made.append(Scripted(expected, most))
        return made[-1]

    monkeypatch.setattr("pjlocal.answer.Lookahead", scripted)
    lanes = judge.decoder.lanes
    n_decodes, fed = lanes.n_decodes, lanes.n_fed
    assert ids(judge, "Ahead", max_tokens=n, lookahead=width) == expected
    n_passes = (lanes.n_decodes - n_decodes) // (2 if judge.engine.layout == "contexts" else 1)
    assert n_passes <= n / 2
    n_read_again = (lanes.n_fed - fed) // 2 - n_passes - made[0].n_guessed
    if judge.model.description.split()[0] in RUNNING_STATE:
        assert 0 < n_read_again < made[0].n_guessed, "what was guessed rightly, before what was not"
    else:
        assert n_read_again == 0


@on(ARCHITECTURES)
def test_answering_a_question_again_reads_only_the_answer(judge: PersonaJudge) -> None:
    first = ids(judge, "Once more")
    fed = n_fed(judge)
    assert ids(judge, "Once more", seed=2) == alone(judge, "Once more", seed=2) != first
    assert ids(judge, "Once more") == first
    assert n_fed(judge) - fed == 2 * 2 * 24, "each view's last prompt token, and the answer but for its last"


@on(ARCHITECTURES)
def test_a_changed_question_reads_only_the_question_and_the_answer(judge: PersonaJudge) -> None:
    """The same holds for a question that is undone: the text before it is not read again."""
    first = ids(judge, "Edited")
    held = judge.plan_request("Edited", judge.request).prompts
    conversation = turns(judge, ["Edited", "Why?"], [first])
    ids(judge, conversation)
    for question in ("Zzz? Tell me that", "Xyz"):
        conversation = turns(judge, ["Edited", question], [first])
        prompts = judge.plan_request(conversation, judge.request).prompts
        fed = n_fed(judge)
        assert ids(judge, conversation) == alone(judge, conversation)
        new = [len(prompt) - (len(before) + 23) for prompt, before in zip(prompts, held, strict=True)]
        assert n_fed(judge) - fed <= sum(new) + 2 * 23


@on([*RUNNING_STATE, *WITH_SNAPSHOTS])
def test_a_shared_beginning_of_prompts_is_read_once_from_the_third_prompt_on(judge: PersonaJudge) -> None:
    """The second prompt shows where they differ."""
    costs = []
    questions = ("One?", "Two?", "Three?")
    with another(judge) as fresh:
        for question in questions:
            fed = n_fed(fresh)
            assert ids(fresh, question) == alone(judge, question)
            costs.append(n_fed(fresh) - fed)
    assert costs[2] < costs[1] / 2


@contextmanager
def decoder(judge: PersonaJudge, interrupt: Interrupt | None = None) -> Iterator[Decoder]:
    """An engine with empty caches."""
    with closing(Decoder(judge.model, judge.engine, interrupt or Interrupt())) as made:
        yield made


def read(slot: Slot, tokens: Sequence[int]) -> None:
    """Have both views read tokens one by one."""
    for token in tokens:
        slot.feed([token])
        slot.logits(0)


def cached(slot: Slot) -> list[list[int]]:
    return [sequence.cached for sequence in slot.sequences]


def assert_same_logits(slot: Slot, judge: PersonaJudge, prompts: Sequence[Sequence[int]]) -> None:
    """Check that a slot has the same logits as after prompts that are read in one go."""
    with decoder(judge) as other, other.direct(needs(2, 1024)) as fresh:
        fresh.start(prompts)
        for view in range(2):
            np.testing.assert_allclose(slot.logits(view), fresh.logits(view), atol=1e-3)


@pytest.mark.parametrize("n_ctx", [1024, 2048], ids=["as they are", "grown"])
@on(NOT_AT_WILL)
def test_a_long_answer_can_be_truncated_too(judge: PersonaJudge, n_ctx: int) -> None:
    """Further back than the cache of a sliding window reaches, and also after the contexts were enlarged."""
    prompts = [[5 + i % 90 for i in range(300)], [5 + i % 80 for i in range(290)]]
    with decoder(judge) as made:
        with made.direct(needs(2, 1024)) as slot:
            slot.start(prompts)
            read(slot, [100 + n % 97 for n in range(400)])
        with made.direct(needs(2, n_ctx)) as slot:
            fed = made.lanes.n_fed
            slot.start(prompts)
            slot.logits(0)
            assert slot.sequences[0].lane.n_ctx == n_ctx
            assert cached(slot) == prompts and made.lanes.n_fed - fed == 2, "each view's last token"
            assert_same_logits(slot, judge, prompts)


@on(ARCHITECTURES)
def test_an_interrupted_decode_leaves_nothing_in_the_cache(judge: PersonaJudge, monkeypatch) -> None:
    prompts = [[5 + i % 90 for i in range(60)], [5 + i % 80 for i in range(50)]]
    interrupt = Interrupt()
    decode = Context.decode

    def stopped(*args) -> None:
        interrupt.set()
        decode(*args)

    with decoder(judge, interrupt) as made, made.direct(needs(2, 256)) as slot:
        slot.start(prompts)
        slot.logits(0)
        read(slot, [100])
        slot.feed([101])
        with monkeypatch.context() as patch:
            patch.setattr(Context, "decode", stopped)
            with pytest.raises(Interrupted):
                slot.logits(0)
        interrupt.clear()
        held = [[*prompt, 100] for prompt in prompts]
        left = cached(slot)
        assert all(tokens == text[: len(tokens)] for tokens, text in zip(left, held, strict=True))
        read_again = [min(len(tokens), len(prompt) - 1) for tokens, prompt in zip(left, prompts, strict=True)]
        assert read_again == [59, 49], "nothing of the prompts but the last token"
        longer = [[*text, 102] for text in held]
        slot.start(longer)
        assert_same_logits(slot, judge, longer)


@on(WITH_SNAPSHOTS)
def test_a_rollback_over_several_batches_does_not_use_snapshots_of_the_last_batch(judge: PersonaJudge) -> None:
    prompts = [[5 + i % 90 for i in range(60)], [5 + i % 80 for i in range(50)]]
    with decoder(judge) as made, made.direct(needs(2, 256, n_rows=8)) as slot:
        slot.start(prompts)
        slot.logits(0)
        read(slot, (100, 101, 102, 103))
        slot.rewind(3)
        slot.feed([104])
        assert_same_logits(slot, judge, [[*prompt, 100, 104] for prompt in prompts])


@on(ARCHITECTURES)
def test_algorithm_1_runs_if_the_cache_can_be_truncated_and_is_refused_otherwise(judge: PersonaJudge) -> None:
    if judge.model.description.split()[0] in (*ATTENTION, *WINDOWS):
        assert ids(judge, "Rounds", schedule="reference") == ids(judge, "Rounds")
    else:
        with pytest.raises(
            UsageError, match="this model's KV cache cannot be rolled back, as --schedule reference requires"
        ):
            ids(judge, "Rounds", schedule="reference")


@on(ARCHITECTURES)
def test_the_description_of_a_model_has_its_real_number_of_parameters_and_quantization(judge: PersonaJudge) -> None:
    """llama.cpp guesses the number by the layers, and calls SmolLM2-135M a 256M."""
    header = read_header(judge.model.path)
    expected = header.architecture, in_words(header.n_parameters), header.file_type
    assert tuple(judge.model.description.split(" ")) == expected, "as in models info"
