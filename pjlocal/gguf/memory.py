"""Estimate a model's memory on a CPU from its header."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..settings import DEFAULT_N_CTX, DEFAULT_VIEWS, Engine
from .header import TENSOR_TYPES, Header, TensorInfo

#: Types whose rows llama.cpp repacks for a CPU's wide registers.  If the file is mapped into memory, these weights are
#: in memory twice: 597 of 1060 MiB in a Q4_K_M of 1.5B parameters (x86-64 with AVX-512).
_REPACKED = {"Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4"}
_ROWS_TOGETHER = 8

_UBATCH = 512  # the most tokens that llama.cpp computes at a time
_CELLS_TOGETHER = 256  # the size of a cache in tokens is a multiple of this

#: Limits of a view's checkpoints (copies of sliding windows and running states); one is always allowed.
MOST_CHECKPOINTS = 4  # for two turns, one at the beginning and one after the prompt
MOST_CHECKPOINT_BYTES = 256 << 20  # a running state takes 50 MiB or more in models of 8B parameters

#: Python, NumPy, llama.cpp and pjlocal; and a token of the vocabulary.  With these, models of 135M to 1.5B parameters
#: took 0.97 to 1.04 of the estimate, with contexts of 512 and 1024 tokens.
_PROGRAM_BYTES = 74 << 20
_VOCABULARY_BYTES = 200

MOST_LAYERS = 4096  # a limit for hostile headers

_BLOCKS = {name: n_bytes / n for name, n, n_bytes in TENSOR_TYPES.values()}


@dataclass(frozen=True)
class Memory:
    """The memory of a model and its views in bytes, by purpose.

    weights: including repacked copies.
    caches: the full KV caches or running states of all views, and the checkpoints of a chat.
    compute: the compute buffers of all contexts.
    program: the process without a model, but with the vocabulary.
    """

    n_views: int
    n_ctx: int
    weights: int
    caches: int
    compute: int
    program: int

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.compute + self.program

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def estimate(header: Header, engine: Engine) -> Memory:
    """The memory of the process on a CPU with all contexts full."""
    n_views = DEFAULT_VIEWS
    n_ctx = engine.n_ctx or min(header.n_ctx_train or DEFAULT_N_CTX, DEFAULT_N_CTX)
    return Memory(
        n_views,
        n_ctx,
        _weights(header, engine.mmap),
        n_views * (sum(caches(header, engine, n_ctx)) + _checkpoints(header, engine)),
        compute_of_views(header, engine, n_ctx, n_views),
        _PROGRAM_BYTES + _VOCABULARY_BYTES * header.n_vocab,
    )


def _weights(header: Header, mmap: bool) -> int:
    if not mmap:
        return header.n_tensor_bytes
    return header.n_file_bytes + sum(tensor.n_bytes for tensor in header.tensors if _is_repacked(tensor))


def _is_repacked(tensor: TensorInfo) -> bool:
    return (
        tensor.type in _REPACKED
        and len(tensor.shape) >= 2
        and tensor.shape[1] % _ROWS_TOGETHER == 0
        and not tensor.name.startswith("token_embd")
    )


def caches(header: Header, engine: Engine, n_ctx: int) -> list[int]:
    """The bytes of one view's cache in each layer: keys and values, or a running state."""
    attention, state = _attention_caches(header, engine, n_ctx), _running_states(header)
    return [a + b for a, b in zip(attention, state, strict=True)]


def _attention_caches(header: Header, engine: Engine, n_ctx: int) -> list[int]:
    window = header.of_architecture("attention.sliding_window")
    whole = padded_context(n_ctx)
    within = min(whole, padded_context(window + min(_UBATCH, engine.n_batch))) if window else whole
    return [n * (within if slides else whole) for n, slides in _token_bytes(header, engine)]


def _checkpoints(header: Header, engine: Engine) -> int:
    one = checkpoint_bytes(header, engine)
    return min(MOST_CHECKPOINTS * one, max(one, MOST_CHECKPOINT_BYTES))


def checkpoint_bytes(header: Header, engine: Engine) -> int:
    """The bytes of a checkpoint: one view's sliding windows and running state."""
    window = header.of_architecture("attention.sliding_window") or 0
    slide = window * sum(n for n, slides in _token_bytes(header, engine) if slides)
    return slide + sum(_running_states(header))


