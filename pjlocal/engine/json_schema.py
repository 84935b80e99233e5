"""Rewrite a JSON schema for llguidance, which enforces it token by token.

llguidance (1.9) resolves references, merges ``allOf`` and refuses keywords that it knows but does not implement.  This
module adds

- an allow-list of keywords, because llguidance ignores unknown ones;
- rewrites, because llguidance accepts some texts that do not validate;
- refusals of schemas on which llguidance would crash, take minutes or never finish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from math import lcm
from typing import Any
from urllib.parse import unquote

from ..errors import UsageError
from .ecma_regex import Refused, to_rust

Schema = Any  # a bool or an object

ANNOTATIONS = {
    *("$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$defs", "definitions"),
    *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
    *("contentMediaType", "contentEncoding", "contentSchema", "discriminator", "enumDescriptions", "nullable"),
}
#: Formats of OpenAPI, which describe how a program stores the value.
_OTHER_FORMATS = ("int32", "int64", "float", "double", "byte", "binary", "password")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_MAX_NESTING = 100  # levels of brackets; llguidance parses JSON up to 128 deep
_MAX_CHAIN = 150  # schemas inside one another; llguidance recurses at each, and crashes on about 2,000
_MAX_EXACT = 2**53  # llguidance computes in doubles, which represent all whole numbers up to here
_MAX_DIGITS = 15  # of a fraction; with 17, llguidance's bounds were off by one in the last place
_MAX_MULTIPLE = 10_000  # in units of the last digit: llguidance's automaton has a state for each; 1,000,003 take 9 s
_MAX_FRACTION = 6  # digits after the point of a multiple; 9 take half a second

# Schemas added to a format where llguidance accepts too much: days and seconds that do not exist, the year 0, and
# Punycode names that decode to nothing.
_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][48]|[2468]0|[13579][26])00)"
_DAY = f"({_YEAR}-(02-[01][0-9]|02-2[0-8]|(0[13-9]|1[0-2])-[0-9]{{2}})|{_LEAP_YEAR}-02-29)"
_SECOND = "[0-9]{2}:[0-9]{2}:[0-5]"
_LABEL = "[0-9A-Za-z]+(-[0-9A-Za-z]+)*"
_FORMATS: dict[str, Schema] = {
    **dict.fromkeys(("duration", "email", "ipv4", "ipv6", "uri", "uuid")),
    "date": {"pattern": f"^{_DAY}"},
    "time": {"pattern": f"^{_SECOND}"},
    "date-time": {"pattern": f"^{_DAY}[tT]{_SECOND}"},
    "hostname": {"pattern": rf"^{_LABEL}(\.{_LABEL})*$", "maxLength": 253},
}


def for_llguidance(text: str, error_of: Callable[[Schema], str]) -> dict[str, Any]:
    """Parse a JSON schema, and rewrite it so that llguidance enforces all of it.

    Args:
        error_of: returns llguidance's error for a schema, or an empty string.

    Raises:
        UsageError: the text is not a schema, or a keyword, which the message names, is not supported.
    """
    try:
        root = json.loads(text, parse_constant=_refuse_constant)
        if _nesting(root) > _MAX_NESTING:
            raise RecursionError
        return _translated(root, error_of)
    except RecursionError:
        reason = f"it is nested more than {_MAX_NESTING} deep"
    except Refused as refused:
        reason = str(refused)
    except ValueError as error:
        reason = f"it is not JSON: {error}"
    raise UsageError(f"the JSON schema cannot be used: {reason}")


def without_unknown_formats(schema: Schema) -> Schema:
    """Remove the formats that cannot be enforced.  JSON Schema lets validators ignore formats."""
    if isinstance(schema, list):
        return [without_unknown_formats(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        keyword: value if keyword in ("const", "enum") else without_unknown_formats(value)
        for keyword, value in schema.items()
        if not (keyword == "format" and isinstance(value, str) and value not in _FORMATS)
    }


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _nesting(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_nesting, inner), default=0) if isinstance(value, dict | list) else 0


def _translated(root: Schema, error_of: Callable[[Schema], str]) -> dict[str, Any]:
    translation = _Translation(root, error_of)
    body, definitions = translation.body, translation.definitions
    _check_multiples(translation.multiples)
    if not _is_finite(body, _finite(definitions)):
        raise Refused("no value satisfies it")
    if any(are_closed for _, _, are_closed in translation.one_ofs):
        opened = _Translation(root, error_of, closes=False)
        by_source = {source: options for options, source, _ in opened.one_ofs}
        for options, source, are_closed in translation.one_ofs:
            if are_closed:
                _check_exclusive(options, by_source[source], definitions | opened.definitions, error_of)
    result: dict[str, Any] = {} if body is True else body
    return {**result, "$defs": definitions} if definitions else result


class _Translation:
    """The translation of a schema and its references.

    Args:
        closes: whether objects may have only the properties that the schema names.  If not, ``oneOf`` becomes
            ``anyOf``.
    """

    def __init__(self, root: Schema, error_of: Callable[[Schema], str], *, closes: bool = True) -> None:
        self._root = root
        self._error_of = error_of
        self._closes = closes
        #: Names in ``$defs`` of the result, by reference and by the schemas that describe the target.
        self._names: dict[tuple[str, _Joint | None], str] = {}
        self._depth = 0
        self._joint: _Joint | None = None  # of the current value, if several schemas describe it
        self._joints: dict[frozenset[int], _Joint] = {}  # by the schemas
        self.definitions: dict[str, Schema] = {}
        self.multiples: list[Decimal] = []
        #: For each ``oneOf``: the translated options, ``id()`` of the original list, and whether each option forbids
        #: other properties by itself.
        self.one_ofs: list[tuple[list[Schema], int, bool]] = []
        self.body = self._schema(root)
        for options, _, _ in self.one_ofs:
            options[:] = [_followed(option, self.definitions) for option in options]

    def _schema(self, schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise Refused(f"a schema is an object, true or false (not {_short(schema)})")
        self._depth += 1
        if self._depth > _MAX_CHAIN:
            raise Refused(f"its schemas and references are nested more than {_MAX_CHAIN} deep")
        outside = self._joint
        if self._closes and outside is None and _is_joined(schema):
            self._joint = self._joint_of([schema])
        result: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword not in ANNOTATIONS:
                self._add(result, schema, keyword, value)
            elif keyword in ("$id", "id") and schema is not self._root:
                raise Refused(f"{keyword} inside a schema changes the meaning of its references")
        if self._joint is None and self._closes:
            _close_object(result)
        elif outside is None and self._joint and (closing := self._closing(self._joint)) is not True:
            result.setdefault("allOf", []).append(closing)
        # llguidance reads keywords in groups, which allOf, $ref and the like divide.  These two must be in one group.
        if {"patternProperties", "additionalProperties"} <= result.keys():
            result["patternProperties"] = result.pop("patternProperties")
            result["additionalProperties"] = result.pop("additionalProperties")
        _drop_implied_minimum(result)
        _include_bounds(result)
        self._joint = outside
        self._depth -= 1
        return result

    def _add(self, result: dict[str, Any], schema: dict[str, Any], keyword: str, value: Any) -> None:
        """Add a keyword to the result, rewritten for llguidance."""
        match keyword:
            case "type":
                pass
            case "$ref":
                value = f"#/$defs/{self._name(_expected(keyword, value, str))}"
            case "const" | "enum":
                if keyword == "enum" and not _expected(keyword, value, list):
                    raise Refused("enum must not be empty")
                _check_value(keyword, value)
            case "required":
                names = [_expected(keyword, name, str) for name in _expected(keyword, value, list)]
                for name in names:
                    _check_characters(keyword, name)
                value = list(dict.fromkeys(names))
            case "pattern":
                value = self._regex(keyword, value)
            case "format":
                if value in _OTHER_FORMATS or (isinstance(value, str) and not _may_be_text(schema)):
                    return
                if not isinstance(value, str) or value not in _FORMATS:
                    raise Refused(f"format {_short(value)} is not supported; {', '.join(sorted(_FORMATS))} are")
                if narrower := _FORMATS[value]:
                    result.setdefault("allOf", []).append(narrower)
            case "anyOf" | "allOf" | "oneOf":
                self._add_options(result, keyword, value)
                return
            case "prefixItems":
                value = self._items_list(keyword, value)
            case "items" if isinstance(value, list):  # older drafts' prefixItems
                if "prefixItems" in schema:
                    raise Refused("items must be one schema beside prefixItems")
                keyword, value = "prefixItems", self._items_list(keyword, value)
            case "items":
                value = self._part(value, self._joint and self._joint.of_items)
            case "additionalItems":  # older drafts' items; without a list of items it has no meaning
                if not isinstance(schema.get("items"), list):
                    return
                keyword, value = "items", self._part(value, self._joint and self._joint.of_items)
            case "additionalProperties":
                value = self._part(value, self._joint and _ANY)
            case "properties" | "patternProperties":
                value = self._by_name(keyword, value)
            case "uniqueItems" if value is False:
                return
            case "propertyNames" if value == {"type": "string"}:  # every name is one
                return
            case _ if keyword in _SIZES or keyword in _BOUNDS:
                value = self._number(keyword, value)
            case _ if keyword.startswith("x-") and keyword != "x-guidance":
                return
            case _:
                raise Refused(f"{_short(keyword)} is not supported")
        result[keyword] = value

    def _items_list(self, keyword: str, value: Any) -> list[Schema]:
        return [self._part(each, self._joint and self._joint.of_items) for each in _expected(keyword, value, list)]

    def _add_options(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        options = [self._schema(option) for option in _expected(keyword, value, list)]
        if keyword == "oneOf":
            self.one_ofs.append((options, id(value), self._joint is None))
            if not self._closes:
                keyword, options = "allOf", [{"anyOf": options}]
        if keyword == "allOf":  # may exist already, from a format or a closing schema
            result.setdefault(keyword, []).extend(options)
        else:
            result[keyword] = options

    def _by_name(self, keyword: str, value: Any) -> dict[str, Schema]:
        patterns = keyword == "patternProperties"
        result = {}
        for name, schema in _expected(keyword, value, dict).items():
            _check_characters(keyword, name)
            part = self._part(schema, self._joint_of_named(name, patterns))
            result[self._regex(keyword, name) if patterns else name] = part
        if len(result) < len(value):
            raise Refused(f"{keyword} has two patterns with the same meaning")
        return result

    def _number(self, keyword: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"{keyword} must be a number (not {_short(value)})")
        _check_exact(keyword, value)
        if keyword in _SIZES:
            if value < 0 or value != int(value):
                raise Refused(f"{keyword} must be a whole number of at least 0 (not {_short(value)})")
            return int(value)
        if keyword == "multipleOf":
            self.multiples.append(Decimal(repr(value)))
        return value

    def _name(self, reference: str) -> str:
        """The name under which ``definitions`` has the translated target of a reference."""
        key = reference, self._joint
        if key not in self._names:
            self._names[key] = name = f"{'r' if self._closes else 'o'}{len(self._names)}"
            self.definitions[name] = self._schema(_pointed_to(self._root, reference))
        return self._names[key]

    def _regex(self, keyword: str, pattern: Any) -> str:
        _check_characters(keyword, _expected(keyword, pattern, str))
        try:
            regex = to_rust(pattern)
        except Refused as refused:
            raise Refused(f"{keyword} {_short(pattern)}: {refused}") from None
        if error := self._error_of({"type": "string", "pattern": regex}):
            raise Refused(f"{keyword} {_short(pattern)}: {error}")
        return regex

    # Objects have only the properties that their schemas name.  If several schemas describe one value, each allows the
    # names of all, so a further schema (the "closing" one) forbids other names.

    def _joint_of(self, schemas: Sequence[Schema]) -> _Joint:
        together: dict[int, dict[str, Any]] = {}
        waiting = [*reversed(schemas)]
        while waiting:
            schema = waiting.pop()
            if not isinstance(schema, dict) or id(schema) in together:
                continue
            together[id(schema)] = schema
            if isinstance(reference := schema.get("$ref"), str):
                waiting.append(_pointed_to(self._root, reference))
            for keyword in ("oneOf", "anyOf", "allOf"):
                if isinstance(options := schema.get(keyword), list):
                    waiting += reversed(options)
        key = frozenset(together)
        if key not in self._joints:
            self._joints[key] = _Joint(list(together.values()))
        return self._joints[key]

    def _closing(self, joint: _Joint, around: tuple[_Joint, ...] = ()) -> Schema:
        """The schema that forbids properties without a name in the joint; True if it would have no effect."""
        if joint in around:
            return True
        inner: dict[str, Schema] = dict.fromkeys(joint.names, True)
        if not joint.overlaps:
            for name, schemas in joint.names.items():
                if len(schemas) > 1:
                    inner[name] = self._closing(self._joint_of(schemas), (*around, joint))
        if joint.names_all:
            patterns = {self._regex("patternProperties", pattern): True for pattern in joint.patterns}
            closing = {"properties": inner, "additionalProperties": False}
            return {**closing, "patternProperties": patterns} if patterns else closing
        inner = {name: schema for name, schema in inner.items() if schema is not True}
        return {"properties": inner} if inner else True

    def _part(self, schema: Schema, joint: _Joint | None) -> Schema:
        """Translate the schema of a property or item of the current value.

        Args:
            joint: the schemas that describe this part together; None if there is only one.
        """
        outside, self._joint = self._joint, joint
        result = self._schema(schema)
        self._joint = outside
        return result

    def _joint_of_named(self, name: str, is_pattern: bool) -> _Joint | None:
        joint = self._joint
        if joint is None:
            return None
        if is_pattern or joint.overlaps:
            return _ANY
        schemas = joint.names[name]
        return self._joint_of(schemas) if len(schemas) > 1 else None


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def _expected(keyword: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Refused(f"{keyword} must be {_KINDS[kind]} (not {_short(value)})")
    return value


# Numbers.


def _check_exact(keyword: str, number: float) -> None:
    if abs(number) > _MAX_EXACT:
        raise Refused(f"{keyword} {_short(number)} is too large to be compared exactly")
    if number != int(number) and len(Decimal(repr(number)).as_tuple().digits) > _MAX_DIGITS:
        raise Refused(f"{keyword} {_short(number)} has more than {_MAX_DIGITS} digits")


def _check_multiples(multiples: list[Decimal]) -> None:
    """Refuse multiples on which llguidance is slow.  The cost of several is that of their least common multiple."""
    if any(multiple <= 0 for multiple in multiples):
        raise Refused("multipleOf must be above 0")
    unit = 10 ** max((0, *(-int(multiple.normalize().as_tuple().exponent) for multiple in multiples)))
    if unit > 10**_MAX_FRACTION:
        raise Refused(f"multipleOf can have at most {_MAX_FRACTION} digits after the decimal point")
    if lcm(*(int(multiple * unit) for multiple in multiples)) > _MAX_MULTIPLE:
        raise Refused(f"multipleOf must be at most {_MAX_MULTIPLE} in units of its last digit, all together")


_LEAST = Decimal("1e-9")  # the neighbour of an excluded 0


def _include_bounds(result: dict[str, Any]) -> None:
    """Replace an excluded bound by its neighbour: 0.99999999999999999999 is below 1, but validators read it as 1."""
    for bound, other, sign in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if bound in result and result.get("type") != "integer":
            excluded = Decimal(repr(result.pop(bound)))
            step = Decimal(1).scaleb(excluded.adjusted() + 1 - _MAX_DIGITS) if excluded else _LEAST
            nearest = float(excluded + sign * step)
            result[other] = (max if sign > 0 else min)(nearest, result.get(other, nearest))


# Texts.

# Answers write control characters as short escapes (\n) only, because \u00.. would allow two spellings of a name.
# Control characters without a short escape cannot be written; llguidance would read "a\u0000b" as "ab".
_CANNOT_WRITE = re.compile("[^\b\t\n\f\r\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]")


def _may_be_text(schema: dict[str, Any]) -> bool:
    types = schema.get("type")
    return not isinstance(types, str | list) or "string" in types


def _check_characters(keyword: str, text: str) -> None:
    if found := _CANNOT_WRITE.search(text):
        raise Refused(f"{keyword} {_short(text)} has a character that is not supported: {found[0]!a}")


def _check_value(keyword: str, value: Any) -> None:
    """Check the numbers, texts and names in a value of ``const`` or ``enum``."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            _check_value(keyword, inner)
    elif isinstance(value, str):
        _check_characters(keyword, value)
    elif isinstance(value, int | float):
        _check_exact(keyword, value)


