"""Read prompts: the built-in ones, or a file of lines, JSON lines, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import heapq
import json
import random
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from io import BufferedReader, BytesIO
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any

from ..errors import UsageError, did_you_mean, extra
from ..textfile import user_path
from ..visible import one_line
from .suite import Prompt

#: Names of the prompt's field if the user names none; the first one in the record is used.
FIELDS = (
    "prompt", "question", "text", "instruction", "query", "input", "turns", "messages", "conversations"
)  # fmt: skip
_IDS = ("id", "prompt_id", "question_id")
_MOST_ID = 40  # characters
_MOST_LINE = 10_000_000  # bytes; a file with a longer line is not a file of prompts
_MOST_JSON = 500_000_000  # bytes of a file that must be read whole
_MOST_HEAD = 100  # lines from which the separator of a table is guessed
_DEEPEST = 5  # levels of lists and messages around a text

#: Records with their places for messages; a record that cannot be read is a UsageError.
Records = Iterator[tuple[str, Any]]


def _short_and_once(rows: Iterator[Prompt]) -> Iterator[Prompt]:
    """Every second of the prompts with at most 100 characters, because two consecutive rows have the same prompt."""
    return islice((row for row in rows if len(row.text) <= 100), 1, None, 2)


#: Data sets with a field ``prompt``, and the selection of their rows by the paper's authors.
DATA_SETS: dict[str, Callable[[Iterator[Prompt]], Iterator[Prompt]]] = {"koala": iter, "helpsteer2": _short_and_once}


def load_prompts(
    source: str = "default",
    field: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    min_chars: int | None = None,
    max_chars: int | None = None,
) -> list[Prompt]:
    """Read the prompts of a source, in its order, with unique ids and without repeated texts.

    Args:
        source: ``default``, a file, or a data set and its file, as in ``helpsteer2:validation.jsonl``.
        field: the field of the prompt; None for the first of `FIELDS` that exists.
        limit: the most prompts to return.
        sample: the seed of a random sample of ``limit`` prompts; None for the first ones.  A larger sample with the
            same seed contains the smaller one.
        min_chars, max_chars: limits of a prompt's length in characters; other prompts are left out.

    Raises:
        UsageError: the file cannot be read, or contains no suitable prompts; the message names the line.
    """
    name, path = _split(source)
    prompts = DATA_SETS[name](_prompts(path, field or "prompt")) if name in DATA_SETS else _prompts(path, field)
    most = max_chars or float("inf")
    fitting = _once(prompt for prompt in prompts if (min_chars or 0) <= len(prompt.text) <= most)
    chosen = list(islice(fitting, limit)) if sample is None else _sample(fitting, limit, sample)
    if not chosen:
        raise UsageError(f"no prompt of {source} has an allowed length: change min_chars or max_chars")
    return chosen


def _once(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
    """Drop repeated prompts, which would count as new evidence."""
    seen = set()
    for prompt in prompts:
        if prompt.text not in seen:
            seen.add(prompt.text)
            yield prompt


def located(source: str, folder: Path) -> str:
    """Resolve a source's file relative to a folder."""
    name, path = _split(source)
    if source == "default":
        return source
    path = str(folder.absolute() / user_path(path))
    return f"{name}:{path}" if name else path


def _split(source: str) -> tuple[str, str]:
    """Split a source into the name of a data set (or ``default``, or empty) and a file (or empty)."""
    name, _, path = source.partition(":")
    if name in DATA_SETS:
        if not path:
            raise UsageError(f"the prompts of {name} come from your own file: give it as {name}:FILE")
        return name, path
    return ("default", str(files(__package__) / "prompts.jsonl")) if source == "default" else ("", source)


