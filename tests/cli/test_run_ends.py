"""`pjlocal run` where pipes close, disks are full or Ctrl-C is pressed: it ends quietly or says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from commandline import PJLOCAL, PREFER, one_line
from waiting import PATIENCE_S, when

from pjlocal.engine.sequence import Lane

# Closed pipes, full disks, Ctrl-C.


def popen(environment, *args: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PJLOCAL, "run", *args],
        env=environment,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


@pytest.mark.slow
def test_a_closed_pipe_ends_the_run_quietly(environment) -> None:
    process = popen(environment, *PREFER, "-n", "400", "Write a long story.")
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr.read() == b""


def run_in_shell(environment, command: str) -> subprocess.CompletedProcess[bytes]:
    line = f'"$@" {command}'
    return subprocess.run(["sh", "-c", line, "sh", *PJLOCAL], env=environment, capture_output=True, timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_closed_standard_error_does_not_crash(environment) -> None:
    result = run_in_shell(environment, "run -p vivid --seed 1 -n 5 hi </dev/null 2>&-")
    assert result.returncode == 0 and len(result.stdout) > 3


@pytest.mark.parametrize(
    "command", [pytest.param("run -p vivid --seed 1 -n 5 hi </dev/null", marks=pytest.mark.slow), "docs"]
)
def test_an_answer_to_a_closed_standard_output_is_not_lost_silently(environment, command: str) -> None:
    result = run_in_shell(environment, f"{command} >&-")
    assert result.returncode == 1
    assert result.stderr.decode().endswith("pjlocal: cannot write the output: Bad file descriptor\n")


def test_a_full_context_is_reported(pjlocal, tiny) -> None:
    result = pjlocal("run", "-m", tiny("llama"), "--ctx", "100", "-n", "200", "--ignore-end", "hi")
    assert result.returncode == 0
    assert "the context is full" in one_line(result.stderr)


def test_a_prompt_beyond_the_models_training_is_reported(pjlocal, tiny) -> None:
    says = "pjlocal: the model was trained with at most 512 tokens: it can lose the thread of longer prompts\n"
    for n_words, warned in ((100, False), (600, True)):
        result = pjlocal("run", "-m", tiny("llama"), "--ctx", "2048", "-n", "1", "hi " * n_words)
        assert result.returncode == 0
        assert (says in result.stderr.splitlines(keepends=True)) == warned


def test_a_context_beyond_the_models_training_is_reported(pjlocal, tiny) -> None:
    larger = (
        "pjlocal: the context of 1537 tokens is larger than the model was trained with: answers may become nonsense "
        "beyond 512 tokens\n"
    )
    for n_ctx, warned in ((512, False), (1537, True)):
        result = pjlocal("run", "-m", tiny("llama"), "--ctx", str(n_ctx), "-n", "1", "hi")
        assert result.returncode == 0 and result.stderr.startswith(larger) == warned


CUT_OFF = "pjlocal: the answer was cut off after 3 tokens: a larger --max-tokens (-n) allows more"


@pytest.mark.parametrize("options", [(), ("--json",), ("--trace", "-"), ("--mode", "rewrite")])
def test_an_answer_that_is_cut_off_says_so_beside_the_answer(pjlocal, tiny, options: tuple[str, ...]) -> None:
    result = pjlocal("run", "-m", tiny("llama"), "-p", "vivid", "-n", "3", "--ignore-end", *options, "hi")
    assert result.returncode == 0 and one_line(result.stderr) == CUT_OFF
    assert "cut off" not in result.stdout


@pytest.mark.slow
def test_a_whole_answer_says_nothing_and_has_room_for_1024_tokens(pjlocal, tiny) -> None:
    model = ("-m", tiny("llama"), "--ctx", "1500")
    result = pjlocal("run", *model, "--regex", "a|b", "hi")
    about_context = "the context of 1500 tokens is larger than the model was trained with"  # once in this process
    assert result.stdout in ("a\n", "b\n") and (not result.stderr or about_context in one_line(result.stderr))
    result = pjlocal("run", *model, "--ignore-end", "--json", "hi")
    assert json.loads(result.stdout)["usage"]["completion_tokens"] == 1024
    assert "cut off after 1024 tokens" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk_gets_one_line(environment) -> None:
    with open("/dev/full", "w") as full:
        process = popen(environment, *PREFER, "-n", "20", "hi", stdout=full)
        assert process.wait(PATIENCE_S) == 1
        assert "No space left on device" in one_line(process.stderr.read().decode())


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("run", "--help"), ("config", "show"), ("run", *PREFER, "-n", "20", "hi")])
def test_a_closed_pipe_is_not_a_failure(environment, arguments) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PJLOCAL, *arguments]
    process = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert process.returncode == 0 and process.stderr == b""


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_generated_and_the_trace_is_complete(environment, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    process = popen(environment, *PREFER, "-n", "4000", "--trace", str(trace), "Write a very long story.")
    head = process.stdout.read(60)
    process.send_signal(signal.SIGINT)
    text = (head + process.stdout.read()).decode()
    assert process.wait(PATIENCE_S) == 130
    assert process.stderr.read() == b""
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert "".join(event["text"] for event in events) + "\n" == text


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_with_json_prints_the_object_so_far(environment, tmp_path: Path, signum: int, status: int) -> None:
    trace = tmp_path / "trace.jsonl"
    process = popen(environment, *PREFER, "-n", "4000", "--json", "--trace", str(trace), "Write a very long story.")
    when(lambda: trace.exists() and trace.read_text().count("\n") > 12)
    process.send_signal(signum)
    report = json.loads(process.stdout.read())
    assert process.wait(PATIENCE_S) == status
    assert report["finish_reason"] == "interrupted"
    assert report["usage"]["completion_tokens"] > 10


@pytest.mark.slow
def test_ctrl_c_in_a_first_answer_shows_what_there_is_of_it(
    pjlocal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, number = Lane.feed, count()

    def pressed(lane: Lane, *args: Any) -> None:
        if next(number) == 30:
            signal.raise_signal(signal.SIGINT)
        feed(lane, *args)

    monkeypatch.setattr(Lane, "feed", pressed)
    trace = tmp_path / "trace.jsonl"
    result = pjlocal("run", "-p", "vivid", "--mode", "rewrite", "--ignore-end", "Hi", "--trace", trace)
    assert result.returncode == 130 and len(result.stdout) > 20
    assert one_line(result.stderr).startswith(
        "pjlocal: stopped before the correction: this is the uncorrected first answer"
    )
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert "".join(event["text"] for event in events).rstrip() == result.stdout.rstrip()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.15, 0.3, 0.5])
def test_ctrl_c_while_loading_or_reading_the_prompt_is_quiet(environment, delay: float) -> None:
    process = popen(environment, *PREFER, "--batch-size", "4096", "word and word " * 2000)
    maps = Path(f"/proc/{process.pid}/maps")
    when(lambda: "libllama" in maps.read_text())  # before that Python itself may still be starting
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert process.stderr.read() == b""
