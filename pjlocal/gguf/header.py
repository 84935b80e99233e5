"""Read the header of a GGUF file without llama.cpp.

The file is not trusted: every length, count and offset is checked against the file's size and the sizes of real models.
A hostile file gets an error message, and cannot exhaust memory or time, or crash the process.  Long arrays (a
vocabulary and its merges) are measured and skipped: SmolLM2's header takes 5 ms, one with 303,000 texts 25 ms.
"""

from __future__ import annotations

import stat
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..visible import visible
from .ollama import model_file
from .split import MOST_PARTS, beside_its_parts, part_paths

# Limits far above those of real models, which have about 50 keys, 2,000 tensors and 780,000 texts at most.
_MOST_KEYS = 10_000  # llama.cpp compares each key with all others, and each tensor
_MOST_TENSORS = 20_000
_MOST_TEXTS = 1_200_000
_MOST_BYTES_OF_TEXTS = 128 << 20
_MOST_BYTES_KEPT = 16 << 20  # of keys, names and single texts, which are kept in memory
_LONG_TEXT = 1 << 20  # bytes; longer texts, such as a whole tokenizer.json, are read on access
_MOST_ITEMS = 1 << 30  # of an array; llama.cpp's limit
_MOST_DIMENSIONS = 4
_LONGEST_KEY = 256  # bytes
_LONGEST_NAME = 63  # bytes of a tensor's name
_MOST_ELEMENTS = 1 << 63

_DEFAULT_ALIGNMENT = 32
_MOST_ALIGNMENT = 1 << 20

_TEXT, _ARRAY = "str", "arr"
#: Types of a metadata value by number: name, and NumPy's type.
_VALUES: dict[int, tuple[str, str]] = {
    0: ("u8", "<u1"), 1: ("i8", "<i1"), 2: ("u16", "<u2"), 3: ("i16", "<i2"), 4: ("u32", "<u4"), 5: ("i32", "<i4"),
    6: ("f32", "<f4"), 7: ("bool", "|b1"), 8: (_TEXT, ""), 9: (_ARRAY, ""), 10: ("u64", "<u8"), 11: ("i64", "<i8"),
    12: ("f64", "<f8"),
}  # fmt: skip
_PACKED = {name: np.dtype(packed) for name, packed in _VALUES.values() if packed}

#: Types of a tensor by number: the name, elements of a block, bytes of a block.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
_REMOVED_TENSOR_TYPES = {4, 5, 31, 32, 33, 36, 37, 38}

#: Names of a file's overall quantization (`general.file_type`).
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip


def in_words(n_parameters: int) -> str:
    """A number of parameters in short form, as in the names of models: 135M."""
    n = n_parameters
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.0f}M" if n >= 1e6 else f"{n / 1e3:.0f}k"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor: its shape in GGUF's order (contiguous dimension first), and the place of its bytes.

    offset: its first byte in the file that holds it.
    part: the index of that file in a split model.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Array:
    """An array in the metadata, whose items are read on access.

    type: the type of the items: str, bool, u32, i8, f64, ...
    lengths: the number of bytes of each text.
    """

    path: Path
    type: str
    n: int
    offset: int
    lengths: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.n

    def numbers(self) -> npt.NDArray[np.generic]:
        dtype = _PACKED[self.type]
        return np.frombuffer(self._bytes(self.n * dtype.itemsize), dtype)

    def texts(self) -> list[bytes]:
        """The texts as bytes, because a token may not be UTF-8."""
        assert self.lengths is not None
        data = self._bytes(int(self.lengths.sum()) + 8 * self.n)  # with the length before each text
        ends = np.cumsum(self.lengths + 8)
        return [data[start:end] for start, end in zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)]

    def _bytes(self, n: int) -> bytes:
        return _read_at(self.path, self.offset, n)


Value = int | float | bool | str | Array


