"""Tiny random GGUF models of several architectures, written in well under a second each.

Speed and plumbing do not depend on what the weights hold; where a test needs sense, it uses the real model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

#: As gpt-oss has it: an answer is what stands in its final channel, and channels in its text are refused.
HARMONY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% if '<|channel|>analysis<|message|>' in m['content'] or '<|channel|>final<|message|>' in m['content'] %}"
    "{{ raise_exception('You have passed a message containing <|channel|> tags in the content field.') }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] + '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)

_CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_WORDS = ["▁the", "▁a", "▁cat", "▁dog", "▁and", "▁sees", "▁sun", "ing", "[bold]", "[/]", "🎂", "日", "本"]
_BOS, _EOS, _EOT = 1, 2, 4


def _vocabulary(
    n_vocab: int | None, words: Iterable[str], added: Iterable[str]
) -> tuple[list[str], list[gguf.TokenType]]:
    tokens = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁", "\n", *_WORDS]
    tokens += words
    tokens += [f"▁w{i}" for i in range(len(tokens), n_vocab or 0)]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    types[: len(_CONTROL)] = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * (len(_CONTROL) - 1)
    types[len(_CONTROL) : len(_CONTROL) + 256] = [gguf.TokenType.BYTE] * 256
    added = list(added)
    return [*tokens, *added], [*types, *[gguf.TokenType.USER_DEFINED] * len(added)]


_MERGES = ["A A", "AA AA", "t h", "th e", "Ġ the", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ", "1 1"]


def _byte_pairs() -> tuple[list[str], list[gguf.TokenType]]:
    """A vocabulary as GPT-2's: a letter for each byte, and what the merges make of them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
    tokens = [*_CONTROL, *letters, *(merge.replace(" ", "") for merge in _MERGES)]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    types[: len(_CONTROL)] = [gguf.TokenType.CONTROL] * len(_CONTROL)
    return tokens, types


