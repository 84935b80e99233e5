"""Choose the layers for the devices of this machine, and set llama.cpp's parameters for them."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress, repeat
from pathlib import Path

from llama_cpp import llama_cpp as lib

from ..errors import UsageError
from ..gguf.header import Header
from ..gguf.offload import Offload, fixed_offload, plan_offload
from ..settings import Engine
from .devices import Device, add_servers, cpu_memory, for_layers

log = logging.getLogger("pjlocal")


def choose_offload(header: Header, engine: Engine, n_views: int) -> Offload:
    """Choose the layers of a model to put on the available devices, with room for the KV caches of ``n_views`` views.

    Raises:
        UsageError: a named device does not exist.
        ModelError: a server cannot be used.
    """
    add_servers(engine.rpc)
    available = for_layers()
    if not available:
        if engine.gpu_layers:
            log.warning("no device for --gpu-layers was found, so the CPU computes everything: pjlocal doctor says why")
        return Offload()
    names = ", ".join(f"{i} ({device.name})" for i, device in enumerate(available))
    if len(engine.split) > len(available):
        raise UsageError(f"--tensor-split {engine.tensor_split}: the devices are {names}")
    if engine.split_mode == "none":
        if engine.main_gpu >= len(available):
            raise UsageError(f"--main-gpu {engine.main_gpu}: the devices are {names}")
        available = [available[engine.main_gpu]]
    if engine.gpu_layers is not None:
        offload = fixed_offload(header, engine, engine.gpu_layers)
    elif all(device.total for device in available):
        offload = plan_offload(header, engine, n_views, [device.free for device in available])
    else:  # a device reports no memory
        offload = fixed_offload(header, engine, -1)
    if offload.n_ctx:
        log.warning(
            "the context is reduced to %d tokens per view, so that more layers fit: --ctx sets another size",
            offload.n_ctx,
        )
    return replace(offload, devices=_names(available, offload))


def _names(devices: list[Device], offload: Offload) -> tuple[str, ...]:
    names = (device.name for device in devices)
    return tuple(compress(names, offload.shares or repeat(True))) if offload.n_gpu_layers else ()


def placement(offload: Offload) -> str:
    """A phrase for messages: the devices of the layers and of their KV caches, and the memory that is free there
    now."""
    there = {device.name: device.in_words for device in for_layers()} if offload.devices else {}
    return offload.in_words([there.get(name, name) for name in offload.devices])


class _Override(ctypes.Structure):
    """A pattern for names of tensors, and the memory for them (not declared by the binding)."""

    _fields_ = (("pattern", ctypes.c_char_p), ("memory", ctypes.c_void_p))


@contextmanager
def with_devices(params: lib.llama_model_params, engine: Engine, offload: Offload) -> Iterator[None]:
    """Set the devices in llama.cpp's model parameters.  The arrays that these point to live until the end of the
    body.

    If no layer is on a device, no device is used: llama.cpp would still compute long batches there, with other
    rounding, in memory that was not planned, and where Ctrl-C has no effect.
    """
    params.n_gpu_layers = offload.n_gpu_layers
    params.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{engine.split_mode.upper()}")
    params.main_gpu = engine.main_gpu
    shares = (ctypes.c_float * lib.llama_max_devices())(*offload.shares)
    if any(offload.shares):
        params.tensor_split = shares
    no_device = (ctypes.c_void_p * 1)()  # a list that ends with 0
    if not offload.n_gpu_layers:
        params.devices = ctypes.addressof(no_device)
    overrides = (_Override * 2)()
    if offload.cpu_tensors:
        overrides[0] = _Override(offload.cpu_tensors.encode(), cpu_memory())
        params.tensor_buft_overrides = ctypes.addressof(overrides)
    try:
        yield
    finally:
        params.devices = None
        params.tensor_split = None
        params.tensor_buft_overrides = None


def load_mode(engine: Engine) -> int:
    """llama.cpp's mode for reading the file."""
    if engine.mlock:
        return int(lib.LLAMA_LOAD_MODE_MMAP_MLOCK if engine.mmap else lib.LLAMA_LOAD_MODE_MLOCK)
    return int(lib.LLAMA_LOAD_MODE_AUTO if engine.mmap else lib.LLAMA_LOAD_MODE_NONE)


def warn_of_lock(path: Path) -> None:
    """Warn if the system does not allow a process to lock the whole file; llama.cpp continues with unlocked memory."""
    try:
        import resource
    except ImportError:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and limit < os.path.getsize(path):
        log.warning(
            "--mlock: the system allows a process to lock %d MiB, so some weights are not locked: raise ulimit -l",
            limit >> 20,
        )
