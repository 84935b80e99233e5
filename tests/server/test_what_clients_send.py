"""Clients name settings as other servers do, and get what they mean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from sending import CHAT, COMPLETION, GOOD, refusal, send, texts
from served import Served, serving

from pjlocal.errors import UsageError
from pjlocal.server.bodies import validated
from pjlocal.server.openai import Chat, Completion

ASKED: dict[str, dict[str, Any]] = {
    name: {key: GOOD[name][key]} for name, key in ((CHAT, "messages"), (COMPLETION, "prompt"))
}
N_CTX = 512
ANY = json.dumps({"type": "object", "additionalProperties": True})
SCHEMA = {"type": "object", "properties": {"n": {"enum": [3, 4]}}, "required": ["n"], "additionalProperties": False}
NUMBER = r'\{\s*"n"\s*:\s*[34]\s*\}'
GBNF, LARK = 'root ::= "yes"', 'start: "yes"'
OPTIONS = ("--ctx", str(N_CTX), "--parallel", "2", "--mode", "judge")  # a default for requests with preferences


def settings(path: str = CHAT, **fields: Any) -> dict[str, Any]:
    """The settings that a body sets."""
    body = validated(Chat if path == CHAT else Completion, json.dumps(ASKED[path] | fields).encode())
    flat = body.overrides(N_CTX).flat()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


@pytest.mark.parametrize("name", sorted(path.stem for path in (Path(__file__).parent / "bodies").iterdir()))
def test_a_body_composed_as_a_graphical_client_composes_it_is_accepted(served: Served, name: str) -> None:
    """The bodies were composed from the clients' public source or documentation; none was captured from a client."""
    sent = json.loads((Path(__file__).parent / "bodies" / f"{name}.json").read_text())
    assert settings(sent["path"], **sent["body"]) == sent["settings"]
    reply = served.http.post(
        sent["path"], json=sent["body"] | {"max_tokens": 2, "n_predict": 2, "num_predict": 2, "max_new_tokens": 2}
    )
    assert reply.status_code == 200 and "[DONE]" in reply.text, reply.text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({name: 7}, {"max_tokens": 7}) for name in (
            "max_tokens", "max_completion_tokens", "n_predict", "num_predict", "max_new_tokens", "max_output_tokens",
            "max_length", "max_tokens_to_sample",
        )),
        ({"max_tokens": -1}, {"max_tokens": N_CTX}),
        ({"n_predict": -1.0}, {"max_tokens": N_CTX}),
        ({"max_tokens": 10**12}, {"max_tokens": N_CTX}),
        ({"min_new_tokens": 3}, {"min_tokens": 3}),
        ({"stop_sequences": ["a"], "stopping_strings": ["a"]}, {"stop": ["a"]}),
        ({"stop_sequence": "a"}, {"stop": ["a"]}),
        ({"stop_token_ids": [2, 5]}, {"stop_token": ["2", "5"]}),
        ({"ignore_eos": True, "ban_eos_token": True}, {"ignore_end": True}),
        ({"seed": -1}, {"seed": -1}),
        ({"random_seed": 5}, {"seed": 5}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"typical": 0.5}, {"typical_p": 0.5}),
        ({"repetition_penalty": 1.2, "rep_pen": 1.2}, {"repeat_penalty": 1.2}),
        ({"repeat_last_n": -1}, {"penalty_last_n": 2**31 - 1}),
        ({"repetition_penalty_range": 100}, {"penalty_last_n": 100}),
        ({"dry_penalty_last_n": 50, "dry_multiplier": 0.8}, {"dry_last_n": 50, "dry_multiplier": 0.8}),
        ({"nsigma": 1.5, "top_n_sigma": 1.5}, {"top_n_sigma": 1.5}),
        ({"top_n_sigma": -1}, {"top_n_sigma": 0}),
        ({"logit_bias": [[5, 2], [6, False]]}, {"logit_bias": ["5=2.0", "6=-inf"]}),
        ({"prefer": ["vivid"], "mode": "prompt", "lam": 2}, {"prefer": ["vivid"], "mode": "prompt", "lam": 2}),
        ({"top_k": 5, "pjlocal": {"top_k": 5.0}}, {"top_k": 5}),
        # What the answer must be.
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": ANY}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"json_schema": json.dumps(SCHEMA)}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"json_schema": json.dumps(SCHEMA)},
        ),
        ({"response_format": {"type": "grammar", "grammar": GBNF}}, {"grammar": GBNF}),
        ({"response_format": {"type": "regex", "pattern": "a+"}}, {"regex": "a+"}),
        *(({name: SCHEMA}, {"json_schema": json.dumps(SCHEMA)}) for name in (
            "guided_json", "json_schema", "response_schema", "format",
        )),
        ({"guided_json": json.dumps(SCHEMA)}, {"json_schema": json.dumps(SCHEMA)}),
        ({"format": "json"}, {"json_schema": ANY}),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, {"json_schema": json.dumps(SCHEMA)}),
        ({"structured_outputs": {"json_object": True}}, {"json_schema": ANY}),
        ({"structured_outputs": {"choice": ["a b", "c."]}}, {"regex": r"a\ b|c\."}),
        ({"guided_choice": ["yes", "no"]}, {"regex": "yes|no"}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"guided_grammar": GBNF}, {"grammar": GBNF}),
        ({"guided_grammar": LARK}, {"lark": LARK}),
        ({"structured_outputs": {"grammar": LARK}}, {"lark": LARK}),
        ({"grammar": GBNF}, {"grammar": GBNF}),
        ({"grammar": {"type": "json", "value": SCHEMA}}, {"json_schema": json.dumps(SCHEMA)}),
        ({"grammar": {"type": "regex", "value": "a+"}}, {"regex": "a+"}),
        # Thinking.
        *((fields, {"think": "off"}) for fields in (
            {"enable_thinking": False}, {"think": False}, {"thinking": False}, {"thinking": {"type": "disabled"}},
            {"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}, {"reasoning": False},
            {"reasoning": {"enabled": False}},
            {"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {"thinking": False}},
        )),
        ({"thinking": {"type": "enabled"}, "enable_thinking": True}, {"think": "on"}),
        ({"think": "auto"}, {"think": "auto"}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning": {"effort": "medium", "summary": "auto", "exclude": False}}, {"reasoning_effort": "medium"}),
        ({"chat_template_kwargs": {"reasoning_effort": "high"}}, {"reasoning_effort": "high"}),
        *((fields, {"think_tokens": 50}) for fields in (
            {"thinking_budget": 50}, {"reasoning_budget": 50}, {"max_thinking_tokens": 50},
            {"reasoning": {"max_tokens": 50}}, {"chat_template_kwargs": {"thinking_budget": 50}},
        )),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, {"think": "on", "think_tokens": 50}),
        ({"reasoning_budget": -1}, {}),
        ({"user": "prefer: vivid", "metadata": {"prefer": ["vivid"]}}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_is_accepted_by_the_names_of_other_programs(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert settings(**fields) == expected
    if "max_completion_tokens" not in fields:
        assert settings(COMPLETION, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"top_k": 1, "pjlocal": {"top_k": 2}}, "top_k and pjlocal.top_k"),
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.2}, "repetition_penalty and repeat_penalty"),
        ({"max_tokens": 5, "n_predict": 6}, "max_tokens and n_predict"),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "enable_thinking and reasoning_effort"),
        ({"guided_regex": "a", "grammar": GBNF}, "guided_regex and grammar"),
        (
            {"format": "json", "response_format": {"type": "json_object", "schema": SCHEMA}},
            "format and response_format",
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "regex": "a"}},
            "structured_outputs.json and structured_outputs.regex",
        ),
        ({"lark": LARK, "pjlocal": {"regex": "a"}}, "lark and pjlocal.regex"),
    ],
    ids=str,
)
def test_two_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(names)} exclude each other: give one$"):
        settings(**fields)


