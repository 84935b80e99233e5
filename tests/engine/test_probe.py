"""Model files are checked before loading: a file that would crash the process gives an error message, and an ordinary
one takes no extra time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import tiny_models
from counted import n_calls

from pjlocal import Engine
from pjlocal.engine import probe
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.machine import Limit
from pjlocal.engine.model import Model
from pjlocal.errors import ModelError
from pjlocal.gguf.check import find_unusual
from pjlocal.gguf.header import read_header


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_with(tmp_path: Path) -> Callable[..., Path]:
    """A small llama with other values under some keys, or with additional keys."""

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


@pytest.mark.parametrize("kind", ["llama", "tekken", "sliding_window", "recurrent", "space_prefix", "jamba", "lfm2"])
def test_ordinary_models_are_loaded_without_a_probe(tiny: Callable[[str], Path], kind: str) -> None:
    assert find_unusual(read_header(tiny(kind))) == ""


def test_unknown_architectures_and_keys_need_no_probe(tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    writer = gguf.GGUFWriter(path, "brandnew")
    writer.add_uint32("brandnew.block_count", 2)
    writer.add_uint32("brandnew.cached_layers", 0)
    writer.add_uint32("brandnew.window.size", 512)
    writer.add_float32("brandnew.gate.bias", -0.5)
    writer.add_array("brandnew.attention.head_count", [0, 4])
    writer.add_array("brandnew.rope.sections", [16, 24, 24, 0])
    writer.add_string("brandnew.gate.kind", "sigmoid")
    writer.add_tokenizer_model("newtokens")
    writer.add_token_list([f"token {i}" for i in range(64)])
    tiny_models.finish(writer)
    assert find_unusual(read_header(path)) == ""
    for key, value in (("window.size", 0), ("gate.bias", float("nan")), ("block_count", 10**6)):
        changed = gguf.GGUFReader(path, "r+")
        field = changed.fields[f"brandnew.{key}"]
        before, field.parts[field.data[0]][0] = field.parts[field.data[0]][0], value
        changed.data.flush()
        assert find_unusual(read_header(path)) == f"brandnew.{key} is {value}"
        field.parts[field.data[0]][0] = before
        changed.data.flush()


def test_the_real_model_is_ordinary_and_its_check_takes_no_time(smollm2: Path) -> None:
    """Its vocabulary of 49,152 texts is passed over."""
    assert find_unusual(read_header(smollm2)) == ""
    assert n_calls(lambda: find_unusual(read_header(smollm2))) < 20_000


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"llama__block_count": 0}, "llama.cpp ends with SIGABRT on it, for llama.block_count is 0. Use another model"),
        ({"llama__block_count": 2**31}, "ends with SIGABRT on it, for llama.block_count is 2147483648"),
        ({"llama__attention__layer_norm_rms_epsilon": -1.0}, "for llama.attention.layer_norm_rms_epsilon is -1.0"),
    ],
)
def test_a_file_that_crashes_llama_cpp_gives_an_error(
    model_with: Callable[..., Path], changed: dict, says: str
) -> None:
    with pytest.raises(ModelError) as caught:
        Model(model_with(**changed), Engine(), Interrupt())
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_llama_cpp_refuses_keeps_its_error(model_with: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*: .*n_rot"):
        Model(model_with(llama__rope__dimension_count=2000), Engine(), Interrupt())


@pytest.fixture
def unusual(model_with: Callable[..., Path]) -> Path:
    """A model that llama.cpp loads, with a value that models do not have."""
    return model_with(llama__attention__layer_norm_rms_epsilon=2.0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with an item for each probe that was started."""
    found: list[int] = []
    real = subprocess.run
    monkeypatch.setattr(probe.subprocess, "run", lambda *args, **options: found.append(1) or real(*args, **options))
    return found


def test_an_unusual_model_is_probed_once(unusual: Path, runs: list[int], cache: Path) -> None:
    for _ in range(2):
        Model(unusual, Engine(), Interrupt()).close()
    assert len(runs) == 1 and len(list((cache / "pjlocal" / "tried").iterdir())) == 1


def test_a_model_is_probed_whatever_bytes_its_path_has(unusual: Path, runs: list[int], cache: Path) -> None:
    odd = unusual.with_name(os.fsdecode(b"caf\xe9.gguf"))  # not UTF-8
    test_an_unusual_model_is_probed_once(unusual.rename(odd), runs, cache)


def test_a_model_that_is_larger_than_free_memory_is_not_probed(unusual: Path, runs: list[int], monkeypatch) -> None:
    """It may fit on a device; here, the file is mapped."""
    monkeypatch.setattr(probe, "memory", lambda: Limit(unusual.stat().st_size - 1))
    Model(unusual, Engine(), Interrupt()).close()
    assert not runs


def test_a_probe_that_the_system_kills_does_not_refuse_the_file(unusual: Path, monkeypatch) -> None:
    killed = subprocess.CompletedProcess([], -9)
    monkeypatch.setattr(probe.subprocess, "run", lambda *args, **options: killed)
    Model(unusual, Engine(), Interrupt()).close()


def test_a_probe_has_a_time_limit(unusual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LEAST_S", 0.01)
    with pytest.raises(ModelError, match=r"llama.cpp does not finish within 0 s on it"):
        probe.check_model(read_header(unusual), Interrupt())
