"""The command as a process: how it is started, and the one line that it may print when it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def environment_in(folder: Path) -> dict[str, str]:
    """An environment in which the user's own folders are empty, and lie in another."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PJLOCAL_", "XDG_", "HF_"))}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TMUX", "XTERM_VERSION"):
        env.pop(name, None)  # of the terminal in which the tests run
    folders = {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    folders |= {"HF_HOME": "huggingface", "LLAMA_CACHE": "llama.cpp", "OLLAMA_MODELS": "ollama"}
    folders["XDG_RUNTIME_DIR"] = "run"
    (folder / "run").mkdir(mode=0o700, exist_ok=True)  # which there must be, or sockets lie elsewhere
    return env | {variable: str(folder / name) for variable, name in folders.items()}
