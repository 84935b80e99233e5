"""The memory estimate made before loading matches the memory that a model takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PREFER

from pjlocal import PersonaJudge
from pjlocal.gguf.header import read_header
from pjlocal.gguf.memory import MOST_CHECKPOINTS, checkpoint_bytes, estimate
from pjlocal.settings import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where the system tells what a process held")


_RUN = (
    "import atexit, re, sys; from pathlib import Path; from pjlocal.__main__ import main; "
    "held = lambda: re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]; "
    "atexit.register(lambda: print(held(), file=sys.stderr)); main()"
)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-mmap",)])
def test_the_estimate_is_within_a_tenth_of_what_is_used(
    environment: dict[str, str], smollm2: Path, options: tuple[str, ...]
) -> None:
    """The most that a run with full contexts held, in bytes."""
    run = ["run", "-m", str(smollm2), *PREFER, "--ctx", "1024", "-n", "1024", "--seed", "1", "--stop", "e", *options]
    prompt = "the cat sees the sun and " * 133
    command = [sys.executable, "-c", _RUN, *run]
    done = subprocess.run(command, input=prompt, capture_output=True, text=True, env=environment, check=True)
    expected = estimate(read_header(smollm2), Engine(n_ctx=1024, mmap=not options)).total
    assert 0.9 < int(done.stderr.split()[-1]) * 1024 / expected < 1.1


@pytest.mark.parametrize("kind", ["gemma3", "mamba", "jamba", "qwen35", "llama"])
def test_the_estimate_includes_the_checkpoints_of_a_chat(tiny: Callable[[str], Path], kind: str) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"]) as judge:
        for n in range(4):
            judge("Why do cats purr, and " + n * "when " + "where?", seed=1, max_tokens=20, ignore_end=True)
        kept = next(iter(judge.decoder.lanes)).state().checkpoints
    expected = checkpoint_bytes(read_header(tiny(kind)), Engine())
    assert bool(kept) == bool(expected) and len(kept) <= MOST_CHECKPOINTS
    assert all(0.9 < len(checkpoint.memory) / expected < 1.1 for checkpoint in kept)
