"""LoRA adapters and control vectors of a view, applied to llama.cpp contexts."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from ..gguf.adapter import read_control_vector
from ..settings import split_scale, with_whole_path

if TYPE_CHECKING:
    from .model import Model

Scaled = tuple[tuple[str, float], ...]  # files by their absolute paths, each with its scale


@dataclass(frozen=True)
class Adapters:
    """The adapters of one view."""

    loras: Scaled = ()
    vectors: Scaled = ()

    def __bool__(self) -> bool:
        return bool(self.loras or self.vectors)

    @property
    def labels(self) -> list[str]:
        """The file names without folders, with scales other than 1."""
        return [
            os.path.basename(file) + ("" if scale == 1 else f":{scale:g}")
            for file, scale in (*self.loras, *self.vectors)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Scales by file, for JSON."""
        return {"lora": dict(self.loras), "control_vector": dict(self.vectors)}


def make_adapters(loras: Iterable[str], vectors: Iterable[str]) -> Adapters:
    """The adapters of settings such as ``pirate.gguf:0.5``.

    The scales of a file that is named twice add up; a file with scale 0 is left out.
    """
    return Adapters(_summed(loras), _summed(vectors))


def _summed(specs: Iterable[str]) -> Scaled:
    scales: dict[str, float] = {}
    for spec in specs:
        file, scale = split_scale(with_whole_path(spec))
        scales[file] = scales.get(file, 0.0) + scale
    return tuple((file, scale) for file, scale in scales.items() if scale)


def apply_adapters(context: Any, model: Model, adapters: Adapters) -> None:
    """Apply these adapters, and no others, to a llama_context; they must fit the model.

    Raises:
        ModelError: an adapter cannot be loaded.
    """
    directions = _summed_directions(model, adapters) if adapters.vectors else None
    n = len(adapters.loras)
    handles = (lib.llama_adapter_lora_p_ctypes * n)(*(model.lora(file) for file, _ in adapters.loras))
    scales = (ctypes.c_float * n)(*(scale for _, scale in adapters.loras))
    lib.llama_set_adapters_lora(context, handles, n, scales)
    if directions is None:
        lib.llama_set_adapter_cvec(context, None, 0, 0, 0, 0)
        return
    n_layers, width = directions.shape
    data = directions.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    lib.llama_set_adapter_cvec(context, data, directions.size, width, 1, n_layers)


def _summed_directions(model: Model, adapters: Adapters) -> NDArray[np.float32]:
    return sum(  # type: ignore[return-value]
        np.float32(scale) * read_control_vector(Path(file), model.header) for file, scale in adapters.vectors
    )