class Metadata(Mapping[str, Value]):
    """The metadata by key: numbers, texts, and arrays, which are read on access.

    Args:
        entries: types and values by key; a long text is an array of its bytes.
    """

    def __init__(self, entries: dict[str, tuple[str, Value]]) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> Value:
        kind, value = self._entries[key]
        return _decoded(value.numbers().tobytes()) if kind == _TEXT and isinstance(value, Array) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def type(self, key: str) -> str:
        """The type of a value: ``str``, ``arr``, ``bool``, ``u32``, ``i8``, ``f64``, ...; empty if there is no such
        key."""
        return self._entries[key][0] if key in self._entries else ""

    def text(self, key: str) -> str:
        """The text under a key; empty if there is none."""
        value = self[key] if self.type(key) == _TEXT else ""
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int | None:
        """The whole number under a key; None if there is none."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def array(self, key: str) -> Array | None:
        value = self.get(key) if self.type(key) == _ARRAY else None
        return value if isinstance(value, Array) else None


@dataclass(frozen=True)
class Header:
    """The header of a model, or the headers of all files of a split model together.

    parts: the model's files, in order.
    """

    path: Path
    parts: tuple[Path, ...]
    metadata: Metadata
    tensors: tuple[TensorInfo, ...]
    n_file_bytes: int

    @property
    def architecture(self) -> str:
        return self.metadata.text("general.architecture")

    @property
    def name(self) -> str:
        """The name that the model's makers gave it; often empty."""
        return self.metadata.text("general.name")

    @cached_property
    def n_parameters(self) -> int:
        return sum(tensor.n_elements for tensor in self.tensors)

    @cached_property
    def n_tensor_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    @cached_property
    def file_type(self) -> str:
        """The quantization, such as Q4_K_M; if the header does not name it, the type of most of the bytes."""
        number = self.metadata.integer("general.file_type")
        if number is not None and number in _FILE_TYPES:
            return _FILE_TYPES[number]
        n_bytes: Counter[str] = Counter()
        for tensor in self.tensors:
            n_bytes[tensor.type] += tensor.n_bytes
        return n_bytes.most_common(1)[0][0] if n_bytes else ""

    @property
    def n_ctx_train(self) -> int | None:
        return self.of_architecture("context_length")

    @property
    def n_vocab(self) -> int:
        tokens = self.metadata.array("tokenizer.ggml.tokens")
        return len(tokens) if tokens else 0

    @property
    def has_chat_template(self) -> bool:
        return bool(self.metadata.text("tokenizer.chat_template"))

    def of_architecture(self, key: str) -> int | None:
        """The whole number under a key of the architecture, such as ``llama.block_count``; None if there is none."""
        return self.metadata.integer(f"{self.architecture}.{key}")


def read_header(path: Path) -> Header:
    """Read the header of a model: a file, the first part of a split model, or a manifest of Ollama's.

    Raises:
        ModelError: the file is broken or unsupported; the message says why.
    """
    path = model_file(path)
    first = _read_file(path)
    n_parts = first.metadata.integer("split.count") or 0
    if n_parts <= 1:
        return first
    if n_parts > MOST_PARTS:
        raise ModelError(f"{path} is broken: it claims to be one of {n_parts} parts. Download it again")
    if first.metadata.integer("split.no"):
        raise ModelError(f"cannot load {path}: it is not the first part of a split model. {_NAME_THE_FIRST}")
    parts = part_paths(beside_its_parts(path))
    if len(parts) != n_parts:
        raise ModelError(
            f"cannot load {path}: it is part 1 of {n_parts} of a split model, but has another name. {_NAME_THE_FIRST}"
        )
    for part in parts:
        if not part.exists():
            raise ModelError(
                f"cannot load {path}: its part '{part}' is missing (No such file or directory). {_NAME_THE_FIRST}"
            )
    others = [_read_file(part) for part in parts[1:]]
    for number, other in enumerate(others, 1):
        if other.metadata.type("split.no") != "u16" or other.metadata.integer("split.no") != number:
            raise ModelError(f"{other.path} is not part {number + 1} of {path.name}: download it again")
    return _joined(first, tuple(parts), others)


_NAME_THE_FIRST = (
    "Name the first part of a split model, as in NAME-00001-of-00003.gguf, and keep all parts in one folder"
)


def _joined(first: Header, parts: tuple[Path, ...], others: list[Header]) -> Header:
    tensors = list(first.tensors)
    for number, other in enumerate(others, 1):
        tensors += [replace(tensor, part=number) for tensor in other.tensors]
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelError(f"{first.path} is broken: two of its parts contain the same tensor. Download it again")
    expected = first.metadata.integer("split.tensors.count")
    if expected != len(tensors):
        raise ModelError(
            f"{first.path} is broken: its parts contain {len(tensors)} tensors instead of {expected}. Download it again"
        )
    n_file_bytes = first.n_file_bytes + sum(other.n_file_bytes for other in others)
    return Header(first.path, parts, first.metadata, tuple(tensors), n_file_bytes)


