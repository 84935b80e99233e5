"""A JSON schema is enforced exactly, or refused with the name of the unsupported keyword."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import jsonschema
import numpy as np
import pytest
from counted import n_calls
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer

from pjlocal import Sampling
from pjlocal.engine import constraint, json_schema
from pjlocal.engine.constraint import check_constraint
from pjlocal.errors import UsageError

_SHORT = b'"}]0123456789'  # bytes that bring a random text to its end


def matcher(schema: Any) -> Any:
    sampling = Sampling(json_schema=schema if isinstance(schema, str) else json.dumps(schema))
    check_constraint(sampling)
    return constraint._matcher(LLTokenizer("byte"), constraint._grammar(sampling))


def is_accepted(schema: Any, text: str) -> bool:
    tried = matcher(schema)
    data = text.encode()
    return tried.try_consume_tokens(list(data)) == len(data) and tried.is_accepting()


def random_text(tried: Any, seed: int, most: int = 2000) -> str | None:
    """Random bytes as the matcher allows them, drawn to its end; None where that does not come."""
    random = Random(seed)
    text = bytearray()
    while len(text) < most:
        bits = np.unpackbits(np.frombuffer(tried.compute_bitmask(), np.uint8), bitorder="little")
        allowed = [token for token in np.flatnonzero(bits[:256]).tolist() if 0x20 <= token < 0x7F or token >= 0xC2]
        allowed = allowed or np.flatnonzero(bits[:256]).tolist()
        if tried.is_accepting() and (not allowed or random.random() < 0.4):
            return text.decode()
        ends = [token for token in allowed if token in _SHORT]
        ascii_only = [token for token in allowed if token < 0x80] if len(text) > most // 20 else []
        if len(text) > most // 10 and ends:
            allowed = ends
        token = random.choice(ascii_only or allowed)
        assert tried.consume_token(token), tried.get_error()
        text.append(token)
    return None


def refusal(schema: Any) -> str:
    with pytest.raises(UsageError) as error:
        check_constraint(Sampling(json_schema=schema if isinstance(schema, str) else json.dumps(schema)))
    said = str(error.value)
    assert said.startswith("the JSON schema cannot be used: ") and "\n" not in said and len(said) < 300
    return said


def within(schema: Any) -> Any:
    return {"type": "object", "properties": {"in": schema}, "required": ["in"]}


NODE = {"type": "object", "properties": {"k": {"type": "array", "items": {"$ref": "#/$defs/N"}, "maxItems": 2}}}

A = {"type": "object", "properties": {"a": {"type": "integer"}}, "title": "A"}
B = {"type": "object", "properties": {"b": {"type": "integer"}}}
HAS_A, HAS_B = A | {"required": ["a"]}, B | {"required": ["b"]}
SHUT = {"additionalProperties": False}
BASE = {"type": "object", "properties": {"id": {"type": "integer"}, "both": A}}
OWN = {"next": {"$ref": "#/$defs/N"}, "at": A, "both": {"properties": {"b": {"type": "integer"}}}}
INHERITED = {
    "$defs": {"B": BASE, "N": {"allOf": [{"$ref": "#/$defs/B"}, {"type": "object", "properties": OWN}]}},
    "$ref": "#/$defs/N",
}
ALTERNATIVES = {
    "type": "object",
    "properties": {"k": {"type": "integer"}},
    "anyOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}],
}
CHAIN = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(3000)} | {"d3000": {}}

SUPPORTED = {
    "true": True,
    "empty": {},
    "type": {"type": "boolean"},
    "types": {"type": ["integer", "null"]},
    "enum": {"enum": ["red", 5, None, [1], {"a": "b"}, 0.25]},
    "const": {"const": {"a": [1, "x\n", -2.5, True]}},
    "minimum": {"type": "integer", "minimum": 1, "maximum": 5},
    "exclusive": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2.75},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 10},
    "multipleOf 0.5": {"type": "number", "multipleOf": 0.5, "maximum": 100},
    "length": {"type": "string", "minLength": 2, "maxLength": 4},
    "maxLength": {"type": "object", "properties": {"s": {"type": "string", "maxLength": 2000}}, "required": ["s"]},
    "pattern": {"type": "string", "pattern": r"^\d{3}-\d{4}$"},
    "pattern of two": {"type": "string", "pattern": "^low$|^high$"},
    "pattern inside": {"type": "string", "pattern": "ab+", "maxLength": 12},
    "pattern and length": {"type": "string", "pattern": "^[a-z.]+$", "minLength": 3, "maxLength": 6},
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 4},
    "a size of 2.0": {"type": "array", "items": {"type": "integer"}, "minItems": 1.0, "maxItems": 2.0},
    "prefixItems": {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["a"]}], "items": False},
    "properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "é\n": {"type": "boolean"}},
        "required": ["b", "c"],
    },
    "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "minProperties": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    "minProperties that required holds": {"type": "object", "required": ["a", "b"], "minProperties": 2},
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}, "^b.": {"type": "null"}},
        "additionalProperties": {"type": "boolean"},
    },
    "anyOf": {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "string", "maxLength": 1}]},
    "allOf": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}, {"multipleOf": 2}]},
    "oneOf": {"oneOf": [{"type": "null"}, {"type": "integer"}]},
    "oneOf by what is required": {"oneOf": [HAS_A, HAS_B]},
    "oneOf within oneOf": {"oneOf": [within({"oneOf": [HAS_A, HAS_B]}), {"type": "null"}]},
    "oneOf of closed objects": {"oneOf": [HAS_A | SHUT, B | SHUT]},
    "oneOf that leads to itself": {
        "$defs": {
            "Leaf": {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]},
            "Node": {
                "type": "object",
                "properties": {"of": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
                "required": ["of"],
            },
        },
        "oneOf": [{"$ref": "#/$defs/Leaf"}, {"$ref": "#/$defs/Node"}],
    },
    "oneOf of references": {
        "$defs": {
            "Cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "Dog": {"type": "object", "properties": {"kind": {"const": "dog"}, "n": {}}, "required": ["kind"]},
        },
        "discriminator": {"propertyName": "kind"},
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    },
    "$ref": {
        "$defs": {"N": NODE | {"required": ["k"]}},
        "$ref": "#/$defs/N",
    },
    "$ref to anywhere": {"properties": {"a/b": {"type": "null"}, "c": {"$ref": "#/properties/a~1b"}}},
    "$ref with a sibling": {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 3},
    "$ref to the root": {"type": "object", "additionalProperties": {"$ref": "#"}, "$id": "http://a.test/b"},
    "older items": {"items": [{"type": "integer"}, {"type": "null"}], "additionalItems": False, "type": "array"},
    "uniqueItems that is off": {"type": "array", "uniqueItems": False, "maxItems": 1},
    "annotations": {
        "title": "T", "description": "D", "default": 0, "examples": [7], "$comment": "c", "deprecated": True,
        "readOnly": True, "writeOnly": True, "$schema": "https://json-schema.org/draft/2020-12/schema", "x-mine": 1,
        "type": "integer",
    },
    **{f"format {name}": {"type": "string", "format": name} for name in json_schema._FORMATS},
}  # fmt: skip


@pytest.mark.parametrize("name", SUPPORTED)
def test_answers_under_each_supported_keyword_validate(name: str) -> None:
    schema = SUPPORTED[name]
    older = name == "older items"
    validator = (jsonschema.Draft7Validator if older else jsonschema.Draft202012Validator)(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    first, texts = matcher(schema), []
    for seed in range(15):
        text = random_text(first.deep_copy(), seed)
        if text is not None:
            validator.validate(json.loads(text))
            texts.append(text)
    assert len(texts) >= 5, "most random texts should come to an end"


@pytest.mark.parametrize(
    ("schema", "text", "valid"),
    [
        ({"const": "a"}, '"a"', True),
        ({"type": "string"}, '"a\nb"', False),
        ({"type": "string"}, r'"a\nb"', True),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, r'{"\u0061": 1}', False),
        ({"type": "object", "properties": {"\n": {"type": "null"}}}, r'{"\u000a": 1}', False),
        ({"type": "object", "properties": {"\n": {"type": "null"}}}, r'{"\n": 1}', False),
        ({"type": "object", "patternProperties": {"^\n": {"type": "null"}}}, r'{"\u000a": 1}', False),
        ({"type": "string", "pattern": "^.$"}, r'"\r"', False),
        ({"type": "string", "pattern": r"^\S$"}, '"\ufeff"', False),
        ({"type": "string", "pattern": r"^\s$"}, '" "', True),
        ({"type": "string", "pattern": r"^\s$"}, '"\u00a0"', False),  # is valid by some validators, not by others
        ({"type": "string", "pattern": r"^[\s.]$"}, '"\u00a0"', False),
        ({"type": "string", "pattern": r"^[^\s]$"}, '"\ufeff"', False),
        ({"type": "string", "pattern": r"^[^\S]$"}, '" "', True),
        ({"type": "string", "pattern": r"^\d$"}, '"٣"', False),
        ({"type": "string", "pattern": r"^[\d.]$"}, '"٣"', False),
        ({"type": "string", "pattern": r"^\w$"}, '"é"', False),
        ({"type": "string", "pattern": r"^\W$"}, '"é"', True),
        ({"type": "string", "pattern": r"^[-\d]$"}, '"-"', True),
        ({"type": "string", "pattern": r"^[\w.-]+@[\w-]+\.\w+$"}, '"a.b@c-d.e"', True),
        ({"type": "string", "pattern": r"^\$[.]\.$"}, '"$.."', True),
        ({"type": "string", "minLength": 2}, '"🎂"', False),
        ({"type": "string", "maxLength": 1}, '"🎂"', True),
        ({"format": "date"}, '"2023-02-29"', False),
        ({"format": "date"}, '"2024-02-29"', True),
        ({"format": "date"}, '"2000-02-29"', True),
        ({"format": "date"}, '"1900-02-29"', False),
        ({"format": "date"}, '"0000-01-01"', False),
        ({"format": "date"}, '"1999-12-31"', True),
        ({"format": "date-time"}, '"1985-04-12T23:20:50.52Z"', True),
        ({"format": "date-time"}, '"1985-02-30T23:20:50Z"', False),
        ({"format": "time"}, '"12:00:60Z"', False),
        ({"format": "time"}, '"12:00:59Z"', True),
        ({"format": "hostname"}, '"www.example-1.com"', True),
        ({"format": "hostname"}, '"xn--x"', False),
        ({"format": "date"}, "5", True),
        ({"type": "integer", "format": "int32"}, "5", True),  # OpenAPI's, which says how it is stored
        ({"type": "string", "format": "binary"}, '"x"', True),
        ({"type": ["integer", "null"], "format": "uint32", "minimum": 0}, "5", True),  # a format is one of texts
        ({"type": ["integer", "null"], "format": "uint32", "minimum": 0}, "-5", False),
        ({"type": "object", "propertyNames": {"type": "string"}}, '{"a": 1}', True),
        ({"enum": ["a", "b"], "enumDescriptions": ["first", "second"]}, '"a"', True),
        ({"type": "string", "nullable": True}, '"a"', True),
        ({"type": "number", "maximum": 1}, "1.0000000000000000001", False),
        ({"type": "number", "exclusiveMaximum": 1}, "0.95", True),
        ({"type": "number", "exclusiveMaximum": 1}, "0.99999999999999999999", False),  # is read as 1
        ({"type": "number", "exclusiveMinimum": 0}, "0.001", True),
        ({"type": "number", "exclusiveMinimum": 0}, "0.0", False),
        ({"type": "number", "exclusiveMinimum": 0}, "12345.5", True),
        ({"type": ["integer", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 2}, "1", True),
        ({"type": ["integer", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 2}, "2", False),
        ({"type": "object"}, '{\n  "a": [\n    1,\n    2\n  ]\n}', True),
        ({"type": "array"}, f"[{' ' * 30}]", False),
        ({"oneOf": [{"type": "null"}, False]}, "null", True),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, "{}", False),
        ({"type": "object", "properties": {"a": {}}}, '{"b": 1}', False),  # is valid, and seldom meant
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, '{"b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, '{"b": 1, "c": 1}', False),
        ({"type": "object", "required": ["b"]}, '{"b": 1, "c": 1}', False),
        ({"type": "object"}, '{"b": 1}', True),  # names no property
        ({"type": "object", "properties": {}}, '{"b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 0}, '{"b": 1}', False),
        ({"type": "object", "patternProperties": {"^x": {}}}, '{"x1": 1}', True),
        ({"type": "object", "patternProperties": {"^x": {}}}, '{"y": 1}', False),
        ({"patternProperties": {"^x": {}}, "allOf": [{"type": "object"}], **SHUT}, '{"x1": 1}', True),
        ({"patternProperties": {"^x": {}}, "allOf": [{"type": "object"}], **SHUT}, '{"y": 1}', False),
        ({"patternProperties": {"^x": {}}, "const": {"x1": 1}, **SHUT, "minProperties": 1}, '{"x1": 1}', True),
        ({**SHUT, "$ref": "#/$defs/a", "patternProperties": {"^x": {}}, "$defs": {"a": {}}}, '{"x1": 1}', True),
        ({"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {}}}], "$defs": {"a": A}}, '{"a": 1, "b": 2}', True),
        ({"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {}}}], "$defs": {"a": A}}, '{"a": 1, "c": 2}', False),
        ({"allOf": [A, {"patternProperties": {"^x": {}}}]}, '{"a": 1, "x1": 2}', True),
        ({"allOf": [A, {"patternProperties": {"^x": {}}}]}, '{"a": 1, "c": 2}', False),
        ({"allOf": [A, {"additionalProperties": {"type": "integer"}}]}, '{"c": 2}', True),
        ({"allOf": [{"items": A, "type": "array"}, {"maxItems": 2}]}, '[{"c": 2}]', False),
        ({"allOf": [{"$ref": "#/$defs/a"}], "default": {}, "$defs": {"a": A}}, '{"c": 2}', False),
        (INHERITED, '{"id": 1, "next": {"id": 2, "at": {"a": 1}}}', True),
        (INHERITED, '{"next": {"c": 2}}', False),
        (INHERITED, '{"at": {"c": 2}}', False),
        (INHERITED, '{"both": {"a": 1, "b": 2}}', True),
        (INHERITED, '{"both": {"c": 2}}', False),
        (ALTERNATIVES, '{"k": 1, "a": 2}', True),
        (ALTERNATIVES, '{"b": 2}', True),
        (ALTERNATIVES, '{"k": 1}', False),
        (ALTERNATIVES, '{"k": 1, "a": 2, "c": 3}', False),
        ({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": A}}, '{"a": 1, "b": 2}', False),
        ({"const": {"b": {"d": 1}}, "properties": {"b": {"properties": {"c": {}}}}}, '{"b": {"d": 1}}', True),
        ({"$ref": "#/$defs/a", "required": ["b"], "$defs": {"a": A}}, '{"a": 1, "b": 2}', True),
        ({"$ref": "#/$defs/a", "required": ["b"], "$defs": {"a": A}}, '{"b": 2, "c": 2}', False),
        ({"type": "object", "properties": {"a": {}}}, '{"a": 1, "a": 2}', False),
    ],
)  # fmt: skip
def test_edge_cases(schema: Any, text: str, valid: bool) -> None:
    assert is_accepted(schema, text) is valid


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("'not'", {"not": {"type": "string"}}),
        ("'if'", {"if": {}, "then": {}}),
        ("'contains'", {"contains": {"type": "null"}}),
        ("'minContains'", {"minContains": 2}),
        ("uniqueItems", {"type": "array", "uniqueItems": True}),
        ("'propertyNames'", {"propertyNames": {"maxLength": 3}}),
        ("'dependentRequired'", {"dependentRequired": {"a": ["b"]}}),
        ("'dependentSchemas'", {"dependentSchemas": {"a": {}}}),
        ("'dependencies'", {"dependencies": {"a": ["b"]}}),
        ("'unevaluatedProperties'", {"unevaluatedProperties": False}),
        ("'unevaluatedItems'", {"unevaluatedItems": False}),
        ("'$dynamicRef'", {"$dynamicRef": "#"}),
        ("'maxLenght'", {"type": "object", "properties": {"a": {"type": "string", "maxLenght": 3}}}),
        ("'x-guidance'", {"x-guidance": {"lenient": True}, "type": "array"}),
        ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        ("oneOf", {"oneOf": [HAS_A, B]}),  # {"a": 1} matches both
        ("oneOf", {"$defs": {"A": HAS_A, "B": B}, "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}),
        ("oneOf", {"oneOf": [within(HAS_A), within(B)]}),
        ("minProperties", {"type": "object", "minProperties": 2}),
        ("pattern '(?=a)b'", {"pattern": "(?=a)b"}),
        (r"pattern '(a)\\1'", {"pattern": r"(a)\1"}),
        ("pattern '('", {"pattern": "("}),
        (r"\b", {"pattern": r"\bfoo"}),
        ("pattern '[a-z&&[^b]]'", {"pattern": "[a-z&&[^b]]"}),
        ("pattern '(?i)a'", {"pattern": "(?i)a"}),
        (r"\A", {"pattern": r"\Aa"}),
        (r"-\d", {"pattern": r"^[!-\d]$"}),
        (r"-\s", {"pattern": r"^[!-\s]$"}),
        (r"\x00", {"pattern": r"^a\x00b$"}),
        (r"[\x00-\x02]", {"pattern": r"^a[\x00-\x02]b$"}),
        ("patternProperties '('", {"patternProperties": {"(": {}}}),
        ("patternProperty", {"type": "object", "patternProperties": {"^a": {}, "b": {"type": "null"}}}),
        ("const", {"const": "a\0b"}),
        ("enum", {"enum": [{"a\0b": 1}]}),
        ("properties", {"properties": {"a\0b": {}}}),
        ("required", {"required": ["a\x7fb"]}),
        ("const 9007199254740993", {"const": 2**53 + 1}),
        ("maximum", {"maximum": 1e300}),
        ("maximum", {"maximum": 0.12345678901234567}),
        ("multipleOf", {"multipleOf": 1_000_003}),
        ("multipleOf", {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}),
        ("multipleOf", {"multipleOf": 0}),
        ("multipleOf", {"multipleOf": 1e-9}),
        ("exclusiveMinimum", {"minimum": 1, "exclusiveMinimum": True}),
        ("minLength", {"minLength": -1}),
        ("maxLength", '{"maxLength": 1e999}'),
        ("minItems", {"minItems": 1.5}),
        ("minItems must be a whole number", {"type": "array", "items": {"type": "null"}, "minItems": 1.5}),
        ("maxLength must be a whole number of at least 0 (not -1)", {"maxLength": -1}),
        ("format", {"format": ["date"]}),
        ("format 'path'", {"type": "string", "format": "path"}),
        ("type", {"type": {}}),
        ("properties", {"properties": ["a"]}),
        ("required", {"required": "a"}),
        ("required must be a text", {"type": "object", "required": [["a"]]}),
        ("$ref", {"$ref": 1}),
        ("type", {"type": "unheard-of"}),
        ("enum", {"enum": []}),
        ("$ref 'http://a.test/b'", {"$ref": "http://a.test/b"}),
        ("$ref 'b.json#/c'", {"$ref": "b.json#/c"}),
        ("$ref '#/nope' points to nothing", {"$ref": "#/nope"}),
        ("$id", {"properties": {"a": {"$id": "http://a.test/", "type": "null"}}}),
        ("no value satisfies it", False),
        ("no value satisfies it", {"$ref": "#"}),
        ("no value satisfies it", {"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"}),
        ("no value satisfies it", {"type": "array", "minItems": 1, "items": {"$ref": "#"}}),
        ("no value satisfies it", {"allOf": [{"$ref": "#"}]}),
        ("minimum (5) is greater than maximum (1)", {"type": "integer", "minimum": 5, "maximum": 1}),
        ("Regex is empty", {"type": "string", "pattern": "^ab$", "maxLength": 1}),
        ("an object, true or false", 5),
        ("an object, true or false", {"items": "string"}),
        ("it is not JSON", '{"type": "obj'),
        ("NaN", '{"minimum": NaN}'),
        ("nested more than", "[" * 100_000),
        ("nested more than", '{"not":' * 100_000),
        ("nested more than", '{"items":' * 500 + "{}" + "}" * 500),
        ("nested more than 150 deep", {"$defs": CHAIN, "$ref": "#/$defs/d0"}),
        ("nested", '{"const":' + "[" * 500 + "]" * 500 + "}"),
        ("'a\\ud800'", '{"const": "a\\ud800"}'),
    ],
)  # fmt: skip
def test_an_unsupported_keyword_is_refused_by_name(keyword: str, schema: Any) -> None:
    assert keyword in refusal(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a{1000}){1000}"},
        {"type": "string", "pattern": "^(.*a.*){20}$"},
        {"type": "string", "pattern": "((a|b|ab)*c){50,5000}"},
        {"type": "array", "minItems": 1_000_000},
        {"type": "string", "maxLength": 10**15},
        {"enum": [f"v{i}" for i in range(20_000)]},
        {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)} | {"d3000": {}}, "$ref": "#/$defs/d0"},
        {
            "$defs": {f"d{i}": {"type": "null"} for i in range(500)},
            "anyOf": [{"$ref": f"#/$defs/d{i}"} for i in range(500)],
        },
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_no_schema_takes_long_to_check(schema: Any) -> None:
    def check() -> None:
        with suppress(UsageError):
            check_constraint(Sampling(json_schema=json.dumps(schema)))

    assert n_calls(check) < 1_000_000, "and llguidance by itself comes to an end"


numbers = st.integers(-(2**40), 2**40) | st.integers(-50, 50) | st.decimals(-1000, 1000, places=3).map(float)
texts = st.text(st.characters(blacklist_categories=["Cc", "Cs"]) | st.sampled_from("\n\t\"\\/'é🎂{"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(value=values, seed=st.integers(0, 99))
def test_a_constant_is_written_as_it_is(value: Any, seed: int) -> None:
    text = random_text(matcher({"enum": [value]}), seed, most=5000)
    jsonschema.validate(json.loads(text), {"enum": [value]})


@settings(max_examples=60, deadline=None)
@given(a=numbers, b=numbers, whole=st.booleans(), excluded=st.booleans(), seed=st.integers(0, 99))
def test_a_number_stays_between_its_bounds(a: float, b: float, whole: bool, excluded: bool, seed: int) -> None:
    least, most = sorted((a, b))
    schema = {"type": "integer" if whole else "number", "exclusiveMinimum" if excluded else "minimum": least}
    schema["maximum"] = most
    try:
        first = matcher(schema)
    except UsageError:
        assert least == most or whole, "only then there may be nothing between"
        return
    text = random_text(first, seed)
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(texts, min_size=1, max_size=3, unique=True),
    needed=st.integers(0, 3),
    others=st.sampled_from([True, False, {"type": "integer"}]),
    seed=st.integers(0, 99),
)
def test_an_object_has_its_required_properties_and_no_others(
    names: list[str], needed: int, others: Any, seed: int
) -> None:
    schema = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in names},
        "required": names[:needed],
        "additionalProperties": others,
    }
    text = random_text(matcher(schema), seed)
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


kinds = st.sampled_from([{"type": "integer"}, {"type": "null"}, {"const": "x"}, {"const": "y"}, True])
objects = st.builds(
    lambda properties, needed, extra: {"type": "object", "properties": properties, "required": needed} | extra,
    st.dictionaries(st.sampled_from("abc"), kinds, max_size=2),
    st.lists(st.sampled_from("abc"), max_size=2, unique=True),
    st.sampled_from([{}, {}, {"additionalProperties": False}, {"additionalProperties": True}]),
)


@settings(max_examples=150, deadline=None)
@given(options=st.lists(objects | st.builds(within, objects), min_size=2, max_size=3), seed=st.integers(0, 99))
def test_an_answer_for_one_option_of_oneof_matches_no_other(options: list[Any], seed: int) -> None:
    try:
        first = matcher({"oneOf": options})
    except UsageError:
        return
    text = random_text(first, seed)
    if text is not None:
        jsonschema.validate(json.loads(text), {"oneOf": options})
