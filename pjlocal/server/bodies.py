"""Parse and validate the JSON bodies of requests, convert them to settings, and name their fields in errors.

Error messages name the flags of the command line; `in_fields` replaces these by the fields of a request.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from ..config import tomlfile
from ..errors import UsageError
from ..prompting.preferences import without_strength
from ..request import GROUPS, KEYS, PREFERENCES, Overrides, Request, absolute
from ..settings import (
    EXAMPLE,
    Engine,
    Generation,
    Settings,
    advise,
    field_names,
    flag,
    flag_names,
    rename_flags,
    typed,
    without_none,
)
from .loaded import check_servable

MOST_STOPS = 16
_MOST_ITEMS = 1000  # of other lists, for example of logit biases, which are looked up for every view
_MOST_VALUES = 20_000  # of a body, over all its lists and objects


#: Part of an error message about other parts of a message's content.
ONLY_TEXT = "only text parts are supported, no images, audio or files: leave them out"


class Wrong(UsageError):
    """An error in a request, with the wrong field, the status of the response, and OpenAI's code."""

    def __init__(self, message: str, field: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.field, self.status, self.code = field, status, code


# JSON.


def without_nulls(values: Any) -> Any:
    """Remove null fields from an object, because null means that a field is not set."""
    return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


Whole = Annotated[int, BeforeValidator(_whole)]
Object = Annotated[dict[str, Any], BeforeValidator(without_nulls)]


class Strict(BaseModel, strict=True):
    _given = model_validator(mode="before")(without_nulls)


class Exact(Strict, extra="forbid"):
    """A body from pjlocal's own clients, which must not have unknown fields."""


_Model = TypeVar("_Model", bound=BaseModel)


def validated(kind: type[_Model], body: bytes, most_values: int | None = _MOST_VALUES) -> _Model:
    """Parse and validate a request's body of at most ``most_values`` values.

    Raises:
        Wrong: the body is not JSON, or a field is wrong.
    """
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Wrong(f"the body must be JSON ({error})") from None
    if most_values is not None:
        _check_values(values, most_values)
    return checked(kind, values)


def checked(kind: type[_Model], values: Any) -> _Model:
    """Validate parsed JSON.  Raises Wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(key) for key in first["loc"] if key not in _BRANCHES)
        raise Wrong(_in_words(field or "the body", first), field or None) from None


def _check_values(body: Any, most: int) -> None:
    """Refuse a body with more values than a request needs, or with numbers such as 1e400, which JSON responses cannot
    contain.

    Validation blocks all other clients: 2,000,000 numbers instead of messages took 12 seconds.
    """
    left = most
    containers = [body] if isinstance(body, dict | list) else []
    while containers:
        container = containers.pop()
        left -= len(container)
        if left < 0:
            raise Wrong(f"the body has more than {most:,} values: send fewer messages or a smaller schema")
        for name, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, dict | list):
                containers.append(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise Wrong(f"{name if isinstance(name, str) else 'the body'} contains a number that is too large")


_BRANCHES = ("str", "list[int]")  # members of unions, which pydantic reports like fields

#: The expected value of a field, by pydantic's type of the error.
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "literal_error": "{expected}",
    "less_than_equal": "at most {le}",
    "greater_than_equal": "at least {ge}",
    "too_long": "a list of at most {max_length} entries",
    "too_short": "a list that is not empty",
    "extra_forbidden": "left out: there is no such field",
    "string_too_short": "a string that is not empty",
}


def _in_words(field: str, error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in _MUST_BE:
        must_be = _MUST_BE[kind].format(**error.get("ctx", {}))
        or_text = must_be.startswith("a list") and field.endswith(("content", "prompt", "stop", "input"))
        return f"{field} must be {'a string or ' if or_text else ''}{must_be}"
    return f"{field} is missing" if kind == "missing" else f"{field}: {error['msg']}"


def same(value: Any, other: Any) -> bool:
    """True if two values are equal in JSON, where true differs from 1, and 1.0 equals 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


# Settings.

#: Fields of a configuration that a request cannot have, and what to do instead.
ELSEWHERE = {
    "persona": 'choose a persona as the model, as in "model": "pirate-brief"',
    "preferences": "use prefer, or draft_prefer and judge_prefer",
}

_OUTSIDE = {name: f"it is the server's option {flag[2:]}, leave it out" for name, flag in field_names(Engine).items()}
_OUTSIDE["model"] = "the model is not a setting, leave it out"

#: The settings that name files.
_FILES = {f.name for f in fields(Generation) if f.metadata.get("adapter") or f.metadata.get("model")}
_KNOWN = [key for key in KEYS if key not in _FILES]


def check_overrides(values: Mapping[str, Any], n_ctx: int, base: Request = Request()) -> Overrides:
    """Parse the settings in a body, and check them against the types and limits of `pjlocal.settings`.

    Args:
        n_ctx: the limit of ``max_tokens``, which -1 means too.
        base: the request to change.  Only its preferences may name files: the page sends them back.

    Raises:
        UsageError: a setting is unknown or not valid.
    """
    for key, value in values.items():
        most = MOST_STOPS if key == "stop" else _MOST_ITEMS
        if isinstance(value, list) and len(value) > most:
            raise UsageError(f"{_flag_of(key)} has {len(value):,} entries: at most {most:,} are allowed")
        if key not in KEYS:
            hint = ELSEWHERE.get(key) or _OUTSIDE.get(key) or advise(key, _KNOWN) or f"known are {', '.join(_KNOWN)}"
            raise UsageError(f"unknown setting {key!r}: {hint}")
    n_tokens = values.get("max_tokens")
    if same(n_tokens, -1) or (isinstance(n_tokens, int | float) and n_tokens > n_ctx):
        values = {**values, "max_tokens": n_ctx}
    tables: dict[str, Any] = {name: _checked(values, settings) for name, settings in GROUPS.items()}
    tops = _checked({key: values[key] for key in PREFERENCES if key in values}, Overrides)
    preferences = chain(*tops.values(), tables["generation"].get("avoid", ()))
    for name in sorted(_FILES & tables["generation"].keys()):
        raise UsageError(f"a request cannot name the server's files: leave {name} out")
    if _files(preferences) - _files(base.preferences):
        raise UsageError("a request cannot name the server's files: write the text out, or save it as a persona there")
    return Overrides(**tops, **tables)


def _files(preferences: Iterable[str]) -> set[str]:
    """The files that preferences name, as absolute ``@FILE``."""
    return {absolute(without_strength(each)) for each in preferences if each.strip().startswith("@")}


def _checked(values: Mapping[str, Any], settings: type[Settings]) -> dict[str, Any]:
    hints = get_type_hints(settings)
    known: dict[str, Any] = {}
    for f in fields(settings):
        if values.get(f.name) is not None:
            or_number = f.metadata.get("or_number", False)
            known[f.name] = typed(flag(f), hints[f.name], values[f.name], or_number)
    settings(**known)
    return known


def in_sent_fields(error: UsageError, fields: Mapping[str, str]) -> Wrong:
    """Name the client's fields in an error of `check_overrides`.

    Args:
        fields: the client's field by setting.
    """
    message = error.in_flags or str(error)
    names = {_flag_of(setting): field for setting, field in fields.items()}
    preferences = [("preferences", fields[name]) for name in PREFERENCES if name in fields]
    subjects = [*names.items(), *preferences]
    field = next((name for subject, name in subjects if message.startswith((f"{subject} ", f"{subject},"))), None)
    return Wrong(rename_flags(_CHOSEN.sub(_with_value, message), names), field)


def _flag_of(setting: str) -> str:
    return next((flag for flag, name in _FIELDS.items() if name == setting), setting)


_PERSONA = "[pjlocal]"  # the first line of a system text with settings
_LONGEST_PERSONA = 10_000  # characters; tomlkit is slow


def split_persona(system: str) -> tuple[dict[str, Any], str]:
    """Split a system text into the settings at its start and the rest.

    The settings are written like a persona in the configuration file, in a table named ``[pjlocal]`` that ends at the
    first empty line.

    Raises:
        Wrong: the table is not TOML.
    """
    if system.lstrip().split("\n", 1)[0].strip() != _PERSONA:
        return {}, system
    table, _, text = system.lstrip().replace("\r\n", "\n").partition("\n\n")
    if len(table) > _LONGEST_PERSONA:
        raise Wrong(f"{_PERSONA} in a system message must have at most {_LONGEST_PERSONA:,} characters", "messages")
    try:
        values = tomlfile.parse(Path("system message"), table).unwrap()
    except UsageError as error:
        raise Wrong(str(error), "messages") from None
    if len(values) > 1:
        raise Wrong(f"the settings in a system message must be one table, {_PERSONA}", "messages")
    return values["pjlocal"], text


def parse_request(values: Mapping[str, Any], *, is_answered: bool = False) -> Request:
    """Make the request from the result of `Request.as_dict`.

    Args:
        is_answered: it has its answer, which may have been written with adapters, elsewhere.

    Raises:
        UsageError: the values are not a request, or have settings that a server cannot use.
    """
    try:
        request = Request().restore(values)
        if _files(request.preferences):
            raise UsageError("a request cannot name the server's files: write the text out")
        if not is_answered:
            check_servable(request.generation)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"not a request of this version of pjlocal: {error!r}") from None
    return request