def test_a_setting_works_the_same_at_the_top_and_under_the_pjlocal_key(served: Served) -> None:
    own = {"prefer": ["vivid", "concise"], "mode": "both", "top_k": 5, "ignore_end": True, "seed": 3, "max_tokens": 12}
    assert texts(served, **own) == texts(served, pjlocal=own, max_tokens=None)
    assert refusal(served, top_k="many") == "top_k must be a whole number (not 'many')"
    assert refusal(served, n_predict=0, max_tokens=None) == "n_predict must be at least 1 (not 0)"
    assert refusal(served, dry_penalty_last_n="all") == "dry_penalty_last_n must be a whole number (not 'all')"
    for choice in ([1, 2], "a.c", [["a"]], {"a": 1}):
        assert "must be a list of texts" in refusal(served, guided_choice=choice)
    assert refusal(served, prefer=["@/etc/passwd"]).startswith("a request cannot name the server's files")


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        *(({name: SCHEMA}, NUMBER) for name in ("guided_json", "json_schema", "format")),
        ({"structured_outputs": {"json": SCHEMA}}, NUMBER),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, NUMBER),
        ({"guided_choice": ["a b", "c.d", "ö\n"]}, "a b|c[.]d|ö\n"),
        ({"guided_regex": "[ab]{3}"}, "[ab]{3}"),
        ({"guided_grammar": GBNF}, "yes"),
        ({"guided_grammar": LARK}, "yes"),
        ({"response_format": {"type": "grammar", "grammar": LARK}}, "yes"),
        ({"response_format": {"type": "regex", "pattern": "[ab]{3}"}}, "[ab]{3}"),
    ],
    ids=str,
)  # fmt: skip
def test_constraints_work_under_each_of_their_names(served: Served, fields: dict[str, Any], pattern: str) -> None:
    for path in (CHAT, COMPLETION):
        (text,) = texts(served, path, **fields, seed=1, max_tokens=60)
        assert re.fullmatch(pattern, text), text


