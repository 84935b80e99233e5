"""Convert fields of other servers' protocols to settings of pjlocal.

Covers llama.cpp's server, vLLM, Ollama, Hugging Face's TGI, SGLang, text-generation-webui, KoboldCpp and OpenRouter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..request import KEYS
from ..settings import FORMS
from .bodies import Wrong, same

#: Converts a field's value to settings.
Meaning = Callable[[Any], Mapping[str, Any]]

#: Values with which most fields have no effect.  Null is removed earlier.
NOTHING: tuple[Any, ...] = (False, [], {}, "")

_LEAST_P = 1e-9  # keeps the most probable token alone
_MANY = 2**31 - 1  # tokens to look back, which stands for all
ANY_OBJECT = json.dumps({"type": "object", "additionalProperties": True})


def is_one_of(value: Any, values: Iterable[Any] = NOTHING) -> bool:
    """True if a field's value is one of ``values``; by default, one of the values that have no effect."""
    return any(same(value, each) for each in values)


def _setting(
    name: str, as_setting: Callable[[Any], Any] = lambda value: value, nothing: tuple[Any, ...] = ()
) -> Meaning:
    """A conversion for a field that corresponds to one setting.

    Args:
        as_setting: converts the value.
        nothing: further values without effect.
    """

    def meaning(value: Any) -> Mapping[str, Any]:
        return {} if is_one_of(value, (*NOTHING, *nothing)) else {name: as_setting(value)}

    return meaning


def _minus_one_is(number: int) -> Callable[[Any], Any]:
    return lambda value: number if same(value, -1) else value


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _tokens(value: Any) -> Any:
    return [str(each) if type(each) is int else each for each in _list(value)]


def _biases(value: Any) -> Any:
    return [f"{token}={bias}" for token, bias in value.items()] if isinstance(value, dict) else value


def _seed(value: Any) -> Any:
    """A seed below -1, modulo 2**63: OpenAI allows negative seeds.  -1 is random."""
    return value % 2**63 if type(value) is int and value < -1 else value


def as_schema(value: Any) -> str:
    """A JSON schema as text.  ``json`` and true mean any object."""
    if is_one_of(value, ("json", True)):
        return ANY_OBJECT
    return value if isinstance(value, str) else json.dumps(value)


