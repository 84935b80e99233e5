"""What is loaded is checked first: a file that would end the process costs a line, and an ordinary one no time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import tiny_models

from pjlocal import Engine
from pjlocal.engine import trial
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.errors import ModelError
from pjlocal.gguf.check import surprise
from pjlocal.gguf.header import read_header


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_with(tmp_path: Path) -> Callable[..., Path]:
    """A small llama with other values under some keys, or keys that it has not."""

    def make(**changed: object) -> Path:
        path = tmp_path / "model.gguf"
        tiny_models.write_llama(path)
        reader = gguf.GGUFReader(path, "r+")
        for key, value in changed.items():
            field = reader.fields[key.replace("__", ".")]
            field.parts[field.data[0]][0] = value
        reader.data.flush()
        return path

    return make


@pytest.mark.parametrize("kind", ["llama", "tekken", "sliding_window", "recurrent", "space_prefix"])
def test_ordinary_models_are_loaded_without_a_trial(tiny: Callable[[str], Path], kind: str) -> None:
    assert surprise(read_header(tiny(kind))) == ""


@pytest.mark.timed
def test_the_real_model_is_ordinary_and_its_check_takes_no_time(smollm2: Path) -> None:
    times = []
    for _ in range(7):
        start = time.process_time()
        assert surprise(read_header(smollm2)) == ""
        times.append(time.process_time() - start)
    assert min(times) < 0.02  # 7 ms on a quiet machine


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"llama__block_count": 0}, "llama.cpp ends with SIGABRT on it, for llama.block_count is 0. Use another model"),
        ({"llama__block_count": 2**31}, "ends with SIGABRT on it, for llama.block_count is 2147483648"),
        ({"llama__attention__layer_norm_rms_epsilon": -1.0}, "for llama.attention.layer_norm_rms_epsilon is -1.0"),
    ],
)
def test_what_ends_llama_cpp_is_told_in_a_line(model_with: Callable[..., Path], changed: dict, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        Model(model_with(**changed), Engine(), Interrupt())
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_survives_it(model_with: Callable[..., Path], pjlocal) -> None:
    result = pjlocal("run", "-m", model_with(llama__block_count=0), "Hello")
    assert (result.returncode, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    assert "llama.cpp ends with SIGABRT on it, for llama.block_count is 0" in result.stderr


def test_what_llama_cpp_refuses_by_itself_keeps_its_reason(model_with: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*: .*n_rot"):
        Model(model_with(llama__rope__dimension_count=2000), Engine(), Interrupt())


def test_a_model_out_of_the_ordinary_is_tried_once(tiny, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    runs = []
    real = subprocess.run
    monkeypatch.setattr(trial.subprocess, "run", lambda *args, **options: runs.append(1) or real(*args, **options))
    path = tiny("embedding")
    assert "the architecture 'bert'" in surprise(read_header(path))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"bert is not a decoder-only model|embedding model"):
            Model(path, Engine(), Interrupt())
    assert len(runs) == 1 and len(list((cache / "pjlocal" / "tried").iterdir())) == 1


def test_a_trial_that_does_not_end_is_ended(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"llama.cpp does not come to an end within 0 s on it"):
        trial.check_model(tiny("embedding"), Interrupt(), seconds=0.01)
