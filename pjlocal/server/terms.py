"""Messages in the terms of HTTP: they are written once, with the flags of the command line, and read here as fields."""

from __future__ import annotations

import json
import re
from typing import get_args, get_type_hints

from ..request import GROUPS, PREFERENCES
from ..settings import Engine, flag_names, rename_flags, without_none

#: Settings that a request sets by the same name as OpenAI's clients; all others stand under the key ``pjlocal``.
SHARED = ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop")
_TOP = (*SHARED, "logit_bias")


def field_of(setting: str) -> str:
    """The field of a request that sets it."""
    return setting if setting in _TOP else f"pjlocal.{setting}"


_FIELDS = {f"--{name.replace('_', '-')}": field_of(name) for name in PREFERENCES}
_VALUES: dict[str, tuple[str, ...]] = {}  # of settings that are one of several words, by flag
for _group in GROUPS.values():
    _hints = get_type_hints(_group)
    for _flag, _name in flag_names(_group).items():
        _FIELDS[_flag] = field_of(_name)
        if words := [word for word in get_args(without_none(_hints[_name])) if isinstance(word, str)]:
            _VALUES[_flag] = tuple(words)

_EXAMPLE = re.compile(r"(?<!\S)-p \w+(?: -p \w+)*")
_CHOSEN = re.compile("|".join(f"({flag}) ({'|'.join(words)})" for flag, words in _VALUES.items()))
_OPERATORS = re.compile(f"give (a larger|a smaller|fewer) ({'|'.join(flag_names(Engine))})\\b")
#: Commands of a terminal, and files, which requests do not name.
_TERMINALS = re.compile(r"[,:](?: as in)? pjlocal [a-z].*|, or @FILE")


def in_fields(message: str) -> str:
    """A message as a client of the server can follow it: settings are fields, and flags those of the server's start."""
    message = _TERMINALS.sub("", message)
    message = _EXAMPLE.sub(_as_json, message)
    message = _OPERATORS.sub(r"start the server with \1 \2", message)
    message = _CHOSEN.sub(_with_value, message)
    return rename_flags(message, _FIELDS)


def _as_json(match: re.Match[str]) -> str:
    return json.dumps({"pjlocal": {"prefer": re.findall(r"-p (\w+)", match[0])}})


def _with_value(match: re.Match[str]) -> str:
    flag, word = filter(None, match.groups())
    return f'{_FIELDS[flag]} "{word}"'
