"""Read a suite from TOML.  Errors name the table and the key, and are raised before any answer is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from ..config import tomlfile
from ..config.config import TABLES
from ..config.values import InvalidValue, checked
from ..errors import UsageError, did_you_mean
from ..prompting.preferences import presets, without_strength
from ..request import Request
from ..settings import Generation, Settings, advise, by_keywords, typed
from ..textfile import user_path
from .prompts import located
from .suite import Check, Objectives, Suite, System, check_systems

_MOST_BYTES = 1_000_000  # of a suite; suites are written by hand
_MOST_NAME = 80  # characters
_NOTHING: Mapping[str, Any] = MappingProxyType({})

#: The settings that a suite may set, by key, with their classes; the seed comes from its ``seeds``.
_SETTINGS = {key: table for table in TABLES.values() for key in get_type_hints(table) if key != "seed"}
_OF_A_SUITE = [f.name for f in fields(Suite) if f.name not in ("name", "objectives", "systems", "settings")]
_OF_A_SYSTEM = [f.name for f in fields(System) if f.name not in ("name", "settings")]
_OF_A_CHECK = [f.name for f in fields(Check) if f.name != "name"]


def ready_suites() -> list[str]:
    """The names of the suites that come with the package."""
    return sorted(_ready())


def _ready() -> dict[str, Path]:
    return {path.stem: path for path in Path(str(files(__package__) / "suites")).glob("*.toml")}


def load_suite(name: str) -> Suite:
    """Load a built-in suite by name, or a suite from a file.

    Raises:
        UsageError: there is no such suite, or a value is wrong; the message names the table.
    """
    if not name:
        raise UsageError("name a suite: pjlocal eval suites lists the built-in ones; or give your own TOML file")
    ready = _ready()
    path = ready.get(name) or user_path(name)
    if not os.path.exists(path):
        hint = did_you_mean(name, ready) or f"built-in are {', '.join(sorted(ready))}"
        raise UsageError(f"there is no suite {name!r}: {hint} (or give your own TOML file)")
    if os.path.getsize(path) > _MOST_BYTES:
        raise UsageError(f"{path} is not a suite: it is larger than {_MOST_BYTES:,} bytes")
    text = tomlfile.read(path, "suite")
    try:
        return _suite(_Table(tomlfile.parse(path, text).unwrap(), path.parent), path.stem)
    except InvalidValue as wrong:
        raise UsageError(f"{path}: {wrong}") from None


@dataclass(frozen=True)
class _Table:
    """A table of the file.

    folder: the folder to which relative file names refer.
    where: the keys that lead to the table.
    label: the table's name at the beginning of messages.
    """

    values: dict[str, Any]
    folder: Path
    where: tuple[str, ...] = ()
    label: str = ""

    def wrong(self, message: str, key: str = "") -> InvalidValue:
        """The error for a key, with the key's name if the message does not contain it."""
        names_key = not key or re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message)
        return InvalidValue(self.label + (message if names_key else f"{key}: {message}"))

    def tables(self, key: str, what: str) -> Iterator[tuple[str, _Table]]:
        """Yield the tables of a list, which must have at least one, with their names, which must be unique."""
        where = (*self.where, key)
        header = f"[[{'.'.join(where)}]]"
        tables = self.values.get(key)
        if tables is None or tables == []:
            raise self.wrong(f"{key} are missing: each is a table under {header}")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self.wrong(f"{key} must be tables, each under {header}", key)
        taken = set()
        for n, values in enumerate(tables, 1):
            table = _Table(values, self.folder, where, f"{self.label}{header} number {n}: ")
            name = table.typed("name", str).strip()
            if not name or not name.isprintable() or len(name) > _MOST_NAME:
                raise table.wrong(
                    f"a name must be a line of 1 to {_MOST_NAME} characters (not {name[: _MOST_NAME + 1]!r})", "name"
                )
            if name in taken:
                raise table.wrong(f"two have the name {name!r}", "name")
            taken.add(name)
            yield name, replace(table, label=f"{self.label}{what} {name!r}: ")

    def typed(self, key: str, hint: Any) -> Any:
        if key not in self.values:
            raise self.wrong(f"{key} is missing")
        try:
            return typed(key, hint, self.values[key])
        except UsageError as error:
            raise self.wrong(str(error), key) from None

    def build(self, keys: Iterable[str], kind: type[Settings], rest: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
        """The values under these keys, after a check that ``kind`` accepts them together with ``rest``."""
        values = {key: value for key, value in self.values.items() if key in keys}
        try:
            return checked(values, kind, self.folder, presets(), rest=rest)
        except InvalidValue as wrong:
            raise self.wrong(str(wrong), wrong.keys[-1]) from None

    def settings(self) -> dict[str, Any]:
        """The values of the table that are settings, checked."""
        values_by_name = dict[str, Any]()
        for kind in TABLES.values():
            values_by_name |= self.build(get_type_hints(kind).keys() & _SETTINGS, kind)
        return values_by_name

    def refuse_unknown(self, known: Iterable[str]) -> None:
        known = list(known)
        for key in self.values:
            if key in known:
                continue
            if key == "seed":
                raise self.wrong(
                    "a system has no seed of its own: seeds = [0, 1] at the top of the suite answers each prompt "
                    "with both",
                    key,
                )
            if self.where and key in _OF_A_SUITE:
                raise self.wrong(f"{key} belongs at the top, before the first table", key)
            hint = advise(key, known) or f"known are {', '.join(known)}"
            raise self.wrong(f"unknown key {key!r}: {hint}", key)


def _suite(table: _Table, name: str) -> Suite:
    if isinstance(table.values.get("system"), dict | list):
        raise table.wrong("system is a text that all views share: did you mean [[systems]]?", "system")
    table.refuse_unknown(["objectives", "systems", *_OF_A_SUITE, *_SETTINGS])
    objectives = tuple(_objectives(one, key) for key, one in table.tables("objectives", "objectives"))
    systems = tuple(_system(one, key) for key, one in table.tables("systems", "system"))
    parts: dict[str, Any] = {
        "name": name,
        "title": name,
        "objectives": objectives,
        "systems": systems,
        "baseline": systems[0].name,
        "settings": {"max_tokens": 128} | table.settings(),  # that of config.toml has no effect
    }
    suite = Suite(**(parts | table.build(_OF_A_SUITE, Suite, parts)))
    _check_together(table, suite)
    try:
        return replace(suite, prompts=located(suite.prompts, table.folder))
    except UsageError as error:
        raise table.wrong(str(error), "prompts") from None


def _objectives(table: _Table, name: str) -> Objectives:
    table.refuse_unknown(["name", "prefer", "checks"])
    if not (wishes := table.typed("prefer", tuple[str, ...])):
        raise table.wrong('prefer must name preferences, as in ["vivid", "creative"]', "prefer")
    prefer = table.build(["prefer"], Objectives, {"name": name})["prefer"]
    known = {without_strength(wish): lasting for wish, lasting in zip(wishes, prefer, strict=True)}
    known |= dict(zip(wishes, prefer, strict=True))
    tables = table.tables("checks", "check") if "checks" in table.values else ()
    return Objectives(name, prefer, tuple(_check(one, key, known) for key, one in tables))


def _check(table: _Table, name: str, known: dict[str, str]) -> Check:
    """Build a check.  ``known`` maps spellings of the preferences to their names in the suite."""
    table.refuse_unknown(["name", *_OF_A_CHECK])
    if name == "all":
        raise table.wrong("check:all is the name for all checks together: give the check another name", "name")
    check = Check(**table.build(_OF_A_CHECK, Check, {"name": name}), name=name)
    if not check.asks:
        raise table.wrong("it checks nothing: add regex, max_words, finished, ...")
    if check.of is not None and check.of not in known:
        raise table.wrong(f"of must be one of the preferences, {' or '.join(known)} (not {check.of!r})", "of")
    return replace(check, of=known[check.of]) if check.of else check


def _system(table: _Table, name: str) -> System:
    table.refuse_unknown(["name", *_OF_A_SYSTEM, *_SETTINGS])
    return System(**table.build(_OF_A_SYSTEM, System, {"name": name}), name=name, settings=table.settings())


def _check_together(table: _Table, suite: Suite) -> None:
    """Refuse combinations of values that exclude each other, and a comparison with plain answers that none writes."""
    if suite.sample is not None and suite.limit is None:
        raise table.wrong("sample needs limit, the number of prompts: add limit", "sample")
    if suite.min_chars and suite.max_chars and suite.min_chars > suite.max_chars:
        raise table.wrong(f"min_chars must be at most max_chars, {suite.max_chars}", "min_chars")
    names = [system.name for system in suite.systems]
    _check_system_name(table, suite.baseline, names, "baseline")
    for system in suite.systems:
        one = replace(table, label=f"system {system.name!r}: ")
        _check_system_name(one, system.against or suite.baseline, names, "against")
        if system.against == system.name:
            raise one.wrong("against must be another system", "against")
    try:
        with by_keywords(Generation):
            check_systems(suite, Request())
    except UsageError as error:
        raise InvalidValue(str(error)) from None
    modes = {suite.in_force(system, "mode") for system in suite.systems}
    for check in (check for objectives in suite.objectives for check in objectives.checks):
        if check.needs_plain and "plain" not in modes:
            raise table.wrong(f"check {check.name!r} compares with plain answers: add a system of mode plain")


def _check_system_name(table: _Table, name: str, names: list[str], key: str) -> None:
    if name not in names:
        known = did_you_mean(name, names) or f"there are {', '.join(names)}"
        raise table.wrong(f"{key} must be a system's name (not {name!r}): {known}", key)
