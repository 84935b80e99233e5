"""Files with questions and answers are readable by their user alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SUITE = """
title = "Small"
baseline = "prompt"
prompts = "prompts.txt"
max_tokens = 3
systems = [{ name = "plain", mode = "plain" }, { name = "prompt", mode = "prompt" }]
[[objectives]]
name = "bright"
prefer = ["vivid"]
"""


@pytest.mark.slow
def test_no_file_with_a_chat_in_it_is_readable_by_others(process, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = ("-m", tiny("llama"), "--threads", "1")
    question = "Is this secret?"
    (tmp_path / "prompts.txt").write_text(f"{question}\n")
    (tmp_path / "suite.toml").write_text(SUITE)
    before = {*tmp_path.rglob("*")}
    for command, stdin in (
        (("run", *model, "-n", "3", "--trace", "trace.jsonl", question), ""),
        (("chat", *model, "-n", "3", "--save-cache"), f"{question}\n/export chat.json\n/export chat.html\n"),
        (("sessions", "export", "1", "again.md"), ""),
        (("eval", "run", "suite.toml", "--out", "evaluated", *model), ""),
        (("eval", "report", "evaluated", "report.html"), ""),
    ):
        result = process(*command, stdin=stdin, umask=0o022)
        assert result.returncode == 0, (command, result.stderr)
    made = {path for path in {*tmp_path.rglob("*")} - before if path.is_file()}
    names = {path.name for path in made}
    assert names >= {"trace.jsonl", "chats.db", "chat.json", "chat.html", "again.md", "answers.jsonl", "report.html"}
    ours = [path for path in made if "matplotlib" not in path.parts]
    readable = [path for path in ours if os.stat(path).st_mode & 0o077]
    assert readable == []
