"""No header crashes the process, or takes a second or 100 MB: a bad one gives an error message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "tools" / "fuzz_headers.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space, and children that are forked")
def test_no_mutated_header_ends_the_process() -> None:
    """A short run in a process of its own; see the script for a long one."""
    command = [sys.executable, FUZZ, "--checks", "800", "--loads", "40"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "load: ends" in result.stdout  # some are loaded: the children are able to
