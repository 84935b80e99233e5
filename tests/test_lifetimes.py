"""Closed objects refuse use, shared ones live as long as their last user, and no order of closing crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
import gc, logging, os, sys, threading, time
from pathlib import Path
from pjlocal import Engine, PersonaJudge

def made(model=Path(sys.argv[1]), **options):
    return PersonaJudge(model, prefer=["vivid", "creative"], engine=Engine(n_threads=2, n_ctx=4096), **options)

def refusal(act):
    try:
        return f"no error: {act()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

HOW = {"seed": 1, "max_tokens": 10, "ignore_end": True}
LONG = {"max_tokens": 4000, "ignore_end": True}
judge = made()
"""


def run(model: Path, code: str) -> list[str]:
    """The lines that a program of the Python API prints; it ends by itself, with status 0 and no messages except the
    warning about its large context."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + code, str(model)]  # of os.fork
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)
    context, *others = result.stderr.splitlines()
    assert (result.returncode, others) == (0, []) and context.startswith("the context of 4096 tokens is larger"), result
    return result.stdout.splitlines()


def test_a_shared_model_lives_until_its_last_user_is_closed(tiny: Any) -> None:
    lines = run(
        tiny("llama"),
        """
text = judge("Hi", **HOW).text
second, third = made(judge.model), made(judge.model)
judge.close()
judge.close()
assert second("Hi", **HOW).text == third("Hi", **HOW).text == text
model, life = second.model, second.model.lifetime
second.close()
assert not life.is_over and third("Hi", **HOW).text == text
third.close()
assert life.is_over
for act in (
    lambda: judge("Hi"), lambda: judge.stream("Hi"), lambda: judge.plan_request("Hi", judge.request),
    lambda: judge.check(judge.request), lambda: third("Hi"), lambda: made(model),
    lambda: model.tokenize("a", special=False), lambda: model.piece(3),
    lambda: model.description, lambda: model.is_end(3), lambda: model.eos_text, lambda: model.lora("none"),
):
    print(refusal(act))
""",
    )
    assert len(lines) == 12
    for line in lines:
        assert line.startswith("UsageError: ") and line.endswith(" is closed: make a new one"), line


def test_a_model_that_was_given_stays_open(tiny: Any) -> None:
    lines = run(
        tiny("llama"),
        """
with made(judge.model) as second:
    second("Hi", **HOW)
print(judge("Hi", **HOW).finish_reason)
answer = judge.stream("Hi", **HOW)
events = iter(answer)
next(events)
judge.close()
print(len(list(events)), answer.result.finish_reason, refusal(lambda: list(judge.stream("Hi"))))
""",
    )
    assert lines == ["length", "0 interrupted UsageError: this PersonaJudge is closed: make a new one"]


@pytest.mark.slow
def test_unreferenced_judges_are_freed_without_close(tiny: Any) -> None:
    lines = run(
        tiny("llama"),
        """
life, n_threads = judge.model.lifetime, threading.active_count()
judge("Hi", **HOW)
judge("Hi", mode="both", **HOW)
events = iter(judge.stream("Hi", **LONG))
next(events)
second = made(judge.model)
del judge
gc.collect()
print(life.is_over)
del events, second
gc.collect()
give_up = time.monotonic() + 60
while threading.active_count() > n_threads and time.monotonic() < give_up:
    time.sleep(0.01)
    gc.collect()
print(life.is_over, [thread.name for thread in threading.enumerate()][n_threads:])
""",
    )
    assert lines == ["False", "True []"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["judge", "both", "rewrite"])
def test_closing_in_another_thread_ends_the_answer_and_then_frees(tiny: Any, mode: str) -> None:
    lines = run(
        tiny("llama"),
        f"""
for delay in (0.0, 0.001, 0.005, 0.02):
    judge, reasons = made(), []
    answer = judge.stream("Hi", mode="{mode}", **LONG)
    thread = threading.Thread(target=lambda: reasons.append(list(answer) and None or answer.result.finish_reason))
    thread.start()
    while not judge.decoder._writer:
        pass
    time.sleep(delay)
    judge.close()
    thread.join(60)
    print(reasons, judge.model.lifetime.is_over)
""",
    )
    assert set(lines) == {"['interrupted'] True"}


@pytest.mark.parametrize(
    "code",
    [
        "second = made(judge.model)",
        "events = iter(judge.stream('Hi', **LONG)); next(events)",
        "threading.Thread(target=lambda: judge('Hi', **LONG), daemon=True).start(); time.sleep(0.2)",
        "logging.disable()  # a warning: the prompt is longer than those of the model's training\n"
        "threading.Thread(target=lambda: judge('word ' * 600, **LONG), daemon=True).start(); time.sleep(0.1)",
    ],
)
def test_the_process_may_end_while_a_judge_is_open(tiny: Any, code: str) -> None:
    assert run(tiny("llama"), code) == []


FORKING = """
judge("Hi", **HOW)
events = iter(judge.stream("Hi", **LONG))
next(events)
child = os.fork()
if not child:
    for act in (lambda: judge("Hi"), lambda: list(events), made):
        print(refusal(act))
    {end}
    sys.exit()
print(os.waitpid(child, 0)[1])
events.close()
print(judge("Hi again", **HOW).finish_reason)
judge.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no os.fork")
@pytest.mark.parametrize("end", ["pass", "judge.close()"])
def test_a_forked_child_is_refused_in_one_line_and_its_parent_continues(tiny: Any, end: str) -> None:
    lines = run(tiny("llama"), FORKING.format(end=end))
    assert len(lines) == 5 and lines[3:] == ["0", "length"]
    assert all(line.startswith("ModelError: llama.cpp does not work after os.fork") for line in lines[:3]), lines


def test_of_two_threads_that_begin_at_the_same_moment_one_writes_and_the_other_is_refused(tiny: Any) -> None:
    both = run(
        tiny("llama"),
        """
engine, meet = judge.decoder, threading.Barrier(2)

class Together:  # a lock before which both threads have found the engine free
    def __enter__(self):
        meet.wait()
        return lock.__enter__()

    def __exit__(self, *exc):
        return lock.__exit__(*exc)

answers = [judge.stream("Hello", **HOW) for _ in range(2)]
lock, engine._opening = engine._opening, Together()
said = []

def write(answer):
    events = iter(answer)
    said.append(refusal(lambda: next(events)))
    while len(said) < 2:  # the first one writes until the other one has tried
        time.sleep(0.01)
    said.append(refusal(lambda: 1 + len([*events])))

threads = [threading.Thread(target=write, args=[answer]) for answer in answers]
for thread in threads: thread.start()
for thread in threads: thread.join()
engine._opening = lock
print(*sorted(said), sep="\\n")
judge.close()
""",
    )
    assert "no error: 10" in both and sum("another thread" in line for line in both) == 1, both
