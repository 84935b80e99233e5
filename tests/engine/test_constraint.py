"""Constraints hold in every mode, schedule and layout, and change nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny_models
from llguidance import LLTokenizer

from pjlocal import Engine, PersonaJudge, Sampling
from pjlocal.decoding.judge import Distribution
from pjlocal.engine import constraint
from pjlocal.engine.constraint import Constraint, Mask, check_constraint, make_constraint
from pjlocal.engine.filters import FilterChain
from pjlocal.errors import ModelError, UsageError

ROOMY = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
TEXT = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})


def bits(allowed: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-len(allowed) // 32) * 32, np.bool_)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view(np.uint32)


class Fixed:
    """A constraint with a fixed mask."""

    def __init__(self, allowed: np.ndarray) -> None:
        self._mask = Mask(bits(allowed), len(allowed))

    def mask(self) -> Mask:
        return self._mask

    def accept(self, position: int, token: int) -> None:
        pass


def distribution(judge: PersonaJudge, logits: np.ndarray, constraint: Any, filters: dict[str, Any]) -> Distribution:
    chain = FilterChain(judge.model, Sampling(**filters), (), (0, 1), constraint)
    return chain(logits)


@pytest.mark.parametrize("share", [1.0, 0.999, 0.9, 0.5, 0.01, 0.0005, 0.00003])
@pytest.mark.parametrize(
    "filters",
    [{}, {"top_k": 64}, {"top_k": 0}, ROOMY, {"repeat_penalty": 1.3}, {"logit_bias": ("7=5",)}, {"temperature": 0.0}],
    ids=str,
)
def test_a_mask_sets_the_probability_of_other_tokens_to_zero(vivid_and_creative, share: float, filters: dict) -> None:
    rng = np.random.default_rng(3)
    n = vivid_and_creative.model.n_vocab
    for greatest_go in (False, True):
        logits = (3 * rng.standard_normal(n)).astype(np.float32)
        allowed = rng.random(n) < share
        allowed[rng.integers(n)] = True
        if greatest_go:
            allowed[np.argsort(-logits)[: min(500, n - 1)]] = False
            allowed[int(logits.argmin())] = True
        got = distribution(vivid_and_creative, logits, Fixed(allowed), filters)
        masked = np.where(allowed, logits, np.float32(-np.inf))
        expected = distribution(vivid_and_creative, masked, None, filters)
        assert got.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(got.probs, expected.probs, rtol=1e-6)


def test_masks_by_hand() -> None:
    rng = np.random.default_rng(1)
    for n in (33, 64, 1000):
        for share in (0.02, 0.5, 1.0):
            allowed = rng.random(n) < share
            mask = Mask(bits(allowed), n)
            assert mask.ids.tolist() == np.flatnonzero(allowed).tolist()
            assert mask.forbidden.tolist() == (~allowed).tolist()
            assert mask.allows(np.arange(n)).tolist() == allowed.tolist()


def test_the_end_is_allowed_when_the_answer_is_complete_and_control_tokens_never(vivid_and_creative) -> None:
    model = vivid_and_creative.model
    constraint = make_constraint(model, Sampling(json_schema='{"type": "integer", "minimum": 10, "maximum": 12}'))
    ends = [token for token in range(model.n_vocab) if model.is_end(token)]
    text = ""
    while not set(ends) & set(constraint.mask().ids.tolist()):
        assert text in ("", "1")
        assert {model.piece(token) for token in constraint.mask().ids.tolist()} <= {
            b"1",
            b"0",
            b"2",
            b"10",
            b"11",
            b"12",
        }
        token = int(constraint.mask().ids[0])
        constraint.accept(len(text), token)
        text += model.piece(token).decode()
    assert text in ("10", "11", "12")
    assert sorted(constraint.mask().ids.tolist()) == sorted(ends)
    within = make_constraint(model, Sampling(json_schema='{"type": "string"}'))
    (quote,) = model.tokenize('"', special=False)
    within.accept(0, quote)
    assert len(within.mask().ids) > model.n_vocab // 2
    assert not any(model.is_control(token) or not model.piece(token) for token in within.mask().ids.tolist())


def test_views_share_one_constraint_and_a_copy_looks_ahead(vivid_and_creative) -> None:
    model = vivid_and_creative.model
    constraint = make_constraint(model, Sampling(regex="[ab]{2}"))
    chains = [FilterChain(model, Sampling(), (), (0, view), constraint) for view in range(2)]
    (a,) = model.tokenize("a", special=False)
    ahead = chains[0].clone()
    for _ in range(2):
        ahead.accept(a)
    before = constraint.mask().ids.tolist()
    assert a in before
    for chain in chains:
        chain.accept(a)
    assert a in constraint.mask().ids.tolist(), "one token, although both views told of it"
    for chain in chains:
        chain.accept(a)
    assert all(model.is_end(token) for token in constraint.mask().ids.tolist())


def test_a_text_that_cannot_continue_raises_a_clear_error(vivid_and_creative) -> None:
    model = vivid_and_creative.model
    constraint = make_constraint(model, Sampling(regex="[0-9]+"))
    constraint.accept(0, model.tokenize("a", special=False)[0])
    with pytest.raises(ModelError, match=r"^the answer cannot continue under the constraint: .+"):
        constraint.mask()


def test_a_constraint_with_tokens_that_the_model_lacks_is_refused(vivid_and_creative) -> None:
    with pytest.raises(UsageError, match=r"^the constraint cannot be used with this model: .+"):
        Constraint(vivid_and_creative.model, "start: nothing")


@pytest.mark.slow
@pytest.mark.parametrize("n_views", [1, 2])
@pytest.mark.parametrize("layout", ["contexts", "batched"])
def test_both_schedules_and_any_look_ahead_write_the_same_under_a_schema(tiny, layout, n_views) -> None:
    schema = {"type": "array", "items": {"enum": ["cat", "dog", 12]}, "minItems": 4, "maxItems": 9}
    sampling = Sampling(json_schema=json.dumps(schema))
    prefer = ["vivid", "creative"] if n_views == 2 else []
    with PersonaJudge(tiny("llama"), prefer=prefer, sampling=sampling, engine=Engine(layout=layout)) as judge:
        for seed in range(3):
            lockstep = judge("Hello", seed=seed, max_tokens=200)
            assert lockstep.finish_reason == "stop"
            jsonschema.validate(json.loads(lockstep.text), schema)
            assert judge("Hello", seed=seed, max_tokens=200, schedule="reference").text == lockstep.text
            assert judge("Hello", seed=seed, max_tokens=200, lookahead=15).text == lockstep.text


@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
@pytest.mark.parametrize(
    "filters",
    [{}, ROOMY, {"temperature": 0.0}, {"repeat_penalty": 1.5, "frequency_penalty": 0.5}, {"logit_bias": ("</s>=20",)}],
    ids=str,
)
def test_output_conforms_under_all_filters(tiny, kind: str, filters: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5}, "s": {"type": "string", "maxLength": 6}},
        "required": ["n", "s"],
        "additionalProperties": False,
    }
    sampling = Sampling(json_schema=json.dumps(schema), **filters)
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], sampling=sampling) as judge:
        for seed in range(2):
            result = judge("Hello", seed=seed, max_tokens=300)
            if result.finish_reason == "stop":
                jsonschema.validate(json.loads(result.text), schema)
        assert judge("Hello", seed=1, max_tokens=3).finish_reason == "length"


CASES = {
    "poem": ({"type": "object", "properties": {"poem": {"type": "string"}}, "required": ["poem"]}, False),
    "minmax": ({"type": "integer", "minimum": 1, "maximum": 5}, True),
    "patalt": ({"type": "string", "pattern": "^low$|^high$"}, True),
    "patd": ({"type": "string", "pattern": r"^\d{3}-\d{4}$"}, True),
    "true": (True, False),
    "rec": (
        {
            "$defs": {
                "N": {
                    "type": "object",
                    "properties": {"k": {"type": "array", "items": {"$ref": "#/$defs/N"}, "maxItems": 2}},
                    "required": ["k"],
                }
            },
            "$ref": "#/$defs/N",
        },
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_output_of_the_real_model_validates(vivid_and_creative: PersonaJudge, name: str) -> None:
    schema, ends = CASES[name]
    constraint = {"json_schema": json.dumps(schema)}
    result = vivid_and_creative("Write a letter to my landlord", seed=2, max_tokens=40, **constraint)
    assert result.finish_reason == "stop" or not ends
    if result.finish_reason == "stop":
        jsonschema.validate(json.loads(result.text), schema)
    else:  # cut short: what is there has no raw control character within a text
        assert not re.search(r'"[^"\n]*\n[^"\n]*[a-z]"', result.text)


@pytest.mark.slow
def test_an_expression_and_a_lark_grammar_hold(vivid_and_creative: PersonaJudge) -> None:
    judge, regex = vivid_and_creative, r"(yes|no) because [a-z ]{3,20}\."
    for given in ({"regex": regex}, {"lark": 'start: ("yes" | "no") " because " /[a-z ]{3,20}/ "."'}):
        for seed in range(2):
            text = judge("Is the sky blue?", seed=seed, **given).text
            assert re.fullmatch(regex, text), text
    settings = {"regex": "[0-9]{2}|no", "temperature": 1.5, "seed": 1, "max_tokens": 20, "ignore_end": True}
    assert re.fullmatch("[0-9]{2}|no", judge("Well?", **settings).text)


@pytest.mark.parametrize("schedule", ["lockstep", "reference"])
@pytest.mark.parametrize("mode", ["judge", "both", "plain"])
def test_no_answer_ends_before_min_tokens(tiny, mode: str, schedule: str) -> None:
    prefer = () if mode == "plain" else ("vivid", "formal")
    ending: dict[str, Any] = {"logit_bias": ("</s>=100",), "floor": 0, "top_k": 0, "schedule": schedule, "mode": mode}
    with PersonaJudge(tiny("llama"), prefer, engine=Engine(n_threads=1), **ending) as judge:
        assert judge("Hello").statistics.completion_tokens == 1
        answer = judge("Hello", min_tokens=7)
        assert (answer.statistics.completion_tokens, answer.finish_reason) == (8, "stop")
        for form in ({"regex": "a{3}"}, {"grammar": 'root ::= "a"{3}'}):
            assert judge("Hello", min_tokens=7, **form).text == "aaa", "a constraint that is met comes first"
        assert judge("Hello", min_tokens=7, grammar="root ::= [a-z]+").statistics.completion_tokens == 8


def test_a_wrong_constraint_is_refused_before_the_model_is_searched(tmp_path: Path) -> None:
    for sampling, says in (
        (Sampling(json_schema='{"not": {}}'), "the JSON schema cannot be used: 'not' is not supported"),
        (Sampling(regex="a("), "the regular expression cannot be used: unclosed group"),
        (Sampling(regex="[^\\s\\S]"), "the regular expression cannot be used: .+"),
        (Sampling(regex="a\udc80"), "the constraint is not valid UTF-8"),
        (Sampling(lark="start: foo"), 'the Lark grammar cannot be used: .*unknown name: "foo"'),
        (Sampling(lark='start: "a" <|im_end|>'), "the Lark grammar cannot be used: .+"),
        (Sampling(lark="start: " + "(" * 20_000 + '"a"' + ")" * 20_000), "the Lark grammar cannot be used: .+nested"),
    ):
        with pytest.raises(UsageError, match=f"^{says}") as error:
            PersonaJudge(tmp_path / "no.gguf", sampling=sampling)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("regex", "text", "matches"),
    [
        (r"\d{4}-\d\d", "2024-01", True),
        (r"\d{4}-\d\d", "٢٠٢٤-٠١", False),
        (r"[\d.]", "٣", False),
        (r"[\d.]", ".", True),
        (r"[^\d]", "٣", True),
        (r"\D", "٣", True),
        (r"[-\D]", "3", False),
        (r"\w+", "n_9", True),
        (r"\w", "é", False),
        (r"\W", "é", True),
        (r"[^\W\d]", "é", False),
        (r"[\w--\d]", "5", False),
        (r"\s", "\u00a0", False),
        (r"\s", "\t", True),
        (r"\S", "\u00a0", True),
        (r"\\d", r"\d", True),
        (r"\\\d", r"\3", True),
        (r"(?x) \d \s", "3 ", True),
        ("(?x) \\d # [ \\d", "3", True),
        (r"\p{Nd}", "٣", True),  # which names all scripts
    ],
)
def test_classes_in_expressions_are_limited_to_ascii(regex: str, text: str, matches: bool) -> None:
    sampling = Sampling(regex=regex)
    check_constraint(sampling)
    matcher = constraint._matcher(LLTokenizer("byte"), constraint._grammar(sampling))
    data = list(text.encode())
    assert (matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()) is matches


@pytest.mark.parametrize("regex", [r"\d{8}", r"[\d]{8}"])
def test_a_digit_class_writes_only_ascii_digits(tiny, regex: str) -> None:
    sampling = Sampling(regex=regex, temperature=5.0, top_k=0, top_p=1.0)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], sampling=sampling) as judge:
        for seed in range(3):
            assert re.fullmatch("[0-9]{8}", judge("When?", seed=seed, max_tokens=40).text)


CHAIN = "\n".join(["start: a0", *(f"a{i}: a{i + 1}" for i in range(3000)), 'a3000: "x"'])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"regex": "a{1000000000}"}, "too many expressions"),
        ({"regex": r"[^\s\S]"}, "nothing satisfies it"),
        ({"regex": r"[!-\d]"}, "invalid range boundary"),
        ({"regex": "a\\"}, "it ends in a backslash"),
        ({"regex": "(" * 5000 + "x" + ")" * 5000}, "nested"),
        ({"lark": CHAIN}, "more than 1000 rules"),
    ],
)
def test_a_constraint_that_is_too_large_is_refused_before_the_answer(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_constraint(Sampling(**given))


@pytest.mark.parametrize("multiple", [10, 100, 5000.0, 0.01])
def test_multiples_of_round_numbers_are_accepted(multiple: float) -> None:
    check_constraint(Sampling(json_schema=json.dumps({"type": "integer", "multipleOf": multiple})))


def test_an_object_may_have_many_properties(tiny) -> None:
    schema = json.dumps({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(800)}})
    with PersonaJudge(tiny("llama"), sampling=Sampling(json_schema=schema)) as judge:
        assert judge("hi", max_tokens=40, seed=1).text.startswith("{")


@pytest.mark.parametrize("form", [{"regex": "a(1|22|333)b"}, {"grammar": 'root ::= "a" ("1" | "22" | "333") "b"'}])
def test_an_answer_begins_with_given_text_under_a_constraint_although_the_vocabulary_puts_a_space_before_it(
    tiny, form: dict[str, str]
) -> None:
    with PersonaJudge(tiny("space_prefix"), seed=1, max_tokens=20) as judge:
        assert judge("Hello", begin="a3", **form).text.strip() == "a333b"
        with pytest.raises(UsageError, match="the answer cannot begin with"):
            judge("Hello", begin="b3", **form)


def test_an_answer_begins_with_given_text_under_a_constraint_although_a_plain_dialogue_puts_a_space_before_it(
    tmp_path: Path,
) -> None:
    with PersonaJudge(tiny_models.write_llama(tmp_path / "no_template.gguf", chat_template=None), seed=1) as judge:
        assert judge("Hello", begin="a3", regex="a(1|22|333)b").text.strip() == "a333b"
