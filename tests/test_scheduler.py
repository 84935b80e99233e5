"""Answers written side by side are what each is by itself, and none disturbs another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pjlocal import Engine, Generation, PersonaJudge, Prompting
from pjlocal.answer import Answer
from pjlocal.engine.seats import Seat, SharedContext
from pjlocal.engine.tokens import common_prefix
from pjlocal.errors import ModelError, UsageError
from pjlocal.events import TokenEvent
from pjlocal.scheduler import Job, Scheduler, write_all

QUESTIONS = [
    f"Tell me {n} things about {what}." for n in ("two", "many") for what in ("cats", "the rain", "a long walk")
]
MODES = ("plain", "prompt", "judge", "both", "base")  # of one, two and three views


def generations(n: int = len(QUESTIONS), **changes: object) -> list[Generation]:
    return [
        Generation(mode=MODES[i % len(MODES)], seed=i, max_tokens=12 + 5 * (i % 3), ignore_end=True).replace(**changes)  # type: ignore[arg-type]
        for i in range(n)
    ]


def job(judge: PersonaJudge, question: str, generation: Generation) -> Job:
    plan = judge.plan(question, judge.request.with_group(generation))

    def make(seat: Seat) -> Answer:
        return Answer(seat, plan, 0.0)

    return Job(len(plan.prompts), make)


def jobs(judge: PersonaJudge, wanted: Sequence[Generation]) -> list[Job]:
    return [job(judge, question, generation) for question, generation in zip(QUESTIONS, wanted, strict=False)]


@contextmanager
def sharing(judge: PersonaJudge, n_seq: int, n_batch: int = 512, n_rows: int = 1) -> Iterator[Scheduler]:
    shared = SharedContext(judge.model, Engine(n_threads=1, n_batch=n_batch), n_seq, 256, judge.interrupt, n_rows)
    try:
        yield Scheduler(shared)
    finally:
        shared.close()


def written(scheduler: Scheduler, wanted: Sequence[Job]) -> list[str]:
    """The texts, as the events told them."""
    texts = dict.fromkeys(wanted, "")
    for one, events in write_all(scheduler, iter(wanted), ahead=6):
        texts[one] += "".join(event.text for event in events)
    for one in wanted:
        assert one.error is None, one.error
        assert one.answer and texts[one] == one.answer.result.text
    return list(texts.values())


def prompts_of(one: Job) -> Sequence[Sequence[int]]:
    assert one.answer
    return one.answer.plan.prompts


def n_read(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that are read of prompts that come one after the other: what an earlier one begins with is copied, but for
    the last token of each."""
    n = 0
    for i, prompt in enumerate(prompts):
        common = max((common_prefix(other, prompt[:-1]) for other in prompts[:i]), default=0)
        n += len(prompt) - (common if common >= 16 else 0)
    return n


@pytest.fixture
def judge(tiny: Callable[[str], Path]) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(n_threads=1)) as made:
        yield made


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize("n_seq", [3, 7, 16])
def test_every_answer_is_what_its_seed_gives_alone(tiny: Callable[[str], Path], kind: str, n_seq: int) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=Engine(n_threads=1)) as judge:
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(), strict=True)]
        with sharing(judge, n_seq) as scheduler:
            assert written(scheduler, jobs(judge, generations())) == alone


def test_one_batch_reads_what_all_answers_feed(judge: PersonaJudge) -> None:
    wanted = jobs(judge, generations(4, mode="judge", max_tokens=10))
    with sharing(judge, 8, n_batch=1024) as scheduler:  # of which one reads all prompts
        written(scheduler, wanted)
        prompts = [prompt for one in wanted for prompt in prompts_of(one)]
        assert scheduler.shared.n_decodes == 8 + 10  # each prompt's beginning by itself, then a batch a token
        assert scheduler.shared.n_fed == n_read(prompts) + 8 * 9


def test_a_place_is_free_again_when_its_answer_ends_and_what_was_read_there_is_kept(judge: PersonaJudge) -> None:
    generation = Generation(mode="judge", seed=1, max_tokens=5, ignore_end=True)
    with sharing(judge, 2) as scheduler:
        first, again = (job(judge, QUESTIONS[0], generation) for _ in range(2))
        texts = written(scheduler, [first, again])
        assert texts[0] == texts[1]
        assert scheduler.shared.n_free == 2 and scheduler.idle
        n_fed = n_read(prompts_of(first)) + 2 * 2 * 4 + 2  # of the second's prompts the last tokens alone
        assert scheduler.shared.n_fed == n_fed


