"""Prompts to answer: the project's own, or a user's from a file of lines, JSON lines, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import gzip
import heapq
import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, cast

from ..errors import UsageError, did_you_mean
from ..textfile import user_path
from ..visible import one_line
from .suite import Prompt

#: The fields that hold the prompt where none is named: the first that is there.
FIELDS = (
    "prompt", "question", "text", "instruction", "query", "input", "turns", "messages", "conversations"
)  # fmt: skip
_IDS = ("id", "prompt_id", "question_id")
_MOST_ID = 40  # characters
_MOST_LINE = 10_000_000  # bytes; what has a longer one is no file of prompts
_MOST_JSON = 500_000_000  # bytes of a file that must be read whole
_DEEPEST = 5  # a text within lists and messages

_Records = Iterator[tuple[str, Any]]  # each with its place, as messages name it


@dataclass(frozen=True)
class _DataSet:
    """A data set in a file that the user has: which of its rows the paper's authors took."""

    field: str
    taken: Callable[[Iterator[Prompt]], Iterator[Prompt]] = iter


def _short_and_once(rows: Iterator[Prompt]) -> Iterator[Prompt]:
    """Those of at most 100 characters, and of these every second one, beginning with the second: two rows in a row
    have the same prompt there."""
    return islice((row for row in rows if len(row.text) <= 100), 1, None, 2)


DATA_SETS = {"koala": _DataSet("prompt"), "helpsteer2": _DataSet("prompt", _short_and_once)}


def load_prompts(
    source: str = "default",
    field: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    min_chars: int | None = None,
    max_chars: int | None = None,
) -> list[Prompt]:
    """The prompts of a source, in its order, each with an id that no other has; a text that comes again is left out.

    Args:
        source: ``default``, a file, or a data set and its file, as in ``helpsteer2:validation.jsonl``.
        field: which holds the prompt; None for the first of `FIELDS` that is there.
        limit: how many at most.
        sample: the seed of a random sample of that many; None for the first ones.  A larger sample of the same seed
            has all that a smaller one has.
        min_chars, max_chars: of a prompt; others do not count.

    Raises:
        UsageError: the file cannot be read, holds no prompts, or none that will do; names the line.
    """
    name, path = _split(source)
    known = DATA_SETS.get(name)
    prompts = _prompts(path, field or (known.field if known else None))
    if known:
        prompts = known.taken(prompts)
    most = max_chars or float("inf")
    fitting = _once(prompt for prompt in prompts if (min_chars or 0) <= len(prompt.text) <= most)
    chosen = list(islice(fitting, limit)) if sample is None else _sample(fitting, limit, sample)
    if not chosen:
        raise UsageError(f"no prompt of {source} will do: each has fewer or more characters than were asked for")
    return chosen


