"""Search headers for values that real models do not have, on which llama.cpp may crash.

A failed assertion in llama.cpp aborts the process, and the assertions are spread over the code of 150 architectures,
too many to list.  So each value is compared with those of real models.  No header that passed has crashed the process
(`tests/tools/fuzz_headers.py`).  Other models are loaded in another process first (`engine/probe.py`).  A new
architecture, key or tokenizer alone is not unusual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .header import Array, Header, Value

_ROPE_SCALINGS = {"none", "linear", "yarn", "longrope"}
NO_WEIGHTS = {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}  # llama.cpp has no matrix product for these

_MOST_LAYERS, _MOST_EXPERTS = 512, 1024  # llama.cpp's limits
_LONGEST_TOKEN = 4096  # bytes
_MAY_BE_0 = ("_count", "_layers", "_func", "_type", "_step", "_id")  # ends of keys; a size or a rank is never 0
_WITHOUT_ATTENTION = ("mamba", "rwkv")  # in the names of architectures
_FEWEST_TOKENS = 32  # llama.cpp's default ids of special tokens go up to 11

_Takes = Callable[[Value], bool]


def _whole(least: int, most: int) -> _Takes:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(least: float, most: float) -> _Takes:
    return lambda value: isinstance(value, float) and least <= value <= most


def _one_of(*values: str) -> _Takes:
    return lambda value: value in values


def _either(value: Value) -> bool:
    return isinstance(value, bool)


_SIZE = _whole(1, 1 << 20)
_EPSILON = _number(0, 1)

#: The keys under an architecture's name, with their usual values.
_HYPERPARAMETERS: dict[str, _Takes] = {
    "context_length": _whole(1, 1 << 28),
    "embedding_length": _SIZE,
    "block_count": _whole(1, _MOST_LAYERS),
    "feed_forward_length": _whole(0, 1 << 20),
    "vocab_size": _SIZE,
    "attention.head_count": _whole(0, 1024),
    "attention.head_count_kv": _whole(0, 1024),
    "attention.key_length": _whole(1, 1024),
    "attention.value_length": _whole(1, 1024),
    "attention.layer_norm_rms_epsilon": _EPSILON,
    "attention.layer_norm_epsilon": _EPSILON,
    "attention.causal": _either,
    "attention.sliding_window": _whole(0, 1 << 28),
    "attention.scale": _number(0, 1e4),
    "attn_logit_softcapping": _number(0, 1e6),
    "final_logit_softcapping": _number(0, 1e6),
    "embedding_scale": _number(0, 1e6),
    "residual_scale": _number(0, 1e6),
    "logit_scale": _number(0, 1e6),
    "rope.dimension_count": _whole(1, 1024),
    "rope.freq_base": _number(1, 1e12),
    "rope.scaling.type": _one_of(*_ROPE_SCALINGS),
    "rope.scaling.factor": _number(0, 1e6),
    "rope.scaling.attn_factor": _number(0, 1e6),
    "rope.scaling.original_context_length": _whole(1, 1 << 28),
    "rope.scaling.finetuned": _either,
    "expert_count": _whole(0, _MOST_EXPERTS),
    "expert_used_count": _whole(0, _MOST_EXPERTS),
    "expert_feed_forward_length": _SIZE,
    "expert_shared_feed_forward_length": _SIZE,
    "ssm.conv_kernel": _SIZE,
    "ssm.inner_size": _SIZE,
    "ssm.state_size": _SIZE,
    "ssm.time_step_rank": _SIZE,
    "ssm.dt_b_c_rms": _either,
}


def find_unusual(header: Header) -> str:
    """Describe the first unusual value; empty for an ordinary model."""
    for find in (_of_architecture, _of_tokenizer, _of_tokens, _of_tensors):
        for unusual in find(header):
            return unusual
    return ""


def _of_architecture(header: Header) -> Iterator[str]:
    name, metadata = header.architecture, header.metadata
    for key, value in metadata.items():
        if key.startswith(f"{name}.") and not _is_usual(key.removeprefix(f"{name}."), value):
            yield f"{key} is {_shown(value)}"
    if metadata.get("general.alignment", 32) != 32:
        yield f"general.alignment is {metadata['general.alignment']}"

    def of(key: str) -> int:
        return header.of_architecture(key) or 0

    n_embd, n_head = of("embedding_length"), of("attention.head_count")
    by_layer = metadata.array(f"{name}.attention.head_count")
    has_heads = n_head or (by_layer and by_layer.type != "str" and by_layer.numbers().any())
    if not has_heads and not any(kind in name for kind in _WITHOUT_ATTENTION):
        yield f"{name}.attention.head_count is 0"
    if n_head and n_embd % n_head and not of("attention.key_length"):
        yield f"{name}.embedding_length {n_embd} is not a multiple of its {n_head} heads"
    n_rot, width = of("rope.dimension_count"), of("attention.key_length") or (n_embd // n_head if n_head else 0)
    if n_rot % 2 or (width and n_rot > width):
        yield f"{name}.rope.dimension_count is {n_rot} of {width}"
    if "moe" in name and not of("expert_count"):
        yield f"{name}.expert_count is 0"
    n_head_kv = of("attention.head_count_kv") or n_head
    if n_head_kv and n_head % n_head_kv:
        yield f"{name}.attention.head_count {n_head} is not a multiple of head_count_kv {n_head_kv}"
    if of("expert_group_count") > of("expert_count"):
        yield f"{name}.expert_group_count is {of('expert_group_count')} for {of('expert_count')} experts"
    if of("nextn_predict_layers") and of("nextn_predict_layers") >= of("block_count"):
        yield f"{name}.nextn_predict_layers is {of('nextn_predict_layers')} of {of('block_count')} layers"
    if of("expert_used_count") > of("expert_count") or (of("expert_count") and not of("expert_used_count")):
        yield f"{name}.expert_used_count is {of('expert_used_count')} of {of('expert_count')}"


def _is_usual(key: str, value: Value) -> bool:
    """True if models have such values under the key.  Arrays have a value for each layer."""
    takes = _HYPERPARAMETERS.get(key)
    if not isinstance(value, Array):
        return (takes or _of_unknown(0 if key.endswith(_MAY_BE_0) else 1))(value)
    if value.type == "str" or len(value) > _MOST_LAYERS:
        return value.type == "str"
    return all(map(takes or _of_unknown(0), value.numbers().tolist()))


def _of_unknown(least: int) -> _Takes:
    whole, number = _whole(least, (1 << 31) - 1), _number(-1e12, 1e12)
    return lambda value: isinstance(value, bool | str) or whole(value) or number(value)


def _of_tokenizer(header: Header) -> Iterator[str]:
    metadata = header.metadata
    if metadata.text("tokenizer.ggml.model") == "bert":
        yield "its tokenizer belongs to models that do not write text"
    tokens, types = metadata.array("tokenizer.ggml.tokens"), metadata.array("tokenizer.ggml.token_type")
    if tokens is None or tokens.type != "str" or len(tokens) < _FEWEST_TOKENS:
        yield "it has no list of tokens"
        return
    for key in ("scores", "token_type"):
        array = metadata.array(f"tokenizer.ggml.{key}")
        if array is not None and len(array) != len(tokens):
            yield f"tokenizer.ggml.{key} has {len(array):,} items for {len(tokens):,} tokens"
    if types is not None and types.type != "i32":
        yield f"tokenizer.ggml.token_type has items of type {types.type}"


def _of_tokens(header: Header) -> Iterator[str]:
    tokens = header.metadata.array("tokenizer.ggml.tokens")
    if tokens is None or tokens.lengths is None:
        return
    if int(tokens.lengths.max(initial=0)) > _LONGEST_TOKEN:
        yield "tokenizer.ggml.tokens has a token of thousands of bytes"
        return
    texts = tokens.texts()
    if b"" in texts:
        yield "tokenizer.ggml.tokens has an empty token"
    if b"\0" in b"".join(texts):  # llama.cpp ends a text there
        yield "tokenizer.ggml.tokens has a token with a NUL"
    if len({*texts}) < len(texts):
        yield "tokenizer.ggml.tokens has a token twice"


def _of_tensors(header: Header) -> Iterator[str]:
    for tensor in header.tensors:
        if tensor.type in NO_WEIGHTS or tensor.type.startswith("type "):
            yield f"the tensor {tensor.name} has the type {tensor.type.removeprefix('type ')}"
        elif "conv1d" in tensor.name and tensor.type != "F32":
            yield f"the tensor {tensor.name} has the type {tensor.type}"
        if len([size for size in tensor.shape if size > 1]) < 2 and tensor.type != "F32":
            yield f"the tensor {tensor.name} is a vector of {tensor.type}"


def _shown(value: Value) -> str:
    return str(value)[:40] if isinstance(value, int | float | str) else f"an array of {len(value)}"
