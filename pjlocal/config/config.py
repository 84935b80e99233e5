"""The user's own defaults and presets: ``config.toml``, held to the types and limits of `pjlocal.settings`.

A setting comes from its option, else from the environment, else from this file, else from its dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UsageError
from ..folders import config_folder
from ..gguf.locate import EMBEDDED
from ..prompting.preferences import PRESETS, resolve
from ..settings import Engine, Generation, Prompting, Sampling, Settings, View, flag, without_none
from ..textfile import read_text, user_path, write_text
from . import tomlfile

#: The tables of the file whose keys are settings; besides these there is [presets].
TABLES: dict[str, type[Settings]] = {
    "generation": Generation,
    "sampling": Sampling,
    "prompting": Prompting,
    "engine": Engine,
}
_PREFERENCES = ("prefer", "draft_prefer", "judge_prefer")
#: The keys outside the tables.
TOP = ("model", *_PREFERENCES, "view", "save", "save_cache")


@dataclass(frozen=True)
class Config(Settings):
    """What the file sets and nothing else: None, or no key in a table, is what it leaves alone.

    A table's values are as its settings take them, with the files they name read: ``Sampling(**config.sampling)``.
    """

    model: str | None = None
    prefer: tuple[str, ...] | None = None
    draft_prefer: tuple[str, ...] | None = None
    judge_prefer: tuple[str, ...] | None = None
    view: View | None = None
    save: bool | None = None
    save_cache: bool | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompting: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefer and (self.draft_prefer or self.judge_prefer):
            raise UsageError("prefer deals the preferences out; draft_prefer and judge_prefer place them: use one")

    def top(self) -> dict[str, Any]:
        """What is set outside the tables, by key."""
        return {key: value for key in TOP if (value := getattr(self, key)) is not None}

    def of(self, settings: type[Settings]) -> Mapping[str, Any]:
        """What is set of these settings, by key."""
        return next((getattr(self, name) for name, table in TABLES.items() if table is settings), {})


def config_path() -> Path:
    """The file: what PJLOCAL_CONFIG names, or ``config.toml`` in the user's folder for settings.

    Raises:
        UsageError: there is no such folder.
    """
    path = _config_path()
    if path is None:
        raise UsageError("there is no home folder for config.toml: set HOME, or PJLOCAL_CONFIG to a file")
    return path


def _config_path() -> Path | None:
    if named := os.environ.get("PJLOCAL_CONFIG"):
        return user_path(named)
    folder = config_folder()
    return folder and folder / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """What the file sets; a missing file sets nothing, nor does one that has no folder.

    Raises:
        UsageError: the file cannot be read as UTF-8, is not TOML, or sets what cannot be; names the line.
    """
    path = path or _config_path()
    text = tomlfile.read(path) if path else ""
    if not path or not text.strip():
        return Config()
    try:
        return _checked(tomlfile.parse(path, text).unwrap(), path.parent)
    except _Wrong as wrong:
        raise UsageError(f"{path} line {tomlfile.line_of(text, wrong.keys)}: {wrong}") from None


class _Wrong(Exception):
    """What is wrong, and the keys that lead to it."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def _checked(document: dict[str, Any], folder: Path) -> Config:
    tables = {name: document.pop(name) for name in (*TABLES, "presets") if name in document}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise _Wrong(f"{name} must be a table, as in [{name}]", name)
    presets = _presets(tables.pop("presets", {}))
    top = _values(document, Config, folder)
    if "model" in top:
        top["model"] = _model(top["model"], folder)
    for key in top.keys() & set(_PREFERENCES):
        top[key] = tuple(_preference(key, spec, PRESETS | presets, folder) for spec in top[key])
    made: dict[str, Any] = {name: _values(table, TABLES[name], folder, name) for name, table in tables.items()}
    return Config(**top, **made, presets=presets)


