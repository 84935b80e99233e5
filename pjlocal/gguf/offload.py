"""Choose the layers for graphics cards: as many as fit into their memory, computed from the file's header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import le
from typing import Any

from ..errors import join_names
from ..settings import DEFAULT_N_CTX, Engine
from .header import Header
from .memory import MOST_LAYERS, caches, compute, compute_of_views

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
_EXPERTS = re.compile(r"_(?:ch)?exps\b")
_LEAST_N_CTX = 4096  # a context without --ctx shrinks to this before layers stay on the CPU
_MIB = 1 << 20

_Layers = tuple[list[int], list[int]]  # the bytes of the experts of each layer, and of its other weights


@dataclass(frozen=True)
class Offload:
    """The part of a model on devices other than the CPU.

    n_layers: the number of layers of the model; its output counts as one, as in llama.cpp.
    n_gpu_layers: the number of layers on devices, which are the last ones.
    n_ctx: the context of a view in tokens if it was reduced; otherwise None.
    experts: the layers on devices whose experts stay on the CPU.
    shares: the share of each device; empty for llama.cpp's own choice.
    devices: their names.
    caches_on_cpu: whether all KV caches are in the host's memory, because they did not fit on the devices.
    """

    n_layers: int = 0
    n_gpu_layers: int = 0
    n_ctx: int | None = None
    experts: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    devices: tuple[str, ...] = ()
    caches_on_cpu: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON."""
        return {
            "layers": self.n_layers,
            "layers_offloaded": self.n_gpu_layers,
            "devices": list(self.devices),
            "layers_with_experts_on_cpu": len(self.experts),
            "shrunk_n_ctx": self.n_ctx,
            "caches_on_cpu": self.caches_on_cpu,
        }

    def in_words(self, devices: Sequence[str]) -> str:
        """A description for messages, with the devices in words."""
        if not self.n_gpu_layers:
            return "all layers on the CPU"
        experts = f", the experts of {len(self.experts)} on the CPU" if self.experts else ""
        context = f", context {self.n_ctx} tokens so that they fit" if self.n_ctx else ""
        layers, where = f"{self.n_gpu_layers} of {self.n_layers} layers", join_names(devices)
        if self.caches_on_cpu:
            where += ", all KV caches on the CPU"
        else:
            layers += " and their KV caches"
        return f"{layers} on {where}{experts}{context}"

    @property
    def cpu_tensors(self) -> str:
        """A pattern for the names of tensors that stay on the CPU; may be empty."""
        return rf"^blk\.({'|'.join(map(str, self.experts))})\..*_(ch)?exps" if self.experts else ""


def plan_offload(header: Header, engine: Engine, n_views: int, free: Sequence[int]) -> Offload:
    """Choose the largest part of a model that fits into the devices' free memory.

    A margin (`Engine.gpu_margin`) stays free on each device, and the full caches of all views must fit.  If memory is
    short, first the context is reduced, then experts stay on the CPU, then whole layers.

    Args:
        free: the free bytes of each device, in llama.cpp's order.
    """
    layers = _layers(header)
    usable = [max(0, n - engine.gpu_margin * _MIB) for n in free]
    if engine.split_mode == "row":  # each device has a part of every matrix
        usable = [sum(usable)]
    split = engine.split if engine.split_mode == "layer" else ()
    shares = [*split, *[0.0] * len(usable)][: len(usable)] if split else usable
    for choice in _choices(header, engine, layers):
        counts = assign_layers(choice.n_gpu_layers, shares)
        needed = _needed(header, layers, engine, n_views, choice, counts)
        if sum(counts) == choice.n_gpu_layers and all(map(le, needed, usable)):
            break
    by_layer = choice.n_gpu_layers and engine.split_mode == "layer"
    return replace(choice, shares=tuple(map(float, counts)) if by_layer else _split_of(engine))


def needed_by_place(
    header: Header, engine: Engine, offload: Offload, n_views: int, n_ctx: int
) -> dict[tuple[str, ...], int]:
    """The bytes of a context's caches and compute buffers, by the devices that hold them; () is the host.

    If llama.cpp assigns the layers itself, all devices together are one place.
    """
    each = [*(n_views * n for n in caches(header, engine, n_ctx)), 0]  # the output has no cache
    first = len(each) - (0 if offload.caches_on_cpu else offload.n_gpu_layers)
    between = compute(header, engine, n_ctx)
    if not offload.n_gpu_layers:
        return {(): sum(each) + between}
    by_place: dict[tuple[str, ...], int] = {(): sum(each[:first])}
    counts = list(filter(None, assign_layers(offload.n_gpu_layers, offload.shares)))
    if len(counts) != len(offload.devices):
        return by_place | {offload.devices: sum(each[first:]) + between}
    ends = pairwise(accumulate(counts, initial=first))
    by_place |= {(name,): sum(each[a:b]) + between for name, (a, b) in zip(offload.devices, ends, strict=True)}
    return by_place