class _Writer(gguf.GGUFWriter):
    """A GGUF file with the test vocabulary; tensors are random, of the given standard deviation.

    words: tokens besides those of every test vocabulary; SentencePiece builds each from two others.
    added: tokens whose spelling llama.cpp looks for before it splits the rest of a text.
    space_prefix: whether a space comes in front of a text, as SentencePiece has it by default.
    name: llama.cpp knows some models by it.
    recommends: filters that the file names, as llama.cpp calls them.
    splitter: how texts are split into words for byte pairs; None is a vocabulary of SentencePiece's kind.
    """

    def __init__(
        self,
        path: Path,
        architecture: str,
        *,
        n_vocab: int | None = None,
        chat_template: str | None = CHATML,
        add_bos: bool = True,
        dtype: type = np.float32,
        quantized: bool = False,
        words: Iterable[str] = (),
        added: Iterable[str] = (),
        space_prefix: bool = False,
        name: str | None = None,
        tensors_a_part: int = 0,
        splitter: str | None = None,
        recommends: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(path, architecture, split_max_tensors=tensors_a_part)
        if name:
            self.add_name(name)
        self._rng = np.random.default_rng(seed)
        self._dtype = dtype
        self._quantized = quantized
        tokens, types = _byte_pairs() if splitter else _vocabulary(n_vocab, words, added)
        self.n_vocab = len(tokens)
        self.add_tokenizer_model("gpt2" if splitter else "llama")
        if splitter:
            self.add_tokenizer_pre(splitter)
            self.add_token_merges(_MERGES)
        self.add_token_list(tokens)
        self.add_token_scores([-float(i) for i in range(len(tokens))])
        self.add_token_types(types)
        self.add_bos_token_id(_BOS)
        self.add_eos_token_id(_EOS)
        self.add_eot_token_id(_EOT)
        for key, value in (recommends or {}).items():
            add = self.add_float32 if isinstance(value, float) else self.add_int32
            add(f"general.sampling.{key}", value)
        self.add_unk_token_id(0)
        self.add_add_bos_token(add_bos)
        self.add_add_space_prefix(space_prefix)
        if chat_template is not None:
            self.add_chat_template(chat_template)

    def matrix(self, name: str, *shape: int, scale: float | None = None) -> None:
        """A random [rows, columns] matrix, by default scaled so that it keeps the size of what it multiplies."""
        values = self._rng.standard_normal(shape, np.float32)
        values *= shape[-1] ** -0.5 if scale is None else scale
        if self._quantized:
            kind = gguf.GGMLQuantizationType.Q4_0
            self.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            self.add_tensor(name, values.astype(self._dtype))

    def vectors(self, names: Iterable[str], n: int, value: float = 1.0) -> None:
        for name in names:
            self.add_tensor(name, np.full(n, value, np.float32))

    def sizes(
        self,
        n_embd: int,
        n_layer: int,
        n_head: int,
        n_head_kv: int,
        n_ff: int,
        n_ctx_train: int,
        of_layers: list[int] | None = None,
    ) -> None:
        """of_layers: the heads of keys and values of each layer, where they differ."""
        self.add_context_length(n_ctx_train)
        self.add_embedding_length(n_embd)
        self.add_block_count(n_layer)
        self.add_feed_forward_length(n_ff)
        self.add_head_count(n_head)
        self.add_head_count_kv(of_layers or n_head_kv)
        self.add_layer_norm_rms_eps(1e-5)

    def transformer_block(self, prefix: str, n_embd: int, n_kv: int, n_ff: int) -> None:
        self.attention(prefix, n_embd, n_kv)
        self.feed_forward(prefix, n_embd, n_ff)

    def attention(self, prefix: str, n_embd: int, n_kv: int) -> None:
        self.vectors([f"{prefix}.attn_norm.weight"], n_embd)
        self.matrix(f"{prefix}.attn_q.weight", n_embd, n_embd)
        self.matrix(f"{prefix}.attn_k.weight", n_kv, n_embd)
        self.matrix(f"{prefix}.attn_v.weight", n_kv, n_embd)
        self.matrix(f"{prefix}.attn_output.weight", n_embd, n_embd)

    def feed_forward(self, prefix: str, n_embd: int, n_ff: int) -> None:
        self.vectors([f"{prefix}.ffn_norm.weight"], n_embd)
        self.matrix(f"{prefix}.ffn_gate.weight", n_ff, n_embd)
        self.matrix(f"{prefix}.ffn_up.weight", n_ff, n_embd)
        self.matrix(f"{prefix}.ffn_down.weight", n_embd, n_ff)

    def ends(self, n_embd: int) -> None:
        """Embedding and output: logits get a standard deviation of about 2."""
        self.matrix("token_embd.weight", self.n_vocab, n_embd, scale=1.0)
        self.vectors(["output_norm.weight"], n_embd)
        self.matrix("output.weight", self.n_vocab, n_embd, scale=2 * n_embd**-0.5)


def write_llama(
    path: Path,
    *,
    n_vocab: int | None = None,
    chat_template: str | None = CHATML,
    n_embd: int = 64,
    n_layer: int = 2,
    n_ff: int = 128,
    n_ctx_train: int = 512,
    **options: Any,
) -> Path:
    """A transformer of the llama architecture."""
    w = _Writer(path, "llama", n_vocab=n_vocab, chat_template=chat_template, **options)
    n_head = n_embd // 16
    w.sizes(n_embd, n_layer, n_head, n_head, n_ff, n_ctx_train)
    w.add_rope_dimension_count(16)
    w.ends(n_embd)
    for i in range(n_layer):
        w.transformer_block(f"blk.{i}", n_embd, n_embd, n_ff)
    finish(w)
    return path


def _write_broken(path: Path, tensor: str, value: float, row: int | None = None) -> Path:
    """A llama with that value in all of a tensor, or at the beginning of one row."""
    write_llama(path)
    reader = gguf.GGUFReader(path, "r+")
    data = next(each.data for each in reader.tensors if each.name == tensor)
    if row is None:
        data[...] = value
    else:
        data[row, 0] = value
    reader.data.flush()
    return path


def write_not_numbers(path: Path) -> Path:
    """A llama whose logits are all NaN, as those of a file that was damaged."""
    return _write_broken(path, "output_norm.weight", float("nan"))


def write_one_not_a_number(path: Path) -> Path:
    """A llama with one logit that always is NaN, of a token near the end of the vocabulary."""
    return _write_broken(path, "output.weight", float("nan"), row=-3)


def write_infinite(path: Path) -> Path:
    """A llama with one logit that always is infinite, or minus infinite, as the text has it."""
    return _write_broken(path, "output.weight", float("inf"), row=300)


def write_broken_word(path: Path) -> Path:
    """A llama whose logits are NaN behind a text with the letter Q in it, and numbers behind all others."""
    return _write_broken(path, "token_embd.weight", float("nan"), row=len(_CONTROL) + 256 + ord("Q") - 33)


def write_split(path: Path) -> list[Path]:
    """The parts of a llama that is split into several files, the first first."""
    write_llama(path, tensors_a_part=8)
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def write_tekken(path: Path) -> Path:
    """A llama whose texts are split into words as Mistral's, by a parser that calls itself."""
    return write_llama(path, splitter="tekken")


def write_space_prefix(path: Path) -> Path:
    """A llama whose vocabulary puts a space before every text, as Llama 2's."""
    return write_llama(path, space_prefix=True)


def write_big_vocabulary(path: Path, n_vocab: int = 262_144) -> Path:
    """A llama with a large vocabulary whose step takes about as long as that of a small real model."""
    return write_llama(path, n_vocab=n_vocab, n_embd=128, n_layer=48, n_ff=1024, dtype=np.float16)


def write_gemma3(path: Path) -> Path:
    """Five layers that see the last 16 tokens, and one that sees all."""
    return write_sliding_window(path, n_layer=6)


def write_sliding_window(path: Path, *, n_layer: int = 2) -> Path:
    """Gemma 3's architecture, whose layers, but for every sixth, see the last 16 tokens."""
    w = _Writer(path, "gemma3")
    n_embd, n_ff = 64, 128
    w.sizes(n_embd, n_layer, 4, 4, n_ff, 512)
    w.add_key_length(16)
    w.add_value_length(16)
    w.add_sliding_window(16)
    w.add_rope_freq_base(10_000.0)
    w.ends(n_embd)
    for i in range(n_layer):
        w.transformer_block(f"blk.{i}", n_embd, n_embd, n_ff)
        w.vectors([f"blk.{i}.attn_q_norm.weight", f"blk.{i}.attn_k_norm.weight"], 16)
        w.vectors([f"blk.{i}.post_attention_norm.weight", f"blk.{i}.post_ffw_norm.weight"], n_embd)
    finish(w)
    return path


def write_recurrent(path: Path, *, forgets: float = 1.0) -> Path:
    """Mamba's architecture: a running state instead of a KV cache, which forgets the more the faster."""
    w = _Writer(path, "mamba")
    n_embd, n_inner, n_state, n_conv, n_dt = 64, 128, 16, 4, 4
    w.sizes(n_embd, 2, 0, 0, 0, 512)
    w.add_ssm_conv_kernel(n_conv)
    w.add_ssm_inner_size(n_inner)
    w.add_ssm_state_size(n_state)
    w.add_ssm_time_step_rank(n_dt)
    w.ends(n_embd)
    for i in range(2):
        _selective_state(w, f"blk.{i}", n_embd, forgets)
    finish(w)
    return path


def _selective_state(w: _Writer, b: str, n_embd: int, forgets: float) -> None:
    """A block of Mamba's."""
    n_inner, n_state, n_conv, n_dt = 128, 16, 4, 4
    w.vectors([f"{b}.attn_norm.weight"], n_embd)
    w.matrix(f"{b}.ssm_in.weight", 2 * n_inner, n_embd)
    w.add_tensor(f"{b}.ssm_conv1d.weight", np.full((n_inner, n_conv), 0.4, np.float32))
    w.vectors([f"{b}.ssm_conv1d.bias"], n_inner, 0.0)
    w.matrix(f"{b}.ssm_x.weight", n_dt + 2 * n_state, n_inner)
    w.matrix(f"{b}.ssm_dt.weight", n_inner, n_dt)
    w.vectors([f"{b}.ssm_dt.bias"], n_inner, 0.1)
    w.add_tensor(f"{b}.ssm_a", np.tile(-forgets * np.arange(1, n_state + 1, dtype=np.float32), (n_inner, 1)))
    w.vectors([f"{b}.ssm_d"], n_inner)
    w.matrix(f"{b}.ssm_out.weight", n_embd, n_inner)


def write_mamba(path: Path) -> Path:
    """One that remembers for some hundred tokens."""
    return write_recurrent(path, forgets=0.02)


def write_jamba(path: Path) -> Path:
    """A hybrid: a layer with a running state, and one with attention."""
    w = _Writer(path, "jamba")
    n_embd, n_ff = 64, 128
    w.sizes(n_embd, 2, 4, 4, n_ff, 512, of_layers=[0, 4])
    w.add_ssm_conv_kernel(4)
    w.add_ssm_inner_size(2 * n_embd)
    w.add_ssm_state_size(16)
    w.add_ssm_time_step_rank(4)
    w.ends(n_embd)
    _selective_state(w, "blk.0", n_embd, forgets=0.02)
    w.vectors(["blk.0.ssm_dt_norm.weight"], 4)
    w.vectors(["blk.0.ssm_b_norm.weight", "blk.0.ssm_c_norm.weight"], 16)
    w.attention("blk.1", n_embd, n_embd)
    for i in range(2):
        w.feed_forward(f"blk.{i}", n_embd, n_ff)
    finish(w)
    return path


def write_lfm2(path: Path) -> Path:
    """A hybrid that can take tokens back: a layer with a short convolution, and one with attention."""
    w = _Writer(path, "lfm2")
    n_embd, n_ff, n_conv = 64, 128, 3
    w.sizes(n_embd, 2, 4, 4, n_ff, 512, of_layers=[0, 4])
    w.add_shortconv_l_cache(n_conv)
    w.add_rope_freq_base(10_000.0)
    w.matrix("token_embd.weight", w.n_vocab, n_embd, scale=1.0)
    w.vectors(["token_embd_norm.weight"], n_embd)
    w.matrix("output.weight", w.n_vocab, n_embd, scale=2 * n_embd**-0.5)
    w.vectors(["blk.0.attn_norm.weight"], n_embd)
    w.matrix("blk.0.shortconv.conv.weight", n_embd, n_conv)
    w.matrix("blk.0.shortconv.in_proj.weight", 3 * n_embd, n_embd)
    w.matrix("blk.0.shortconv.out_proj.weight", n_embd, n_embd)
    w.attention("blk.1", n_embd, n_embd)
    w.vectors(["blk.1.attn_q_norm.weight", "blk.1.attn_k_norm.weight"], 16)
    for i in range(2):
        w.feed_forward(f"blk.{i}", n_embd, n_ff)
    finish(w)
    return path


def write_qwen35(path: Path) -> Path:
    """A hybrid that can take tokens back: three layers with a gated delta net, and one with attention."""
    w = _Writer(path, "qwen35")
    n_embd, n_layer, n_ff, n_conv, n_state, n_heads = 64, 4, 128, 4, 16, 4
    w.sizes(n_embd, n_layer, 4, 4, n_ff, 512)
    w.add_key_length(16)
    w.add_value_length(16)
    w.add_rope_dimension_count(16)
    w.add_rope_dimension_sections([2, 2, 2, 2])
    w.add_ssm_conv_kernel(n_conv)
    w.add_ssm_inner_size(n_state * n_heads)
    w.add_ssm_state_size(n_state)
    w.add_ssm_time_step_rank(n_heads)
    w.add_ssm_group_count(n_heads)
    w.add_full_attention_interval(n_layer)
    w.ends(n_embd)
    n_inner = n_state * n_heads
    for i in range(n_layer):
        b = f"blk.{i}"
        w.vectors([f"{b}.attn_norm.weight", f"{b}.post_attention_norm.weight"], n_embd)
        w.matrix(f"{b}.ffn_gate.weight", n_ff, n_embd)
        w.matrix(f"{b}.ffn_up.weight", n_ff, n_embd)
        w.matrix(f"{b}.ffn_down.weight", n_embd, n_ff)
        if i == n_layer - 1:
            w.matrix(f"{b}.attn_q.weight", 2 * n_embd, n_embd)
            for name in ("attn_k", "attn_v", "attn_output"):
                w.matrix(f"{b}.{name}.weight", n_embd, n_embd)
            w.vectors([f"{b}.attn_q_norm.weight", f"{b}.attn_k_norm.weight"], 16)
            continue
        w.matrix(f"{b}.attn_qkv.weight", 3 * n_inner, n_embd)
        w.matrix(f"{b}.attn_gate.weight", n_inner, n_embd)
        w.add_tensor(f"{b}.ssm_conv1d.weight", np.full((3 * n_inner, n_conv), 0.4, np.float32))
        w.vectors([f"{b}.ssm_dt.bias"], n_heads, 0.1)
        w.vectors([f"{b}.ssm_a"], n_heads, -0.02)
        w.matrix(f"{b}.ssm_beta.weight", n_heads, n_embd)
        w.matrix(f"{b}.ssm_alpha.weight", n_heads, n_embd)
        w.vectors([f"{b}.ssm_norm.weight"], n_state)
        w.matrix(f"{b}.ssm_out.weight", n_embd, n_inner)
    finish(w)
    return path


def write_qwen2(path: Path) -> Path:
    """Attention with biases, and half as many heads of keys and values."""
    w = _Writer(path, "qwen2")
    w.sizes(64, 2, 4, 2, 128, 512)
    w.ends(64)
    for i in range(2):
        w.transformer_block(f"blk.{i}", 64, 32, 128)
        w.vectors([f"blk.{i}.attn_q.bias"], 64, 0.1)
        w.vectors([f"blk.{i}.attn_k.bias", f"blk.{i}.attn_v.bias"], 32, 0.1)
    finish(w)
    return path


def write_qwen3(path: Path, *, experts: int = 0) -> Path:
    """Queries and keys with norms of their own."""
    w = _Writer(path, "qwen3moe" if experts else "qwen3")
    n_embd, n_ff = 64, 128
    w.sizes(n_embd, 2, 4, 2, n_ff, 512)
    w.add_key_length(16)
    w.add_value_length(16)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(2)
        w.add_expert_feed_forward_length(n_ff // 2)
    w.ends(n_embd)
    for i in range(2):
        b = f"blk.{i}"
        w.attention(b, n_embd, 32)
        w.vectors([f"{b}.attn_q_norm.weight", f"{b}.attn_k_norm.weight"], 16)
        if not experts:
            w.feed_forward(b, n_embd, n_ff)
            continue
        w.vectors([f"{b}.ffn_norm.weight"], n_embd)
        w.matrix(f"{b}.ffn_gate_inp.weight", experts, n_embd)
        w.matrix(f"{b}.ffn_gate_exps.weight", experts, n_ff // 2, n_embd)
        w.matrix(f"{b}.ffn_up_exps.weight", experts, n_ff // 2, n_embd)
        w.matrix(f"{b}.ffn_down_exps.weight", experts, n_embd, n_ff // 2)
    finish(w)
    return path


def write_qwen3moe(path: Path) -> Path:
    """A mixture of eight experts, of which two are heard."""
    return write_qwen3(path, experts=8)


def write_phi3(path: Path) -> Path:
    """Queries, keys and values from one matrix, and both halves of the feed-forward from another."""
    w = _Writer(path, "phi3")
    n_embd, n_ff = 64, 128
    w.sizes(n_embd, 2, 4, 4, n_ff, 512)
    w.add_rope_dimension_count(16)
    w.ends(n_embd)
    for i in range(2):
        b = f"blk.{i}"
        w.vectors([f"{b}.attn_norm.weight", f"{b}.ffn_norm.weight"], n_embd)
        w.matrix(f"{b}.attn_qkv.weight", 3 * n_embd, n_embd)
        w.matrix(f"{b}.attn_output.weight", n_embd, n_embd)
        w.matrix(f"{b}.ffn_up.weight", 2 * n_ff, n_embd)
        w.matrix(f"{b}.ffn_down.weight", n_embd, n_ff)
    finish(w)
    return path


def write_embedding(path: Path, *, ranks: bool = False) -> Path:
    """BERT's architecture: it embeds text and writes none; or gives it one number."""
    w = _Writer(path, "bert", chat_template=None)
    n_embd, n_ff = 64, 128
    w.sizes(n_embd, 1, 4, 4, n_ff, 512)
    w.add_layer_norm_eps(1e-5)
    w.add_token_type_count(2)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.MEAN)
    w.matrix("token_embd.weight", w.n_vocab, n_embd)
    w.matrix("token_types.weight", 2, n_embd)
    w.matrix("position_embd.weight", 512, n_embd)
    w.vectors(["token_embd_norm.weight", "token_embd_norm.bias"], n_embd)
    for name, rows, columns in (
        ("attn_q", n_embd, n_embd), ("attn_k", n_embd, n_embd), ("attn_v", n_embd, n_embd),
        ("attn_output", n_embd, n_embd), ("ffn_up", n_ff, n_embd), ("ffn_down", n_embd, n_ff),
    ):  # fmt: skip
        w.matrix(f"blk.0.{name}.weight", rows, columns)
        w.vectors([f"blk.0.{name}.bias"], rows, 0.0)
    for name in ("attn_output_norm", "layer_output_norm"):
        w.vectors([f"blk.0.{name}.weight", f"blk.0.{name}.bias"], n_embd)
    if ranks:
        w.matrix("cls.weight", n_embd, n_embd)
        w.vectors(["cls.bias"], n_embd, 0.0)
        w.matrix("cls.output.weight", 1, n_embd)
        w.vectors(["cls.output.bias"], 1, 0.5)
    finish(w)
    return path


def write_cross_encoder(path: Path) -> Path:
    """A BERT that gives two texts one number."""
    return write_embedding(path, ranks=True)


def write_reranker(
    path: Path, *, labels: Iterable[str] = ("yes", "no"), template: bool = True, tensors_a_part: int = 0
) -> Path:
    """Qwen3's architecture with a head, as its rerankers have: the probabilities of yes and no."""
    w = _Writer(path, "qwen3", chat_template=None if template else CHATML, tensors_a_part=tensors_a_part)
    n_embd, n_layer, n_ff = 64, 2, 128
    w.sizes(n_embd, n_layer, 4, 4, n_ff, 512)
    w.add_key_length(16)
    w.add_value_length(16)
    w.add_pooling_type(gguf.PoolingType.RANK)
    labels = list(labels)
    w.add_classifier_output_labels(labels)
    if template:
        w.add_chat_template(
            [
                {"name": "default", "template": CHATML},
                {"name": "rerank", "template": "<|im_start|>{query}<|im_end|>{document}<|im_end|>"},
            ]
        )
    w.ends(n_embd)
    for i in range(n_layer):
        w.transformer_block(f"blk.{i}", n_embd, n_embd, n_ff)
        w.vectors([f"blk.{i}.attn_q_norm.weight", f"blk.{i}.attn_k_norm.weight"], 16)
    w.matrix("cls.output.weight", len(labels), n_embd)
    finish(w)
    return path


def write_lora(
    path: Path,
    *,
    seed: int = 1,
    architecture: str = "llama",
    n_embd: int = 64,
    names: Iterable[str] = ("blk.0.attn_q.weight", "blk.1.attn_v.weight"),
    rank: int = 4,
    alpha: float = 8.0,
    n_out: int | None = None,
    adapter: str = "lora",
) -> Path:
    """A LoRA adapter, large enough to change what is written, for matrices [n_out, n_embd], which are square where
    n_out does not say."""
    w = gguf.GGUFWriter(path, architecture)
    w.add_type("adapter")
    w.add_string("adapter.type", adapter)
    w.add_float32("adapter.lora.alpha", alpha)
    rng = np.random.default_rng(seed)
    for name in names:
        for half, shape in (("a", (rank, n_embd)), ("b", (n_out or n_embd, rank))):
            w.add_tensor(f"{name}.lora_{half}", rng.standard_normal(shape, np.float32) * 0.3)
    finish(w)
    return path


def write_control_vector(
    path: Path, *, seed: int = 1, n_embd: int = 64, layers: Iterable[int] = (1,), value: float | None = None
) -> Path:
    """A control vector for a model of two layers: random, or with one value everywhere."""
    w = gguf.GGUFWriter(path, "controlvector")
    rng = np.random.default_rng(seed)
    for layer in layers:
        direction = rng.standard_normal(n_embd, np.float32) if value is None else np.full(n_embd, value, np.float32)
        w.add_tensor(f"direction.{layer}", direction)
    finish(w)
    return path


def finish(w: gguf.GGUFWriter) -> None:
    """Write the file."""
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_vocab_only(path: Path) -> Path:
    """Metadata and a vocabulary, and no weights."""
    w = _Writer(path, "llama")
    w.sizes(64, 2, 4, 4, 128, 512)
    finish(w)
    return path