def _token_bytes(header: Header, engine: Engine) -> list[tuple[int, bool]]:
    """The bytes of a token's keys and values in each layer, and whether the layer has a sliding window."""
    n_head = _by_layer(header, "attention.head_count", 1)
    width = (header.of_architecture("embedding_length") or 0) // max(1, *n_head)
    heads = _attention_heads(header, n_head)
    of_key = header.of_architecture("attention.key_length") or width
    of_value = header.of_architecture("attention.value_length") or width
    by_head = of_key * _BLOCKS[engine.cache_type_k.upper()] + of_value * _BLOCKS[engine.cache_type_v.upper()]
    return [(int(n * by_head), slides) for n, slides in zip(heads, _slides(header, len(heads)), strict=True)]


def _attention_heads(header: Header, otherwise: int | list[int]) -> list[int]:
    """The number of key-value heads of each layer; 0 for a layer with a running state."""
    heads = _by_layer(header, "attention.head_count_kv", otherwise)
    interval = header.of_architecture("full_attention_interval") or 1
    return [n if (layer + 1) % interval == 0 else 0 for layer, n in enumerate(heads)]


#: One layer in this number has no sliding window, by architecture, for files that do not say.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "llama4": 4, "exaone4": 4}


def _slides(header: Header, n_layer: int) -> list[bool]:
    """True for each layer with a sliding window."""
    if not header.of_architecture("attention.sliding_window"):
        return [False] * n_layer
    key = f"{header.architecture}.attention.sliding_window_pattern"
    if (flags := header.metadata.array(key)) and len(flags) == n_layer and flags.type != "str":
        return [bool(value) for value in flags.numbers().tolist()]
    pattern = header.metadata.integer(key) or _PATTERNS.get(header.architecture, 0)
    return [bool(pattern) and layer % pattern < pattern - 1 for layer in range(n_layer)]


def _running_states(header: Header) -> list[int]:
    """The bytes of one view's running state in each layer of a recurrent or hybrid model."""
    inner, state = (header.of_architecture(f"ssm.{key}") or 0 for key in ("inner_size", "state_size"))
    kernel = header.of_architecture("ssm.conv_kernel") or 1
    groups = header.of_architecture("ssm.group_count") or 0
    of_layer = (kernel - 1) * (inner + 2 * groups * state) + state * inner
    return [0 if n else 4 * of_layer for n in _attention_heads(header, 0)]


def compute_of_views(header: Header, engine: Engine, n_ctx: int, n_views: int) -> int:
    """The bytes of the compute buffers of all contexts: one for all views, or one for each in the layout contexts."""
    n_contexts = n_views if engine.layout == "contexts" else 1
    return n_contexts * compute(header, engine, n_ctx * n_views // n_contexts)


def compute(header: Header, engine: Engine, n_ctx: int) -> int:
    """The bytes of a context's compute buffers: the values between layers of a batch of tokens, and the mask."""
    n = min(_UBATCH, engine.n_batch, n_ctx)
    width = header.of_architecture("embedding_length") or 0
    dense = max(_by_layer(header, "feed_forward_length", 0))
    experts = header.of_architecture("expert_feed_forward_length") or dense
    inner = max(dense, experts * (header.of_architecture("expert_used_count") or 0))
    between = 4 * n * (2 * inner + 4 * width)
    mask = 2 * n * padded_context(n_ctx)
    scores = 0
    if engine.flash_attn == "off":
        scores = 4 * n * padded_context(n_ctx) * max(_by_layer(header, "attention.head_count", 1))
    return between + mask + scores + 4 * header.n_vocab


def _by_layer(header: Header, key: str, otherwise: int | list[int]) -> list[int]:
    """A number for each layer.  A file gives one for all layers, or one for each."""
    n_layer = max(1, min(header.of_architecture("block_count") or 1, MOST_LAYERS))
    full = f"{header.architecture}.{key}"
    if (numbers := header.metadata.array(full)) and numbers.type[0] in "iu" and len(numbers) == n_layer:
        return [int(value) for value in numbers.numbers().tolist()]
    if (number := header.metadata.integer(full)) is not None:
        return [number] * n_layer
    return otherwise if isinstance(otherwise, list) else [otherwise] * n_layer


def padded_context(n: int) -> int:
    """The size in tokens of the KV cache that llama.cpp makes for n."""
    return -(-n // _CELLS_TOGETHER) * _CELLS_TOGETHER