def bytes_on_devices(header: Header, engine: Engine, offload: Offload, n_views: int) -> list[int]:
    """The estimated bytes of weights, full caches and compute buffers on each device of an offload; one sum if
    llama.cpp assigns the layers itself."""
    counts = assign_layers(offload.n_gpu_layers, offload.shares or (1.0,))
    return [n for n in _needed(header, _layers(header), engine, n_views, offload, counts) if n]


def weights_on_host(header: Header, offload: Offload) -> int:
    """The least bytes of weights that stay on the host."""
    layers = _on_devices(_layers(header), offload)
    return max(0, header.n_tensor_bytes - sum(layers[len(layers) - offload.n_gpu_layers :]))


def with_fewer_layers(offload: Offload) -> Offload:
    """The choice to try after a failed allocation: a tenth fewer layers."""
    n = offload.n_gpu_layers - max(1, offload.n_gpu_layers // 10)
    counts = tuple(map(float, assign_layers(n, offload.shares)))
    experts = tuple(i for i in offload.experts if i >= offload.n_layers - n)
    return replace(offload, n_gpu_layers=n, shares=counts if any(counts) else (), experts=experts)


def fixed_offload(header: Header, engine: Engine, n: int) -> Offload:
    """``n`` layers, or all of them (-1), without a check that they fit."""
    n_layers = len(_layers(header)[0])
    return Offload(n_layers, n_layers if n < 0 else min(n, n_layers), shares=_split_of(engine))


def _split_of(engine: Engine) -> tuple[float, ...]:
    """The shares in the settings; empty for a single device."""
    return () if engine.split_mode == "none" else engine.split


def assign_layers(n: int, shares: Sequence[float]) -> list[int]:
    """The number of layers for each device, from ``n`` layers in proportion to the shares, as in llama.cpp."""
    total = sum(shares)
    if not total:
        return [0] * len(shares)
    ends = [end / total for end in accumulate(shares)]
    owners = [next(d for d, end in enumerate(ends) if layer / n < end) for layer in range(n)]
    return [owners.count(device) for device in range(len(shares))]


def _layers(header: Header) -> _Layers:
    """The weights of each layer and, last, of the output.  The embedding stays on the CPU."""
    n = max(0, min(header.of_architecture("block_count") or 0, MOST_LAYERS))
    experts, rest = [0] * (n + 1), [0] * (n + 1)
    names = {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        match = _LAYER.match(tensor.name)
        if match and int(match[1]) < n:
            (experts if _EXPERTS.search(tensor.name) else rest)[int(match[1])] += tensor.n_bytes
        elif tensor.name.startswith("output") or (
            tensor.name == "token_embd.weight" and "output.weight" not in names  # a copy of it is the output
        ):
            rest[n] += tensor.n_bytes
    return experts, rest


def _on_devices(layers: _Layers, offload: Offload) -> list[int]:
    """The bytes of each layer's weights that leave the CPU with the layer."""
    experts, rest = layers
    return [n + (0 if i in offload.experts else experts[i]) for i, n in enumerate(rest)]


def _contexts(header: Header, engine: Engine) -> list[int]:
    """The possible context sizes of a view, the largest first."""
    if engine.n_ctx:
        return [engine.n_ctx]
    rooms = [min(header.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)]
    while rooms[-1] > _LEAST_N_CTX:
        rooms.append(max(_LEAST_N_CTX, rooms[-1] // 2))
    return rooms


def _choices(header: Header, engine: Engine, layers: _Layers) -> Iterator[Offload]:
    """The choices, from the largest to the smallest."""
    experts, _ = layers
    mixed = tuple(i for i, n_bytes in enumerate(experts) if n_bytes)
    whole = len(experts)
    rooms = [None, *_contexts(header, engine)[1:]]
    yield from (Offload(whole, whole, room) for room in rooms)
    yield from (Offload(whole, whole, rooms[-1], mixed[: n + 1]) for n in range(len(mixed)))
    for n in range(whole - 1, 0, -1):
        yield Offload(whole, n, rooms[-1], tuple(i for i in mixed if i >= whole - n))
    yield Offload(whole)


def _needed(
    header: Header, layers: _Layers, engine: Engine, n_views: int, offload: Offload, counts: Sequence[int]
) -> list[int]:
    """The bytes on each device, if it gets ``counts`` layers."""
    n_ctx = offload.n_ctx or _contexts(header, engine)[0]
    between = compute_of_views(header, engine, n_ctx, n_views)
    weights = _on_devices(layers, offload)
    cached = [*caches(header, engine, n_ctx), 0][-len(weights) :]  # the output has no cache
    each = [n + n_views * of_it for n, of_it in zip(weights, cached, strict=True)]
    ends = [len(weights) - offload.n_gpu_layers + n for n in accumulate(counts, initial=0)]
    return [sum(each[start:end]) + between if end > start else 0 for start, end in pairwise(ends)]
