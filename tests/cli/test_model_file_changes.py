"""A model file that changes while it is in use, as by a download that writes over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from commandline import PJLOCAL, configure, one_line
from waiting import PATIENCE_S

from pjlocal.engine.model import being_written


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


@pytest.mark.parametrize("ending", [".part", ".aria2", ".crdownload", ".incomplete"])
def test_a_download_under_way_is_reported_in_one_line(pjlocal, model: Path, ending: str) -> None:
    model.with_name(model.name + ending).touch()
    result = pjlocal("run", "-m", model, "--regex", "a", "hi")
    assert result.returncode == 0 and "--no-mmap" in one_line(result.stderr)
    assert pjlocal("run", "-m", model, "--regex", "a", "--no-mmap", "hi").stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
def test_a_file_that_is_open_for_writing_is_being_written(model: Path) -> None:
    assert not being_written(model)
    with model.open("ab"):
        assert being_written(model)
    assert not being_written(model)


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
def test_asking_does_not_disturb_who_writes_next(model: Path) -> None:
    """A lease that was kept would end this process with SIGIO, or hold up the writer."""
    before = signal.getsignal(signal.SIGIO)
    being_written(model)
    with model.open("ab") as file:
        file.write(b"x")
    assert signal.getsignal(signal.SIGIO) is before


def test_a_file_of_someone_else_that_has_just_changed_is_being_written(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert being_written(model)
    os.utime(model, (0, 0))
    assert not being_written(model)
