"""If memory or threads run out, the command gives one error message, and its output has nothing but the answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import PJLOCAL, one_line
from waiting import PATIENCE_S

from pjlocal.errors import explain

ABORTING = """
from pjlocal.engine.backend import init_backend
from llama_cpp import llama_cpp as lib
init_backend()
print("an answer", flush=True)
lib._lib.ggml_abort(b"/a/folder/file.c", 12, b"GGML_ASSERT(%s) failed", b"ctx->mem_buffer != NULL")
"""


def test_an_abort_of_llama_cpp_prints_one_line_and_starts_no_debugger() -> None:
    result = subprocess.run([sys.executable, "-c", ABORTING], capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode < 0 and result.stdout == "an answer\n"
    line = one_line(result.stderr)
    assert line.startswith("pjlocal: llama.cpp aborted: GGML_ASSERT(ctx->mem_buffer != NULL) failed (file.c:12). ")
    assert "Is there enough memory" in line


def test_a_thread_that_cannot_start_is_not_reported_as_a_bug() -> None:
    line, status = explain(RuntimeError("can't start new thread"))
    assert status == 1 and "cannot start a thread" in line and "ulimit" in line and "bug" not in line


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v acts on Linux")
def test_with_too_little_memory_there_is_an_answer_or_one_line(smollm2: Path, environment: Any) -> None:
    """Where exactly it runs out differs from run to run."""
    for kilobytes in range(260_000, 400_000, 20_000):
        limited = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh"]
        command = [*limited, *PJLOCAL, "run", "-p", "vivid", "--threads", "2", "-n", "5", "hello"]
        result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode == 0:
            continue
        line = one_line(result.stderr)
        assert result.stdout.strip() == "" and "bug" not in line and "--gpu-layers" not in line, line
