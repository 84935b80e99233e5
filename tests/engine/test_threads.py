"""The number of threads adapts to other processes on the machine, and changes nothing but the speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path

import pytest
from llama_cpp import llama_cpp as lib
from waiting import when

from pjlocal import Engine, PersonaJudge
from pjlocal.engine import context, lanes, worker
from pjlocal.engine.engine import Engine as LiveEngine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.lanes import Capacity, needs
from pjlocal.engine.scoring import TextReader
from pjlocal.engine.threads import ThreadCount

TASKS = Path("/proc/self/task")


class Machine:
    """Steps as SmolLM2's on two cores: 23 ms with one thread, 14 with two, 3.5 times as long where threads must share
    cores with busy processes.  Threads that wait for each other spin, so each gets all of a core, or half of one."""

    def __init__(self, n_cores: int, n_busy: int = 0) -> None:
        self.threads = ThreadCount(n_cores)
        self.n_cores = n_cores
        self.n_busy = n_busy
        self.time_s = 1000.0

    def step_s(self, n_threads: int) -> float:
        return 0.023 / n_threads**0.7 * (3.5 if self.n_sharing(n_threads) else 1)

    def n_sharing(self, n_threads: int) -> int:
        return max(0, n_threads + self.n_busy - self.n_cores)

    def step(self) -> tuple[int, float]:
        n = self.threads.now
        step_s = self.step_s(n)
        self.time_s += step_s
        self.threads.learn(self.time_s, step_s, step_s * (n - 0.01 - self.n_sharing(n) / 2))
        return n, step_s

    def run(self, seconds: float) -> tuple[float, list[int]]:
        """Steps a second, and the number of threads at each."""
        end_s, numbers, spent_s = self.time_s + seconds, [], 0.0
        while self.time_s < end_s:
            n, step_s = self.step()
            numbers.append(n)
            spent_s += step_s
        return len(numbers) / spent_s, numbers


@pytest.mark.parametrize("n_cores", [2, 8, 64])
def test_an_idle_machine_keeps_all_its_threads(n_cores: int) -> None:
    _, numbers = Machine(n_cores).run(60)
    assert set(numbers) == {n_cores}


@pytest.mark.parametrize(("n_cores", "n_busy"), [(2, 1), (8, 1), (8, 3), (8, 4)])
def test_beside_busy_processes_it_is_nearly_as_fast_as_with_the_cores_they_leave(n_cores: int, n_busy: int) -> None:
    machine = Machine(n_cores, n_busy)
    machine.run(5 * n_cores)  # it has found its number
    left = n_cores - n_busy
    speed, numbers = machine.run(30)
    assert speed > 0.93 / machine.step_s(left)
    assert numbers.count(left) > 0.9 * len(numbers)


@pytest.mark.parametrize(("n_cores", "n_busy"), [(2, 1), (8, 3)])
def test_all_threads_return_when_the_busy_processes_end(n_cores: int, n_busy: int) -> None:
    machine = Machine(n_cores, n_busy)
    machine.run(10)
    machine.n_busy = 0
    machine.run(4)
    assert set(machine.run(30)[1]) == {n_cores}


def test_threads_that_get_less_than_their_cores_and_are_still_faster_stay() -> None:
    """A process that takes a little: 17 ms with two threads, against 23 with one."""
    machine = Machine(2)
    steps = {2: (0.017, 1.5), 1: (0.023, 1.0)}
    numbers = []
    for _ in range(2000):
        numbers.append(n := machine.threads.now)
        step_s, cores = steps[n]
        machine.time_s += step_s
        machine.threads.learn(machine.time_s, step_s, step_s * cores)
    assert numbers.count(2) > 0.9 * len(numbers)


class Restless(ThreadCount):
    """Another number of threads at every step."""

    now = property(lambda self: next(self.turns), lambda self, n: None)
    turns = cycle([1, 2])

    def learn(self, at_s: float, wall_s: float, cpu_s: float) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "follows"),
    [({}, True), ({"lookahead": 7}, True), ({"schedule": "reference"}, False), ({"mode": "plain"}, False)],
    ids=str,
)
def test_the_text_is_the_same_with_any_number_of_threads(tiny, monkeypatch, changes, follows: bool) -> None:
    """Flash attention divides its sums by it over a view read by itself from 256 tokens on: there it stays."""
    numbers = []

    def text(kind: type[ThreadCount]) -> list[int]:
        monkeypatch.setattr(context, "ThreadCount", kind)
        engine = Engine(layout="batched", n_threads=2)
        with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
            settings = {"seed": 1, "max_tokens": 400, "ignore_end": True} | changes
            return [e.id for e in judge.stream("Hello", **settings)]

    expected = text(ThreadCount)
    set_n_threads = lib.llama_set_n_threads

    def spy(handle, n: int, n_batch: int) -> None:
        numbers.append(n)
        set_n_threads(handle, n, n_batch)

    monkeypatch.setattr(lib, "llama_set_n_threads", spy)
    assert text(Restless) == expected
    assert (len(numbers) > 100) == follows


LONG = "word " * 30


@pytest.fixture(params=["contexts", "batched"])
def two_threads(tiny, request) -> Iterator[PersonaJudge]:
    engine = Engine(n_threads=2, layout=request.param)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        yield judge


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux tells")
@pytest.mark.parametrize("mode", ["plain", "judge"])
def test_reading_a_long_prompt_leaves_no_threads(two_threads: PersonaJudge, mode: str) -> None:
    """More OpenMP threads than cores would slow down every token: see `worker.in_thread`."""
    two_threads("Hello", mode=mode, max_tokens=3)
    before = n_tasks()
    two_threads(LONG, mode=mode, max_tokens=3)
    when(lambda: n_tasks() <= before)


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux tells")
def test_reading_a_shared_prefix_leaves_no_threads(two_threads: PersonaJudge) -> None:
    model, engine, interrupt = two_threads.model, two_threads.engine, two_threads.interrupt
    two_threads("Hello", mode="plain", max_tokens=3)
    before = n_tasks()
    with closing(TextReader(model, engine, interrupt)) as reader:
        assert list(reader.read([[1, *range(3, 100)]], [1]))
    when(lambda: n_tasks() <= before)
    with closing(LiveEngine(model, engine, interrupt, Capacity(2, 1, 256))) as writer:
        with writer.direct(needs(1, 256)) as slot:
            slot.start([[1, *range(3, 100)]])
            assert slot.logits(0).size
        when(lambda: n_tasks() <= before)


def n_tasks() -> int:
    return len(list(TASKS.iterdir()))


def test_a_keyboard_interrupt_does_not_change_later_answers(
    two_threads: PersonaJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    expected = two_threads(LONG, seed=1, max_tokens=10).text
    two_threads("Hello", seed=1, max_tokens=3)
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "in_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two_threads(LONG, seed=1, max_tokens=10)
    assert two_threads(LONG, seed=1, max_tokens=10).text == expected


def test_tokens_that_ctrl_c_prevented_are_read_next_time(two_threads: PersonaJudge) -> None:
    """Ctrl-C is pressed after the tokens are marked as fed, and before they are decoded."""
    expected = two_threads(LONG, seed=1, max_tokens=10).text
    for sequence in two_threads.decoder.lanes:
        sequence.lane.context.truncate(sequence.number, 10)
    assert two_threads(LONG, seed=1, max_tokens=10).text == expected


def test_a_keyboard_interrupt_ends_the_reading_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt, begun, ended = Interrupt(), [], []

    def job() -> None:
        begun.append(True)
        when(interrupt.is_set)
        ended.append(True)

    monkeypatch.setattr(worker.threading, "Event", lambda: Pressed(begun))
    with pytest.raises(KeyboardInterrupt):
        worker.in_thread(job, interrupt)
    assert ended and not interrupt.is_set()


def test_a_keyboard_interrupt_at_the_start_of_the_thread_cancels_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    late, done = [], []

    class Late(threading.Thread):
        def start(self) -> None:
            late.append(self)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker.threading, "Thread", Late)
        with pytest.raises(KeyboardInterrupt):
            worker.in_thread(lambda: done.append(True), Interrupt())
    threading.Thread.start(late[0])
    late[0].join()
    assert not done


def test_a_keyboard_interrupt_while_waiting_for_another_view_loses_nothing() -> None:
    made, done = worker.Worker(), []
    made._ended = Pressed(done)
    made.submit(lambda: done.append(True))
    with pytest.raises(KeyboardInterrupt):
        made.wait()
    made.wait()
    assert done
    made.close()


class Pressed(threading.Event):
    """Ctrl-C is pressed when it is waited for first, and the job has begun."""

    def __init__(self, begun: list[bool]) -> None:
        super().__init__()
        self.begun = begun
        self.is_first = True

    def wait(self, timeout: float | None = None) -> bool:
        if self.is_first:
            self.is_first = False
            when(lambda: self.begun)
            raise KeyboardInterrupt
        return super().wait(timeout)
