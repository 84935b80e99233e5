"""An adapter is checked against the model before llama.cpp reads it; one that does not fit gives an error."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_models import finish, write_control_vector, write_lora

from pjlocal.errors import ModelError
from pjlocal.gguf.adapter import check_lora, read_control_vector
from pjlocal.gguf.header import Header, read_header


@pytest.fixture
def model(tiny) -> Header:
    return read_header(tiny("llama"))


def written(path: Path, architecture: str, tensors: dict[str, np.ndarray], **keys: object) -> Path:
    w = gguf.GGUFWriter(path, architecture)
    for key, value in {"general__type": "adapter", "adapter__type": "lora", **keys}.items():
        add = {str: w.add_string, float: w.add_float32, int: w.add_uint32}.get(type(value), w.add_array)
        add(key.replace("__", "."), value)
    for name, values in tensors.items():
        w.add_tensor(name, values)
    finish(w)
    return path


Q = "blk.0.attn_q.weight"
EMBEDDING = "token_embd.weight"


def pair(name: str = Q, a: tuple[int, ...] = (4, 64), b: tuple[int, ...] = (64, 4), dtype: type = np.float32) -> dict:
    """Halves by their rows and columns, as NumPy has them."""
    return {f"{name}.lora_a": np.ones(a, dtype), f"{name}.lora_b": np.ones(b, dtype)}


def test_adapters_that_fit_are_taken(tmp_path: Path, model: Header) -> None:
    check_lora(write_lora(tmp_path / "a.gguf"), model)
    n_vocab = model.n_vocab
    check_lora(written(tmp_path / "b.gguf", "llama", pair(EMBEDDING, (n_vocab, 4), (64, 4))), model)
    check_lora(written(tmp_path / "c.gguf", "llama", pair() | {"output_norm.weight": np.ones(64, np.float32)}), model)
    assert read_control_vector(write_control_vector(tmp_path / "v.gguf", value=2.0), model).tolist() == [[2.0] * 64]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"general__type": "model"}, "is not a LoRA adapter"),
        ({"adapter__type": "prompt"}, "is not a LoRA adapter"),
        ({"adapter__type": 1}, "is not a LoRA adapter"),
        ({"architecture": "qwen2"}, "made for the architecture qwen2, not llama"),
        ({"adapter__lora__alpha": math.nan}, "is broken: its adapter.lora.alpha"),
        ({"adapter__lora__alpha": 8}, "is broken: its adapter.lora.alpha"),
        ({"adapter__lora__alpha": "8"}, "is broken: its adapter.lora.alpha"),
        ({"adapter__alora__invocation_tokens": [1, 2]}, "is an activated LoRA"),
        ({"tensors": {}}, "is broken: it changes no tensor"),
        ({"tensors": {Q: np.ones((4, 64), np.float32)}}, f"its tensor {Q} is not half of a matrix"),
        ({"tensors": {f"{Q}.lora_a": np.ones((4, 64), np.float32)}}, f"it has only one half of {Q}"),
        ({"tensors": pair("blk.7.attn_q.weight")}, "it changes blk.7.attn_q.weight, and the model has no such tensor"),
        ({"tensors": pair(a=(4, 32))}, f"its {Q} has another shape"),
        ({"tensors": pair(b=(64, 3))}, f"its {Q} has another shape"),
        ({"tensors": pair(a=(2, 4, 64), b=(2, 64, 4))}, f"its {Q} has another shape"),
        ({"tensors": pair(EMBEDDING)}, f"its {EMBEDDING} has another shape"),
        ({"tensors": pair(dtype=np.int32)}, f"its tensor {Q}.lora_a has the type I32"),
    ],
)
def test_a_lora_that_does_not_fit_gives_an_error(tmp_path: Path, model: Header, changed: dict, says: str) -> None:
    settings = {"architecture": "llama", "tensors": pair()} | changed
    with pytest.raises(ModelError) as caught:
        check_lora(written(tmp_path / "pirate.gguf", **settings), model)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "is not a control vector"),
        ({"direction.1": np.ones((2, 64), np.float32)}, "is not a control vector"),
        ({"direction.1": np.ones(64, np.float16)}, "is not a control vector"),
        ({"output.weight": np.ones(64, np.float32)}, "is not a control vector"),
        ({"direction.0": np.ones(64, np.float32)}, "direction for layer 0, but the model has layers 0 to 1"),
        ({"direction.2": np.ones(64, np.float32)}, "direction for layer 2, but the model has layers 0 to 1"),
        ({"direction.1": np.ones(32, np.float32)}, "its directions have width 32, and the model has width 64"),
        ({"direction.1": np.full(64, np.inf, np.float32)}, "one of its values is not a finite number"),
    ],
)
def test_a_control_vector_that_does_not_fit_gives_an_error(tmp_path, model: Header, tensors: dict, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_control_vector(written(tmp_path / "calm.gguf", "controlvector", tensors), model)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_cut_short_or_not_gguf_give_an_error(tmp_path: Path, model: Header) -> None:
    data = write_lora(tmp_path / "whole.gguf").read_bytes()
    for size in (0, 3, 30, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.gguf").write_bytes(data[:size])
        with pytest.raises(ModelError, match=r"cut.gguf"):
            check_lora(tmp_path / "cut.gguf", model)