# Errors.

_FIELDS = {f"--{name.replace('_', '-')}": name for name in PREFERENCES}
_VALUES: dict[str, tuple[str, ...]] = {}  # the choices of settings, by flag
for _group in GROUPS.values():
    _hints = get_type_hints(_group)
    for _flag, _name in flag_names(_group).items():
        _FIELDS[_flag] = _name
        if words := [word for word in get_args(without_none(_hints[_name])) if isinstance(word, str)]:
            _VALUES[_flag] = tuple(words)

_CHOSEN = re.compile("|".join(f"({flag}) ({'|'.join(words)})" for flag, words in _VALUES.items()))
_OPERATORS = re.compile(f"give (a larger|a smaller|fewer) ({'|'.join(flag_names(Engine))})\\b")
#: Hints to commands and files, which make no sense in a request.
_TERMINALS = re.compile(r"[,:](?: as in)? pjlocal [a-z].*|, or @FILE")


def in_fields(message: str) -> str:
    """Change a message for a client: name fields instead of flags, and say which settings are options of the server."""
    message = _TERMINALS.sub("", message).replace("use -P", "use the model")
    message = EXAMPLE.sub(_as_json, message)
    message = _OPERATORS.sub(r"start the server with \1 \2", message)
    message = _CHOSEN.sub(_with_value, message)
    return rename_flags(message, _FIELDS)


def _as_json(match: re.Match[str]) -> str:
    return json.dumps({"prefer": re.findall(r"-p (\w+)", match[0])})


def _with_value(match: re.Match[str]) -> str:
    flag, word = filter(None, match.groups())
    return f'{_FIELDS[flag]} "{word}"'
