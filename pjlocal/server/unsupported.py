"""Fields of other servers' protocols without a setting: refuse those that change the answer, ignore the others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..settings import REMOVED, similar_name
from .bodies import ELSEWHERE, Wrong
from .synonyms import NOTHING, is_one_of


@dataclass(frozen=True)
class Unsupported:
    """A field that would change the answer.

    advice: the advice in the error message.
    nothing: the values without effect.
    """

    advice: str = "leave it out"
    nothing: tuple[Any, ...] = NOTHING


_DRY_BREAKERS = ["\n", ":", '"', "*"]  # llama.cpp's own

_PLAIN = Unsupported()
_TOOLS = Unsupported("use tools, on /v1/chat/completions or /v1/responses")
_TEXT = Unsupported("only text can be sent, leave it out")
_ZERO = Unsupported(nothing=(*NOTHING, 0))
_ONE = Unsupported(nothing=(*NOTHING, 1))
_TRUE = Unsupported(nothing=(True,))
_UNKNOWN_FORM = Unsupported("use response_format, json_schema, regex, grammar or lark")

_GROUPS: list[tuple[Unsupported, list[str]]] = [
    *((Unsupported(advice), [name]) for name, advice in (REMOVED | ELSEWHERE).items()),
    # Tools, and what is not text.
    (_TOOLS, ["tools", "functions", "plugins", "web_search_options", "builtin_tools"]),
    (Unsupported(_TOOLS.advice, ("none", "auto")), ["tool_choice", "function_call"]),
    (_TEXT, ["audio", "images", "image_data", "multimodal_data"]),
    (Unsupported(_TEXT.advice, (["text"], [])), ["modalities"]),
    # Thinking.
    (Unsupported(nothing=("auto", "none")), ["reasoning_format"]),
    # The form of the answer.
    (Unsupported('use response_format with the type "json_schema"', (*NOTHING, "text/plain")), ["response_mime_type"]),
    (_PLAIN, ["guided_whitespace_pattern"]),
    (Unsupported("it must be an object"), ["structured_outputs", "chat_template_kwargs"]),
    # Where it ends.
    (_ZERO, ["t_max_predict_ms", "n_indent"]),
    (_PLAIN, ["include_stop_str_in_output"]),
    # How tokens are chosen.
    (Unsupported('use {"avoid": ["..."]}', (*NOTHING, 1)), ["guidance_scale", "negative_prompt"]),
    (Unsupported("use temperature: 0 for the most probable tokens", (True,)), ["do_sample"]),
    (Unsupported("use logit_bias"), ["bad_words", "bad_words_ids", "allowed_token_ids", "custom_token_bans"]),
    (Unsupported("use logit_bias"), ["banned_tokens", "banned_strings"]),
    (_ONE, ["num_beams", "beam_width", "beam_size", "length_penalty"]),
    (_ONE, ["tfs", "tfs_z", "encoder_repetition_penalty"]),
    (_ZERO, ["mirostat", "mirostat_mode", "dynatemp_range", "top_a", "smoothing_factor", "penalty_alpha", "skew"]),
    (_ZERO, ["epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size", "min_keep", "max_temp", "min_temp"]),
    (Unsupported(nothing=(*NOTHING, 0, -1, -0.01)), ["adaptive_target"]),  # SillyTavern's -0.01 is off
    (Unsupported(nothing=(*NOTHING, _DRY_BREAKERS, json.dumps(_DRY_BREAKERS))), ["dry_sequence_breakers"]),
    (_PLAIN, ["use_beam_search", "dynamic_temperature", "temperature_last"]),
    (_PLAIN, ["samplers", "sampler_seq", "sampler_order", "sampler_priority"]),
    (_PLAIN, ["logits_processors", "logit_processors", "logits_processor", "vllm_xargs"]),
    # The prompt.
    (_TRUE, ["add_generation_prompt", "chat_template_kwargs.add_generation_prompt"]),
    (_PLAIN, ["continue_final_message", "suffix", "raw", "context"]),
    (_PLAIN, ["template", "chat_template", "instruction_template", "documents", "citations", "safe_prompt"]),
    (_PLAIN, ["input_prefix", "input_suffix", "input_extra", "prompt_token_ids", "prompt_embeds"]),
    (_PLAIN, ["transforms", "truncate_prompt_tokens", "truncation_side", "prompt_mode"]),
    (Unsupported(nothing=("disabled",)), ["truncation"]),
    (Unsupported(nothing=("medium",)), ["verbosity"]),
    (Unsupported("use messages"), ["input", "inputs"]),
    (Unsupported("use a message with the role system"), ["instructions"]),
    (Unsupported("send all messages"), ["previous_response_id", "conversation"]),
    (Unsupported("wait for the answer, or stream it"), ["background"]),
    (Unsupported("send temperature, max_tokens, ... as fields of the request"), ["options"]),
    # Facts about the answer.
    (Unsupported("use logprobs", (*NOTHING, 0)), ["n_probs", "num_logprobs"]),
    (_PLAIN, ["prompt_logprobs", "post_sampling_probs", "logprobs_mode", "allowed_logprobs", "response_fields"]),
    (_PLAIN, ["return_tokens", "return_token_ids", "return_tokens_as_token_ids", "return_prompt"]),
    (_TRUE, ["skip_special_tokens", "add_bos_token"]),
]
#: The unsupported fields of requests, by name.
UNSUPPORTED = {name: field for field, names in _GROUPS for name in names}

#: Fields without effect that would otherwise be refused as a constraint, an unknown nested field, or a misspelling.
HARMLESS = {"models", "guided_decoding_backend", "structured_outputs._backend"}
#: Objects whose unknown fields would change the answer: the constraint, and the variables of the chat template.
_STRICT_OBJECTS = ("structured_outputs.", "chat_template_kwargs.")

#: The unsupported fields of messages.
IN_MESSAGES: dict[str, Unsupported] = {
    "function_call": Unsupported("use tool_calls"),
    **dict.fromkeys(("images", "audio"), _TEXT),
}

#: Unknown fields that may be constraints.  Ignoring one would make the client accept any answer as valid.
_FORM = re.compile("grammar|schema|regex|guided|structured|constrain|ebnf|gbnf|lark|json|(response|output)_format")

_MOST_COMPARED = 20  # unknown fields of a request; comparing names is slow
_LONGEST_NAME = 40


def check_fields(others: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse fields that would change the answer.

    Args:
        others: the fields of a request without a setting, with their values.
        known: the names of the other fields.

    Raises:
        Wrong: a field would change the answer; the message says what to do.
    """
    unknown = []
    for name, value in others.items():
        if name in UNSUPPORTED:
            _check(name, UNSUPPORTED[name], value)
        elif name.startswith(_STRICT_OBJECTS) and name not in HARMLESS:
            _check(name, _PLAIN, value)
        elif name not in HARMLESS and len(name) <= _LONGEST_NAME:
            if _FORM.search(name):
                _check(name, _UNKNOWN_FORM, value)
            unknown.append(name)
    for name in unknown[:_MOST_COMPARED]:
        if similar := similar_name(name, known):
            raise Wrong(f"unknown field {name}: did you mean {similar}?", name)


def check_nested(unsupported: Mapping[str, Unsupported], others: Mapping[str, Any], path: str) -> None:
    """Refuse unsupported fields of an object in a request.

    Args:
        unsupported: the unsupported fields of such objects.
        path: the path of this object.
    """
    for name, value in others.items():
        if name in unsupported:
            _check(f"{path}.{name}", unsupported[name], value)


def _check(path: str, field: Unsupported, value: Any) -> None:
    if not is_one_of(value, field.nothing):
        raise Wrong(f"{path} is not supported: {field.advice}", path)
