"""Mutated GGUF headers, and what becomes of them: none may end the process, take a second, or 100 MB.

python tests/tools/fuzz_headers.py [--seed 1] [--checks 100000] [--loads 5000]

Each mutation is checked as pjlocal does before a load; what passes is loaded in a child, with a context and a step.
The same seed gives the same mutations.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

from pjlocal import Engine
from pjlocal.engine import backend
from pjlocal.engine.context import Context
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model as LoadedModel
from pjlocal.errors import ModelError, PjlocalError
from pjlocal.gguf.check import find_unusual
from pjlocal.gguf.header import read_header

MOST_SECONDS, MOST_BYTES = 1.0, 100 << 20
STR, ARR = 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
EXTREMES = [
    0, 1, 2, 3, 5, 7, 8, 16, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 511, 512, 513, 1000, 4096,
    65535, 65536, 10**6, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip
WORDS = [
    b"", b"llama", b"gpt2", b"bert", b"t5", b"rwkv", b"none", b"plamo2", b"default", b"\xff\xfe",
    b"a" * 10**4,
]  # fmt: skip
PIECES = [
    b"", b" ", b"a", b"\0", b"\xff\xfe\xfd", b"\xe2\x96", b"a b c", b"a" * 5000, b"<0x", b"<0xZZ>",
    b"<s>",
]  # fmt: skip
FLOATS = [0.0, -0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"), 1.0, 1e-5, 1e4]


@dataclass
class Key:
    name: bytes
    type: int
    value: object  # a number, bytes, or of an array (type, items)

    def packed(self) -> bytes:
        return _text(self.name) + struct.pack("<I", self.type) + _value(self.type, self.value)


@dataclass
class Tensor:
    name: bytes
    shape: list[int]
    type: int
    offset: int

    def packed(self) -> bytes:
        sizes = b"".join(struct.pack("<Q", size % 2**64) for size in self.shape)
        return (
            _text(self.name)
            + struct.pack("<I", len(self.shape))
            + sizes
            + struct.pack("<IQ", self.type % 2**32, self.offset % 2**64)
        )

    def n_bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES.get(self.type, (1, 4))
        return int(np.prod([float(size) for size in self.shape], initial=1)) // block * size


@dataclass
class Model:
    """A header taken apart; its weights are a hole in the file, which costs no disk."""

    keys: list[Key]
    tensors: list[Tensor]
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    data: int = 0  # bytes behind the header

    def header(self) -> bytes:
        counts = [
            len(self.tensors) if self.n_tensors is None else self.n_tensors,
            len(self.keys) if self.n_keys is None else self.n_keys,
        ]
        parts = [b"GGUF", struct.pack("<IQQ", self.version, *counts), *(key.packed() for key in self.keys)]
        return b"".join([*parts, *(tensor.packed() for tensor in self.tensors)])

    def copy(self) -> Model:
        tensors = [replace(tensor, shape=[*tensor.shape]) for tensor in self.tensors]
        return replace(self, keys=[replace(key) for key in self.keys], tensors=tensors)

    def place(self) -> None:
        """Offsets that follow from the sizes, and as much data as they want."""
        at = 0
        for tensor in self.tensors:
            tensor.offset = at
            at += -(-tensor.n_bytes() // 32) * 32
        self.data = min(at, 1 << 40)


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _value(kind: int, value: object) -> bytes:
    if kind == STR:
        return _text(value if isinstance(value, bytes) else str(value).encode())
    if kind == ARR:
        of, items = value if isinstance(value, tuple) else (4, [value])
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    if kind not in _FORMATS:
        return b"\0" * 4
    number = value if isinstance(value, int | float) else 1
    if kind in (6, 12):
        try:
            return struct.pack(_FORMATS[kind], number)
        except OverflowError:
            return struct.pack(_FORMATS[kind], float("inf"))
    if kind == 7:
        return struct.pack("<?", bool(number))
    number = int(number) if number == number and abs(number) != float("inf") else 0
    size = struct.calcsize(_FORMATS[kind])
    return (number % 2 ** (8 * size)).to_bytes(size, "little")


def taken_apart(path: Path) -> Model:
    reader = gguf.GGUFReader(path)
    keys = []
    for name, entry in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kind = entry.types[0].value
        if kind == ARR:
            of = entry.types[1].value
            items = [bytes(entry.parts[i]) if of == STR else entry.parts[i][0].item() for i in entry.data]
            keys.append(Key(name.encode(), kind, (of, items)))
        else:
            part = entry.parts[entry.data[0]]
            keys.append(Key(name.encode(), kind, bytes(part) if kind == STR else part[0].item()))
    tensors = [
        Tensor(t.name.encode(), t.shape.tolist(), t.tensor_type.value, t.data_offset - reader.data_offset)
        for t in reader.tensors
    ]
    return Model(keys, tensors, data=path.stat().st_size - reader.data_offset)


# Mutations: each takes a model apart from the seed, changes it, and may give bytes instead.

ARCHITECTURES = [name.encode() for name in gguf.MODEL_ARCH_NAMES.values()]


def bytes_changed(model: Model, rng: random.Random) -> bytes:
    data = bytearray(model.header())
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8, 32])):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else _beside_a_zero(data, rng)
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, data[at] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    return bytes(data)


def _beside_a_zero(data: bytearray, rng: random.Random) -> int:
    """Where numbers are, which matter more than texts."""
    at = data.find(0, rng.randrange(len(data)))
    return min(max(0, at + rng.randrange(-2, 8)), len(data) - 1)


def cut(model: Model, rng: random.Random) -> bytes:
    data = model.header()
    model.data = 0
    return data[: rng.randrange(len(data))]


def moved(model: Model, rng: random.Random) -> bytes:
    data = model.header()
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    b = min(b, a + rng.choice([1, 4, 8, 64, 4096]))
    piece = data[a:b]
    where = rng.randrange(len(data))
    return rng.choice([data[:a] + data[b:], data[:where] + piece + data[where:], data[:a] + piece[::-1] + data[b:]])


def counts(model: Model, rng: random.Random) -> None:
    which = rng.randrange(3)
    n = rng.choice(EXTREMES)
    if which == 0:
        model.n_keys = rng.choice([n, len(model.keys) + rng.randrange(-3, 4)]) % 2**64
    elif which == 1:
        model.n_tensors = rng.choice([n, len(model.tensors) + rng.randrange(-3, 4)]) % 2**64
    else:
        model.version = rng.choice([0, 1, 2, 4, 3 << 24, 2**32 - 1])


def scalar(model: Model, rng: random.Random) -> None:
    """A number or a text of the metadata: one that llama.cpp reads, as a rule."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        key = rng.choice([key for key in model.keys if key.type != ARR])
        _set(key, rng)


def _set(key: Key, rng: random.Random) -> None:
    if key.type == STR:
        key.value = rng.choice([*WORDS, b"a\0b", b"phi-3", rng.choice(ARCHITECTURES)])
    elif key.type in (6, 12):
        key.value = rng.choice(FLOATS)
    elif key.type == 7:
        key.value = not key.value
    else:
        value = key.value if isinstance(key.value, int) else 0
        key.value = rng.choice([*EXTREMES, value + 1, value - 1, value * 2, value // 2, -1])


def type_changed(model: Model, rng: random.Random) -> None:
    key = rng.choice(model.keys)
    kind = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12])
    if isinstance(key.value, tuple) and rng.random() < 0.7:
        items = key.value[1]
        key.value = (kind, items[: rng.choice([len(items), 5])])
    elif rng.random() < 0.5:
        key.type, key.value = ARR, (kind, [_plain(key.value)] * rng.choice([0, 1, 2, 30, 512, 513]))
    else:
        key.type, key.value = kind, _plain(key.value)


def _plain(value: object) -> object:
    return 1 if isinstance(value, tuple) else value


def keys(model: Model, rng: random.Random) -> None:
    at, other = (rng.randrange(len(model.keys)) for _ in range(2))
    what = rng.randrange(5)
    if what == 0:
        del model.keys[at]
    elif what == 1:
        model.keys.insert(other, replace(model.keys[at]))
    elif what == 2:
        model.keys[at].name = rng.choice([b"", b"a\0", b"\xff", b"k" * 70_000, model.keys[other].name[:-1], b"x"])
    elif what == 3:
        first, second = model.keys[at], model.keys[other]
        first.value, second.value, first.type, second.type = second.value, first.value, second.type, first.type
    else:
        model.keys.append(_more(model, rng))


#: Keys that few models have, and llama.cpp reads of some architecture.
_ADDED = [
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
    "rope.dimension_sections", "rope.scaling.type", "rope.scaling.factor", "rope.freq_base", "expert_count",
    "expert_used_count", "expert_feed_forward_length", "expert_shared_count", "expert_group_count",
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.causal", "pooling_type",
    "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "vocab_size", "leading_dense_block_count",
    "nextn_predict_layers", "attention.kv_lora_rank", "attention.q_lora_rank", "attention.max_alibi_bias",
    "attention.clamp_kqv", "attention.scale", "logit_scale", "residual_scale", "embedding_scale", "ssm.conv_kernel",
    "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count", "wkv.head_size",
    "full_attention_interval", "attention.shared_kv_layers", "attention.group_norm_groups", "features_length",
    "decoder_block_count", "decoder_start_token_id", "embedding_length_out",
    "classifier.output_labels",
    "attention.temperature_length", "attention.indexer.head_count", "attention.output_scale",
    "interleave_moe_layer_step", "shortconv.l_cache", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "final_logit_softcapping",
]  # fmt: skip
_ADDED_ANYWHERE = [
    "general.alignment", "general.file_type", "split.count", "split.no", "split.tensors.count",
    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.suppress_tokens", "tokenizer.ggml.token_type_count", "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.add_eos_token", "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.fim_pre_token_id",
    "general.sampling.top_k", "general.sampling.temp", "adapter.type", "general.type",
]  # fmt: skip


def _more(model: Model, rng: random.Random) -> Key:
    names = [_architecture(model) + b"." + name.encode() for name in _ADDED] + [
        name.encode() for name in _ADDED_ANYWHERE
    ]
    kind = rng.choice([4, 4, 4, 5, 6, 2, 7, STR, ARR])
    if kind == ARR:
        of = rng.choice([0, 4, 5, 5, 6, 7, STR])
        return Key(rng.choice(names), ARR, (of, [rng.choice(EXTREMES)] * rng.choice([0, 1, 2, 4, 30, 512, 513])))
    return Key(rng.choice(names), kind, rng.choice(FLOATS if kind == 6 else EXTREMES))


def _architecture(model: Model) -> bytes:
    return next(
        (key.value for key in model.keys if key.name == b"general.architecture" and isinstance(key.value, bytes)), b""
    )


def other_architecture(model: Model, rng: random.Random) -> None:
    """Its keys under another architecture's name, sometimes with more of what such have."""
    name = rng.choice(ARCHITECTURES)
    old = _architecture(model) + b"."
    for key in model.keys:
        if key.name == b"general.architecture":
            key.value = name
        elif key.name.startswith(old):
            key.name = name + b"." + key.name.removeprefix(old)
    for _ in range(rng.choice([0, 2, 5, 20])):
        key = _more(model, rng)
        if key.name not in {other.name for other in model.keys}:
            model.keys.append(key)
    if rng.random() < 0.5:
        scalar(model, rng)


