"""Choose the layers for graphics cards: as many as fit into their memory, computed from the file's header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import le
from typing import Any

from ..settings import DEFAULT_N_CTX, Engine
from .header import Header
from .memory import caches, compute

_LAYER = re.compile(r"blk\.(\d{1,4})\.")
_EXPERTS = re.compile(r"_(?:ch)?exps\b")
_LEAST_N_CTX = 4096  # a context without --ctx shrinks to this before layers stay on the CPU
_MIB = 1 << 20


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
        layers, where = f"{self.n_gpu_layers} of {self.n_layers} layers", " and ".join(devices)
        if self.caches_on_cpu:
            where += ", all KV caches on the CPU"
        else:
            layers += " and their KV caches"
        return f"{layers} on {where}{experts}{context}"

    @property
    def cpu_tensors(self) -> str:
        """A pattern for the names of tensors that stay on the CPU; may be empty."""
        return rf"^blk\.({'|'.join(map(str, self.experts))})\..*_(ch)?exps" if self.experts else ""


@dataclass(frozen=True)
class _Layer:
    """The bytes of a layer's weights."""

    experts: int = 0
    rest: int = 0


@dataclass(frozen=True)
class _Choice:
    """A candidate: the last ``n`` layers, a view's context, and the layers whose experts stay on the CPU."""

    n: int
    n_ctx: int
    experts: tuple[int, ...] = ()


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
        counts = assign_layers(choice.n, shares)
        needed = _needed(header, layers, engine, n_views, choice, counts)
        if sum(counts) == choice.n and all(map(le, needed, usable)):
            break
    shrunk = choice.n_ctx != _contexts(header, engine)[0]
    by_device = tuple(map(float, counts)) if choice.n and engine.split_mode == "layer" else _split_of(engine)
    return Offload(len(layers), choice.n, choice.n_ctx if shrunk else None, choice.experts, by_device)


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
    choice = _Choice(offload.n_gpu_layers, offload.n_ctx or _contexts(header, engine)[0], offload.experts)
    counts = assign_layers(choice.n, offload.shares or (1.0,))
    return [n for n in _needed(header, _layers(header), engine, n_views, choice, counts) if n]


def weights_on_host(header: Header, offload: Offload) -> int:
    """The least bytes of weights that stay on the host."""
    layers = _layers(header)
    first = len(layers) - offload.n_gpu_layers
    taken = sum(
        layer.rest + (0 if i in offload.experts else layer.experts) for i, layer in enumerate(layers) if i >= first
    )
    return max(0, header.n_tensor_bytes - taken)


def with_fewer_layers(offload: Offload) -> Offload:
    """The choice to try after a failed allocation: a tenth fewer layers."""
    n = offload.n_gpu_layers - max(1, offload.n_gpu_layers // 10)
    counts = tuple(map(float, assign_layers(n, offload.shares)))
    experts = tuple(i for i in offload.experts if i >= offload.n_layers - n)
    return replace(offload, n_gpu_layers=n, shares=counts if any(counts) else (), experts=experts)


def fixed_offload(header: Header, engine: Engine, n: int) -> Offload:
    """``n`` layers, or all of them (-1), without a check that they fit."""
    n_layers = len(_layers(header))
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


def _layers(header: Header) -> list[_Layer]:
    """The weights of each layer and, last, of the output.  The embedding stays on the CPU."""
    n = header.of_architecture("block_count") or 0
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
    return [_Layer(*pair) for pair in zip(experts, rest, strict=True)]


def _contexts(header: Header, engine: Engine) -> list[int]:
    """The possible context sizes of a view, the largest first."""
    if engine.n_ctx:
        return [engine.n_ctx]
    rooms = [min(header.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)]
    while rooms[-1] > _LEAST_N_CTX:
        rooms.append(max(_LEAST_N_CTX, rooms[-1] // 2))
    return rooms


def _choices(header: Header, engine: Engine, layers: list[_Layer]) -> Iterator[_Choice]:
    """The choices, from the largest to the smallest."""
    rooms = _contexts(header, engine)
    mixed = tuple(i for i, layer in enumerate(layers) if layer.experts)
    whole = len(layers)
    yield from (_Choice(whole, room) for room in rooms)
    yield from (_Choice(whole, rooms[-1], mixed[: n + 1]) for n in range(len(mixed)))
    for n in range(whole - 1, 0, -1):
        yield _Choice(n, rooms[-1], tuple(i for i in mixed if i >= whole - n))
    yield _Choice(0, rooms[0])


def _needed(
    header: Header, layers: list[_Layer], engine: Engine, n_views: int, choice: _Choice, counts: Sequence[int]
) -> list[int]:
    """The bytes on each device, if it gets ``counts`` layers."""
    n_contexts = n_views if engine.layout == "contexts" else 1
    between = n_contexts * compute(header, engine, choice.n_ctx * n_views // n_contexts)
    cached = [*caches(header, engine, choice.n_ctx), 0][-len(layers) :]  # the output has no cache
    each = [
        layer.rest + (0 if i in choice.experts else layer.experts) + n_views * cached[i]
        for i, layer in enumerate(layers)
    ]
    ends = [len(layers) - choice.n + n for n in accumulate(counts, initial=0)]
    return [sum(each[start:end]) + between if end > start else 0 for start, end in pairwise(ends)]
