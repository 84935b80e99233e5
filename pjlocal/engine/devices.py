"""The devices that the installed llama.cpp computes on, as ggml tells them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

from llama_cpp import __version__ as binding_version
from llama_cpp import _ggml
from llama_cpp import llama_cpp as lib

from .model import init_backend

_KINDS = {0: "CPU", 1: "GPU", 2: "integrated GPU", 3: "accelerator"}  # enum ggml_backend_dev_type


@dataclass(frozen=True)
class Device:
    """What llama.cpp can put layers on, and its memory in bytes.

    backend: the part of llama.cpp that drives it, such as CPU, CUDA, Metal or Vulkan.
    """

    name: str
    description: str
    kind: str
    backend: str
    free: int
    total: int

    @property
    def is_gpu(self) -> bool:
        return self.kind in ("GPU", "integrated GPU")


def devices() -> list[Device]:
    init_backend()
    ggml = _functions()
    found = []
    for i in range(ggml.ggml_backend_dev_count()):
        handle = ggml.ggml_backend_dev_get(i)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                _text(ggml.ggml_backend_dev_name(handle)),
                _text(ggml.ggml_backend_dev_description(handle)),
                _KINDS.get(ggml.ggml_backend_dev_type(handle), "device"),
                _text(ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(handle))),
                free.value,
                total.value,
            )
        )
    return found


def backends() -> list[str]:
    """The parts of llama.cpp that drive devices, whether there is a device for them or not."""
    init_backend()
    ggml = _functions()
    return [
        _text(ggml.ggml_backend_reg_name(ggml.ggml_backend_reg_get(i))) for i in range(ggml.ggml_backend_reg_count())
    ]


def build() -> str:
    """The binding's version, and ggml's with its commit."""
    ggml = _functions()
    return f"llama-cpp-python {binding_version}, ggml {_text(ggml.ggml_version())} ({_text(ggml.ggml_commit())})"


def offloads() -> bool:
    """Whether layers can go to a GPU."""
    return bool(lib.llama_supports_gpu_offload())


def features() -> list[str]:
    """What the CPU back end makes use of, such as AVX2, in llama.cpp's words."""
    init_backend()
    text = lib.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.partition("=") for part in text.replace("CPU :", "").split("|"))
    return [name.strip().split(":")[-1].strip() for name, _, value in pairs if value.strip() == "1"]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


@cache
def _functions() -> Any:
    """ggml's functions about devices, which the binding does not declare."""
    ggml: Any = _ggml.libggml
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_backend_dev_count", size, []),
        ("ggml_backend_dev_get", pointer, [size]),
        ("ggml_backend_dev_name", text, [pointer]),
        ("ggml_backend_dev_description", text, [pointer]),
        ("ggml_backend_dev_type", ctypes.c_int, [pointer]),
        ("ggml_backend_dev_backend_reg", pointer, [pointer]),
        ("ggml_backend_dev_memory", None, [pointer, ctypes.POINTER(size), ctypes.POINTER(size)]),
        ("ggml_backend_reg_count", size, []),
        ("ggml_backend_reg_get", pointer, [size]),
        ("ggml_backend_reg_name", text, [pointer]),
        ("ggml_version", text, []),
        ("ggml_commit", text, []),
    ):
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    return ggml