def _read_file(path: Path) -> Header:
    try:
        if not path.exists():
            raise ModelError(f"no such model file: {path}")
        if path.is_dir():
            raise ModelError(f"{path} is a directory: name a GGUF file in it")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise ModelError(f"{path} is not a file: name a GGUF file")
        with path.open("rb", buffering=1 << 16) as file:
            return _Reader(path, file).header()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _instead(start: bytes) -> str:
    """Describe the format of a file that begins with these bytes, and say what to do."""
    for beginning, description in _OTHER_FORMATS.items():
        if start.lower().lstrip().startswith(beginning):
            return description
    convert = ": convert it to GGUF, or download it in that format"
    if start.startswith(b"PK"):
        return f"{convert} (it is a zip archive, as PyTorch writes them)"
    return f"{convert} (it is in the safetensors format)" if start[8:10] == b'{"' else convert


_PAGE = " but a web page: the download failed, or the site requires a login"
_OLD = " but an older format of llama.cpp: download it as GGUF"
_OTHER_FORMATS = {
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"version https://": " but a Git LFS pointer: git lfs pull downloads the file itself",
    b"\x1f\x8b": " but a gzip archive: unpack it first",
    b"lmgg": _OLD,
    b"tjgg": _OLD,
    b"fmgg": _OLD,
    b"algg": _OLD,
}


