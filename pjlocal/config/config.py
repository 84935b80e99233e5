"""The user's own defaults and presets in ``config.toml``, checked against the types and limits of `pjlocal.settings`.

The first source that sets a value wins: option, environment, chosen persona, this file, dataclass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from ..errors import UsageError, did_you_mean
from ..folders import user_folder
from ..prompting.preferences import PRESETS, RESERVED
from ..request import GROUPS, KEYS, PREFERENCES, Overrides
from ..settings import FORMS, Engine, Sampling, Settings, Thoughts, View, advise, key_of, typed
from ..textfile import fold, name_parts, user_path, write_text
from . import tomlfile
from .values import InvalidValue, checked

#: The tables of the file whose keys are settings; besides these there are [presets] and [personas.NAME].
TABLES: dict[str, type[Settings]] = {**GROUPS, "engine": Engine}
#: The keys outside the tables.
TOP = ("model", *PREFERENCES, "view", "thoughts", "save", "save_cache", "server")


@dataclass(frozen=True)
class Config(Overrides):
    """The settings of the configuration file.

    model, view, thoughts, save, save_cache, server: options of commands; None where the file does not set them.
    engine: values for `Engine`, by key.
    presets, personas: by name.
    """

    top_keys: ClassVar[Sequence[str]] = TOP
    groups: ClassVar[Mapping[str, type[Settings]]] = TABLES

    model: str | None = field(default=None, metadata={"model": True})
    view: View | None = None
    thoughts: Thoughts | None = None
    save: bool | None = None
    save_cache: bool | None = None
    server: bool | str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    personas: Mapping[str, Overrides] = field(default_factory=dict)

    def persona(self, name: str) -> Overrides:
        """The settings of a persona; the case of its name is ignored.

        Raises:
            UsageError: no persona has that name; the message suggests similar names.
        """
        found = self.personas.get(fold(name.strip()))
        if found is None:
            if fold(name.strip()) in PRESETS | dict(self.presets):
                raise UsageError(f"{name!r} is a preset: use -p {name}")
            known = f"known are {', '.join(self.personas)}" if self.personas else "pjlocal prefs save NAME saves one"
            raise UsageError(f"unknown persona {name!r}: {did_you_mean(name, self.personas) or known}")
        return found


def config_path() -> Path:
    """The configuration file: PJLOCAL_CONFIG, or ``config.toml`` in the user's folder for settings.

    Raises:
        UsageError: there is no such folder.
    """
    path = _config_path()
    if path is None:
        raise UsageError("no home folder for config.toml is known: set HOME, or PJLOCAL_CONFIG to a file")
    return path


def _config_path() -> Path | None:
    if named := os.environ.get("PJLOCAL_CONFIG"):
        return user_path(named)
    folder = user_folder("config")
    return folder and folder / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """Load the settings of the file.  A missing file or folder means no settings.

    Raises:
        UsageError: the file is not UTF-8 or not TOML, or has a wrong value; the message names the key.
    """
    path = path or _config_path()
    text = tomlfile.read(path) if path else ""
    if not path or not text.strip():
        return Config()
    try:
        return _checked(tomlfile.parse(path, text).unwrap(), path.parent)
    except InvalidValue as wrong:
        raise UsageError(f"{path}: {wrong.placed()}") from None


def load_checked(path: Path | None = None) -> Config:
    """Load the settings of the file, and also compile the constraints (except grammars, which need llama.cpp).

    Raises:
        UsageError: as `load_config`, or a constraint cannot be used.
    """
    from ..engine.constraint import check_constraint  # imports NumPy

    config = load_config(path)
    tables = {f"personas.{name}": persona.sampling for name, persona in config.personas.items()}
    tables["sampling"] = config.sampling
    for table, values in tables.items():
        for key in values.keys() & FORMS:
            try:
                check_constraint(Sampling(**{key: values[key]}))
            except UsageError as error:
                raise UsageError(f"{path or _config_path()}: [{table}] {key}: {error}") from None
    return config


def _checked(document: dict[str, Any], folder: Path) -> Config:
    tables = {name: document.pop(name) for name in (*TABLES, "presets", "personas") if name in document}
    for name, table in tables.items():
        if not isinstance(table, dict):
            header = "personas.NAME" if name == "personas" else name
            raise InvalidValue(f"{name} must be a table, as in [{header}]", name)
    if not isinstance(document.get("server", True), bool | str):
        raise InvalidValue('server must be true, false or a URL, as in server = "http://localhost:8473"', "server")
    presets = _presets(tables.pop("presets", {}))
    personas = _personas(tables.pop("personas", {}), PRESETS | presets, folder)
    top = _values(document, Config, folder, PRESETS | presets)
    values: dict[str, Any] = {
        name: _values(table, TABLES[name], folder, PRESETS | presets, name) for name, table in tables.items()
    }
    return Config(**top, **values, presets=presets, personas=personas)


def _personas(tables: Mapping[str, Any], presets: Mapping[str, str], folder: Path) -> dict[str, Overrides]:
    personas: dict[str, Overrides] = {}
    for name, table in tables.items():
        where = ("personas", name)
        if not isinstance(table, dict):
            raise InvalidValue(f"personas.{name} must be a table, as in [personas.{name}]", *where)
        try:
            check_persona(name, presets)
        except UsageError as error:
            raise InvalidValue(str(error), *where) from None
        if fold(name) in personas:
            raise InvalidValue(f"two personas are named {fold(name)!r} (case is ignored)", *where)
        personas[fold(name)] = _persona(table, presets, folder, *where)
    return personas


def _persona(table: Mapping[str, Any], presets: Mapping[str, str], folder: Path, *where: str) -> Overrides:
    _check_keys(table, KEYS, *where)

    def of(settings: type[Settings], keys: Iterable[str]) -> dict[str, Any]:
        values = {key: table[key] for key in keys if key in table}
        return checked(values, settings, folder, presets, *where)

    values: dict[str, Any] = {name: of(settings, get_type_hints(settings)) for name, settings in GROUPS.items()}
    return Overrides(**of(Overrides, PREFERENCES), **values)


def check_persona(name: str, presets: Mapping[str, str]) -> None:
    """Refuse a name that cannot be a persona's.

    Raises:
        UsageError: the name is not one bare word, or a preset has it.
    """
    _check_name("persona", name)
    if fold(name) in presets:
        raise UsageError(f"a preset is named {fold(name)!r}: give the persona another name")


def _check_name(kind: str, name: str) -> None:
    plain = fold(name.replace("-", "_"))
    if name.startswith("-") or name_parts(plain) != [plain]:
        raise UsageError(f"a {kind}'s name is one bare word of letters, digits, - and _ (not {name!r})")


def _values(
    table: Mapping[str, Any], settings: type[Settings], folder: Path, presets: Mapping[str, str], *where: str
) -> dict[str, Any]:
    _check_keys(table, [each.name for each in fields(settings)], *where)
    return checked(table, settings, folder, presets, *where)


def _check_keys(table: Iterable[str], known: Sequence[str], *where: str) -> None:
    """Refuse an unknown key with advice: its table, its removal, the most similar known key, or all keys."""
    for key in table:
        if key in known:
            continue
        named = key_of(key)
        tables = [name for name, settings in TABLES.items() if named in get_type_hints(settings)]
        if tables and named not in known:
            hint = f"it belongs in [{tables[0]}]" + (f" as {named}" if named != key else "")
        elif key in TOP:
            hint = "it belongs at the top, before the first table"
        else:
            hint = advise(key, known, most=1) or f"known are {', '.join(known)}"
        place = f" in [{'.'.join(where)}]" if where else ""
        raise InvalidValue(f"unknown key {key!r}{place}: {hint}", *where, key)


def _presets(table: Mapping[str, Any]) -> dict[str, str]:
    presets: dict[str, str] = {}
    for name, text in table.items():
        try:
            check_preset(name, typed(name, str, text))
        except UsageError as error:
            raise InvalidValue(str(error), "presets", name) from None
        if fold(name) in presets:
            raise InvalidValue(f"two presets are named {fold(name)!r} (case is ignored)", "presets", name)
        presets[fold(name)] = text.strip()
    return presets


def check_preset(name: str, text: str) -> None:
    """Refuse an invalid preset of the user.

    Raises:
        UsageError: the name is built in, or not one bare word; or the text is empty.
    """
    if fold(name) in PRESETS:
        raise UsageError(f"{name!r} is a built-in preset: give yours another name")
    _check_name("preset", name)
    if not text.strip():
        raise UsageError(f"the preset {name!r} is empty: describe the answer that you want")


def set_preset(path: Path, name: str, text: str) -> None:
    """Add a preset to the file, or change its text.  The rest of the file is unchanged.

    Raises:
        UsageError: the name or the text is not valid, or `load_config` refuses the file.
        OutputError: the file cannot be written.
    """
    if fold(name) in RESERVED:  # accepted in the file, where older ones may have it
        raise UsageError(f"{name!r} has a meaning in /prefer or /avoid: give the preset another name")
    import tomlkit
    from tomlkit.items import Table

    check_preset(name, text)
    load_config(path)
    document = tomlfile.parse(path, tomlfile.read(path))
    if "presets" not in document:
        if before := document.as_string().rstrip():
            document = tomlkit.parse(f"{before}\n\n")
        document["presets"] = tomlkit.table()
    presets: Any = document["presets"]
    body = presets.value.body if isinstance(presets, Table) else []
    after: list[Any] = []  # blank lines and comments that belong to the next table
    while body and body[-1][0] is None:
        after.insert(0, body.pop())
    presets[_same(presets, name) or name] = tomlkit.string(text.strip(), multiline="\n" in text.strip())
    body.extend(after)
    write_text(path, document.as_string())


def remove_preset(path: Path, name: str) -> None:
    """Remove a preset from the file.  The rest of the file is unchanged.

    Raises:
        UsageError: the preset does not exist, or something else in the file names it.  Also the errors of `set_preset`.
    """
    load_config(path)
    document = tomlfile.parse(path, tomlfile.read(path))
    presets: Any = document.get("presets", {})
    key = _same(presets, name)
    if key is None:
        why = "it is built in" if fold(name) in PRESETS else f"{path} does not contain it"
        raise UsageError(f"cannot remove the preset {name!r}: {why}")
    del presets[key]
    text = document.as_string()
    try:
        _checked(tomlfile.parse(path, text).unwrap(), path.parent)
    except InvalidValue as wrong:
        raise UsageError(f"cannot remove the preset {name!r}: {'.'.join(wrong.keys)} in {path} names it") from None
    write_text(path, text)


def set_persona(path: Path, name: str, values: Mapping[str, Any], replace: bool) -> None:
    """Write a persona at the end of the file.  The rest of the file is unchanged.

    Raises:
        UsageError: the values are invalid, the persona exists and ``replace`` is false, or `load_config` refuses the
            file.
        OutputError: the file cannot be written.
    """
    import tomlkit

    before = load_config(path)
    check_persona(name, PRESETS | dict(before.presets))
    text = tomlfile.read(path)
    if fold(name) in before.personas:
        if not replace:
            raise UsageError(f"the persona {fold(name)!r} exists already: --force replaces it")
        text = _without_persona(path, text, name)
    lines = [f"{line}\n" for line in tomlfile.assignments(values)]
    gap = "\n\n" if text.strip() else ""
    text = f"{text.rstrip()}{gap}[personas.{tomlkit.key(name).as_string()}]\n{''.join(lines)}"
    try:
        document = tomlfile.parse(path, text)
    except UsageError:  # without the new table it is valid
        raise UsageError(
            f"cannot add a table to {path}, which has its personas in one line: change it with pjlocal config edit"
        ) from None
    try:
        _checked(document.unwrap(), path.parent)
    except InvalidValue as wrong:
        raise UsageError(str(wrong)) from None
    write_text(path, text)


def remove_persona(path: Path, name: str) -> None:
    """Remove a persona from the file.  The rest of the file is unchanged.  Raises the errors of `set_persona`."""
    load_config(path).persona(name)
    write_text(path, _without_persona(path, tomlfile.read(path), name))


def _without_persona(path: Path, text: str, name: str) -> str:
    """Remove the table of a persona from the file's text."""
    left = tomlfile.parse(path, text).unwrap()
    key = _same(left["personas"], name)
    assert key is not None
    del left["personas"][key]
    without = tomlfile.without_table(text, ("personas", key))
    try:
        now = tomlfile.parse(path, without).unwrap()
    except UsageError:
        now = None
    if now is None or {"personas": {}} | now != {"personas": {}} | left:
        raise UsageError(
            f"cannot separate [personas.{key}] from the rest of {path}: change it with pjlocal config edit"
        )
    return without


def _same(presets: Iterable[str], name: str) -> str | None:
    return next((key for key in presets if fold(key) == fold(name)), None)
