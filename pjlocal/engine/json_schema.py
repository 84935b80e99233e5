"""A JSON schema as llguidance takes it: what that would drop or get wrong is refused here, by its keyword.

llguidance passes over keywords that it does not know, and reads some otherwise than the specification (draft 2020-12).
So nothing reaches it that was not looked at: annotations are taken out, older spellings become today's, and what is
left is on a list that the tests hold against the public test suite's kinds of cases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from math import lcm
from typing import Any
from urllib.parse import unquote

from ..errors import UsageError

Schema = Any  # what JSON holds where a schema stands: a bool or an object

_ANNOTATIONS = {
    *("$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$defs", "definitions"),
    *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
    *("contentMediaType", "contentEncoding", "contentSchema", "discriminator"),
}
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_DEEPEST = 100  # brackets within brackets; llguidance reads JSON 128 deep
_LONGEST = 150  # schemas one after the other; llguidance calls itself for each, and crashes on some 2,000
_EXACT = 2**53  # llguidance computes in doubles, which hold whole numbers up to here
_DIGITS = 15  # of other numbers; at 17 its bounds were seen to be off by one in the last place
_MOST_MULTIPLE = 10_000  # in units of the last digit: its automaton has a state each, and 1,000,003 take 9 seconds
_FINEST = 6  # digits behind the point of a multiple; 9 take half a second

# Some formats' own patterns let through what is none: days and seconds that no calendar has, the year 0, names in
# Punycode that mean nothing.  These are what must hold besides.
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


class Refused(Exception):
    """What cannot be honoured, beginning with its keyword."""


def for_llguidance(text: str, check_pattern: Callable[[str], None]) -> dict[str, Any]:
    """The schema in a text, with nothing in it that llguidance does not enforce.

    Args:
        check_pattern: raises Refused for a regular expression that llguidance does not take.

    Raises:
        UsageError: not a schema, or one that cannot be honoured; names the keyword.
    """
    try:
        return _Translation(_parsed(text), check_pattern).result
    except Refused as refused:
        raise UsageError(f"the JSON schema cannot be used: {refused}") from None


def _parsed(text: str) -> Any:
    too_deep = Refused(f"it is nested more than {_DEEPEST} deep")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:
        raise Refused(f"it is not JSON: {error}") from None
    if _is_deep(value):
        raise too_deep
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


class _Translation:
    """One schema with all that it refers to."""

    def __init__(self, root: Schema, check_pattern: Callable[[str], None]) -> None:
        self._root = root
        self._check_pattern = check_pattern
        #: Names in ``$defs`` of the result, of what references point to; each translated for where it stands.
        self._names: dict[tuple[str, _Joint | None], str] = {}
        self._definitions: dict[str, Schema] = {}
        self._depth = 0
        self._joint: _Joint | None = None  # the schemas that describe the value at hand, where there are several
        self._joints: dict[frozenset[int], _Joint] = {}  # by the schemas
        self._one_of: list[list[Schema]] = []
        self._multiples: list[Decimal] = []
        body, definitions = self._schema(root), self._definitions
        _check_multiples(self._multiples)
        for options in self._one_of:
            options[:] = [_followed(option, definitions) for option in options]
        if not _is_finite(body, _finite(definitions)):
            raise Refused("no value satisfies it")
        if body is True:
            body = {}
        self.result: dict[str, Any] = {**body, "$defs": definitions} if definitions else body

    def _schema(self, schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise Refused(f"a schema is an object, true or false (not {_short(schema)})")
        self._depth += 1
        if self._depth > _LONGEST:
            raise Refused(f"its schemas and references lead more than {_LONGEST} deep")
        outside = self._joint
        if outside is None and _is_joined(schema):
            self._joint = self._joint_of([schema])
        result: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _ANNOTATIONS:
                if keyword in ("$id", "id") and schema is not self._root:
                    raise Refused(f"{keyword} inside a schema changes what its references mean")
            elif keyword in _KEYWORDS:
                _KEYWORDS[keyword](self, result, keyword, value)
            elif keyword == "x-guidance" or not keyword.startswith("x-"):
                raise Refused(f"{_short(keyword)} is not supported")
        self._rewrite_items(schema, result)
        if self._joint is None:
            _close_object(result)
        elif outside is None and (closing := self._closing(self._joint)) is not True:
            result.setdefault("allOf", []).append(closing)
        _forget_what_is_required_anyway(result)
        _close_bounds(result)
        self._joint = outside
        self._depth -= 1
        return result

    # Objects have no other properties than their schemas name.  Where several schemas describe one value, only all of
    # them together tell the names, so one more schema beside them says that there are no others.

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
        """The schema that allows no other properties than those that are named; True where it would say nothing."""
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
        """The translated schema of a part of the value at hand, which is described by these schemas together."""
        outside, self._joint = self._joint, joint
        result = self._schema(schema)
        self._joint = outside
        return result

    # One method a kind of keyword: look at the value, and put what llguidance is to see into the result.

    def _size(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        self._number(result, keyword, value)
        if value < 0 or value != int(value):
            raise Refused(f"{keyword} must be a whole number (not {_short(value)})")
        result[keyword] = int(value)

    def _number(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"{keyword} must be a number (not {_short(value)})")
        _check_exact(keyword, value)
        if keyword == "multipleOf":
            self._multiples.append(Decimal(repr(value)))
        result[keyword] = value

    def _values(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if keyword == "enum" and (not isinstance(value, list) or not value):
            raise Refused(f"enum must be a list of values (not {_short(value)})")
        for part in _parts(value):
            if isinstance(part, str):
                _check_spelling(keyword, part)
            else:
                _check_exact(keyword, part)
        result[keyword] = value

    def _type(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        for name in value if isinstance(value, list) else [value]:
            if name not in _TYPES:
                raise Refused(f"type must be of {', '.join(_TYPES)} (not {_short(name)})")
        result[keyword] = value

    def _pattern(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        result[keyword] = self._regex(keyword, value)

    def _format(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if not isinstance(value, str) or value not in _FORMATS:
            raise Refused(f"format {_short(value)} is not supported; {', '.join(sorted(_FORMATS))} are")
        result[keyword] = value
        if narrower := _FORMATS[value]:
            result.setdefault("allOf", []).append(narrower)

    def _one(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        result[keyword] = self._schema(value)

    def _list(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if not isinstance(value, list) or not value:
            raise Refused(f"{keyword} must be a list of schemas (not {_short(value)})")
        options = [self._schema(option) for option in value]
        result.setdefault(keyword, []).extend(options)
        if keyword == "oneOf":
            self._one_of.append(result[keyword])

    def _items(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        outside = self._joint
        self._joint = outside and outside.of_items
        (self._list if isinstance(value, list) else self._one)(result, keyword, value)
        self._joint = outside

    def _others(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        result[keyword] = self._part(value, self._joint and _ANY)

    def _rewrite_items(self, schema: dict[str, Any], result: dict[str, Any]) -> None:
        """A list of ``items``, in older drafts, is today's ``prefixItems``, and ``additionalItems`` then ``items``."""
        additional = result.pop("additionalItems", None)
        if isinstance(schema.get("items"), list):
            if "prefixItems" in schema:
                raise Refused("items must be one schema beside prefixItems")
            result["prefixItems"] = result.pop("items")
            if additional is not None:
                result["items"] = additional

    def _by_name(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{keyword} must be an object of schemas (not {_short(value)})")
        patterns = keyword == "patternProperties"
        for name in value:
            _check_spelling(keyword, name)
        result[keyword] = {
            (self._regex(keyword, name) if patterns else name): self._part(schema, self._joint_of_named(name, patterns))
            for name, schema in value.items()
        }
        if len(result[keyword]) < len(value):
            raise Refused(f"{keyword} says the same in two ways")

    def _joint_of_named(self, name: str, is_pattern: bool) -> _Joint | None:
        joint = self._joint
        if joint is None:
            return None
        if is_pattern or joint.overlaps:
            return _ANY
        schemas = joint.names[name]
        return self._joint_of(schemas) if len(schemas) > 1 else None

    def _required(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise Refused(f"{keyword} must be a list of names (not {_short(value)})")
        for name in value:
            _check_spelling(keyword, name)
        result[keyword] = list(dict.fromkeys(value))

    def _false_only(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if value is not False:
            raise Refused(f"{keyword} is not supported")

    def _reference(self, result: dict[str, Any], keyword: str, value: Any) -> None:
        if not isinstance(value, str):
            raise Refused(f"$ref must be a text (not {_short(value)})")
        key = value, self._joint
        if key not in self._names:
            self._names[key] = name = f"r{len(self._names)}"
            self._definitions[name] = self._schema(_pointed_to(self._root, value))
        result[keyword] = f"#/$defs/{self._names[key]}"

    def _regex(self, keyword: str, pattern: Any) -> str:
        if not isinstance(pattern, str):
            raise Refused(f"{keyword} must be a regular expression (not {_short(pattern)})")
        _check_spelling(keyword, pattern)
        try:
            regex = _as_ecma_reads_it(pattern)
            self._check_pattern(regex)
        except Refused as refused:
            raise Refused(f"{keyword} {_short(pattern)}: {refused}") from None
        return regex


_KEYWORDS: Mapping[str, Callable[[_Translation, dict[str, Any], str, Any], None]] = {
    "$ref": _Translation._reference,
    "type": _Translation._type,
    "format": _Translation._format,
    "pattern": _Translation._pattern,
    "required": _Translation._required,
    "uniqueItems": _Translation._false_only,
    **dict.fromkeys(("items", "prefixItems", "additionalItems"), _Translation._items),
    **dict.fromkeys(("const", "enum"), _Translation._values),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _Translation._list),
    "additionalProperties": _Translation._others,
    **dict.fromkeys(("properties", "patternProperties"), _Translation._by_name),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _Translation._size
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _Translation._number),
}


# Numbers.


def _check_exact(keyword: str, number: float) -> None:
    if abs(number) > _EXACT:
        raise Refused(f"{keyword} {_short(number)} is too large to be compared exactly")
    if number != int(number) and len(Decimal(repr(number)).as_tuple().digits) > _DIGITS:
        raise Refused(f"{keyword} {_short(number)} has more than {_DIGITS} digits")


def _check_multiples(multiples: list[Decimal]) -> None:
    """All of a schema's together: where several hold at once, so does their least common multiple."""
    if any(multiple <= 0 for multiple in multiples):
        raise Refused("multipleOf must be above 0")
    whole = [multiple.scaleb(_FINEST) for multiple in multiples]
    if any(multiple != int(multiple) for multiple in whole):
        raise Refused(f"multipleOf has at most {_FINEST} digits behind the point")
    unit = 10 ** max((0, *(-int(m.normalize().as_tuple().exponent) for m in multiples)))
    if lcm(*(int(multiple * unit) for multiple in multiples)) > _MOST_MULTIPLE:
        raise Refused(f"multipleOf goes up to {_MOST_MULTIPLE}, in units of its last digit, all of them together")


_LEAST = Decimal("1e-9")  # next to an excluded 0


def _close_bounds(result: dict[str, Any]) -> None:
    """An excluded bound becomes its neighbour included: 0.99999999999999999999 is below 1, but is read as 1."""
    for bound, other, sign in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if bound in result and result.get("type") != "integer":
            excluded = Decimal(repr(result.pop(bound)))
            step = Decimal(1).scaleb(excluded.adjusted() + 1 - _DIGITS) if excluded else _LEAST
            nearest = float(excluded + sign * step)
            result[other] = (max if sign > 0 else min)(nearest, result.get(other, nearest))


def _parts(value: Any) -> Iterator[float | str]:
    """The numbers and texts in a value, names included."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, int | float | str) and not isinstance(value, bool):
        yield value


# Texts.

# Answers spell control characters by their short escapes alone: \u00.. would let a name be spelled in two ways, past
# what holds for it.  What has none cannot be written, and llguidance would read "a\u0000b" as "ab".
_CANNOT_WRITE = re.compile("[^\b\t\n\f\r\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]")


def _check_spelling(keyword: str, text: str) -> None:
    if found := _CANNOT_WRITE.search(text):
        raise Refused(f"{keyword} {_short(text)} has a character that is not supported: {found[0]!a}")


# Objects.


def _is_joined(schema: dict[str, Any]) -> bool:
    """Whether several schemas say what one value is."""
    applied = {"$ref", "allOf", "anyOf", "oneOf", "const", "enum"} & schema.keys()
    others = schema.keys() - applied - _ANNOTATIONS
    return "allOf" in schema or "patternProperties" in schema or len(applied) > 1 or bool(applied and others)


_ARRAYS = {"items", "prefixItems", "additionalItems"}


class _Joint:
    """Schemas that describe one value together.

    names: the schemas of each property that is named.
    overlaps: whether a property may be described under other keywords than ``properties`` too.
    names_all: whether the properties that are named are all there may be.
    """

    def __init__(self, schemas: Sequence[dict[str, Any]]) -> None:
        said = set().union(*schemas)
        self.names: dict[str, list[Schema]] = {}
        for schema in schemas:
            for name, of_it in _as(dict, schema.get("properties")).items():
                self.names.setdefault(name, []).append(of_it)
            for name in _as(list, schema.get("required")):
                if isinstance(name, str):
                    self.names.setdefault(name, [])
        self.patterns = list(dict.fromkeys(p for each in schemas for p in _as(dict, each.get("patternProperties"))))
        self.overlaps = bool({"patternProperties", "additionalProperties", "const", "enum"} & said)
        is_open = bool({"additionalProperties", "minProperties", "const", "enum"} & said)
        self.names_all = bool(self.names or self.patterns) and not is_open
        self._has_one_list = sum(bool(_ARRAYS & each.keys()) for each in schemas) == 1

    @property
    def of_items(self) -> _Joint | None:
        """The schemas that describe an item together, as far as that is known."""
        return None if self._has_one_list else _ANY


def _as(kind: type, value: Any) -> Any:
    """The value, or an empty one of that kind where it is of another, which is refused elsewhere."""
    return value if isinstance(value, kind) else kind()


_ANY = _Joint([{"const": None}])  # of what is not looked into: objects stay open there


def _close_object(result: dict[str, Any]) -> None:
    """No other properties than those that are named: others are seldom meant, and a small model goes on and on."""
    names = [*dict.fromkeys((*result.get("properties", ()), *result.get("required", ())))]
    if names and "additionalProperties" not in result and result.get("minProperties", 0) <= len(names):
        result["properties"] = dict.fromkeys(names, True) | result.get("properties", {})
        result["additionalProperties"] = False


def _forget_what_is_required_anyway(result: dict[str, Any]) -> None:
    """``minProperties`` counts names, and llguidance may write one twice that ``properties`` does not list."""
    least = result.get("minProperties", 0)
    if least <= len(result.get("required", ())):
        result.pop("minProperties", None)
    elif least > 1:
        raise Refused("minProperties above 1 is not supported, but where required names as many")


# References.


def _pointed_to(root: Schema, reference: str) -> Schema:
    if reference != "#" and not reference.startswith("#/"):
        raise Refused(f"$ref {_short(reference)} is not supported: only #/... within the schema is")
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
    """What a bare reference points to: llguidance sees whether two schemas exclude each other, but not behind these."""
    seen = set()
    while isinstance(option, dict) and option.keys() == {"$ref"} and option["$ref"] not in seen:
        seen.add(option["$ref"])
        option = definitions[option["$ref"].rpartition("/")[2]]
    return option


def _finite(definitions: Mapping[str, Schema]) -> set[str]:
    """The definitions that a value can satisfy without ever needing themselves: the least such set."""
    finite: set[str] = set()
    while more := [name for name in definitions if name not in finite and _is_finite(definitions[name], finite)]:
        finite.update(more)
    return finite


def _is_finite(schema: Schema, finite: set[str]) -> bool:
    """Whether some value may satisfy it, where of all that references point to only ``finite`` can be satisfied."""
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
    types = schema.get("type", _TYPES)
    types = {types} if isinstance(types, str) else set(types)
    if types - {"object", "array"}:
        return True
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    patterns = "patternProperties" in schema
    needed = (properties.get(name, True if patterns else others) for name in schema.get("required", ()))
    if "object" in types and all_are(needed):
        return True
    least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    rest = [schema.get("items", True)] if least > len(first) else []
    return "array" in types and all_are([*first[:least], *rest])


# Regular expressions.

_ESCAPES = "dDwWsSbBnrtfvxupPk0123456789"  # letters and digits that ECMAScript gives a meaning behind a backslash
_GROUP = re.compile(r"\?(?:[:=!]|<[=!]|P?<\w+>)")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SPACES = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # ECMAScript's, not quite Unicode's
#: What these mean so that every validator agrees: \\s is the spaces of ASCII, and \\S none that ECMAScript knows.
_MEANS = {".": r"[^\n\r\u2028\u2029]", r"\s": r"[\t-\r ]", r"\S": f"[^{_SPACES}]"}
_MEANS_IN_NEGATED_CLASS = {r"\s": f"[{_SPACES}]", r"\S": r"[^\t-\r ]"}


def _as_ecma_reads_it(pattern: str) -> str:
    """The pattern in Rust's syntax, which llguidance reads; refused where that could mean something else."""
    regex: list[str] = []
    i = 0
    while i < len(pattern):
        part = pattern[i]
        if part == "\\":
            part = _escape(pattern, i)
            _check_can_match(part)
        elif part == "[":
            part, meaning = _class(pattern, i)
            _check_can_match(part)
            regex.append(meaning)
            i += len(part)
            continue
        elif part == "(" and pattern.startswith("(?", i) and not _GROUP.match(pattern, i + 1):
            raise _not_alike(pattern[i : i + 3])
        elif pattern.startswith("{,", i):
            raise _not_alike("{,")
        regex.append(_MEANS.get(part, part))
        i += len(part)
    return "".join(regex)


def _escape(pattern: str, i: int) -> str:
    found = _ESCAPE.match(pattern, i)
    if not found:
        raise Refused("it ends in a backslash")
    if found[0][1].isalnum() and found[0][1] not in _ESCAPES:
        raise _not_alike(found[0])
    return found[0]


def _class(pattern: str, i: int) -> tuple[str, str]:
    """The class that begins there, up to its bracket, and what it means."""
    begins = "[^" if pattern.startswith("[^", i) else "["
    means = _MEANS_IN_NEGATED_CLASS if begins == "[^" else {name: _MEANS[name] for name in (r"\s", r"\S")}
    end = i + len(begins)
    if pattern.startswith("]", end):
        raise _not_alike(pattern[i : end + 1])
    parts = [begins]
    while end < len(pattern) and pattern[end] != "]":
        for odd in ("[", "&&", "--", "~~"):
            if pattern.startswith(odd, end):
                raise _not_alike(odd)
        part = _escape(pattern, end) if pattern[end] == "\\" else pattern[end]
        if part in _CLASSES and parts[-1] == "-" and len(parts) > 2:  # a range has no end there; some read it as one
            raise _not_alike(f"-{part}")
        parts.append(part)
        end += len(part)
    return pattern[i : end + 1], "".join(means.get(part, part) for part in parts) + pattern[end : end + 1]


_CLASSES = (r"\d", r"\D", r"\w", r"\W", r"\s", r"\S")


def _not_alike(part: str) -> Refused:
    return Refused(f"{part} does not mean the same everywhere: escape it, or write it otherwise")


_SAMPLE = "".join(map(chr, (8, 9, 10, 12, 13, *range(0x20, 0x7F), *range(0x80, 0x180), 0x4E00, 0xFFFD)))


def _check_can_match(part: str) -> None:
    """llguidance passes over a part that stands for nothing but characters that cannot be written."""
    if r"\x" in part or r"\u" in part or r"\v" in part:
        try:
            can = re.search(part, _SAMPLE)
        except re.error:
            return  # llguidance will say
        if not can and re.search(part, "".join(map(chr, range(0x80)))):
            raise Refused(f"{part} stands for a character that is not supported")


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
