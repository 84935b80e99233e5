"""Headers are read correctly and fast; a broken one gives an error message with the fault and its place."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_models
from counted import n_calls
from llama_cpp import _ggml

from pjlocal.errors import ModelError
from pjlocal.gguf.header import TENSOR_TYPES, read_header

KINDS = ["llama", "tekken", "sliding_window", "recurrent", "embedding", "vocab_only"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_was_written_is_read(tiny: Callable[[str], Path], kind: str) -> None:
    path = tiny(kind)
    header, reference = read_header(path), gguf.GGUFReader(path)
    assert [(t.name, list(t.shape), t.type, t.offset, t.n_bytes, t.n_elements) for t in header.tensors] == [
        (t.name, list(t.shape), t.tensor_type.name, t.data_offset, t.n_bytes, t.n_elements) for t in reference.tensors
    ]
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, field in fields.items():
        written = field.contents()
        if array := header.metadata.array(key):
            values = [text.decode() for text in array.texts()] if array.type == "str" else array.numbers().tolist()
            assert values == written and len(array) == len(written), key
        else:
            assert header.metadata[key] == written, key
    assert header.n_parameters == sum(t.n_elements for t in reference.tensors)
    assert header.n_file_bytes == path.stat().st_size


def test_the_facts_in_a_list_of_models(smollm2: Path) -> None:
    header = read_header(smollm2)
    assert (header.architecture, header.file_type, header.n_ctx_train) == ("llama", "Q4_1", 8192)
    assert header.n_parameters == 134_515_008 and header.n_vocab == 49_152 and header.has_chat_template
    assert header.of_architecture("block_count") == 30 and header.of_architecture("none") is None


def test_the_texts_of_a_large_vocabulary_are_not_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    words = [f"w{i}" for i in range(152_000)]
    words[70_000:70_004] = ["", "a" * 300, "nul\0" + "\0" * 8, "日本"]
    writer.add_token_list(words)
    tiny_models.finish(writer)
    assert n_calls(lambda: read_header(path)) < len(words) / 2
    tokens = read_header(path).metadata.array("tokenizer.ggml.tokens")
    assert tokens and tokens.texts() == [word.encode() for word in words]


def test_a_text_of_megabytes_is_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    text = "é{}" * 700_000
    writer.add_string("tokenizer.huggingface.json", text)
    tiny_models.finish(writer)
    assert read_header(path).metadata["tokenizer.huggingface.json"] == text


def test_tensor_types_are_llama_cpps() -> None:
    ggml = _ggml.libggml
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    for number, (name, block, n_bytes) in TENSOR_TYPES.items():
        assert ggml.ggml_type_name(number).decode().upper() == name
        assert (ggml.ggml_blck_size(number), ggml.ggml_type_size(number)) == (block, n_bytes), name


# Split models.


@pytest.fixture
def split(tmp_path: Path) -> list[Path]:
    return tiny_models.write_split(tmp_path / "tiny.gguf")


def test_all_parts_of_a_split_model_are_read_as_one(split: list[Path], tiny: Callable[[str], Path]) -> None:
    header, whole = read_header(split[0]), read_header(tiny("llama"))
    assert {(t.name, t.shape) for t in header.tensors} == {(t.name, t.shape) for t in whole.tensors}
    assert header.parts == tuple(split) and header.n_parameters == whole.n_parameters
    assert header.n_file_bytes == sum(path.stat().st_size for path in split)
    for tensor in header.tensors:
        start = np.fromfile(split[tensor.part], np.uint8)[tensor.offset :][: tensor.n_bytes]
        assert len(start) == tensor.n_bytes


def test_parts_that_are_missing_or_do_not_belong_together_are_refused(split: list[Path]) -> None:
    with pytest.raises(ModelError, match=f"{split[1].name}: it is not the first part of a split model. Name"):
        read_header(split[1])
    alone = shutil.copy(split[0], split[0].with_name("alone.gguf"))
    with pytest.raises(ModelError, match=r"alone.gguf: it is part 1 of 3 of a split model, but has another name. Name"):
        read_header(alone)
    third = split[2].read_bytes()
    split[2].write_bytes(split[1].read_bytes())
    with pytest.raises(ModelError, match=f"{split[2].name} is not part 3 of {split[0].name}: download it again"):
        read_header(split[0])
    split[2].write_bytes(third[:-100])
    with pytest.raises(ModelError, match=f"{split[2].name}.* cut short"):
        read_header(split[0])
    split[2].unlink()
    with pytest.raises(ModelError, match=rf"its part '{split[2]}' is missing .No such file or directory.. Name"):
        read_header(split[0])


# Broken files, made byte by byte.


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: bytes = b"t", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def whole(
    *keys: bytes,
    tensors: tuple[bytes, ...] = (),
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    data: bytes = b"\0" * 256,
) -> bytes:
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


ONE = struct.pack("<I", 1)
HUGE = struct.pack("<Q", 2**62)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty: download"),
        (b"PK\3\4", "is not a GGUF file: convert"),
        (b"GGUF", "the version needs 4 bytes from byte 4 on, and 0 are left. Download it again"),
        (whole(version=1), "has GGUF version 1, which is no longer supported"),
        (whole(version=4), "has GGUF version 4, and 3 is the newest known version"),
        (whole(version=3 << 24), "is a big-endian GGUF file"),
        (whole(n_keys=10**6), "it claims to have 1,000,000 metadata keys"),
        (whole(n_tensors=2**63), "it claims to have 9,223,372,036,854,775,808 tensors"),
        (
            whole(HUGE),
            "metadata key 1 needs 4,611,686,018,427,387,904 bytes from byte 32 on, and 256 are left",
        ),
        (whole(key(b"a", 4, ONE), key(b"a", 4, ONE)), "the metadata key a occurs twice"),
        (whole(key(b"\xff\xfe", 4, ONE)), "metadata key 1 is not UTF-8, before byte"),
        (whole(key(b"", 4, ONE)), "metadata key 1 is empty"),
        (whole(key(b"\x1b[31m", 4, ONE)), "metadata key 1 is '␛[31m'"),
        (whole(key(b"a", 13, ONE)), "the type 13 of a does not exist"),
        (whole(key(b"a", 8, HUGE)), "a needs 4,611,686,018,427,387,904 bytes from byte 45 on"),
        (whole(key(b"a", 9, struct.pack("<IQ", 9, 1))), "a is an array of arrays"),
        (whole(key(b"a", 9, struct.pack("<IQ", 0, 2**31))), "a claims to have 2,147,483,648 items"),
        (whole(key(b"a", 9, struct.pack("<IQ", 10, 10**6))), "a needs 8,000,000 bytes from byte 49 on"),
        (whole(key(b"a", 9, struct.pack("<IQ", 8, 10**7))), "a claims to have 10,000,000 texts"),
        (whole(key(b"a", 9, struct.pack("<IQ", 8, 2) + text(b"x") + HUGE)), "bytes from byte 49 on"),
        (whole(key(b"a", 9, struct.pack("<IQ", 8, 9) + text(b"x")), data=b""), "a needs 72 bytes from byte 49 on"),
        (
            whole(key(b"general.alignment", 4, struct.pack("<I", 24))),
            "its general.alignment is 24 and must be",
        ),
        (whole(key(b"general.alignment", 4, struct.pack("<I", 2**31))), "its general.alignment is 2147483648"),
        (whole(key(b"general.alignment", 8, text(b"32"))), "its general.alignment is 32 and must be"),
        (whole(tensors=(tensor(), tensor(offset=32))), "the tensor t occurs twice"),
        (whole(tensors=(tensor(b"n" * 64),)), "the name of tensor 1 is longer than 63 bytes"),
        (whole(tensors=(tensor(shape=(1,) * 5),)), "the tensor t has 5 dimensions, more than 4"),
        (whole(tensors=(tensor(shape=(4, 0)),)), "the tensor t cannot be 4 × 0"),
        (whole(tensors=(tensor(shape=(2**32, 2**32)),)), "the tensor t cannot be 4,294,967,296 × 4,294,967,296"),
        (whole(tensors=(tensor(kind=4),)), "the tensor t has the type 4, which no model has"),
        (whole(tensors=(tensor(shape=(48,), kind=8),)), "the tensor t has rows of 48, and Q8_0 has blocks of 32"),
        (whole(tensors=(tensor(offset=64),)), "the tensor t begins at 64 instead of 0"),
        (
            whole(tensors=(tensor(shape=(65,)),)),
            "the tensor t is not within the file bounds: it ends at byte 324 of 320. The file is cut",
        ),
    ],
)
def test_a_broken_header_gives_an_error_with_its_place(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert str(caught.value).startswith(str(path)) and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_tensor_type_that_only_a_newer_llama_cpp_knows_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole(tensors=(tensor(kind=77), tensor(b"u", offset=96))))
    assert [(t.type, t.n_bytes) for t in read_header(path).tensors] == [("type 77", 96), ("F32", 16)]


def test_a_path_that_is_not_a_file_gives_an_error_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("none", "no such model file: .*none"), (".", "is a directory"), ("pipe", "pipe is not a file")):
        with pytest.raises(ModelError, match=says):
            read_header(tmp_path / name)
