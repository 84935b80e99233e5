"""Standard input of `pjlocal run` beside a prompt on the command line: read when it is data, otherwise left alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PJLOCAL
from waiting import PATIENCE_S


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path, tiny) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a line of shell in which ``"$@"`` is pjlocal run with a tiny model."""
    command = [*PJLOCAL, "run", "-m", str(tiny("llama")), "-n", "1", "--json"]
    (tmp_path / "lines").write_text("one\ntwo two\nthree three three\n")

    def run(line: str) -> subprocess.CompletedProcess[str]:
        args = ["sh", "-c", line, "sh", *command]
        options = {"capture_output": True, "env": environment, "cwd": tmp_path, "timeout": PATIENCE_S}
        return subprocess.run(args, text=True, stdin=subprocess.DEVNULL, **options)

    return run


def n_tokens(output: str) -> list[int]:
    return [json.loads(line)["usage"]["prompt_tokens"][0] for line in output.splitlines()]


def joined(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "standard input" in line]


@pytest.mark.slow
def test_a_read_loop_over_a_file_has_each_line_answered(shell) -> None:
    loop = shell('while read -r line; do "$@" "$line"; done < lines')
    each = shell('for line in one "two two" "three three three"; do "$@" "$line"; done')
    assert n_tokens(loop.stdout) == n_tokens(each.stdout) and len(n_tokens(loop.stdout)) == 3
    assert not joined(loop.stderr) and not joined(each.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("given", ['cat lines | "$@" Summarise', '"$@" Summarise < lines'])
def test_piped_text_precedes_the_prompt_and_a_line_says_so(shell, given: str) -> None:
    both = shell(f"{given}; \"$@\" 'one\ntwo two\nthree three three\n\nSummarise'")
    assert len(n_tokens(both.stdout)) == 2 and len(set(n_tokens(both.stdout))) == 1
    (line,) = joined(both.stderr)
    assert line == "pjlocal: 29 characters of standard input are put before the prompt; </dev/null leaves them out"


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["</dev/null", "<&-", "0>/dev/null", "<<END\n\nEND"])
def test_an_empty_pipe_leaves_the_prompt_unchanged(shell, empty: str) -> None:
    result = shell(f'"$@" Hello {empty}')
    assert result.returncode == 0, result.stderr
    assert n_tokens(result.stdout) == n_tokens(shell('"$@" Hello').stdout)
    assert not joined(result.stderr)


@pytest.mark.slow
def test_without_a_prompt_the_rest_of_a_file_is_read(shell) -> None:
    rest = shell(
        '{ read -r line; "$@" -; } < lines; { read -r line; "$@"; } < lines; "$@" "two two\nthree three three"'
    )
    assert len(n_tokens(rest.stdout)) == 3 and len(set(n_tokens(rest.stdout))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("first", "blocks"), [(b"", True), (b"the beginning\n", True), (b"", False)])
def test_an_open_pipe_is_reported_and_read_to_its_end(environment, tiny, first: bytes, blocks: bool) -> None:
    """Also one that another process made non-blocking."""
    reading, writing = os.pipe()
    os.set_blocking(reading, blocks)
    command = [*PJLOCAL, "run", "-m", str(tiny("llama")), "-n", "1", "Hello"]
    with subprocess.Popen(command, env=environment, stdin=reading, stderr=subprocess.PIPE) as process:
        os.close(reading)
        with open(writing, "wb", buffering=0) as pipe:
            pipe.write(first)
            line = process.stderr.readline().decode()
            assert line == "pjlocal: waiting for standard input to end (give </dev/null if there is none)\n"
            pipe.write(b"late")
        told = process.communicate(timeout=PATIENCE_S)[1].decode()
    n = len(first) + len("late")
    assert process.returncode == 0 and f"{n} characters of standard input are put before the prompt" in told
