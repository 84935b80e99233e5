"""A file that is no model says what it is, in the list and where it is given as one, and which option takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_models
from commandline import one_line

LORA = "is a LoRA adapter, not a model: give it to --lora"


def _gguf(path: Path, architecture: str, kind: str | None = None) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    if kind:
        writer.add_type(kind)
    writer.add_tensor("v.patch_embd.weight", np.ones((4, 4), np.float32))
    tiny_models.finish(writer)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "lora": (tiny_models.write_lora, LORA),
    "old-lora": (lambda path: _old_lora(path), LORA),
    "vector": (tiny_models.write_control_vector, "is a control vector, not a model: give it to --control-vector"),
    "eyes": (lambda path: _gguf(path, "clip"), "reads images or sound (mmproj)"),
    "ears": (lambda path: _gguf(path, "whisper", "mmproj"), "reads images or sound (mmproj)"),
    "matrix": (lambda path: _gguf(path, "llama", "imatrix"), "is an importance matrix for quantizing"),
    "bert": (tiny_models.write_embedding, "is an embedding model, which writes no text"),
    "ranker": (tiny_models.write_reranker, "is a reranker, which writes no text: give it to eval score --reward-model"),
    "words": (tiny_models.write_vocab_only, "is a vocabulary without weights"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><p>Sign in"), "is not a GGUF file but a web page"),
    "zip": (lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), "(it is a zip archive, as PyTorch writes them)"),
    "tensors": (lambda path: path.write_bytes(b'\x40' + bytes(7) + b'{"a": {}}'), "(it is in the safetensors format)"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "a gzip archive: unpack it"),
    "ggml": (lambda path: path.write_bytes(b"tjgg" + bytes(99)), "an older format of llama.cpp"),
}  # fmt: skip


def _old_lora(path: Path) -> None:
    """As programs wrote them that did not say what it is."""
    writer = gguf.GGUFWriter(path, "llama")
    for half, shape in (("a", (4, 64)), ("b", (64, 4))):
        writer.add_tensor(f"blk.0.attn_q.weight.lora_{half}", np.ones(shape, np.float32))
    tiny_models.finish(writer)


@pytest.fixture
def files(tmp_path: Path, environment: dict[str, str]) -> Path:
    folder = tmp_path / "data" / "pjlocal" / "models"
    folder.mkdir(parents=True)
    for name, (write, _) in FILES.items():
        write(folder / f"{name}.gguf")
    return folder


def test_the_list_shows_files_that_are_no_models_as_what_they_are(pjlocal: Callable, files: Path) -> None:
    tiny_models.write_split(files / "split.gguf")
    listed = {model["name"]: model for model in json.loads(pjlocal("models", "list", "--json").stdout)}
    for name, (_, says) in FILES.items():
        assert says.removeprefix("is ") in listed[f"{name}.gguf"]["trouble"]
    parts = [name for name in listed if name.startswith("split")]
    assert len(parts) == 1 and not listed[parts[0]]["trouble"]


@pytest.mark.parametrize("name", ["lora", "vector", "bert", "page"])
def test_another_kind_of_file_as_the_model_is_refused_with_the_option_that_takes_it(
    pjlocal: Callable, files: Path, name: str
) -> None:
    refused = pjlocal("run", "-m", name, "Hello")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{name}.gguf {FILES[name][1]}" in one_line(refused.stderr)


def test_models_info_names_the_kind_of_file_too(pjlocal: Callable, files: Path) -> None:
    assert f"this {LORA}" in " ".join(pjlocal("models", "info", "lora").stdout.split())
