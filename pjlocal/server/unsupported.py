"""Fields of other servers' protocols: those that would change the answer are refused, the harmless ones are ignored."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .bodies import Wrong

#: Values that ask for nothing, of most fields; null is left out before.
_NOTHING: tuple[Any, ...] = (False, [], {}, "")


@dataclass(frozen=True)
class Unsupported:
    """A field that would change the answer.

    advice: what to do instead.
    nothing: the values that ask for nothing.
    """

    advice: str = "leave it out"
    nothing: tuple[Any, ...] = _NOTHING


def _instead(setting: str, *nothing: Any) -> Unsupported:
    return Unsupported(f'use {{"pjlocal": {{{setting}}}}}', (*_NOTHING, *nothing))


_PLAIN = Unsupported()
_TOOLS = Unsupported("this server calls no tools, leave it out")
_THINK = Unsupported('use {"pjlocal": {"think": "on"}} or "off"', ({},))
_MAX_TOKENS = Unsupported("use max_tokens", ())
_SCHEMA = Unsupported('use response_format with the type "json_schema"')
_TEXT = Unsupported("only text can be sent, leave it out")
_ZERO = Unsupported(nothing=(*_NOTHING, 0))
_ONE = Unsupported(nothing=(*_NOTHING, 1))
_TRUE = Unsupported(nothing=(True,))

_GROUPS: list[tuple[Unsupported, list[str]]] = [
    # Tools, and what is not text.
    (_TOOLS, ["tools", "functions", "plugins", "web_search_options", "builtin_tools"]),
    (Unsupported(_TOOLS.advice, ("none", "auto")), ["tool_choice", "function_call"]),
    (_TEXT, ["audio", "images", "image_data", "multimodal_data"]),
    (Unsupported(_TEXT.advice, (["text"], [])), ["modalities"]),
    # Thinking.
    (_THINK, ["enable_thinking", "thinking", "reasoning", "reasoning_effort", "chat_template_kwargs"]),
    (_TRUE, ["include_reasoning"]),
    (Unsupported(nothing=(-1,)), ["thinking_budget", "thinking_budget_tokens", "thinking_token_budget"]),
    (Unsupported(nothing=(-1,)), ["reasoning_budget", "max_thinking_tokens"]),
    (Unsupported(nothing=("auto", "none")), ["reasoning_format"]),
    # The form of the answer.
    (_SCHEMA, ["guided_json", "json_schema", "format", "structured_outputs", "response_schema"]),
    (Unsupported(_SCHEMA.advice, ("text/plain",)), ["response_mime_type"]),
    (_instead('"regex": "..."'), ["guided_regex"]),
    (_instead('"regex": "yes|no"'), ["guided_choice"]),
    (_instead('"grammar": "..."'), ["guided_grammar", "grammar_string"]),
    (_PLAIN, ["guided_whitespace_pattern"]),
    # Where it ends.
    (_MAX_TOKENS, ["n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "max_length"]),
    (_MAX_TOKENS, ["max_tokens_to_sample"]),
    (Unsupported("use stop"), ["stop_token_ids", "stop_sequences", "stopping_strings", "stop_strings"]),
    (_instead('"ignore_end": true'), ["ignore_eos", "ban_eos_token"]),
    (_ZERO, ["min_tokens", "min_new_tokens", "min_length", "t_max_predict_ms", "n_indent"]),
    (_PLAIN, ["include_stop_str_in_output"]),
    # How tokens are chosen.
    (Unsupported("use seed", ()), ["random_seed"]),
    (_instead('"repeat_penalty": 1.1', 1), ["repetition_penalty"]),
    (_instead('"penalty_last_n": 64'), ["repeat_last_n", "repetition_penalty_range"]),
    (_instead('"dry_last_n": 1024'), ["dry_penalty_last_n"]),
    (_instead('"typical_p": 0.9', 1), ["typical"]),
    (_instead('"avoid": ["..."]', 1), ["guidance_scale", "negative_prompt"]),
    (Unsupported("use temperature: 0 for the most probable tokens", (True,)), ["do_sample"]),
    (Unsupported("use logit_bias"), ["bad_words", "bad_words_ids", "allowed_token_ids", "custom_token_bans"]),
    (Unsupported("use logit_bias"), ["banned_tokens", "banned_strings"]),
    (_ONE, ["best_of", "num_beams", "beam_width", "beam_size", "length_penalty"]),
    (_ONE, ["tfs", "tfs_z", "encoder_repetition_penalty"]),
    (_ZERO, ["mirostat", "mirostat_mode", "dynatemp_range", "top_a", "smoothing_factor", "penalty_alpha"]),
    (_ZERO, ["epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size", "min_keep", "max_temp", "min_temp"]),
    (Unsupported(nothing=(*_NOTHING, 0, -1)), ["top_n_sigma", "nsigma", "adaptive_target"]),
    (_PLAIN, ["use_beam_search", "dynamic_temperature", "temperature_last", "dry_sequence_breakers"]),
    (_PLAIN, ["samplers", "sampler_seq", "sampler_order", "sampler_priority"]),
    (_PLAIN, ["logits_processors", "logit_processors", "logits_processor", "vllm_xargs"]),
    (Unsupported("a request cannot load adapters, leave it out"), ["lora"]),
    # The prompt.
    (_TRUE, ["add_generation_prompt"]),
    (_PLAIN, ["continue_final_message", "echo", "suffix", "prediction", "raw", "context"]),
    (_PLAIN, ["template", "chat_template", "instruction_template", "documents", "citations", "safe_prompt"]),
    (_PLAIN, ["input_prefix", "input_suffix", "input_extra", "prompt_token_ids", "prompt_embeds"]),
    (_PLAIN, ["transforms", "truncate_prompt_tokens", "truncation_side", "prompt_mode"]),
    (Unsupported(nothing=("disabled",)), ["truncation"]),
    (Unsupported(nothing=("medium",)), ["verbosity"]),
    (Unsupported("use messages"), ["input", "inputs"]),
    (Unsupported("use a message with the role system"), ["instructions"]),
    (Unsupported("send all messages"), ["previous_response_id", "conversation"]),
    (Unsupported("send temperature, max_tokens, ... as fields of the request"), ["options"]),
    # Facts about the answer.
    (Unsupported("use logprobs", (*_NOTHING, 0)), ["n_probs", "num_logprobs"]),
    (_PLAIN, ["prompt_logprobs", "post_sampling_probs", "logprobs_mode", "allowed_logprobs", "response_fields"]),
    (_PLAIN, ["return_tokens", "return_token_ids", "return_tokens_as_token_ids", "return_prompt"]),
    (_TRUE, ["skip_special_tokens"]),
]
#: Of every request, by name.
UNSUPPORTED = {name: field for field, names in _GROUPS for name in names}

#: Fields that change nothing here, whatever they hold.  Other unknown ones are ignored as well, unless they look like
#: a misspelt field.
HARMLESS = frozenset(
    [
        "user", "metadata", "store", "service_tier", "parallel_tool_calls",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "models", "route",
        "provider", "usage", "keep_alive", "num_ctx", "cache_prompt",
        "n_cache_reuse", "id_slot", "slot_id", "n_keep", "n_discard",
        "mirostat_tau", "mirostat_eta", "dynatemp_exponent", "add_special_tokens", "spaces_between_special_tokens",
        "priority", "request_id", "timings_per_token", "return_progress", "cache_salt",
        "tool_prompt", "early_stopping", "session_id", "chat_id", "id",
    ]
)  # fmt: skip

#: Of a message.
_IN_MESSAGES: dict[str, Unsupported] = {
    **dict.fromkeys(("tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(("images", "audio"), _TEXT),
}
_IN_STREAM_OPTIONS = {"continuous_usage_stats": Unsupported("use include_usage: usage comes at the end")}
_TABLES = {"messages": _IN_MESSAGES, "stream_options": _IN_STREAM_OPTIONS}

_MOST_COMPARED = 20  # unknown fields of a request; difflib is slow
_LONGEST_NAME = 40
_ALIKE = 0.85


def check_fields(others: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse fields that would change the answer.

    Args:
        others: the fields of a request that it does not know, with their values.
        known: the names of the fields that it does.

    Raises:
        Wrong: a line that names one, and what to do.
    """
    unknown = []
    for name, value in others.items():
        if name in UNSUPPORTED:
            _check(name, UNSUPPORTED[name], value)
        elif name not in HARMLESS and len(name) <= _LONGEST_NAME:
            unknown.append(name)
    for name in unknown[:_MOST_COMPARED]:
        if near := difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE):
            raise Wrong(f"unknown field {name}: did you mean {near[0]}?", name)


def check_nested(where: str, others: Mapping[str, Any], path: str) -> None:
    """The same for the fields of an object in a request.

    Args:
        where: the field that holds such objects.
        path: leads to this one.
    """
    for name, value in others.items():
        if name in _TABLES[where]:
            _check(f"{path}.{name}", _TABLES[where][name], value)


def _check(path: str, field: Unsupported, value: Any) -> None:
    if not any(_same(value, nothing) for nothing in field.nothing):
        raise Wrong(f"{path} is not supported: {field.advice}", path)


def _same(value: Any, other: Any) -> bool:
    """Whether they are equal as JSON: true is not 1, but 1.0 is."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