def test_one_place_alone_will_do(judge: PersonaJudge) -> None:
    generation = Generation(mode="plain", seed=1, max_tokens=5, ignore_end=True)
    with sharing(judge, 1) as scheduler:
        alone = [judge(question, **generation.as_dict()).text for question in QUESTIONS[:3]]
        assert written(scheduler, [job(judge, question, generation) for question in QUESTIONS[:3]]) == alone


def test_what_prompts_begin_with_in_common_is_read_once(tiny: Callable[[str], Path]) -> None:
    """Of an answer's views, and of answers that are written at the same time."""
    generation = Generation(mode="both", seed=1, max_tokens=5, ignore_end=True)
    questions = ["word " * 30 + ending for ending in ("one", "two")]
    engine = Engine(n_threads=1, n_batch=32)  # wider batches round otherwise
    with PersonaJudge(
        tiny("llama"), prefer=["vivid", "creative"], prompting=Prompting(placement="question"), engine=engine
    ) as judge:
        alone = [judge(question, **generation.as_dict()).text for question in questions]
        with sharing(judge, 6, n_batch=32) as scheduler:
            wanted = [job(judge, question, generation) for question in questions]
            assert written(scheduler, wanted) == alone
            prompts = [prompt for one in wanted for prompt in prompts_of(one)]
            assert scheduler.shared.n_fed == n_read(prompts) + 6 * 4 < 0.4 * sum(map(len, prompts))
            held = [one.seat.n_held for one in wanted if one.seat]
            assert sum(held) == sum(map(len, prompts)) - n_read(prompts)


@pytest.mark.parametrize("kind", ["sliding_window", "recurrent"])
def test_a_memory_that_cannot_be_cut_is_not_copied(tiny: Callable[[str], Path], kind: str) -> None:
    generation = Generation(mode="judge", seed=1, max_tokens=5, ignore_end=True)
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=Engine(n_threads=1)) as judge:
        wanted = job(judge, "word " * 30, generation)
        with sharing(judge, 2) as scheduler:
            written(scheduler, [wanted])
            assert scheduler.shared.n_fed == sum(map(len, prompts_of(wanted))) + 2 * 4


def test_look_ahead_changes_no_text(judge: PersonaJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    from pjlocal.decoding.guess import Lookahead

    guessed = 0

    def widest(self: Lookahead, most: int) -> int:
        nonlocal guessed
        guessed = max(guessed, most - 1)
        return most

    monkeypatch.setattr(Lookahead, "_best_width", widest)
    for n_rows in (1, 3, 5):  # where the context has room for fewer, an answer guesses fewer
        with sharing(judge, 6, n_rows=n_rows) as scheduler:
            plain = written(scheduler, jobs(judge, generations()))
            assert written(scheduler, jobs(judge, generations(lookahead=4))) == plain
            assert guessed == n_rows - 1


def test_a_fault_of_one_answer_ends_that_one_alone(judge: PersonaJudge) -> None:
    wanted = jobs(judge, generations(3))

    def broken(seat: Seat) -> Answer:
        raise UsageError("a fault of its own")

    def breaks_later(seat: Seat) -> Answer:
        answer = wanted[0].make(seat)
        decide, left = answer.decide, [1, 2, 3]

        def breaking() -> list[TokenEvent]:
            if not left:
                raise ModelError("a fault in the middle")
            left.pop()
            return decide()

        answer.decide = breaking  # type: ignore[method-assign]
        return answer

    alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(3), strict=False)]
    faulty = [Job(1, broken), Job(1, breaks_later)]
    with sharing(judge, 8) as scheduler:
        for _ in write_all(scheduler, iter([*faulty, *wanted]), ahead=9):
            pass
        assert [str(one.error) for one in faulty] == ["a fault of its own", "a fault in the middle"]
        assert [one.answer.result.text for one in wanted if one.answer] == alone
        assert scheduler.shared.n_free == 8


