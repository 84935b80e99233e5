"""Check LoRA adapters and control vectors against the model's header before use.

For a file that does not fit the model, llama.cpp has messages for programmers only, or aborts the process.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..settings import Generation, split_scale, with_whole_path
from .check import NO_WEIGHTS
from .header import Header, TensorInfo, read_header
from .ollama import shown_name

_ALPHA = "adapter.lora.alpha"
_ACTIVATED = "adapter.alora.invocation_tokens"
_HALVES = (".lora_a", ".lora_b")
_IGNORED = "_norm.weight"  # llama.cpp reads no norms from an adapter
_DIRECTION = re.compile(r"direction\.(\d{1,6})")


def check_adapters(generation: Generation, model: Header) -> None:
    """Refuse adapters that are broken or made for another model.  Adapters at scale 0 are ignored.

    Raises:
        ModelError: an adapter cannot be used; the message says why.
    """
    for name, spec in generation.adapters():
        path, scale = split_scale(with_whole_path(spec))
        file = Path(path)
        if not scale:
            continue
        if name.startswith("lora"):
            check_lora(file, model)
        else:
            read_control_vector(file, model)


def check_lora(path: Path, model: Header) -> None:
    """Refuse a LoRA adapter that is broken, or made for another model.

    Raises:
        ModelError: the file cannot be used; the message says why.
    """
    header = _read(path, "LoRA adapter")
    metadata = header.metadata
    if metadata.text("general.type") != "adapter" or metadata.text("adapter.type") != "lora":
        raise ModelError(
            f"{path} is not a LoRA adapter in GGUF format: make one with llama.cpp's convert_lora_to_gguf.py"
        )
    if header.architecture != model.architecture:
        _of_another(path, model, f"it is made for the architecture {header.architecture}, not {model.architecture}")
    if _ACTIVATED in metadata:
        raise ModelError(f"{path} is an activated LoRA, which applies from certain tokens on: use a plain LoRA adapter")
    if _ALPHA in metadata and (metadata.type(_ALPHA) != "f32" or not math.isfinite(float(str(metadata[_ALPHA])))):
        _broken(path, f"its {_ALPHA} is not a number")
    _check_pairs(header, model)


def _check_pairs(header: Header, model: Header) -> None:
    """Check that each changed matrix of the model has two halves whose product has its shape."""
    path = header.path
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        if tensor.name.endswith(_IGNORED):
            continue
        name, half = tensor.name[:-7], tensor.name[-7:]
        if half not in _HALVES:
            _broken(path, f"its tensor {tensor.name} is not half of a matrix")
        if tensor.type in NO_WEIGHTS or tensor.type.startswith("type "):
            _broken(path, f"its tensor {tensor.name} has the type {tensor.type.removeprefix('type ')}")
        halves.setdefault(name, {})[half] = tensor
    if not halves:
        _broken(path, "it changes no tensor")
    of_model = {tensor.name: tensor for tensor in model.tensors}
    for name, pair in halves.items():
        if len(pair) < len(_HALVES):
            _broken(path, f"it has only one half of {name}")
        if name not in of_model:
            _of_another(path, model, f"it changes {name}, and the model has no such tensor")
        if not _fit(name, _padded(pair[".lora_a"]), _padded(pair[".lora_b"]), _padded(of_model[name])):
            _of_another(path, model, f"its {name} has another shape")


def _fit(name: str, a: tuple[int, ...], b: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """True if the product of two halves has the shape of the whole matrix.  The halves of an embedding are transposed.

    Shapes are [columns, rows, ...], as in GGUF.  A mixture of experts has a matrix for each expert.
    """
    if name == "token_embd.weight":
        return a[0] == b[0] and (b[1], a[1]) == whole[:2] and a[2:] == b[2:] == (1, 1)
    return a[1] == b[0] and (a[0], b[1]) == whole[:2] and a[2:] == b[2:] == whole[2:]


def _padded(tensor: TensorInfo) -> tuple[int, ...]:
    return (*tensor.shape, 1, 1, 1, 1)[:4]


def read_control_vector(path: Path, model: Header) -> NDArray[np.float32]:
    """Read a control vector.

    Returns:
        float32 [layers - 1, width], to be added after each layer except the first; zeros for layers without a change.

    Raises:
        ModelError: the file cannot be used; the message says why.
    """
    header = _read(path, "control vector")
    width, n_layer = (model.of_architecture(key) or 0 for key in ("embedding_length", "block_count"))
    directions = np.zeros((max(0, n_layer - 1), width), np.float32)
    found = 0
    for tensor in header.tensors:
        match = _DIRECTION.fullmatch(tensor.name)
        if match is None or tensor.type != "F32" or tensor.n_elements not in tensor.shape[:1]:
            _not_a_vector(path)
        layer = int(match[1])
        if not 1 <= layer < n_layer:
            _of_another(
                path, model, f"it has a direction for layer {layer}, but the model has layers 0 to {n_layer - 1}"
            )
        if tensor.n_elements != width:
            _of_another(path, model, f"its directions have width {tensor.n_elements}, and the model has width {width}")
        directions[layer - 1] = _values(path, tensor)
        found += 1
    if not found:
        _not_a_vector(path)
    if not np.isfinite(directions).all():
        _broken(path, "one of its values is not a finite number")
    return directions


def _not_a_vector(path: Path) -> NoReturn:
    raise ModelError(
        f"{path} is not a control vector: it must contain only tensors named direction.1 and so on, in 32 bits"
    )


def _values(path: Path, tensor: TensorInfo) -> NDArray[np.float32]:
    try:
        return np.fromfile(path, "<f4", tensor.n_elements, offset=tensor.offset)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


def _read(path: Path, what: str) -> Header:
    if not path.exists():
        raise ModelError(f"no such {what}: {path}")
    return read_header(path)


def _of_another(path: Path, model: Header, why: str) -> NoReturn:
    raise ModelError(
        f"{path} does not fit the model {shown_name(model.path)}: {why}. Use the model that it was made for"
    )


def _broken(path: Path, what: str) -> NoReturn:
    raise ModelError(f"{path} is broken: {what}")