def _sample(prompts: Iterable[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """A random sample, in the order of the prompts: those that draw the smallest random numbers.

    `random.random` gives the same numbers in every version of Python.
    """
    if limit is None:
        raise UsageError("--sample needs --limit, the number of prompts")
    draw = random.Random(seed).random
    drawn = heapq.nsmallest(limit, ((draw(), number, prompt) for number, prompt in enumerate(prompts)))
    return [prompt for _, _, prompt in sorted(drawn, key=lambda item: item[1])]


# From records to prompts.


def _prompts(path: str, field: str | None) -> Iterator[Prompt]:
    """The prompts of a file, or the built-in ones for an empty path."""
    name, taken = field, dict[str, int]()
    for number, (place, record) in enumerate(read_records(path, field), 1):
        if isinstance(record, dict):
            name = name or known_field(record)
        text = read_prompt(place, record, name if isinstance(record, dict) else field)
        if text:
            yield Prompt(_id(record, number, taken), text)
    if not taken:
        raise UsageError(f"{path} is empty: it contains no prompts")


def read_prompt(place: str, record: Any, name: str | None) -> str:
    """The text of a record's prompt, from the named field if the record has fields; may be empty.

    Raises:
        UsageError: the record has no such field or text, or cannot be read.
    """
    if isinstance(record, UsageError):
        raise record
    text = record
    if isinstance(record, dict):
        if name not in record:
            raise UsageError(f"{place} has no field {_no_such(name, record)}")
        text = record[name]
    elif name:
        raise UsageError(f"{place} is plain text and has no field {name!r}: leave the field out")
    text = _text(text, _DEEPEST)
    if text is None:
        raise UsageError(f"{place} contains no text" + (f" under {name!r}" if name else ""))
    if isinstance(text, bytes):
        text = _decoded(text, place)
    check_characters(text, place)
    return text.strip()


def check_characters(text: str, place: str) -> None:
    """Raises UsageError: the text contains half a character, which can be neither read by a model nor written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{place} contains half a character (a lone surrogate)") from None


def known_field(names: Container[str]) -> str | None:
    return next((known for known in FIELDS if known in names), None)


def _no_such(name: str | None, record: Iterable[str]) -> str:
    known = f"it has {one_line(', '.join(record)) or 'none'}"
    if name is None:
        return f"with a known name: {known}. Name the field of the prompts with --field, or as field in the suite"
    return f"{name!r}: {did_you_mean(name, record) or known}"


def _text(value: Any, depth: int) -> str | bytes | None:
    """The text in a value: a text, a message, or the first of a list; messages of the system are skipped."""
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, dict) and "system" not in (value.get("role"), value.get("from")):
        value = [value[key] for key in ("content", "value", "text") if key in value]
    if isinstance(value, list) and depth:
        return next((text for item in value if (text := _text(item, depth - 1)) is not None), None)
    return None


def _id(record: Any, number: int, taken: dict[str, int]) -> str:
    """A unique id, from the record's own id or its number.

    Args:
        taken: the ids so far, each with the last number that was appended to it; the new one is added.
    """
    own = next((record[key] for key in _IDS if key in record), None) if isinstance(record, dict) else None
    base = one_line(str(own))[:_MOST_ID] if type(own) in (str, int) else ""
    name = base = base or str(number)
    while name in taken:
        taken[base] += 1
        name = f"{base}-{taken[base]}"
    taken[name] = 1
    return name


# From files to records.


def read_records(path: str, field: str | None = None) -> Records:
    """The records of a file, or of standard input for ``-``.

    Raises:
        UsageError: the file cannot be read.
    """
    if path == "-":
        return _of_standard_input()
    file, kind = user_path(path), file_kind(path)
    if kind in _ARCHIVES:
        raise UsageError(f"cannot read prompts {path}: unpack the file first, or use gzip, bzip2 or zstd")
    return _parquet(file, field) if kind == ".parquet" else _READERS.get(kind, _lines)(file)


def file_kind(path: str) -> str:
    """The ending of a file's name in lower case, without that of a compression."""
    name = Path(path.lower())
    return Path(name.stem if name.suffix in _PACKED else name.name).suffix


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, and unpack it if it is compressed.  Raises UsageError if it cannot be read."""
    codec = _PACKED.get(path.suffix.lower())
    try:
        with open(path, "rb") as file:
            yield _unpacked(file, codec) if codec else file
    except OSError as error:
        raise UsageError(f"cannot read prompts {path}: {error.strerror or one_line(str(error))}") from None


def _unpacked(file: IO[bytes], codec: str) -> IO[bytes]:
    with extra("eval"):
        from pyarrow import CompressedInputStream
    return BufferedReader(CompressedInputStream(file, codec))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line with its place."""
    with _opened(path) as file:
        yield from _lines_of(file, str(path))


def _lines_of(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    for number in count(1):
        line = file.readline(_MOST_LINE + 1)
        if not line:
            return
        place = f"{name} line {number}"
        if len(line) > _MOST_LINE:
            raise UsageError(f"{place} is longer than {_MOST_LINE:,} bytes, too long for prompts")
        yield place, _decoded(line, place, "utf-8-sig" if number == 1 else "utf-8")


def _decoded(data: bytes, place: str, encoding: str = "utf-8-sig") -> str:
    try:
        if 0 not in data and not data.startswith(_PDF):  # UTF-16, or not a text
            return data.decode(encoding)
    except UnicodeDecodeError:
        pass
    if _BINARY.match(data):
        raise UsageError(f"{place} is not text: prompts come from a text, JSON, CSV, TSV or Parquet file") from None
    raise UsageError(f"{place} is not UTF-8 text: save it as UTF-8") from None


_PDF = b"%PDF-"  # its first lines may be ASCII
#: A PDF, a PNG, or control characters that texts do not contain, without the byte order mark of UTF-16.
_BINARY = re.compile(rb"%PDF-|\x89PNG|(?!\xff\xfe|\xfe\xff).*[\x01-\x06\x0e-\x1a\x1c-\x1f]", re.DOTALL)


def _of_standard_input() -> Records:
    """JSON lines, if the first line that is not blank is an object; else plain lines."""
    lines = _lines_of(sys.stdin.buffer, "standard input")
    head = next((line for line in lines if line[1].strip()), None)
    if head is not None:
        whole = chain([head], lines)
        yield from _json_values(whole) if _is_json_lines(head[1]) else whole


def _json_values(lines: Iterator[tuple[str, str]]) -> Records:
    for place, line in lines:
        if line.strip():
            try:
                yield place, _parsed(line, place)
            except UsageError as error:
                yield place, error


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column" if "\n" in text.strip() else "column"
        raise UsageError(f"{place} is not valid JSON: {error.msg} ({at} {error.colno})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{place} cannot be read as JSON: a number is too large, or the nesting too deep") from None


def _json(path: Path) -> Records:
    with _opened(path) as file:
        data = file.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise UsageError(
            f"{path} is larger than {_MOST_JSON:,} bytes: convert it to JSON lines, which are read one by one"
        )
    text = _decoded(data, str(path))
    if _is_json_lines(text):
        yield from _json_values(_lines(path))
        return
    value = _parsed(text, str(path)) if text.strip() else []
    if not isinstance(value, list):
        raise UsageError(f"{path} must be a list of texts, or of objects with a text")
    for number, record in enumerate(value, 1):
        yield f"{path} item {number}", record


def _is_json_lines(text: str) -> bool:
    """True if the first line is a complete object, as in JSON lines under another name."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _csv(path: Path, delimiter: str = "") -> Records:
    """The rows of a table whose first line has the names of the fields.

    Args:
        delimiter: the separator; if empty, the one that gives the most names.
    """
    lines = (_with_whole_quotes(line) if delimiter == "\t" else line for _, line in _lines(path))
    head = list(islice(lines, _MOST_HEAD))
    csv.field_size_limit(_MOST_LINE)
    place = f"{path} line 1"
    try:
        rows = csv.reader(chain(head, lines), delimiter=delimiter or _delimiter(head), strict=True)
        columns = next(filter(None, rows), [])
        while True:
            place = f"{path} line {rows.line_num + 1}"
            row = next(rows, None)
            if row is None:
                return
            if row and len(row) != len(columns):
                advice = ": put quotes around texts that contain the separator" if len(row) > len(columns) else ""
                error = UsageError(f"{place} has {len(row)} fields, and the first line names {len(columns)}{advice}")
                yield place, error
            elif row:
                yield place, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        fault = next((fault for part, fault in _CSV_FAULTS.items() if part in str(error)), str(error))
        raise UsageError(f"{place} is not valid CSV: {fault}") from None


def _with_whole_quotes(line: str) -> str:
    """A line of a tab-separated table, in which a field may begin with a quoted word: it is quoted as a whole."""
    fields = line.split("\t")
    return "\t".join('"' + field.replace('"', '""') + '"' if _QUOTED_WORD.match(field) else field for field in fields)


#: A quoted text with more behind it.
_QUOTED_WORD = re.compile(r'"(?:[^"]|"")*"[^"\r\n]')

#: pjlocal's messages, by parts of Python's.
_CSV_FAULTS = {
    "expected after": "quotes inside a quoted text must be doubled",
    "unexpected end": "a quoted text has no end",
    "new-line character": "save it with another kind of line ends",
}


def _delimiter(head: Sequence[str]) -> str:
    """The separator that splits the first line into the most names; if none does, the table has one column."""
    n_names = {mark: len(next(filter(None, csv.reader(head, delimiter=mark)), [])) for mark in ",;\t"}
    most = max(n_names, key=lambda mark: n_names[mark])
    return most if n_names[most] > 1 else "\x1f"


def _parquet(path: Path, field: str | None) -> Records:
    """The rows, with only texts and whole numbers in the columns of the prompt and the id.

    Python cannot represent all values of other columns, such as times in nanoseconds, or the year 10,000.
    """
    with extra("eval"):
        import pyarrow
        from pyarrow import parquet
    with _opened(path) as file:
        try:
            table = parquet.ParquetFile(file if file.seekable() else BytesIO(file.read()))
            names = table.schema_arrow.names
            name = field or known_field(names)
            if name is None or name not in names:
                raise UsageError(f"{path} has no field {_no_such(name, names)}")
            leaves = [leaf.path for leaf in map(table.schema.column, range(len(table.schema))) if _is_text(leaf)]
            columns = {key: [leaf for leaf in leaves if f"{leaf}.".startswith(f"{key}.")] for key in (*_IDS, name)}
            columns = {key: of for key, of in columns.items() if of}
            if name not in columns:
                raise UsageError(f"{path} contains no text under {name!r}")
            rows = count(1)
            for batch in table.iter_batches(100, columns=[*chain(*columns.values())]):
                for values in zip(*(batch[key].to_pylist() for key in columns), strict=True):
                    yield f"{path} row {next(rows)}", dict(zip(columns, values, strict=True))
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise UsageError(f"{path} is not a readable Parquet file: {one_line(str(error))}") from None


def _is_text(leaf: Any) -> bool:
    """True if a Parquet column contains text (also as bytes) or whole numbers."""
    packed = leaf.physical_type in ("BYTE_ARRAY", "INT32", "INT64")
    return packed and leaf.logical_type.type in ("STRING", "JSON", "ENUM", "INT", "NONE")


_READERS: dict[str, Callable[[Path], Records]] = {
    ".jsonl": lambda path: _json_values(_lines(path)),
    ".ndjson": lambda path: _json_values(_lines(path)),
    ".json": _json,
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
}
#: Codecs of compressed files by ending, and endings of archives that are not supported.
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_ARCHIVES = (".zip", ".xz", ".lzma", ".lz4", ".br", ".z", ".7z", ".rar", ".tar", ".tgz")