# Options.


def _check_exclusive(
    options: list[Schema], opened: list[Schema], definitions: dict[str, Schema], error_of: Callable[[Schema], str]
) -> None:
    """Refuse a ``oneOf`` if a text written for one option may match another option of the original schema.

    llguidance compares the closed options: {"a": 1} does not match an option that names only b.  But the original
    option, without additionalProperties, allows it.

    Args:
        opened: the same options, translated with ``closes=False``.
    """
    if not error_of({"$defs": definitions, "oneOf": opened}):
        return
    pairs = [{"oneOf": [option, {"anyOf": opened[:i] + opened[i + 1 :]}]} for i, option in enumerate(options)]
    if len(options) > 1 and (error := error_of({"$defs": definitions, "type": "array", "prefixItems": pairs})):
        raise Refused(error)


# Objects.


def _is_joined(schema: dict[str, Any]) -> bool:
    """True if several schemas describe one value."""
    applied = {"$ref", "allOf", "anyOf", "oneOf", "const", "enum"} & schema.keys()
    others = schema.keys() - applied - ANNOTATIONS
    return "allOf" in schema or "patternProperties" in schema or len(applied) > 1 or bool(applied and others)


class _Joint:
    """Several schemas that describe one value.

    names: the schemas of each named property.
    overlaps: whether keywords other than ``properties`` may describe a property too.
    names_all: whether only the named properties are allowed.
    """

    def __init__(self, schemas: Sequence[dict[str, Any]]) -> None:
        keywords = set().union(*schemas)
        self.names: dict[str, list[Schema]] = {}
        for schema in schemas:
            for name, of_it in _as(dict, schema.get("properties")).items():
                self.names.setdefault(name, []).append(of_it)
            for name in _as(list, schema.get("required")):
                if isinstance(name, str):
                    self.names.setdefault(name, [])
        self.patterns = list(dict.fromkeys(p for each in schemas for p in _as(dict, each.get("patternProperties"))))
        self.overlaps = bool({"patternProperties", "additionalProperties", "const", "enum"} & keywords)
        is_open = bool({"additionalProperties", "minProperties", "const", "enum"} & keywords)
        self.names_all = bool(self.names or self.patterns) and not is_open
        self._has_one_list = sum(bool({"items", "prefixItems"} & each.keys()) for each in schemas) == 1

    @property
    def of_items(self) -> _Joint | None:
        """The schemas of an item: None if there is only one, `_ANY` if they are not known."""
        return None if self._has_one_list else _ANY


