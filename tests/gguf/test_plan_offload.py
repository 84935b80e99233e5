"""The plan of layers for graphics cards, with simulated devices: numbers in, numbers out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny_models

from pjlocal.gguf.header import Header, Metadata, TensorInfo, read_header
from pjlocal.gguf.offload import Offload, assign_layers, fixed_offload, plan_offload, with_fewer_layers
from pjlocal.settings import Engine

GIB = 1 << 30
MIB = 1 << 20


def header(*, n_layer: int = 32, expert_mib: int = 0, tied: bool = False, ctx: int = 131_072, dense: int = 0) -> Header:
    """A model of the size of an 8B: 32 layers of 128 MiB, an output of 500 MiB and as large an embedding; its cache
    takes 4 KiB a token and layer.  With experts, each layer but the first ``dense`` has so many MiB of them besides."""
    keys = {
        "general.architecture": "llama",
        "llama.block_count": n_layer,
        "llama.context_length": ctx,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    }
    sizes = {"token_embd.weight": 500, "output_norm.weight": 0} | ({} if tied else {"output.weight": 500})
    for i in range(n_layer):
        sizes |= {f"blk.{i}.attn_q.weight": 28, f"blk.{i}.ffn_up.weight": 100}
        if expert_mib and i >= dense:
            sizes[f"blk.{i}.ffn_down_exps.weight"] = expert_mib
    tensors = tuple(TensorInfo(name, (1, 1), "Q8_0", 0, n * MIB) for name, n in sizes.items())
    entries = {key: ("str" if isinstance(value, str) else "u32", value) for key, value in keys.items()}
    return Header(Path("8b.gguf"), (Path("8b.gguf"),), Metadata(entries), tensors, 0)


BATCHED = Engine(layout="batched")
WEIGHTS = 32 * 128 * MIB + 500 * MIB
CACHE_8192 = 32 * 8192 * 4096  # of one view


def test_a_model_that_fits_goes_to_the_card_whole() -> None:
    assert plan_offload(header(), BATCHED, 2, [24 * GIB]) == Offload(33, 33, None, (), (33.0,))
    assert plan_offload(header(), Engine(), 2, [24 * GIB]).n_gpu_layers == 33


def test_without_a_device_the_model_stays_on_the_cpu() -> None:
    for free in ([], [0], [GIB], [GIB + MIB]):
        assert plan_offload(header(), BATCHED, 2, free) == Offload(33)


def test_more_memory_never_means_fewer_layers_and_what_is_chosen_fits() -> None:
    before = 0
    for quarters in range(4, 40):
        free = quarters * GIB // 4
        n = plan_offload(header(), Engine(layout="batched", n_ctx=8192), 2, [free]).n_gpu_layers
        assert n >= before
        before = n
        output = 500 * MIB if n else 0
        assert max(0, n - 1) * (128 * MIB + 2 * CACHE_8192 // 32) + output <= max(0, free - GIB)
    assert before == 33


def test_the_caches_of_all_views_count_and_so_does_the_margin() -> None:
    card = [WEIGHTS + 2 * CACHE_8192 + GIB + 600 * MIB]
    engine = Engine(layout="batched", n_ctx=8192)
    assert plan_offload(header(), engine, 2, card).n_gpu_layers == 33
    assert plan_offload(header(), engine, 3, card).n_gpu_layers < 33
    assert plan_offload(header(), engine.replace(gpu_margin=4096), 2, card).n_gpu_layers < 33
    assert plan_offload(header(), engine.replace(gpu_margin=0), 3, card).n_gpu_layers == 33
    assert plan_offload(header(), engine.replace(cache_type_k="q8_0", cache_type_v="q8_0"), 3, card).n_gpu_layers == 33
    assert plan_offload(header(), engine.replace(layout="contexts"), 4, card) != plan_offload(header(), engine, 2, card)


def test_a_default_context_shrinks_before_layers_stay_on_the_cpu() -> None:
    card = [WEIGHTS + CACHE_8192 + GIB + 600 * MIB]  # two views have room for half of it
    assert plan_offload(header(), BATCHED, 2, card) == Offload(33, 33, 4096, (), (33.0,))
    asked = plan_offload(header(), BATCHED.replace(n_ctx=8192), 2, card)
    assert asked.n_ctx is None and asked.n_gpu_layers < 33
    small = plan_offload(header(ctx=2048), BATCHED, 2, [4 * GIB])
    assert small.n_ctx is None, "and never below 4096"
    assert 0 < small.n_gpu_layers < 33


def test_the_experts_go_to_the_cpu_before_layers_do() -> None:
    mixture = header(expert_mib=1024, dense=2)
    offload = plan_offload(mixture, BATCHED, 2, [16 * GIB])
    assert offload.n_gpu_layers == 33 and offload.experts[0] == 2 and 20 < len(offload.experts) < 30
    assert offload.n_ctx == 4096
    pattern = re.compile(offload.cpu_tensors)
    assert pattern.search("blk.2.ffn_down_exps.weight") and not pattern.search("blk.2.ffn_up.weight")
    assert not pattern.search("blk.31.ffn_down_exps.weight") and not pattern.search("blk.0.ffn_down_exps.weight")
    less = plan_offload(mixture, BATCHED, 2, [4 * GIB])
    assert 0 < less.n_gpu_layers < 33
    assert list(less.experts) == list(range(33 - less.n_gpu_layers, 32)), "of all layers on the card"
    assert plan_offload(mixture, BATCHED, 2, [80 * GIB]).experts == ()


def test_an_output_that_is_the_embedding_too_is_on_the_card_besides() -> None:
    engine = Engine(layout="batched", n_ctx=4096)
    card = [WEIGHTS + CACHE_8192 + GIB + 600 * MIB]
    assert plan_offload(header(tied=True), engine, 2, card) == plan_offload(header(), engine, 2, card)


def test_several_cards_share_by_what_they_have_free() -> None:
    assert plan_offload(header(), BATCHED, 2, [25 * GIB, 9 * GIB]).shares == (25.0, 8.0)
    assert plan_offload(header(), BATCHED, 2, [9 * GIB, 0]).shares == (33.0, 0.0)
    both = plan_offload(header(), BATCHED.replace(n_ctx=8192), 2, [5 * GIB, 5 * GIB])
    one = plan_offload(header(), BATCHED.replace(n_ctx=8192), 2, [5 * GIB])
    assert both.n_gpu_layers > 1.5 * one.n_gpu_layers
    plan = plan_offload(header(), BATCHED.replace(tensor_split="1,3"), 2, [24 * GIB, 24 * GIB])
    assert plan.shares == (9.0, 24.0)
    rows = plan_offload(header(), BATCHED.replace(split_mode="row"), 2, [6 * GIB, 6 * GIB])
    assert rows.n_gpu_layers == 33 and rows.shares == ()


def test_layers_are_assigned_as_in_llama_cpp() -> None:
    assert assign_layers(10, [1, 1]) == [5, 5]
    assert assign_layers(33, [3.0, 1.0]) == [25, 8]
    assert assign_layers(5, [0, 1]) == [0, 5]
    assert assign_layers(5, [0, 0]) == [0, 0]
    for n in range(1, 100):
        for first in range(n + 1):
            assert assign_layers(n, [first, n - first]) == [first, n - first], "what is said in layers is kept"


def test_a_requested_number_of_layers_is_not_checked() -> None:
    assert fixed_offload(header(), Engine(), -1) == Offload(33, 33)
    assert fixed_offload(header(), Engine(tensor_split="1,1"), 10) == Offload(33, 10, shares=(1.0, 1.0))
    assert fixed_offload(header(), Engine(tensor_split="1,1", split_mode="none"), 10).shares == ()
    assert fixed_offload(header(), Engine(), 99).n_gpu_layers == 33


def test_after_a_failed_load_fewer_layers_are_tried_down_to_none() -> None:
    offload = plan_offload(header(expert_mib=1024), BATCHED, 2, [12 * GIB, 12 * GIB])
    seen = [offload]
    while seen[-1].n_gpu_layers:
        seen.append(with_fewer_layers(seen[-1]))
        assert sum(seen[-1].shares) == seen[-1].n_gpu_layers < seen[-2].n_gpu_layers
        assert all(i >= 33 - seen[-1].n_gpu_layers for i in seen[-1].experts)
    assert len(seen) < 33 and seen[-1].in_words(()) == "all layers on the CPU"


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_every_architecture_can_be_planned(tiny, kind: str) -> None:
    offload = plan_offload(read_header(tiny(kind)), Engine(), 2, [2 * GIB])
    assert (offload.n_gpu_layers, offload.n_layers) == (3, 3)


def test_hostile_headers_can_be_planned_too(tmp_path: Path) -> None:
    path = tiny_models.write_vocab_only(tmp_path / "none.gguf")
    assert plan_offload(read_header(path), Engine(), 2, [2 * GIB]).n_layers == 3