def _values(table: Mapping[str, Any], settings: type[Settings], folder: Path, *where: str) -> dict[str, Any]:
    """A table's values as the settings take them, each checked together with those before it."""
    fields = {f.name: f for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    hints = get_type_hints(settings)
    by_flag = {flag(f): name for name, f in fields.items()}
    made: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            raise _Wrong(_unknown(key, fields, *where), *where, key)
        try:
            made[key] = _typed(key, hints[key], value)
            if what := fields[key].metadata.get("file"):
                made[key] = read_text(folder / user_path(value), what)
            settings(**made)
        except UsageError as error:
            message = re.sub(r"--[\w-]+", lambda match: by_flag.get(match[0], match[0]), str(error))
            raise _Wrong(message, *where, key) from None
    return made


def _unknown(key: str, known: Iterable[str], *where: str) -> str:
    """What to say of an unknown key: the table where it is known, or the nearest that is known here, or all."""
    said = f"unknown key {key!r}" + "".join(f" in [{name}]" for name in where)
    for name, settings in TABLES.items():
        if key in get_type_hints(settings):
            return f"{said}: it belongs in [{name}]"
    if key in TOP:
        return f"{said}: it belongs at the top, before the first table"
    if near := difflib.get_close_matches(key, known, n=1):
        return f"{said}: did you mean {near[0]}?"
    return f"{said}: known are {', '.join(known)}"


def _typed(key: str, hint: Any, value: Any) -> Any:
    """The value as that type.  Of words and numbers the settings themselves check which ones may be."""
    hint = without_none(hint)
    if get_origin(hint) is Literal or type(value) is hint:
        return value
    if get_origin(hint) is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if hint is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    raise UsageError(f"{key} must be {kind(hint)} (not {value!r})")


def kind(hint: Any) -> str:
    """What a value of that type is, in words."""
    hint = without_none(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    words = {str: "a text in quotes", bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(hint, 'a list of texts, as in ["one", "two"]')


def _model(name: str, folder: Path) -> str:
    """The model of the file: a path, and a file beside it, are found from there; any other name stays one."""
    if Path(name).name == name:
        beside = folder.absolute() / name
        return str(beside) if name != EMBEDDED and os.path.isfile(beside) else name
    try:
        return str(folder.absolute() / user_path(name))
    except UsageError as error:
        raise _Wrong(str(error), "model") from None


def _preference(key: str, spec: str, presets: Mapping[str, str], folder: Path) -> str:
    """A preference of the file; the file that it names is found from there."""
    spec = spec.strip()
    try:
        if spec.startswith("@"):
            spec = f"@{folder.absolute() / user_path(spec[1:])}"
        resolve(spec, presets)
    except UsageError as error:
        raise _Wrong(str(error), key) from None
    return spec


def _presets(table: Mapping[str, Any]) -> dict[str, str]:
    presets: dict[str, str] = {}
    for name, text in table.items():
        try:
            check_preset(name, _typed(name, str, text))
        except UsageError as error:
            raise _Wrong(str(error), "presets", name) from None
        if name.lower() in presets:
            raise _Wrong(f"there is a preset {name.lower()!r} already (case makes no difference)", "presets", name)
        presets[name.lower()] = text.strip()
    return presets


def check_preset(name: str, text: str) -> None:
    """Refuse what cannot be a preset of the user's own.

    Raises:
        UsageError: the name is built in, or not one bare word; or the text is empty.
    """
    if name.lower() in PRESETS:
        raise UsageError(f"{name!r} is a built-in preset: give yours another name")
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UsageError(f"a preset's name is one bare word of letters, digits, - and _ (not {name!r})")
    if not text.strip():
        raise UsageError(f"the preset {name!r} is empty: say what the answer should be like")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the preset {name!r} is not valid UTF-8 text") from None


def set_preset(path: Path, name: str, text: str) -> None:
    """Add a preset to the file, or change its text; all else in the file stays as it is.

    Raises:
        UsageError: a name or a text that cannot be, or a file that `load_config` refuses.
        OutputError: the file cannot be written.
    """
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
    """Take a preset out of the file; all else in it stays as it is.  Raises what `set_preset` does."""
    load_config(path)
    document = tomlfile.parse(path, tomlfile.read(path))
    presets: Any = document.get("presets", {})
    key = _same(presets, name)
    if key is None:
        why = "it is built in" if name.lower() in PRESETS else f"there is none in {path}"
        raise UsageError(f"cannot remove the preset {name!r}: {why}")
    del presets[key]
    write_text(path, document.as_string())


def _same(presets: Iterable[str], name: str) -> str | None:
    return next((key for key in presets if key.lower() == name.lower()), None)