class _Reader:
    """Reads one header from beginning to end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)
        self._at = 0
        self._n_texts = self._n_bytes_of_texts = self._n_bytes_kept = 0

    def header(self) -> Header:
        magic = self._file.read(4)
        if not magic:
            raise ModelError(f"{self._path} is empty: download it again")
        if magic != b"GGUF":
            raise ModelError(f"{self._path} is not a GGUF file{_instead(magic + self._file.read(16))}")
        self._at = 4
        self._check_version()
        n_tensors = self._count("tensors", _MOST_TENSORS)
        n_keys = self._count("metadata keys", _MOST_KEYS)
        metadata = self._metadata(n_keys)
        tensors = self._tensors(n_tensors, self._alignment(metadata))
        return Header(self._path, (self._path,), metadata, tensors, self._size)

    def _check_version(self) -> None:
        version = self._u32("the version")
        if version & 0xFFFF == 0:
            raise ModelError(f"{self._path} is a big-endian GGUF file: download a little-endian one")
        if version not in (2, 3):
            what = "which is no longer supported" if version == 1 else "and 3 is the newest known version"
            raise ModelError(f"{self._path} has GGUF version {version}, {what}: download the model in version 3")

    def _count(self, what: str, most: int) -> int:
        n = self._u64(f"the number of {what}")
        if n > most:
            self._broken(f"it claims to have {n:,} {what}")
        return n

    # Metadata.

    def _metadata(self, n_keys: int) -> Metadata:
        entries: dict[str, tuple[str, Value]] = {}
        for i in range(n_keys):
            key = self._name(f"metadata key {i + 1}")
            if key in entries:
                self._broken(f"the metadata key {key} occurs twice")
            entries[key] = self._value(key)
        return Metadata(entries)

    def _value(self, key: str) -> tuple[str, Value]:
        kind = self._value_type(key)
        if kind == _TEXT:
            return kind, self._text(key)
        if kind == _ARRAY:
            return kind, self._array(key)
        dtype = _PACKED[kind]
        (value,) = np.frombuffer(self._take(dtype.itemsize, key), dtype).tolist()
        return kind, value

    def _value_type(self, key: str) -> str:
        number = self._u32(key)
        if number not in _VALUES:
            self._broken(f"the type {number} of {key} does not exist")
        return _VALUES[number][0]

    def _text(self, key: str) -> str | Array:
        n = self._length(key)
        if n > _LONG_TEXT:
            start = self._at
            self._skip(n)
            return Array(self._path, "u8", n, start)
        return _decoded(self._kept(n, key))

    def _array(self, key: str) -> Array:
        kind = self._value_type(key)
        if kind == _ARRAY:
            self._broken(f"{key} is an array of arrays")
        n = self._u64(key)
        start = self._at
        if n > _MOST_ITEMS:
            self._broken(f"{key} claims to have {n:,} items")
        if kind == _TEXT:
            return Array(self._path, kind, n, start, self._lengths_of_texts(key, n))
        n_bytes = n * _PACKED[kind].itemsize
        self._must_have(n_bytes, key)
        self._skip(n_bytes)
        return Array(self._path, kind, n, start)

    def _lengths_of_texts(self, key: str, n: int) -> npt.NDArray[np.int64]:
        """Skip an array of texts, and return their lengths."""
        self._n_texts += n
        if self._n_texts > _MOST_TEXTS:
            self._broken(f"{key} claims to have {n:,} texts")
        self._must_have(8 * n, key)
        lengths = [np.zeros(0, np.int64)]
        chained = n >= _FEW_TEXTS  # whether to try the fast way, which needs short texts without a NUL
        chances = _CHANCES if chained else 0
        while n:
            window = self._file.read(min(_WINDOW, _WINDOW_BY_TEXT * n))
            found = _lengths_chained(window, n) if chained else _lengths_one_by_one(window, n)
            n_bytes = int(found.sum()) + 8 * len(found)
            if chained and 2 * n_bytes < len(window):  # the fast way read less than half of the window
                chained, chances = False, chances - 1
            else:
                chained = chances > 0
            if len(window) < 8:
                self._broken(f"it ends within {key}, at byte {self._size:,}")
            self._must_have(n_bytes, key)
            self._n_bytes_of_texts += n_bytes
            if self._n_bytes_of_texts > _MOST_BYTES_OF_TEXTS:
                self._broken(f"{key} has more text than any model has")
            self._at += n_bytes
            self._file.seek(self._at)
            lengths.append(found)
            n -= len(found)
        return np.concatenate(lengths)

    def _alignment(self, metadata: Metadata) -> int:
        key = "general.alignment"
        if key not in metadata:
            return _DEFAULT_ALIGNMENT
        alignment = metadata.integer(key) if metadata.type(key) == "u32" else None
        if not alignment or alignment & (alignment - 1) or alignment > _MOST_ALIGNMENT:
            self._broken(f"its {key} is {str(metadata[key])[:20]} and must be a power of two")
        return alignment

    # Tensors.

    def _tensors(self, n: int, alignment: int) -> tuple[TensorInfo, ...]:
        described = [self._tensor(i) for i in range(n)]
        if len({name for name, *_ in described}) != n:
            twice = Counter(name for name, *_ in described).most_common(1)[0][0]
            self._broken(f"the tensor {twice} occurs twice")
        start = _padded(self._at, alignment)
        tensors: list[TensorInfo] = []
        expected = 0
        for i, (name, shape, number, offset) in enumerate(described):
            if offset != expected:
                self._broken(f"the tensor {name} begins at {offset:,} instead of {expected:,}")
            after = described[i + 1][3] if i + 1 < n else self._size - start
            n_bytes = self._n_bytes(name, shape, number, after - offset)
            if start + offset + n_bytes > self._size:
                raise ModelError(
                    f"{self._path}: the tensor {name} is not within the file bounds: it ends at byte "
                    f"{start + offset + n_bytes:,} of {self._size:,}. The file is cut short: download it again"
                )
            kind = TENSOR_TYPES[number][0] if number in TENSOR_TYPES else f"type {number}"
            tensors.append(TensorInfo(name, shape, kind, start + offset, n_bytes))
            expected = _padded(offset + n_bytes, alignment)
        return tuple(tensors)

    def _tensor(self, i: int) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type number and offset."""
        name = self._name(f"the name of tensor {i + 1}")
        if len(name.encode()) > _LONGEST_NAME:
            self._broken(f"the name of tensor {i + 1} is longer than {_LONGEST_NAME} bytes")
        n_dimensions = self._u32(name)
        if n_dimensions > _MOST_DIMENSIONS:
            self._broken(f"the tensor {name} has {n_dimensions:,} dimensions, more than {_MOST_DIMENSIONS}")
        shape = struct.unpack(f"<{n_dimensions}Q", self._take(8 * n_dimensions, name))
        if not all(shape) or prod(shape) >= _MOST_ELEMENTS:
            self._broken(f"the tensor {name} cannot be {' × '.join(f'{size:,}' for size in shape)}")
        number, offset = struct.unpack("<IQ", self._take(12, name))
        return name, shape, number, offset

    def _n_bytes(self, name: str, shape: tuple[int, ...], number: int, room: int) -> int:
        """The bytes of a tensor; for the type of a newer llama.cpp, all bytes up to the next tensor."""
        if number not in TENSOR_TYPES:
            if number in _REMOVED_TENSOR_TYPES or number > _NEWEST_TENSOR_TYPE:
                self._broken(f"the tensor {name} has the type {number}, which no model has")
            return max(0, room)
        kind, block, n_bytes = TENSOR_TYPES[number]
        if (shape and shape[0] % block) or (not shape and block > 1):
            self._broken(f"the tensor {name} has rows of {prod(shape[:1]):,}, and {kind} has blocks of {block}")
        return prod(shape) // block * n_bytes

    # Basic reads.

    def _name(self, what: str) -> str:
        """Read a key or a tensor's name, which must be printable UTF-8."""
        n = self._length(what)
        if n > _LONGEST_KEY:
            self._broken(f"{what} has {n:,} bytes")
        data = self._kept(n, what)
        try:
            name = data.decode()
        except UnicodeDecodeError:
            self._broken(f"{what} is not UTF-8, before byte {self._at:,}")
        if not name or not name.isprintable():
            self._broken(f"{what} is {visible(name[:80])!r}" if name else f"{what} is empty")
        return name

    def _length(self, what: str) -> int:
        n = self._u64(what)
        self._must_have(n, what)
        return n

    def _kept(self, n: int, what: str) -> bytes:
        self._n_bytes_kept += n
        if self._n_bytes_kept > _MOST_BYTES_KEPT:
            self._broken(f"{what} has more text than any model has")
        return self._take(n, what)

    def _u32(self, what: str) -> int:
        return int.from_bytes(self._take(4, what), "little")

    def _u64(self, what: str) -> int:
        return int.from_bytes(self._take(8, what), "little")

    def _take(self, n: int, what: str) -> bytes:
        self._must_have(n, what)
        data = self._file.read(n)
        if len(data) < n:
            self._broken("the file became shorter during reading")
        self._at += n
        return data

    def _skip(self, n: int) -> None:
        self._at = self._file.seek(n, 1)

    def _must_have(self, n: int, what: str) -> None:
        if n > self._size - self._at:
            raise ModelError(
                f"{self._path} is broken or cut short: {what} needs {n:,} bytes from byte {self._at:,} on, and "
                f"{self._size - self._at:,} are left. Download it again"
            )

    def _broken(self, what: str) -> NoReturn:
        raise ModelError(f"{self._path} is broken: {what}. Download it again")


