"""The command as a process: how it is started, and the one line that it may print when it fails."""

from __future__ import annotations

import sys

PJLOCAL = [sys.executable, "-m", "pjlocal"]

#: Two preferences, and the same answer in every run.
PREFER = ("-p", "vivid", "-p", "creative", "--seed", "1")
QUESTION = "Got any creative ideas for a 10 year old's birthday?"


def one_line(stderr: str) -> str:
    """The one line that a failure may print."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("pjlocal: ")
    assert "Traceback" not in stderr
    return lines[0]