def test_the_context_limits_an_answer(served: Served) -> None:
    for n_tokens in (-1, 10_000_000_000):
        reply = send(served, CHAT, max_tokens=n_tokens, ignore_eos=True, seed=1, regex="a*").json()
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["total_tokens"] == N_CTX


def test_no_answer_ends_before_min_tokens(served: Served) -> None:
    short: dict[str, Any] = {"logit_bias": {"</s>": 100}, "max_tokens": 20, "seed": 1}
    assert texts(served, **short) == [""]
    for mode in ({}, {"prefer": ["vivid", "formal"]}, {"prefer": ["vivid", "formal"], "mode": "both", "floor": 0}):
        assert send(served, CHAT, **short, **mode, min_tokens=5).json()["usage"]["completion_tokens"] == 6
    assert texts(served, regex="a{3}", min_tokens=9, max_tokens=20) == ["aaa"]


def test_a_token_may_end_an_answer(served: Served) -> None:
    biased: dict[str, Any] = {"logit_bias": {"263": 100}, "max_tokens": 9}  # the model's token for '#'
    assert texts(served, **biased) == ["#" * 9]
    reply = send(served, CHAT, **biased, stop_token_ids=[263], ignore_eos=True).json()["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == ("", "stop")
    assert "stop_token '99999999': the model has tokens" in refusal(served, stop_token_ids=[99_999_999])


def test_several_prompts_are_completed_in_one_request(served: Served) -> None:
    prompts = ["the cat", "a dog and"]
    how: dict[str, Any] = {"seed": 4, "max_tokens": 6, "ignore_eos": True}
    alone = [text for prompt in prompts for text in texts(served, COMPLETION, prompt=prompt, n=2, **how)]
    reply = send(served, COMPLETION, prompt=prompts, n=2, best_of=2, **how).json()
    assert [choice["text"] for choice in reply["choices"]] == alone
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    each = [send(served, COMPLETION, prompt=prompt, **how).json()["usage"]["prompt_tokens"] for prompt in prompts]
    assert [reply["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion")] == [sum(each), 24]
    echoed = send(served, COMPLETION, prompt=prompts, n=2, echo=True, **how).json()["choices"]
    repeated = [prompt for prompt in prompts for _ in range(2)]
    assert [choice["text"] for choice in echoed] == [f"{p}{t}" for p, t in zip(repeated, alone, strict=True)]
    streamed = dict.fromkeys(range(4), "")
    for line in send(served, COMPLETION, prompt=prompts, n=2, echo=True, stream=True, **how).text.splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line[6:])["choices"]
            streamed[choice["index"]] += choice["text"]
    assert [*streamed.values()] == [choice["text"] for choice in echoed]
    assert "at most 16 answers" in refusal(served, COMPLETION, prompt=prompts, n=9)
    assert "echo cannot be used with logprobs" in refusal(served, COMPLETION, echo=True, logprobs=1)


def test_a_prompt_may_be_given_as_tokens(served: Served) -> None:
    how: dict[str, Any] = {"seed": 4, "max_tokens": 6, "ignore_eos": True}
    letters = [1, *(ord(letter) + 228 for letter in "the")]
    one, two = texts(served, COMPLETION, prompt=[letters, letters[:3]], **how)
    assert texts(served, COMPLETION, prompt=letters, **how) == [one]
    assert send(served, COMPLETION, prompt=letters, **how).json()["usage"]["prompt_tokens"] == 4
    assert texts(served, COMPLETION, prompt=letters[:3], **how) == [two]
    assert "tokens must be those of the model" in refusal(served, COMPLETION, prompt=[99_999_999])
    assert "texts, not tokens" in refusal(served, COMPLETION, prompt=letters, echo=True)


def test_a_completion_has_the_requested_number_of_alternatives(served: Served) -> None:
    how = {"seed": 1, "max_tokens": 2, "ignore_eos": True, "stream": False}
    reply = send(served, COMPLETION, logprobs=20, **how).json()["choices"][0]["logprobs"]
    assert all(17 < len(top) <= 20 for top in reply["top_logprobs"])  # tokens without text share a place
    assert refusal(served, COMPLETION, logprobs=101) == "logprobs must be at most 100"