def test_an_interrupt_ends_all_that_are_written_and_keeps_their_texts(judge: PersonaJudge) -> None:
    wanted = jobs(judge, generations(2, max_tokens=50))
    with sharing(judge, 6) as scheduler:
        for one in wanted:
            scheduler.submit(one)
        for _ in range(5):
            scheduler.step()
        judge.interrupt.set()
        while not scheduler.idle:
            scheduler.step()
        judge.interrupt.clear()
        for one in wanted:
            assert one.answer and one.answer.result.finish_reason == "interrupted" and one.answer.result.text
        assert written(scheduler, jobs(judge, generations(2)))  # the caches are sound
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, generations(2), strict=False)]
        assert written(scheduler, jobs(judge, generations(2))) == alone


def test_what_is_cancelled_frees_its_place(judge: PersonaJudge) -> None:
    wanted = jobs(judge, generations(3, mode="judge", max_tokens=50))
    with sharing(judge, 4) as scheduler:
        for one in wanted:
            scheduler.submit(one)
        scheduler.step()
        assert scheduler.shared.n_free == 0 and scheduler.n_waiting == 1
        scheduler.cancel(wanted[0])
        scheduler.step()
        assert scheduler.n_waiting == 0 and wanted[2].answer is not None
        for one in wanted:
            scheduler.cancel(one)
        assert scheduler.idle and scheduler.shared.n_free == 4


def test_a_prompt_longer_than_a_batch_is_read_in_several(tiny: Callable[[str], Path]) -> None:
    engine = Engine(n_threads=1, n_batch=16)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        generation = Generation(mode="judge", seed=3, max_tokens=8, ignore_end=True)
        alone = judge(QUESTIONS[0], **generation.as_dict()).text
        shared = SharedContext(judge.model, engine, 4, 256, judge.interrupt)
        try:
            wanted = [job(judge, QUESTIONS[0], generation) for _ in range(2)]
            assert written(Scheduler(shared), wanted) == [alone, alone]
        finally:
            shared.close()


def test_one_that_looks_ahead_may_join_those_that_do_not(judge: PersonaJudge) -> None:
    plain, ahead = (Generation(mode="judge", seed=3, max_tokens=30, ignore_end=True, lookahead=n) for n in (0, 7))
    alone = judge(QUESTIONS[0], **plain.as_dict()).text
    with sharing(judge, 4, n_rows=8) as scheduler:
        first, second = (job(judge, QUESTIONS[0], generation) for generation in (plain, ahead))
        scheduler.submit(first)
        scheduler.step()
        scheduler.step()
        read = scheduler.shared.n_fed
        scheduler.submit(second)
        scheduler.step()
        assert scheduler.shared.n_fed < 2.2 * read, "the prompts of the second, and a token of each"
        while not scheduler.idle:
            scheduler.step()
        assert [one.answer.result.text for one in (first, second)] == [alone, alone]


def test_a_long_prompt_holds_up_nobody(tiny: Callable[[str], Path]) -> None:
    engine = Engine(n_threads=1, n_batch=8)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        generation = Generation(mode="judge", seed=3, max_tokens=8, ignore_end=True)
        alone = [judge(question, **generation.as_dict()).text for question in ("Hello.", "word " * 30)]
        shared = SharedContext(judge.model, engine, 4, 256, judge.interrupt)
        try:
            scheduler = Scheduler(shared)
            short, long = job(judge, "Hello.", generation), job(judge, "word " * 30, generation)
            scheduler.submit(short)
            while not (short.answer and short.answer.statistics.completion_tokens):
                scheduler.step()
            scheduler.submit(long)
            while not short.done:
                fed = shared.n_fed
                scheduler.step()
                assert shared.n_fed - fed <= 2 * 8 + 4
            assert long.answer and not long.answer.statistics.completion_tokens
            while not scheduler.idle:
                scheduler.step()
            assert [one.answer and one.answer.result.text for one in (short, long)] == alone
        finally:
            shared.close()


@contextmanager
def in_pieces(tiny: Callable[[str], Path], n_seq: int = 4) -> Iterator[tuple[PersonaJudge, Scheduler]]:
    """A scheduler that reads 8 prompt tokens in a step while several answers are in flight."""
    engine = Engine(n_threads=1, n_batch=32)  # wider batches round otherwise
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        shared = SharedContext(judge.model, engine, n_seq, 512, judge.interrupt)
        try:
            yield judge, Scheduler(shared, prompt_piece=8)
        finally:
            shared.close()


