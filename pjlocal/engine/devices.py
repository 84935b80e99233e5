"""The devices of the installed llama.cpp, as ggml reports them."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llama_cpp import __version__ as binding_version
from llama_cpp import _ggml
from llama_cpp import llama_cpp as lib

from ..errors import ModelError, byte_size
from ..settings import parse_address
from .backend import init_backend

_RPC = "RPC"
_REACH_S = 5
_added: set[str] = set()  # addresses of servers

_KINDS = {0: "CPU", 1: "GPU", 2: "integrated GPU", 3: "accelerator"}  # enum ggml_backend_dev_type


@dataclass(frozen=True)
class Device:
    """A device that llama.cpp can put layers on, and its memory in bytes.

    backend: llama.cpp's back end for it, such as CPU, CUDA, Metal or Vulkan.
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

    @property
    def in_words(self) -> str:
        """Its name for people, llama.cpp's name, and the free memory, if the device reports it."""
        free = f", {byte_size(self.free)} free" if self.total else ""
        return f"{self.description.strip() or self.kind} ({self.name}{free})"


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


def for_layers() -> list[Device]:
    """The devices that llama.cpp puts layers on, in its order: servers, then GPUs.

    It uses an integrated GPU only if there is no other.
    """
    found = devices()
    servers = [device for device in found if device.backend == _RPC]
    own = [device for device in found if device.backend != _RPC]
    cards = [device for device in own if device.kind == "GPU"]
    return servers + (cards or [device for device in own if device.is_gpu])


def add_servers(addresses: Sequence[str]) -> None:
    """Add the devices of servers on other machines to llama.cpp, each server once.

    Raises:
        ModelError: the installed build has no RPC, or a server cannot be reached.
    """
    if not addresses:
        return
    init_backend()
    ggml = _functions()
    rpc = ggml.ggml_backend_reg_by_name(_RPC.encode())
    if not rpc:
        raise ModelError(
            'the installed llama.cpp has no support for --rpc: reinstall it with CMAKE_ARGS="-DGGML_RPC=on" pip '
            "install --no-cache-dir --force-reinstall llama-cpp-python"
        )
    ggml.ggml_set_abort_callback(_exit_with_message)
    prototype = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
    add = prototype(ggml.ggml_backend_reg_get_proc_address(rpc, b"ggml_backend_rpc_add_server"))
    for address in addresses:
        if address not in _added:
            _reach(address)
            server = add(address.encode())
            if not server:
                raise ModelError(f"--rpc {address}: the server has no device, or has another version of llama.cpp")
            ggml.ggml_backend_register(server)
            _added.add(address)


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)  # type: ignore[untyped-decorator]
def _exit_with_message(message: bytes) -> None:
    """Exit with an error message when llama.cpp is about to abort, as it does when a server disappears.

    The text so far has already been shown or saved.
    """
    reason = message.strip().rpartition(b"/")[2]  # without the folder of llama.cpp's build
    os.write(2, b"\npjlocal: llama.cpp has ended: %s (has an --rpc server gone?)\n" % reason)
    os._exit(1)


def _reach(address: str) -> None:
    """Refuse a server that does not answer: llama.cpp would abort the process or wait."""
    host, port = parse_address(address)
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except OSError as error:
        raise ModelError(
            f"--rpc {address}: cannot reach the server: {error.strerror or error}. Start rpc-server on that "
            "machine first"
        ) from None


def cpu_memory() -> int:
    """ggml's handle of CPU memory, to keep a tensor there."""
    init_backend()
    ggml = _functions()
    return int(ggml.ggml_backend_dev_buffer_type(ggml.ggml_backend_dev_by_type(0)))


def backends() -> list[str]:
    """llama.cpp's back ends, including those without a device on this machine."""
    init_backend()
    ggml = _functions()
    return [
        _text(ggml.ggml_backend_reg_name(ggml.ggml_backend_reg_get(i))) for i in range(ggml.ggml_backend_reg_count())
    ]


def build() -> str:
    """The versions of llama-cpp-python and ggml, with ggml's commit."""
    ggml = _functions()
    return f"llama-cpp-python {binding_version}, ggml {_text(ggml.ggml_version())} ({_text(ggml.ggml_commit())})"


def features() -> list[str]:
    """llama.cpp's names of the features that its CPU back end uses, such as AVX2."""
    init_backend()
    text = lib.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.partition("=") for part in text.replace("CPU :", "").split("|"))
    return [name.strip().split(":")[-1].strip() for name, _, value in pairs if value.strip() == "1"]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


@cache
def _functions() -> Any:
    """ggml's functions about devices, which the binding does not declare.

    They are looked up in llama.cpp's own library, which knows its devices and servers.  The binding's ggml can be
    another copy, because wheels contain no links.
    """
    ggml: Any = lib._lib if hasattr(lib._lib, "ggml_backend_dev_count") else _ggml.libggml  # not so on Windows
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
        ("ggml_backend_reg_by_name", pointer, [text]),
        ("ggml_backend_reg_get_proc_address", pointer, [pointer, text]),
        ("ggml_backend_register", None, [pointer]),
        ("ggml_backend_dev_by_type", pointer, [ctypes.c_int]),
        ("ggml_backend_dev_buffer_type", pointer, [pointer]),
        ("ggml_set_abort_callback", pointer, [pointer]),
        ("ggml_version", text, []),
        ("ggml_commit", text, []),
    ):
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    return ggml