def _once(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
    """Without what was there before: the same answer again would count as if it told something new."""
    seen = set()
    for prompt in prompts:
        if prompt.text not in seen:
            seen.add(prompt.text)
            yield prompt


def located(source: str, folder: Path) -> str:
    """The source with its file as it is found from a folder."""
    name, path = _split(source)
    if not path:
        return source
    path = str(folder.absolute() / user_path(path))
    return f"{name}:{path}" if name else path


def _split(source: str) -> tuple[str, str]:
    """The name of the data set, if it is one, and its file, if it has one."""
    name, colon, path = source.partition(":")
    if colon and name in DATA_SETS:
        if not path:
            raise UsageError(f"{name} is a file that you have: give it as in {name}:FILE")
        return name, path
    if source in DATA_SETS:
        raise UsageError(f"{source} is a file that you have: give it as in {source}:FILE")
    return ("default", "") if source == "default" else ("", source)


def _sample(prompts: Iterable[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """The prompts that draw the least numbers: `random.random` is the same in every version of Python."""
    if limit is None:
        raise UsageError("a sample needs a limit: how many prompts it has")
    draw = random.Random(seed).random
    drawn = heapq.nsmallest(limit, ((draw(), number, prompt) for number, prompt in enumerate(prompts)))
    return [prompt for _, _, prompt in sorted(drawn, key=lambda item: item[1])]


# From records to prompts.


def _prompts(path: str, field: str | None) -> Iterator[Prompt]:
    """The prompts of a file; of no file, the project's own."""
    name, taken = field, set[str]()
    for number, (place, record) in enumerate(_records(path), 1):
        text = record
        if isinstance(record, dict):
            name = name or next((known for known in FIELDS if known in record), None)
            if name not in record:
                raise UsageError(f"{place} has no field {_no_such(name, record)}")
            text = record[name]
        elif field:
            raise UsageError(f"{place} is a plain text and has no field {field!r}: leave the field out")
        text = _text(text, _DEEPEST)
        if text is None:
            raise UsageError(f"{place} holds no text" + (f" under {name!r}" if name else ""))
        if text.strip():
            yield Prompt(_id(record, number, taken), _encodable(text.strip(), place))
    if not taken:
        raise UsageError(f"there are no prompts in {path}: it is empty")


def _no_such(name: str | None, record: dict[str, Any]) -> str:
    known = f"it has {one_line(', '.join(record)) or 'none'}"
    if name is None:
        return f"that is known for a prompt: {known}. Name the right one with --field, or as field in the suite"
    return f"{name!r}: {did_you_mean(name, record) or known}"


def _text(value: Any, depth: int) -> str | None:
    """The text of a field; of a list its first one, be it a message that is not the system's."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and "system" not in (value.get("role"), value.get("from")):
        value = [value[key] for key in ("content", "value", "text") if key in value]
    if isinstance(value, list) and depth:
        return next((text for item in value if (text := _text(item, depth - 1)) is not None), None)
    return None


def _id(record: Any, number: int, taken: set[str]) -> str:
    """The record's own id where it has one, else its number; made distinct, and from then on taken."""
    own = next((record[key] for key in _IDS if key in record), None) if isinstance(record, dict) else None
    base = one_line(str(own))[:_MOST_ID] if type(own) in (str, int) else ""
    name = base = base or str(number)
    for again in count(2):
        if name not in taken:
            break
        name = f"{base}-{again}"
    taken.add(name)
    return name


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{place} holds half a character (a lone surrogate), which is no text") from None
    return text


# From files to records.


def _records(path: str) -> _Records:
    if not path:
        return _json_lines(Path(str(files(__package__).joinpath("prompts.jsonl"))))
    file = user_path(path)
    kind = Path(file.stem).suffix if file.suffix.lower() == ".gz" else file.suffix
    return _READERS.get(kind.lower(), _text_lines)(file)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, unpacked where it is packed by gzip.  Raises UsageError for whatever goes wrong with it."""
    try:
        with open(path, "rb") as packed:
            unpacked = gzip.GzipFile(fileobj=packed) if path.suffix.lower() == ".gz" else packed
            yield cast(IO[bytes], unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read prompts {path}: {getattr(error, 'strerror', None) or error}") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line with its place."""
    with _opened(path) as file:
        for number in count(1):
            line = file.readline(_MOST_LINE + 1)
            if not line:
                return
            place = f"{path} line {number}"
            if len(line) > _MOST_LINE:
                raise UsageError(f"{place} is longer than {_MOST_LINE:,} bytes: this is no file of prompts")
            yield place, _decoded(line, place, "utf-8-sig" if number == 1 else "utf-8")


def _decoded(data: bytes, place: str, encoding: str = "utf-8-sig") -> str:
    try:
        if 0 not in data:  # which is no text, but UTF-16 or no text at all
            return data.decode(encoding)
    except UnicodeDecodeError:
        pass
    raise UsageError(f"{place} is not UTF-8 text: save it as UTF-8") from None


def _text_lines(path: Path) -> _Records:
    return _lines(path)


def _json_lines(path: Path) -> _Records:
    for place, line in _lines(path):
        if line.strip():
            yield place, _parsed(line, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column" if "\n" in text.strip() else "column"
        raise UsageError(f"{place}: this is not JSON: {error.msg} ({at} {error.colno})") from None
    except (ValueError, RecursionError):  # a number, or a nesting, beyond what Python takes
        raise UsageError(f"{place}: this is no JSON that can be read: a number or a nesting is too large") from None


def _json(path: Path) -> _Records:
    with _opened(path) as file:
        data = file.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise UsageError(f"{path} is larger than {_MOST_JSON:,} bytes: make it JSON lines, which are read one by one")
    text = _decoded(data, str(path))
    if _is_json_lines(text):
        yield from _json_lines(path)
        return
    value = _parsed(text, str(path)) if text.strip() else []
    if not isinstance(value, list):
        raise UsageError(f"{path} must hold a list, of texts or of objects with one")
    for number, record in enumerate(value, 1):
        yield f"{path} item {number}", record


def _is_json_lines(text: str) -> bool:
    """Whether these are JSON lines under another name: the first line is an object by itself."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _csv(path: Path) -> _Records:
    """Rows under a first line of names, separated by what stands most often there."""
    lines = _lines(path)
    head = next(lines, ("", ""))[1]
    rows = csv.reader(_chained(head, lines), delimiter=max(",;\t", key=head.count))
    try:
        names = next(rows, [])
        for row in rows:
            place = f"{path} line {rows.line_num}"
            if row and len(row) != len(names):
                wants = "put quotes around a text that has a separator in it"
                raise UsageError(f"{place} has {len(row)} fields, and the first line names {len(names)}: {wants}")
            if row:
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path} line {rows.line_num}: this is not CSV: {error}") from None


def _chained(head: str, lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield head
    for _, line in lines:
        yield line


def _parquet(path: Path) -> _Records:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(f"reading {path} needs a package for Parquet: pip install 'pjlocal[eval]'") from None
    with _opened(path) as file:
        try:
            rows = (row for batch in parquet.ParquetFile(file).iter_batches(100) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{path} row {number}", row
        except (pyarrow.ArrowException, OSError) as error:
            raise UsageError(f"{path} is no Parquet file that can be read: {one_line(str(error))}") from None


_READERS: dict[str, Callable[[Path], _Records]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