def _choice(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Wrong(f"guided_choice must be a list of texts (not {json.dumps(value)[:100]})", "guided_choice")
    return "|".join(map(re.escape, value))


def _grammar(value: Any) -> Mapping[str, Any]:
    """The settings for a grammar: GBNF if it contains ``::=``, else Lark; or an object as in TGI."""
    if isinstance(value, dict):
        name = {"json": "json_schema", "regex": "regex"}.get(str(value.get("type")))
        return {name: as_schema(value.get("value"))} if name else {"grammar": value}
    if is_one_of(value):
        return {}
    return {"lark" if isinstance(value, str) and "::=" not in value else "grammar": value}


_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def _effort(value: Any) -> Mapping[str, Any]:
    """The settings for a reasoning effort."""
    if value == "none":
        return {"think": "off"}
    if value in ("default", "auto"):
        return {}
    return {"reasoning_effort": _EFFORTS.get(value, value) if isinstance(value, str) else value}


def _think(value: Any) -> Mapping[str, Any]:
    """The settings for a switch of thinking, or for a reasoning effort."""
    if isinstance(value, bool):
        return {"think": "on" if value else "off"}
    if isinstance(value, str) and value in _EFFORTS:
        return _effort(value)
    return {"think": {"enabled": "on", "disabled": "off", "adaptive": "auto"}.get(str(value), value)}


_GROUPS: list[tuple[Meaning, list[str]]] = [
    # Where the answer ends.
    (_setting("max_tokens"), ["max_completion_tokens", "n_predict", "num_predict", "max_new_tokens"]),
    (_setting("max_tokens"), ["max_output_tokens", "max_length", "max_tokens_to_sample"]),
    (_setting("min_tokens"), ["min_new_tokens", "min_length"]),
    (_setting("stop", _list), ["stop", "stop_sequences", "stop_sequence", "stopping_strings", "stop_strings"]),
    (_setting("stop_token", _tokens), ["stop_token_ids"]),
    (_setting("ignore_end"), ["ignore_eos", "ban_eos_token"]),
    # How tokens are chosen.
    (_setting("seed", _seed), ["seed", "random_seed", "sampler_seed"]),
    (_setting("top_p", lambda value: _LEAST_P if same(value, 0) else value), ["top_p"]),  # OpenAI's least is 0
    (_setting("top_k", _minus_one_is(0)), ["top_k"]),
    (_setting("typical_p", nothing=(1,)), ["typical"]),
    (_setting("top_n_sigma", _minus_one_is(0)), ["top_n_sigma", "nsigma"]),
    (_setting("repeat_penalty", nothing=(1,)), ["repetition_penalty", "rep_pen"]),
    (_setting("penalty_last_n", _minus_one_is(_MANY)), ["repeat_last_n", "repetition_penalty_range", "rep_pen_range"]),
    (_setting("dry_last_n", _minus_one_is(_MANY)), ["dry_penalty_last_n"]),
    (_setting("logit_bias", _biases), ["logit_bias"]),
    (_setting("lora"), ["lora"]),
    # The form of the answer.
    (_setting("json_schema", as_schema), ["json_schema", "guided_json", "structured_outputs.json"]),
    (_setting("json_schema", as_schema), ["response_schema", "format"]),
    (_setting("json_schema", as_schema), ["guided_json_object", "structured_outputs.json_object"]),
    (_setting("regex"), ["guided_regex", "structured_outputs.regex"]),
    (_setting("regex", _choice), ["guided_choice", "structured_outputs.choice"]),
    (_grammar, ["grammar", "guided_grammar", "grammar_string", "ebnf", "structured_outputs.grammar"]),
    # Thinking.
    (_think, ["think", "enable_thinking", "thinking", "thinking.type", "reasoning", "reasoning.enabled"]),
    (_think, ["chat_template_kwargs.enable_thinking", "chat_template_kwargs.thinking"]),
    (_effort, ["reasoning_effort", "reasoning.effort", "chat_template_kwargs.reasoning_effort"]),
    (_setting("think_tokens", nothing=(-1,)), ["thinking_budget", "thinking_budget_tokens", "thinking_token_budget"]),
    (_setting("think_tokens", nothing=(-1,)), ["reasoning_budget", "max_thinking_tokens"]),
    (_setting("think_tokens", nothing=(-1,)), ["reasoning.max_tokens", "thinking.budget_tokens"]),
    (_setting("think_tokens", nothing=(-1,)), ["chat_template_kwargs.thinking_budget"]),
]
#: By name; a nested field as ``outer.inner``.
SYNONYMS: dict[str, Meaning] = {name: meaning for meaning, names in _GROUPS for name in names}

#: Fields with nested fields.
_OBJECTS = {name.partition(".")[0] for name in SYNONYMS if "." in name}


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested fields to ``outer.inner``, as in ``reasoning.effort``."""
    flattened: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _OBJECTS and isinstance(value, dict):
            flattened |= {f"{name}.{inner}": each for inner, each in value.items() if each is not None}
        else:
            flattened[name] = value
    return flattened


def settings_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield field, setting and value for each field that sets a setting."""
    for field, value in fields.items():
        if field in SYNONYMS:
            yield from ((field, setting, each) for setting, each in SYNONYMS[field](value).items())
        elif field in KEYS:
            yield field, field, value


def merged(given: Iterable[tuple[str, str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge settings, and return them with the field that set each of them.

    Args:
        given: the field, the setting and the value of each.

    Raises:
        Wrong: two fields set one setting to different values, or give two constraints.
    """
    values: dict[str, Any] = {}
    fields: dict[str, str] = {}
    for field, setting, value in given:
        rivals = FORMS if setting in FORMS else (setting,)
        other = next((fields[rival] for rival in rivals if rival in fields), field)
        if other != field and not same(values.get(setting), value):
            raise Wrong(f"{other} and {field} exclude each other: give one", field)
        values[setting] = value
        fields.setdefault(setting, field)
    return values, fields