def finish(scheduler: Scheduler) -> None:
    while not scheduler.idle:
        scheduler.step()


def test_a_long_prompt_is_read_in_pieces_while_others_are_written(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="judge", seed=3, max_tokens=50, ignore_end=True)
    with in_pieces(tiny) as (judge, scheduler):
        alone = [judge(question, **generation.as_dict()).text for question in ("Hello.", "word " * 40)]
        short, long = job(judge, "Hello.", generation), job(judge, "word " * 40, generation)
        shared = scheduler.shared
        scheduler.submit(short)
        while not (short.answer and short.answer.statistics.completion_tokens):
            scheduler.step()
        scheduler.submit(long)
        while not (long.answer and long.answer.statistics.completion_tokens):
            fed, n = shared.n_fed, short.answer.statistics.completion_tokens
            scheduler.step()
            assert shared.n_fed - fed <= 8 + 4, "a piece, and a token of each view"
            assert short.answer.statistics.completion_tokens == n + 1
        finish(scheduler)
        assert [one.answer and one.answer.result.text for one in (short, long)] == alone


def test_a_prompt_that_is_alone_is_read_in_whole_batches(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="plain", seed=3, max_tokens=2, ignore_end=True)
    with in_pieces(tiny) as (judge, scheduler):
        long = job(judge, "word " * 40, generation)
        scheduler.submit(long)
        scheduler.step()
        fed = scheduler.shared.n_fed
        assert fed >= 32
        scheduler.step(others_wait=True)
        assert scheduler.shared.n_fed - fed <= 8
        finish(scheduler)


def test_a_short_prompt_goes_before_a_long_one_and_none_waits_for_ever(tiny: Callable[[str], Path]) -> None:
    generation = Generation(mode="plain", seed=3, max_tokens=1, ignore_end=True)
    questions = iter(f"{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" * 9)
    with in_pieces(tiny, n_seq=3) as (judge, scheduler):
        long = job(judge, "word " * 40, generation)
        scheduler.submit(long)
        first = job(judge, "hello", generation)
        scheduler.submit(first)
        while not first.done:
            scheduler.step()
        n_read = scheduler.shared.n_fed
        assert not long.done and n_read < 3 * len(prompts_of(first)[0])
        n_steps = 0
        while not long.done:  # however many come behind it
            for _ in range(max(0, 2 - scheduler.n_waiting)):
                scheduler.submit(job(judge, next(questions), generation))
            scheduler.step()
            n_steps += 1
        assert n_steps < len(prompts_of(long)[0])
        finish(scheduler)


def test_a_conversation_finds_what_was_read_of_it_when_others_have_talked_meanwhile(judge: PersonaJudge) -> None:
    questions = [letter * 60 for letter in "xyz"]  # which begin as the template has them begin
    generation = Generation(mode="plain", seed=1, max_tokens=5, ignore_end=True)
    with sharing(judge, 3) as scheduler:
        written(scheduler, [job(judge, question, generation) for question in questions[:1]])
        written(scheduler, [job(judge, question, generation) for question in questions[1:]])
        for question in questions:
            again, fed = job(judge, question, generation), scheduler.shared.n_fed
            written(scheduler, [again])
            assert scheduler.shared.n_fed - fed == 1 + 4  # of the prompt the last token alone
            assert again.answer and again.seat and again.seat.n_held == len(again.answer.plan.prompts[0]) - 1


def test_what_needs_more_places_than_there_are_is_told(tiny: Callable[[str], Path], judge: PersonaJudge) -> None:
    with sharing(judge, 1) as scheduler:
        with pytest.raises(UsageError, match="2 views want a place, and there is 1"):
            scheduler.submit(job(judge, QUESTIONS[0], generations(1, mode="judge")[0]))
        assert scheduler.idle


@pytest.mark.slow
def test_on_the_real_model_too(smollm2: Path) -> None:
    with PersonaJudge(smollm2, prefer=["vivid", "creative"]) as judge:
        wanted = generations(max_tokens=24, ignore_end=False)
        alone = [judge(q, **g.as_dict()).text for q, g in zip(QUESTIONS, wanted, strict=True)]
        with sharing(judge, 12) as scheduler:
            assert written(scheduler, jobs(judge, wanted)) == alone