def _as(kind: type, value: Any) -> Any:
    """The value if it has this type, else an empty value of the type (the wrong type is refused elsewhere)."""
    return value if isinstance(value, kind) else kind()


_ANY = _Joint([{"const": None}])  # stands for schemas that are not known: objects stay open


def _close_object(result: dict[str, Any]) -> None:
    """Forbid properties without a name: they are seldom intended, and a small model would add them without end."""
    names = [*dict.fromkeys((*result.get("properties", ()), *result.get("required", ())))]
    if names and "additionalProperties" not in result and result.get("minProperties", 0) <= len(names):
        result["properties"] = dict.fromkeys(names, True) | result.get("properties", {})
        result["additionalProperties"] = False


def _drop_implied_minimum(result: dict[str, Any]) -> None:
    """Drop ``minProperties`` if ``required`` implies it, and refuse other values above 1.

    llguidance could reach such a minimum by writing a name twice that ``properties`` does not list.
    """
    least = result.get("minProperties", 0)
    if least <= len(result.get("required", ())):
        result.pop("minProperties", None)
    elif least > 1:
        raise Refused("minProperties above 1 is supported only if required has as many names")


# References.


def _pointed_to(root: Schema, reference: str) -> Schema:
    if reference != "#" and not reference.startswith("#/"):
        raise Refused(f"$ref {_short(reference)} is not supported: use #/... within the schema")
    at = root
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        elif isinstance(at, dict) and name in at:
            at = at[name]
        else:
            raise Refused(f"$ref {_short(reference)} points to nothing")
    return at