def test_a_system_message_may_begin_with_settings(served: Served) -> None:
    def ask(system: str, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "hello"}]
        how = {"max_tokens": 9, "seed": 2, "ignore_eos": True, "pjlocal": {"events": True}}
        reply = send(served, CHAT, messages=messages, **how | fields)
        assert reply.status_code == 200, reply.text
        choice: dict[str, Any] = reply.json()["choices"][0]
        return choice

    persona = '[pjlocal]\nprefer = ["vivid:1.5", "concise"]\nmode = "both"'
    asked = ask(f"{persona}\n\nBe kind.")
    assert asked["pjlocal"]["mode"] == "both"
    assert asked["pjlocal"]["preferences"] == {"a": ["vivid:1.5"], "b": ["concise"]}
    same = ask("Be kind.", prefer=["vivid:1.5", "concise"], mode="both")
    assert asked["message"] == same["message"]
    assert ask(persona)["message"] == ask(persona.replace("\n", "\r\n"))["message"]
    assert ask(persona, mode="base")["pjlocal"]["mode"] == "base", "the request's own fields come first"
    assert ask("Say [pjlocal]\nmode = 1")["pjlocal"]["mode"] == "plain"
    for system, says in (
        ("[pjlocal]\nprefer = vivid", "system message line 2 is not valid TOML"),
        ("[pjlocal]\nprefr = []", "did you mean prefer"),
        ("[pjlocal]\nmode = 1", "mode must be one of"),
        ("[pjlocal]\nprefer = ['@/etc/passwd']", "cannot name the server's files"),
        ("[pjlocal]\n[sampling]\ntop_k = 1", "one table"),
        ("[pjlocal]\n" + "# x\n" * 5000, "at most 10,000 characters"),
    ):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "hello"}]
        assert says in refusal(served, messages=messages)


def test_a_header_names_settings_without_effect_on_a_text_to_continue(served: Served) -> None:
    fields = {"enable_thinking": False, "reasoning_effort": "low", "think_tokens": 5, "placement": "system"}
    says = "has no effect on a text to continue, which has no chat template"
    for stream in (False, True):
        reply = send(served, COMPLETION, **fields, max_tokens=1, stream=stream)
        names = ("reasoning_effort", "think", "think_tokens")
        assert reply.headers["X-Pjlocal-Warning"] == "; ".join(f"{name} {says}" for name in names)
        reply = send(served, COMPLETION, prefer=["vivid"], placement="system", max_tokens=1, stream=stream)
        assert reply.headers["X-Pjlocal-Warning"] == f"placement {says}"
        reply = send(served, COMPLETION, prefer=["vivid"], max_tokens=1, stream=stream)
        assert "X-Pjlocal-Warning" not in reply.headers


def test_a_text_to_continue_has_no_warnings_about_defaults_of_the_server(
    model: Path, server_environment: dict[str, str]
) -> None:
    with serving(model, server_environment, "--think", "off", "--placement", "system", "-p", "vivid") as served:
        assert "X-Pjlocal-Warning" not in send(served, COMPLETION, max_tokens=1).headers
        reply = send(served, COMPLETION, max_tokens=1, placement="user-turn")
        assert reply.headers["X-Pjlocal-Warning"].startswith("placement has no effect")


def test_thinking_is_switched_by_the_template_or_a_header_says_that_it_is_not(
    served: Served, tmp_path: Path, server_environment: dict[str, str]
) -> None:
    for stream in (False, True):
        reply = send(served, CHAT, enable_thinking=False, max_tokens=1, stream=stream)
        assert reply.headers["X-Pjlocal-Warning"] == "think off: this model's chat template has no switch for thinking"
        assert "X-Pjlocal-Warning" not in send(served, CHAT, max_tokens=1, stream=stream).headers
    template = "{% if not enable_thinking %}no thoughts {% endif %}{{ reasoning_effort }}" + tiny_models.CHATML
    path = tiny_models.write_llama(tmp_path / "thinks.gguf", chat_template=template, n_ctx_train=N_CTX)
    with serving(path, server_environment) as thinking:

        def n_prompt(**fields: Any) -> int:
            reply = send(thinking, CHAT, max_tokens=1, **fields)
            assert "X-Pjlocal-Warning" not in reply.headers
            return int(reply.json()["usage"]["prompt_tokens"])

        on = n_prompt(enable_thinking=True)
        assert n_prompt(reasoning_effort="none") == on + len("no thoughts ") == n_prompt()
        assert n_prompt(enable_thinking=True, reasoning={"effort": "high"}) == on + len("high")