_NEWEST_TENSOR_TYPE = 255

#: Bytes of an array of texts read at once; 1 << 20, which exceeds the processor's cache, takes twice as long.
_WINDOW = 1 << 17
_WINDOW_BY_TEXT = 64  # bytes for each text, in a shorter array
_FEW_TEXTS = 64  # fewer texts are read one by one
_CHANCES = 16  # windows in which the fast way may fail; then texts are read one by one
_SOME_TEXTS = 16_384  # texts read one by one at a time


def _lengths_chained(window: bytes, most: int) -> npt.NDArray[np.int64]:
    """The lengths of the texts at the beginning of a window, up to the first unusual text, in a few passes of NumPy.

    Before each text is its length, in eight bytes.  For a text shorter than 256 bytes, seven of them are zero, and
    that occurs nowhere else.
    """
    if len(window) < 8:
        return np.zeros(0, np.int64)
    data = np.frombuffer(window, np.uint8)
    zero = data == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    at = np.flatnonzero(four[1:-3] & four[4:])[:most]  # four zeros from the second byte on, and four from the fifth
    if not len(at) or at[0] != 0:
        return np.zeros(0, np.int64)
    lengths = data[at].astype(np.int64)
    elsewhere = np.flatnonzero(at[:-1] + 8 + lengths[:-1] != at[1:])
    return lengths[: elsewhere[0] + 1] if len(elsewhere) else lengths


def _lengths_one_by_one(window: bytes, most: int) -> npt.NDArray[np.int64]:
    lengths: list[int] = []
    at = 0
    while at + 8 <= len(window) and len(lengths) < min(most, _SOME_TEXTS):
        length = min(int.from_bytes(window[at : at + 8], "little"), _MOST_LENGTH)
        lengths.append(length)
        at += 8 + length
    return np.array(lengths, np.int64)


_MOST_LENGTH = 1 << 40  # of a text, so that sums of lengths fit in 64 bits


def _read_at(path: Path, offset: int, n: int) -> bytes:
    """Read bytes of a header that was checked before.

    Raises:
        ModelError: the file cannot be read, or is shorter now.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(n)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) < n:
        raise ModelError(f"{path} became shorter during reading")
    return data


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment
