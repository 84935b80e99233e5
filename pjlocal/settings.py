"""Every setting in one place: name, default, limits, flags and help text.

The command line, the Python API and the benchmark take their settings from these dataclasses, so an option exists
once.  A value is checked when the dataclass is made; later code trusts its type.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import json
import math
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import PjlocalError, UsageError, did_you_mean, join_names
from .textfile import read_text, user_path

if TYPE_CHECKING:
    from typing_extensions import Self

VIEW_NAMES = "ab"  # names of the two views
VIEW_LETTERS = "abcdefghijklmnopqrstuvwxyz"  # names of views that have one preference each

Mode = Literal["judge", "base", "both", "prompt", "rewrite", "plain"]
#: Modes in which one preference drafts and another judges, and modes of one view.
JUDGED: tuple[Mode, ...] = ("judge", "base", "both")
OF_ONE_VIEW: tuple[Mode, ...] = ("prompt", "rewrite", "plain")
#: Modes in which nothing pushes tokens: plain has no preferences, and rewrite asks for them in words.
UNPUSHED: tuple[Mode, ...] = ("plain", "rewrite")
#: The mode of a request with preferences that names none, and the number of its views: a, b, joint and neutral.
DEFAULT_MODE: Mode = "both"
DEFAULT_VIEWS = 4
Decoding = Literal["sample", "greedy"]
Schedule = Literal["lockstep", "reference"]
Placement = Literal["system", "user-turn", "question"]
Think = Literal["auto", "on", "off"]
Effort = Literal["low", "medium", "high"]
FixedLayout = Literal["contexts", "batched"]
Layout = Literal["contexts", "batched", "auto"]
LAYOUTS: tuple[FixedLayout, ...] = get_args(FixedLayout)
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
SplitMode = Literal["layer", "row", "none"]
FlashAttention = Literal["auto", "on", "off"]
SamplingDefaults = Literal["own", "model"]
View = Literal["text", "blame", "push", "markdown"]
#: The second half of the help of --view and /view.
VIEW_HELP = "blame colours each token by the view that wrote it, push by the preference that made it more probable"
Thoughts = Literal["show", "hide", "stderr"]


def setting(default: Any, *flags: str, help: str = "", **limits: Any) -> Any:
    """A dataclass field with its command-line flags, help text and limits (least, most, above, below)."""
    if isinstance(default, bool):
        flags = tuple(f"{on}/--no-{on.removeprefix('--')}" for on in flags)
    return field(default=default, metadata={"flags": flags, "help": help, **limits})


@cache
def _hints(settings: type[Settings]) -> dict[str, Any]:
    """The types of a class's fields, cached: reading them takes 0.4 ms, and every change of a setting needs them
    twice."""
    return get_type_hints(settings)


@dataclass(frozen=True)
class Settings:
    """Base class of the settings: converts the values of a Python program, and checks each against its limits.

    Raises:
        UsageError: a value has the wrong type, or is outside its limits.
    """

    def __post_init__(self) -> None:
        hints = _hints(type(self))  # type: ignore[arg-type]
        with by_keywords(type(self)):
            for f in dataclasses.fields(self):
                value = _converted(f, hints[f.name], getattr(self, f.name))
                object.__setattr__(self, f.name, value)
                _check(f, hints[f.name], value)
            self._check_together()

    def _check_together(self) -> None:
        """Refuse combinations of values, and values that limits cannot describe."""

    def replace(self, **changes: Any) -> Self:
        """A copy with changes.  None is ignored for a setting that cannot be None."""
        hints = _hints(type(self))  # type: ignore[arg-type]
        kept = {name: value for name, value in changes.items() if value is not None or _may_be_none(hints.get(name))}
        return dataclasses.replace(self, **kept)

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, for JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings of an `as_dict`.  Missing names get their defaults, and unknown names of other versions are
        ignored."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})

    @classmethod
    def parse(cls, name: str, text: str) -> Any:
        """The value of a field from a typed text; ``default`` is the default.  Its limits are not checked.

        Raises:
            UsageError: the text is not a value of the field's type.
        """
        f = next(f for f in dataclasses.fields(cls) if f.name == name)
        hint = without_none(_hints(cls)[name])  # type: ignore[arg-type]
        value: Any = text
        if text == "default":
            value = f.default
        elif hint == tuple[str, ...]:
            value = tuple(_words(text))
        elif hint is bool:
            value = {"on": True, "true": True, "off": False, "false": False}.get(text.lower())
            if value is None:
                raise UsageError(f"{flag(f)} must be on or off (not {text!r})")
        elif hint in (int, float):
            try:
                value = hint(text)
            except ValueError:
                number = "a whole number" if hint is int else "a number"
                raise UsageError(f"{flag(f)} must be {number} (not {text!r})") from None
        elif what := f.metadata.get("file"):
            value = read_text(text, what)
        return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise UsageError(f"a quotation mark is missing in {text}") from None


def _may_be_none(hint: Any) -> bool:
    return hint is None or NoneType in get_args(hint)


def without_none(hint: Any) -> Any:
    """The type in ``type | None``; other types unchanged."""
    return next(x for x in get_args(hint) if x is not NoneType) if NoneType in get_args(hint) else hint


def is_in_union(hint: Any, value: Any) -> bool:
    """True if the value has one of the types in a union, as in ``bool | str | None``."""
    return get_origin(hint) in (Union, UnionType) and type(value) in get_args(hint)


def flag(f: dataclasses.Field[Any]) -> str:
    """The long flag of a setting, as in messages."""
    named = next((x for x in f.metadata.get("flags", ()) if x.startswith("--")), "--" + f.name.replace("_", "-"))
    return named.partition("/")[0]  # the first of --mmap/--no-mmap


@contextlib.contextmanager
def by_keywords(*groups: type[Settings], also: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Name settings by their Python keywords in errors raised within.  `errors.explain`, for the command line, still
    names their flags.

    Args:
        also: more flags, with their keywords.
    """
    try:
        yield
    except PjlocalError as error:
        message = EXAMPLE.sub(lambda found: f"prefer={found[0].split()[1::2]}", str(error))
        message = rename_flags(message, flag_names(*groups) | dict(also))
        if message == str(error):
            raise
        renamed = copy.copy(error)
        renamed.in_flags = error.in_flags or str(error)
        renamed.args = (message, *error.args[1:])
        raise renamed.with_traceback(error.__traceback__) from None


def flag_names(*groups: type[Settings]) -> dict[str, str]:
    """The names of settings by their flags."""
    return {flag(f): f.name for group in groups for f in dataclasses.fields(group)}


def field_names(*groups: type[Settings]) -> dict[str, str]:
    """The flags of settings by their names in JSON: their keys, and the flags without dashes."""
    return {name: flag for flag, key in flag_names(*groups).items() for name in (key, flag[2:].replace("-", "_"))}


def rename_flags(message: str, names: Mapping[str, str]) -> str:
    """The message with flags replaced by other names; unknown flags stay."""
    return re.sub(r"--[a-z][\w-]*", lambda match: names.get(match[0], match[0]), message)


#: Preferences as a message names them for the command line.
EXAMPLE = re.compile(r"(?<!\S)-p [\w-]+(?: -p [\w-]+)*")


def in_chat_words(text: str) -> str:
    """A message or a help text with the commands and the settings of a chat instead of the command line's options."""
    text = EXAMPLE.sub(lambda found: f"/prefer {found[0].replace('-p ', '')}", text)
    names = {flag: flag[2:] for flag in flag_names(Generation, Sampling, Prompting)}
    return rename_flags(text, names | {"--draft-prefer": "/prefer a", "--judge-prefer": "/prefer b"})


#: Settings of earlier versions, with advice.
REMOVED = {
    "rule": "it was removed, and mode both adds the pushes: leave it out",
    "panel": "it was removed, and preferences of several strengths have a view each: leave it out",
}


def key_of(name: str) -> str:
    """The key of the setting whose flag has this name, as ``n_ctx`` for ``ctx``; other names unchanged."""
    return flag_names(Generation, Sampling, Prompting, Engine).get(f"--{name.replace('_', '-')}", name)


_ALIKE = 0.85  # of two names that may be one setting


def similar_name(name: str, known: Collection[str]) -> str | None:
    """The setting that an unknown field may mean: the one whose flag has this name, or almost this name."""
    if (key := key_of(name)) in known:
        return key
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)), None)


def advise(name: str, known: Collection[str], most: int = 3) -> str:
    """Advice about an unknown setting: that it was removed, the one whose flag has this name, or the settings with
    similar names; empty without any."""
    if (key := key_of(name)) in known:
        return f"did you mean {key}?"
    return REMOVED.get(name) or did_you_mean(name, known, most)


#: The sampling settings that a model's makers can recommend, in its file or for Ollama.
RECOMMENDABLE = frozenset(
    {"temperature", "top_k", "top_p", "min_p", "typical_p", "xtc_probability", "xtc_threshold", "penalty_last_n"}
    | {"repeat_penalty", "presence_penalty", "frequency_penalty"}
)

_BEYOND_FLOATS = 2**1023
_KINDS: Mapping[Any, str] = {
    str: "a text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple[int, ...]: "a list of whole numbers, as in [0, 1]",
    tuple[str, ...]: 'a list of texts, as in ["one", "two"]',
}


def kind(hint: Any) -> str:
    """A noun phrase for the values of a type."""
    hint = without_none(hint)
    return f"one of {', '.join(get_args(hint))}" if get_origin(hint) is Literal else _KINDS[hint]


def _as_in_file(value: Any) -> str:
    if value is None or isinstance(value, bool | list | dict):
        return textwrap.shorten(json.dumps(value, ensure_ascii=False, default=str), 100, placeholder=" …")
    return repr(value)


def typed(name: str, hint: Any, value: Any, or_number: bool = False, show: Callable[[Any], str] = _as_in_file) -> Any:
    """Convert a value of a file or request to a type; settings check the choices and limits themselves.

    Args:
        name: the setting's name in messages.
        or_number: accept a number instead of a text.
        show: formats a value for messages.

    Raises:
        UsageError: the value has another type.
    """
    if is_in_union(hint, value):
        return value
    hint = without_none(hint)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if or_number and is_number:
        return str(value)
    if hint is int and is_number and value % 1 == 0:
        return int(value)
    if hint is float and is_number and (isinstance(value, float) or abs(value) < _BEYOND_FLOATS):
        return float(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    if get_origin(hint) is Literal and isinstance(value, str):
        return value
    if get_origin(hint) is tuple and isinstance(value, list) and all(type(item) is get_args(hint)[0] for item in value):
        return tuple(value)
    expected = f"{'a number or ' if or_number else ''}{kind(hint)}"
    raise UsageError(f"{name} must be {expected} (not {show(value):.100})")


def _converted(f: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """Convert the value of a Python program.  It may also be a text for a list of one, a dict for a JSON schema or
    logit bias, a Path for a file's text or name, a NumPy number, or None for the default."""
    if value is None:
        return None if NoneType in get_args(hint) or f.default is dataclasses.MISSING else f.default
    if is_in_union(hint, value):
        return value
    hint = without_none(hint)
    if type(value) is hint:
        return value
    if getattr(value, "shape", None) == ():  # a scalar of NumPy
        value = value.item()
    if isinstance(value, os.PathLike):
        value = read_text(Path(value), f.metadata["file"]) if "file" in f.metadata else os.fspath(value)
    if hint is str and f.name == "json_schema" and isinstance(value, Mapping | bool):
        return _as_json(value)
    if hint == tuple[str, ...]:
        if f.name == "logit_bias" and isinstance(value, Mapping):
            value = [f"{key}={number}" for key, number in value.items()]
        texts = [value] if isinstance(value, str | Mapping) or not isinstance(value, Iterable) else [*value]
        texts = [os.fspath(text) if isinstance(text, os.PathLike) else text for text in texts]
        if all(isinstance(text, str) for text in texts):
            return tuple(texts)
        raise UsageError(f"{flag(f)} must be a text or a list of texts (not {value!r:.100})")
    if hint not in (str, bool, int, float):
        return value
    return typed(flag(f), hint, value, f.metadata.get("or_number", False), show=repr)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--json-schema cannot be used: {error}") from None


def _check(f: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    if value is None:
        return
    hint = without_none(hint)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{flag(f)} must be one of {', '.join(get_args(hint))} (not {value!r})")
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    limits = f.metadata
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{flag(f)} must be a finite number (not {value})")
    if (least := limits.get("least")) is not None and value < least:
        raise UsageError(f"{flag(f)} must be at least {least} (not {value})")
    if (below := limits.get("below")) is not None and value >= below:
        raise UsageError(f"{flag(f)} must be below {below} (not {value})")
    if (above := limits.get("above")) is not None and value <= above:
        raise UsageError(f"{flag(f)} must be above {above} (not {value})")
    if (most := limits.get("most")) is not None and value > most:
        raise UsageError(f"{flag(f)} must be at most {most} (not {value})")


_INT32 = 2**31 - 1
_MOST_MARKS = 64  # tokens of the marks around the thinking
_MOST_DEVICES = 16  # of llama.cpp's build
DEFAULT_N_CTX = 8192  # most tokens of a view, unless --ctx is given
_MOST_STRENGTH = 10


def random_seed() -> int:
    """A seed of 53 bits.  JavaScript rounds larger integers, and the page must show the exact seed."""
    return int.from_bytes(os.urandom(7), "big") >> 3


def parse_strength(text: str) -> float | None:
    """Parse a strength from -10 to 10; None for ``auto``.

    Raises:
        UsageError: the text is neither.
    """
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_MOST_STRENGTH <= value <= _MOST_STRENGTH:
        raise UsageError(f"a strength is a number from -{_MOST_STRENGTH} to {_MOST_STRENGTH}, or auto (not {text!r})")
    return value


_MOST_BIAS = 1e6  # logits are of the order of ten, and larger biases could overflow float32


def split_bias(entry: str) -> tuple[str, float]:
    """The token and the bias of ``TOKEN=BIAS``; BIAS may be ``-inf``.

    Raises:
        UsageError: the form is wrong, or the bias too large.
    """
    text, _, number = entry.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = math.nan
    if not text or math.isnan(bias) or bias == math.inf:
        raise UsageError(f"--logit-bias {entry!r} is not TOKEN=BIAS, as in 'hello=-5' or '42=-inf'")
    if bias > _MOST_BIAS:
        raise UsageError(f"--logit-bias {entry!r}: a bias must be at most {_MOST_BIAS:,.0f}")
    return text, bias


_SCALED = re.compile(r"(?P<file>.+?)(?::(?P<scale>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))?", re.DOTALL)
_MOST_SCALE = 1000


def split_scale(spec: str) -> tuple[str, float]:
    """An adapter's file and the scale after its last colon, as in ``pirate.gguf:0.5``; 1 by default.

    Raises:
        UsageError: the file is missing, or the scale is outside its limits.
    """
    match = _SCALED.fullmatch(spec)
    if match is None:
        raise UsageError("an adapter is named by its file, as in pirate.gguf or pirate.gguf:0.5")
    scale = float(match["scale"] or 1)
    if not -_MOST_SCALE <= scale <= _MOST_SCALE:
        raise UsageError(f"{spec}: a scale is a number from -{_MOST_SCALE} to {_MOST_SCALE}")
    return match["file"], scale


def with_whole_path(spec: str, folder: Path = Path()) -> str:
    """An adapter with the absolute path of its file, which is relative to ``folder``."""
    file, _ = split_scale(spec)
    return f"{folder.absolute() / user_path(file)}{spec[len(file) :]}"


#: The settings that name adapters: for all views, for view a, and for view b.
ADAPTERS = {
    "": ("lora", "control_vector"),
    "a": ("lora_a", "control_vector_a"),
    "b": ("lora_b", "control_vector_b"),
}
#: The settings that constrain the answer; at most one of them can be set.
FORMS = ("grammar", "json_schema", "regex", "lark")


_FOR_ALL_VIEWS = "(GGUF) for all views, with a scale as in FILE:0.5 (repeatable: scales add up)."


def _adapters(flag: str, help: str) -> Any:
    return setting((), flag, help=help, metavar="FILE[:SCALE]", adapter=True)


@dataclass(frozen=True)
class Generation(Settings):
    """The writing of one answer by two views.  The default of λ is that of the paper authors' program."""

    mode: Mode | None = setting(
        None,
        "--mode",
        help="both: all preferences weigh each token together; judge: the paper's rule, in which the views swap "
        "roles every round; base: fixed roles; prompt: all preferences in one prompt; rewrite: a plain answer, then "
        "its correction by the preferences (as Aligner does); plain: no preferences (default: both with "
        "preferences, plain without).",
    )
    strength: str | None = setting(
        None,
        "--strength",
        help="Guidance scale of the preferences, from -10 to 10: 1 is their ordinary effect, more exaggerates it, 0 "
        "removes it, and below 0 reverses it. auto is about 1.7, and more for a token that a preference changes much. "
        "For one preference: -p vivid:1.5 (default: auto in mode both, else 1).",
        metavar="S|auto",
        or_number=True,
    )
    avoid: tuple[str, ...] = setting(
        (),
        "--avoid",
        help="A negative preference, from which the answer is pushed away: a preset, free text or @FILE, with a "
        "strength as in TEXT:2 (repeatable). It needs a preference beside it.",
        metavar="TEXT[:S]",
    )
    floor: float = setting(
        0.1,
        "--floor",
        help="Plausibility threshold (alpha of contrastive decoding), in mode both and with strengths: a token must "
        "have at least this share of the best token's probability under some preference at its ordinary strength; 0 "
        "is off.",
        least=0,
        below=1,
    )
    aligner: str | None = setting(
        None,
        "--aligner",
        help="The model that corrects the first answer in mode rewrite, named as for --model (default: the same "
        "model).",
        metavar="MODEL",
        model=True,
        unset="the same model",
    )
    lora: tuple[str, ...] = _adapters("--lora", f"A LoRA adapter {_FOR_ALL_VIEWS}")
    lora_a: tuple[str, ...] = _adapters("--lora-a", "A LoRA adapter for view a alone, as its preference.")
    lora_b: tuple[str, ...] = _adapters("--lora-b", "A LoRA adapter for view b alone, as its preference.")
    control_vector: tuple[str, ...] = _adapters("--control-vector", f"A control vector {_FOR_ALL_VIEWS}")
    control_vector_a: tuple[str, ...] = _adapters(
        "--control-vector-a", "A control vector for view a alone, as its preference."
    )
    control_vector_b: tuple[str, ...] = _adapters(
        "--control-vector-b", "A control vector for view b alone, as its preference."
    )
    lam: int = setting(
        4, "--lambda", "-l", help="Tokens drafted in a round before the roles swap.", least=1, most=_INT32
    )
    decoding: Decoding = setting(
        "sample",
        "--decoding",
        help="How the draft chooses tokens: sample from its distribution, or greedy for its most probable token.",
    )
    schedule: Schedule = setting(
        "lockstep",
        "--schedule",
        help="When drafted tokens are judged: each one immediately (lockstep), or a round at a time (reference, "
        "Algorithm 1 of the paper). Both give the same text.",
    )
    max_tokens: int = setting(
        1024, "--max-tokens", "-n", help="Length limit of the answer, in tokens.", least=1, most=_INT32
    )
    best: int = setting(
        1,
        "--best",
        help="Write this number of answers at once, score each by the preference that it meets least, and keep the "
        "best. With --seed, the answers have consecutive seeds. It needs a strength other than 1, "
        "which mode both has by default, or --avoid.",
        least=1,
        most=16,
    )
    think_tokens: int | None = setting(
        None,
        "--think-tokens",
        help="Length limit of a reasoning model's thinking, in tokens. At the limit the thinking ends and the answer "
        "begins; --max-tokens then limits the answer alone (default: thinking and answer share --max-tokens).",
        least=0,
        most=_INT32,
        unset="shares --max-tokens",
    )
    push_thoughts: bool = setting(
        False,
        "--push-thoughts",
        help="Let the preferences push the thinking of a reasoning model too. Otherwise the neutral view, if there is "
        "one, writes the thinking.",
    )
    lookahead: int = setting(
        0,
        "--lookahead",
        help="Guess up to this many tokens ahead where the answer repeats its context. The text is the same, and "
        "such passages are faster; 0 is off.",
        least=0,
        most=31,
    )
    min_tokens: int = setting(
        0,
        "--min-tokens",
        help="Least number of tokens of the answer, unless a constraint ends it earlier, or --max-tokens is less.",
        least=0,
        most=_INT32,
    )
    ignore_end: bool = setting(False, "--ignore-end", help="Continue past the end-of-generation token.")
    stop: tuple[str, ...] = setting((), "--stop", help="Text that ends the answer (repeatable).")
    stop_token: tuple[str, ...] = setting(
        (), "--stop-token", help="Token that ends the answer, by its id or its text (repeatable).", metavar="TOKEN"
    )
    seed: int | None = setting(
        None,
        "--seed",
        help="Seed of the answer; without it, or with -1, a random one.",
        least=-1,
        most=2**63 - 1,
        unset="random",
    )

    def _check_together(self) -> None:
        if self.strength is not None:
            parse_strength(self.strength)
        if self.seed == -1:
            object.__setattr__(self, "seed", None)
        if "" in self.stop:
            raise UsageError("--stop must not be empty: it would end every answer before its first token")
        for _, spec in self.adapters():
            split_scale(spec)

    @property
    def most_tokens(self) -> int:
        """The most tokens of the thinking, its marks and the answer together."""
        return self.max_tokens + (0 if self.think_tokens is None else self.think_tokens + _MOST_MARKS)

    def adapters(self) -> tuple[tuple[str, str], ...]:
        """Every adapter of every view, with the name of its setting."""
        return tuple((name, spec) for names in ADAPTERS.values() for name in names for spec in getattr(self, name))

    @property
    def adapts_views(self) -> bool:
        """True if a view has an adapter of its own, which acts as its preference; an adapter at scale 0 does not
        count."""
        own = (spec for view in VIEW_NAMES for name in ADAPTERS[view] for spec in getattr(self, name))
        return any(split_scale(spec)[1] for spec in own)

    def with_whole_paths(self) -> Self:
        """A copy with absolute paths of all adapters."""
        whole = {
            name: tuple(map(with_whole_path, getattr(self, name))) for names in ADAPTERS.values() for name in names
        }
        return self.replace(**whole)


@dataclass(frozen=True)
class Sampling(Settings):
    """llama.cpp's filters, applied to each view by itself, in llama.cpp's order.

    Top-k and top-p are those of the paper authors' program.  That program samples at temperature 0.9, applied before
    them; 0.7 is only a default inside it.
    """

    defaults: SamplingDefaults = setting(
        "own",
        "--sampling",
        help="Defaults of the filters: own for pjlocal's, model for those in the model's file (or in Ollama's "
        "parameters for it).",
    )
    temperature: float = setting(0.7, "--temperature", "-t", help="Temperature of sampling; 0 is greedy.", least=0)
    top_k: int = setting(
        20, "--top-k", "-k", help="Keep the k most probable tokens; 0 keeps all.", least=0, most=_INT32
    )
    top_p: float = setting(
        0.9, "--top-p", help="Keep the most probable tokens up to this mass; 1 keeps all.", above=0, most=1
    )
    min_p: float = setting(
        0.0, "--min-p", help="Drop tokens below this share of the best token's probability; 0 is off.", least=0, most=1
    )
    top_n_sigma: float = setting(
        0.0,
        "--top-n-sigma",
        help="Drop tokens whose logit is more than this many standard deviations below the best one; 0 is off.",
        least=0,
    )
    typical_p: float = setting(
        1.0, "--typical-p", help="Locally typical sampling: keep this probability mass; 1 is off.", above=0, most=1
    )
    repeat_penalty: float = setting(
        1.0, "--repeat-penalty", help="Divide the logits of recent tokens by this; 1 is off.", least=0.001, most=1000
    )
    frequency_penalty: float = setting(
        0.0,
        "--frequency-penalty",
        help="Lower a token's logit by this for each recent occurrence; 0 is off.",
        least=-1000,
        most=1000,
    )
    presence_penalty: float = setting(
        0.0, "--presence-penalty", help="Lower the logits of recent tokens by this; 0 is off.", least=-1000, most=1000
    )
    penalty_last_n: int = setting(
        64,
        "--penalty-last-n",
        help="Number of recent tokens that the penalties count, the prompt's end included.",
        least=0,
        most=_INT32,
    )
    dry_multiplier: float | None = setting(
        None,
        "--dry-multiplier",
        help="DRY repetition penalty; 0 is off (default in mode both: 0.8 for more than 6 repeated tokens of the "
        "answer, unless another penalty or a constraint such as --regex is set; else off).",
        least=0,
        unset="by the mode",
    )
    dry_base: float = setting(1.75, "--dry-base", help="Growth of the DRY penalty.", least=1)
    dry_allowed_length: int = setting(
        2, "--dry-allowed-length", help="Longest repetition that DRY does not penalize.", least=0, most=_INT32
    )
    dry_last_n: int = setting(
        1024,
        "--dry-last-n",
        help="Number of recent tokens that DRY searches, the prompt's end included.",
        least=0,
        most=_INT32,
    )
    xtc_probability: float = setting(
        0.0, "--xtc-probability", help="Chance that XTC drops the top choices; 0 is off.", least=0, most=1
    )
    xtc_threshold: float = setting(
        0.1, "--xtc-threshold", help="Probability from which XTC drops tokens.", least=0, most=1
    )
    logit_bias: tuple[str, ...] = setting(
        (),
        "--logit-bias",
        help="Add BIAS to the logit of TOKEN, which is an id or the text of one token (repeatable).",
        metavar="TOKEN=BIAS",
    )
    grammar: str | None = setting(
        None, "--grammar", help="A GBNF grammar that the answer follows.", file="grammar file"
    )
    json_schema: str | None = setting(
        None,
        "--json-schema",
        help="A JSON schema: the answer is JSON that validates against it.",
        file="JSON schema file",
    )
    regex: str | None = setting(
        None, "--regex", help="A regular expression that the whole answer matches.", metavar="PATTERN"
    )
    lark: str | None = setting(
        None, "--lark", help="A grammar in llguidance's Lark format that the answer follows.", file="Lark grammar file"
    )

    def _check_together(self) -> None:
        given = [flag(f) for f in dataclasses.fields(self) if f.name in FORMS and getattr(self, f.name) is not None]
        if len(given) > 1:
            raise UsageError(f"{join_names(given)} exclude each other: give one")
        if self.regex == "":
            raise UsageError("--regex must not be empty: it would leave every answer empty")
        for entry in self.logit_bias:
            split_bias(entry)


@dataclass(frozen=True)
class Engine(Settings):
    """The context, threads, devices and memory of llama.cpp."""

    n_ctx: int | None = setting(
        None,
        "--ctx",
        help="Context size of each view, in tokens (default: the model's training length, at most 8192).",
        least=8,
        most=_INT32,
    )
    n_batch: int = setting(512, "--batch-size", help="Prompt tokens read at a time.", least=1, most=65536)
    n_threads: int | None = setting(
        None,
        "--threads",
        help="Most CPU threads for all views together (default: the physical cores, or fewer if a container or the "
        "CPU affinity limits them).",
        least=1,
        most=1024,
    )
    n_gpu_layers: str = setting(
        "auto",
        "--gpu-layers",
        help="Layers on the graphics card: auto (as many as fit beside the caches of all views), a number, or all.",
        metavar="auto|N|all",
        or_number=True,
    )
    gpu_margin: int = setting(
        1024,
        "--gpu-margin",
        help="MiB of each device's memory that auto leaves free.",
        least=0,
        most=_INT32,
    )
    split_mode: SplitMode = setting(
        "layer",
        "--split-mode",
        help="How several devices share a model: layer by layer, each matrix by rows, or not at all (none).",
    )
    tensor_split: str | None = setting(
        None,
        "--tensor-split",
        help="Share of the layers for each device, as in 3,1 (default: by free memory).",
        metavar="N,N,...",
    )
    main_gpu: int = setting(
        0,
        "--main-gpu",
        help="Number of the device that --split-mode none uses.",
        least=0,
        most=_MOST_DEVICES - 1,
    )
    rpc: tuple[str, ...] = setting(
        (),
        "--rpc",
        help="Another machine whose llama.cpp server (rpc-server) holds layers too (repeatable). Never use it over "
        "an open network: anyone who reaches that server controls its machine.",
        metavar="HOST:PORT",
    )
    cache_type_k: CacheType = setting("f16", "--cache-type-k", help="Type of the KV cache's keys.")
    cache_type_v: CacheType = setting("f16", "--cache-type-v", help="Type of the KV cache's values.")
    layout: Layout = setting(
        "auto",
        "--layout",
        help="Contexts of the views: contexts (one for each view, side by side), batched (one for all), or auto "
        "(contexts for two views with two threads on a CPU, else batched).",
    )
    flash_attn: FlashAttention = setting("auto", "--flash-attn", help="Flash attention.")
    mmap: bool = setting(
        True,
        "--mmap",
        help="Map the model file into memory. With --no-mmap the whole file is read at the start, and may change "
        "afterwards.",
    )
    mlock: bool = setting(False, "--mlock", help="Lock the weights in memory, so that they are never swapped out.")
    verbose: bool = setting(False, "--verbose", help="Show llama.cpp's own log on standard error.")

    def _check_together(self) -> None:
        if not re.fullmatch(r"auto|all|-1|\d{1,6}", self.n_gpu_layers):
            raise UsageError(f"--gpu-layers must be auto, all or a number of layers (not {self.n_gpu_layers!r})")
        if self.tensor_split is not None:
            _parse_split(self.tensor_split)
        for server in self.rpc:
            parse_address(server)

    @property
    def gpu_layers(self) -> int | None:
        """The number of layers on devices: -1 for all, None for as many as fit."""
        return None if self.n_gpu_layers == "auto" else -1 if self.n_gpu_layers == "all" else int(self.n_gpu_layers)

    @property
    def split(self) -> tuple[float, ...]:
        """The share of each device; empty by default."""
        return _parse_split(self.tensor_split) if self.tensor_split else ()


def _parse_split(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not 0 < len(shares) <= _MOST_DEVICES or not all(0 <= share < math.inf for share in shares) or not sum(shares):
        raise UsageError(f"--tensor-split must be up to {_MOST_DEVICES} shares, as in 3,1 (not {text!r})")
    return shares


def parse_address(text: str) -> tuple[str, int]:
    """Parse the host and port of a server, as in ``192.168.1.5:50052``.

    Raises:
        UsageError: the text is not an address.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rpc must be HOST:PORT, as in 192.168.1.5:50052 (not {text!r})")
    return host, int(port)


@dataclass(frozen=True)
class Prompting(Settings):
    """The place of the preferences in the prompt, and the settings that all views share."""

    system: str = setting("", "--system", "-s", help="A system text that all views share.")
    placement: Placement = setting(
        "question",
        "--placement",
        help="Where a preference is put in the prompt: question (after the question: the strongest place, and all "
        "text before it is read once for all views), system (in the system message), or user-turn (in a user "
        "turn of its own).",
    )
    begin: str = setting(
        "", "--begin", help="The first words of the answer, which the model continues.", metavar="TEXT"
    )
    think: Think = setting(
        "auto",
        "--think",
        help="Whether a reasoning model thinks before it answers, if its chat template has a switch for that.",
    )
    reasoning_effort: Effort | None = setting(
        None,
        "--reasoning-effort",
        help="How much a reasoning model thinks, if its chat template reads an effort, as gpt-oss's does.",
        unset="the template's own",
    )
