"""A model file that changes while it is in use, as by a download that writes over it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import tiny_models
from commandline import PJLOCAL, configure, one_line
from waiting import PATIENCE_S


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.write_llama(tmp_path / "model.gguf", n_embd=256, n_layer=8, n_ff=1024)


@pytest.mark.slow
def test_a_chat_without_mmap_outlives_a_file_that_shrinks(model: Path, environment: dict[str, str]) -> None:
    command = [*PJLOCAL, "chat", "-m", str(model), "--no-mmap", "-n", "4"]
    chat = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    assert chat.stdin and chat.stdout
    chat.stdin.write("hello\n")
    chat.stdin.flush()
    assert chat.stdout.read(1)  # the model is loaded
    os.truncate(model, 4096)
    answers, _ = chat.communicate("hello again\nand again\n", timeout=PATIENCE_S)
    assert chat.returncode == 0 and answers


def test_run_and_config_and_environment_of_settings_know_it(pjlocal, model: Path, environment) -> None:
    assert pjlocal("run", "-m", model, "-n", "4", "--no-mmap", "hi").returncode == 0
    configure(environment, "[engine]\nmmap = false\n")
    assert "engine.mmap = false" in pjlocal("config", "show").stdout
    assert pjlocal("run", "-m", model, "-n", "4", "--mmap", "hi").returncode == 0


@pytest.mark.parametrize("name", ["mmap", "no-mmap"])
def test_a_chat_says_that_it_is_fixed(pjlocal, model: Path, name: str) -> None:
    result = pjlocal("chat", "-m", model, stdin=f"/set {name} off\n")
    assert f"{name} is fixed once the model is loaded" in one_line(result.stderr)