def vocabulary(model: Model, rng: random.Random) -> None:
    """Tokens, scores, types or merges: other texts, other numbers, fewer or more of them."""
    arrays = [key for key in model.keys if key.type == ARR and isinstance(key.value, tuple)]
    if not arrays:
        return
    key = rng.choice(arrays)
    of, items = key.value
    items = [*items]
    what = rng.randrange(4)
    if what == 0 or not items:
        items = items[: rng.choice([0, 1, 2, 3, 5, 10, 261, len(items) // 2, max(0, len(items) - 1)])]
    elif what == 1:
        items += [items[-1]] * rng.choice([1, 2, 100])
    else:
        for _ in range(rng.choice([1, 1, 2, 8, 50])):
            at = rng.randrange(len(items))
            if of == STR:
                items[at] = rng.choice([*PIECES, rng.choice(items)])
            else:
                items[at] = rng.choice(FLOATS if of in (6, 12) else [*EXTREMES, -1, 2, 3, 4, 5, 6])
    key.value = (of, items)


def tensors(model: Model, rng: random.Random) -> None:
    if not model.tensors:
        return
    for _ in range(rng.choice([1, 1, 2])):
        at, other = (rng.randrange(len(model.tensors)) for _ in range(2))
        tensor = model.tensors[at]
        what = rng.randrange(7)
        if what == 0 and len(model.tensors) > 1:
            del model.tensors[at]
        elif what == 1:
            model.tensors.insert(other, replace(tensor, shape=[*tensor.shape]))
        elif what == 2:
            names = [b"", b"x" * 63, b"x" * 64, b"a\0b", b"rope_freqs.weight", b"output.bias"]
            tensor.name = rng.choice([*names, model.tensors[other].name, tensor.name + b"x"])
        elif what == 3:
            tensor.shape = rng.choice(
                [tensor.shape[::-1], [*tensor.shape, 1], tensor.shape[:1], [], [1], tensor.shape * 2]
            )
        elif what == 4 and tensor.shape:
            at = rng.randrange(len(tensor.shape))
            tensor.shape[at] = rng.choice([*EXTREMES, tensor.shape[at] + 1, tensor.shape[at] * 2])
        elif what == 5:
            tensor.type = rng.choice([*range(45), 2**31, 2**32 - 1])
        else:
            tensor.offset = rng.choice([*EXTREMES, tensor.offset + 32, max(0, tensor.offset - 32)])
    if rng.random() < 0.7:
        model.place()


def all_tensors(model: Model, rng: random.Random) -> None:
    """Every tensor of a kind at once, as a hostile maker would have it: the sizes agree with each other."""
    kind = rng.choice([*range(4), *range(6, 31), 34, 35, *range(39, 43)])
    old = rng.choice([size for tensor in model.tensors for size in tensor.shape] or [1])
    new = rng.choice([0, 1, 2, 3, 7, 16, 32, 48, 128, old + 1, old * 2, old // 2])
    for tensor in model.tensors:
        if rng.random() < 0.5 and len(tensor.shape) > 1:
            tensor.type = kind
        tensor.shape = [new if size == old else size for size in tensor.shape]
    for key in model.keys:
        if key.type in (4, 5, 10) and key.value == old:
            key.value = new
    model.place()


MUTATIONS: list[Callable[[Model, random.Random], bytes | None]] = [
    bytes_changed, bytes_changed, cut, moved, counts, scalar, scalar, type_changed, keys, keys, other_architecture,
    vocabulary, vocabulary, tensors, all_tensors,
]  # fmt: skip


def mutation(models: list[Model], seed: int, number: int) -> tuple[str, bytes, int]:
    """What was done, the header, and how many bytes are behind it.  The number decides all of it."""
    rng = random.Random(f"{seed}/{number}")
    model = rng.choice(models).copy()
    names, header = [], None
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutate = rng.choice(MUTATIONS)
        names.append(mutate.__name__)
        header = mutate(model, rng)
        if header is not None:
            break
    header = model.header() if header is None else header
    return "+".join(names), header + b"\0" * (-len(header) % 32), model.data


def make_models(folder: Path) -> list[Model]:
    import tiny_models

    models = []
    for kind in ("llama", "tekken", "sliding_window", "recurrent", "embedding"):
        path = folder / f"{kind}.gguf"
        getattr(tiny_models, f"write_{kind}")(path)
        models.append(taken_apart(path))
    return models


# What becomes of them.


def is_ordinary(path: Path) -> bool:
    """Check one in this process, with little memory; what is not a ModelError is the check's fault, and raised."""
    try:
        with little_memory():
            return not find_unusual(read_header(path))
    except ModelError as error:
        says = str(error)
    assert "\n" not in says and len(says) < 1000, says
    return False


@contextmanager
def little_memory() -> Iterator[None]:
    """No more than the allowance above what this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def load(path: Path) -> None:
    """Load it as pjlocal does, make a context, and decode a token."""
    backend._is_forked = False  # nothing was computed before the fork: no thread is missing
    interrupt = Interrupt()
    context = Context(
        LoadedModel(path, Engine(n_gpu_layers="0"), interrupt, trusted=True), Engine(), 64, 1, 1, interrupt
    )
    context.decode([0], [0], [0], 1)


def fate(path: Path) -> str:
    """What becomes of a child that loads it: ``ends``, ``refused``, ``bug``, or the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.environ["GGML_NO_BACKTRACE"] = "1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(f"{path}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        signal.alarm(20)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            load(path)
        except (PjlocalError, MemoryError):
            os._exit(1)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return {0: "ends", 1: "refused"}.get(os.WEXITSTATUS(status), "bug")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checks", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=500)
    args = parser.parse_args()
    backend.init_backend()  # once, for all children
    tally: Counter[str] = Counter()
    loads = bad = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        models = make_models(Path(folder))
        path = Path(folder) / "mutated.gguf"
        for number in range(args.checks):
            what, header, n_data = mutation(models, args.seed, number)
            with path.open("wb") as file:
                file.write(header)
                file.truncate(len(header) + max(0, min(n_data, 1 << 40)))
            started = time.process_time()
            ordinary = is_ordinary(path)
            seconds = time.process_time() - started
            tally["ordinary" if ordinary else "told"] += 1
            if seconds > MOST_SECONDS:
                bad += 1
                print(f"{number} {what}: the check took {seconds:.1f} s")
            if ordinary and loads < args.loads:
                loads += 1
                outcome = fate(path)
                tally[f"load: {outcome}"] += 1
                if outcome not in ("ends", "refused"):
                    bad += 1
                    said = Path(f"{path}.stderr").read_text(errors="replace").strip().splitlines()
                    print(f"{number} {what}: {outcome} {' | '.join(said[-2:])[:300]}", flush=True)
    print(f"seed {args.seed}: {dict(tally)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    raise SystemExit(main())