def _followed(option: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The target of a schema that is only a reference: llguidance does not look through references to see that two
    schemas exclude each other."""
    seen = set()
    while isinstance(option, dict) and option.keys() == {"$ref"} and option["$ref"] not in seen:
        seen.add(option["$ref"])
        option = definitions[option["$ref"].rpartition("/")[2]]
    return option


def _finite(definitions: Mapping[str, Schema]) -> set[str]:
    """The names of the definitions that a finite value can satisfy (the least fixed point)."""
    finite: set[str] = set()
    while more := [name for name in definitions if name not in finite and _is_finite(definitions[name], finite)]:
        finite.update(more)
    return finite


def _is_finite(schema: Schema, finite: set[str]) -> bool:
    """True if a finite value may satisfy the schema, given the definitions that finite values can satisfy."""
    if isinstance(schema, bool):
        return schema

    def all_are(schemas: Iterable[Schema]) -> bool:
        return all(_is_finite(each, finite) for each in schemas)

    if "$ref" in schema and schema["$ref"].rpartition("/")[2] not in finite:
        return False
    if not all_are(schema.get("allOf", ())):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and not any(_is_finite(option, finite) for option in schema[keyword]):
            return False
    types = schema.get("type", "any")
    types = types if isinstance(types, list) else [types]
    if any(name not in ("object", "array") for name in types):
        return True
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    patterns = "patternProperties" in schema
    needed = (properties.get(name, True if patterns else others) for name in schema.get("required", ()))
    if "object" in types and all_are(needed):
        return True
    least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    rest = [schema.get("items", True)] if least > len(first) else []
    return "array" in types and all_are([*first[:least], *rest])


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
