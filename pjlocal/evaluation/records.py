"""The records of an evaluation: answers, scores and verdicts, as JSON lines in a folder that can be continued."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, get_type_hints

from ..errors import OutputError, UsageError
from ..gguf.ollama import model_file
from ..gguf.split import files_of
from ..settings import Engine
from ..textfile import owner_only

_DIGITS = 20  # of a key: 80 bits, so that a billion records do not collide


def key_of(**parts: Any) -> str:
    """A digest of a record's inputs.  A record with a known key is not computed again."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def computed_with(engine: Engine) -> dict[str, Any]:
    """The engine settings that change the numbers a model computes, where they differ from the defaults.

    Threads, batch size, layout and devices change rounding alone, and are in no key.
    """
    defaults = Engine()
    names = ("cache_type_k", "cache_type_v", "flash_attn")
    return {name: getattr(engine, name) for name in names if getattr(engine, name) != getattr(defaults, name)}


def digest_of(path: Path) -> str:
    """SHA-256 of a file; of a split model, of the digests of its parts.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        parts = files_of(model_file(path))
        digests = [_digest(part, (stat := part.stat()).st_size, stat.st_mtime_ns) for part in parts]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Read once: a model often answers, scores and judges."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class AnswerRecord:
    """The record of one system's answer.

    objectives: the name of the preferences that were asked for (`suite.Objectives`).
    system: the name of who answered (`suite.System`).
    prompt_id, prompt: of the prompt set.
    pieces: the text in pieces, each with its kind and the view that wrote it, as [text, kind, writer or None].
    pushes: nats a token by which each preference moved the text, if a neutral view was decoded.
    n_written: the tokens of all answers that were written, where ``best`` chose one; 0 in records of older versions.
    """

    key: str
    objectives: str
    system: str
    prompt_id: str
    prompt: str
    seed: int
    text: str
    finish_reason: str
    tokens: int
    prefill_s: float
    decode_s: float
    acceptance_rate: float | None = None
    pushes: dict[str, float] = field(default_factory=dict)
    pieces: list[list[str | None]] = field(default_factory=list)
    n_written: int = 0

    @property
    def subject(self) -> tuple[str, ...]:
        """The subject of the record: of two records with one subject, the later one counts."""
        return (self.key,)


@dataclass(frozen=True)
class Score:
    """A number that says something of one answer.

    answer: the answer's key.
    metric: such as ``words``, ``check:pirate``, ``reward:vivid`` or ``fluency``; 1 is met and 0 not met of a check.
    by: the model that says so; empty for what needs none.
    """

    key: str
    answer: str
    metric: str
    value: float
    by: str = ""

    @property
    def subject(self) -> tuple[str, ...]:
        return self.answer, self.metric, self.by


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on two answers to the same prompt, shown in this order.

    first, second: the answers' keys.
    aspect: the preference asked about, or ``quality``.
    p_first, p_second, p_tie: the judge's probabilities of its three possible answers, summing to 1.
    """

    key: str
    first: str
    second: str
    aspect: str
    by: str
    p_first: float
    p_second: float
    p_tie: float

    @property
    def subject(self) -> tuple[str, ...]:
        return self.first, self.second, self.aspect, self.by


PERSON = "person"


def voter(name: str | None = None) -> str:
    """The name of the judge in a person's votes."""
    return f"{PERSON} {' '.join(name.split())}" if name and name.strip() else PERSON


def is_person(by: str) -> bool:
    """True for a person's verdict; a person sees two answers in one order only."""
    return by == PERSON or by.startswith(f"{PERSON} ")


Record = TypeVar("Record", AnswerRecord, Score, Verdict)
_FILES = {AnswerRecord: "answers.jsonl", Score: "scores.jsonl", Verdict: "verdicts.jsonl"}


class Folder:
    """The folder of one evaluation: ``run.json`` and a JSON lines file for each kind of record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[type, IO[bytes]] = {}

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files.values():
            file.close()

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise OutputError if the folder cannot be written into, UsageError if another process has locked a file."""
        try:
            yield
        except BlockingIOError:
            raise UsageError(
                f"another pjlocal is writing into {self.path}: wait for it, or name another folder"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror or error}") from None

    def read(self, kind: type[Record]) -> dict[str, Record]:
        """The records of a kind that count, by their keys, in the order in which they were written.

        Of two scores of the same answer by a model of the same name only the later one counts: the other was made with
        another file, or by other settings, and is made again where it is wanted again.

        Raises:
            UsageError: a line is none; names it.
        """
        file = self.path / _FILES[kind]
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}") from None
        simple = _simple_fields(kind)
        records: dict[tuple[str, ...], Record] = {}
        for number, line in enumerate(_whole_lines(data), 1):
            try:
                record = _parsed(kind, line, simple)
            except (ValueError, TypeError, AttributeError, RecursionError):
                wants = "remove the line, and the same command makes it again"
                raise UsageError(f"{file} line {number} was changed: {wants}") from None
            records.pop(record.subject, None)
            records[record.subject] = record
        return {record.key: record for record in records.values()}

    def hold(self, *kinds: type[AnswerRecord] | type[Score] | type[Verdict]) -> None:
        """Keep others from writing records of these kinds, until this is left.

        Raises:
            UsageError: somebody else does, or there can be no such folder.
            OutputError: the folder cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: name a folder")
        with self.writing():
            for kind in kinds:
                _lock(self._file(kind))

    def append(self, record: AnswerRecord | Score | Verdict) -> None:
        """Write a record behind the others; it is on its way to the disk when this returns.

        Raises:
            OutputError: it cannot be written; what was written before stays whole.
        """
        with self.writing():
            file = self._file(type(record))
            end = file.tell()
            try:
                _write_all(file, _line(record))
            except OSError:
                file.truncate(end)
                raise

    def take_back(self, record: AnswerRecord | Score | Verdict) -> bool:
        """Remove the last record of its kind; return False if another one was written after it."""
        line = _line(record)
        with self.writing():
            file = self._file(type(record))
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - len(line))
            file.seek(start)
            last = file.read() == line
            if last:
                file.truncate(start)
            file.seek(0, os.SEEK_END)
        return last

    def _file(self, kind: type) -> IO[bytes]:
        """Open for appending, without the half of a line that a break may have left behind."""
        if kind not in self._files:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / _FILES[kind], "ab+", buffering=0, opener=owner_only)  # noqa: SIM115
            file.seek(0)
            whole = sum(len(line) + 1 for line in _whole_lines(file.read()))
            file.truncate(whole)
            file.seek(0, os.SEEK_END)
            self._files[kind] = file
        return self._files[kind]


def _line(record: AnswerRecord | Score | Verdict) -> bytes:
    return json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(kind: type[Record], line: bytes, simple: Mapping[str, tuple[type, ...]]) -> Record:
    """The record of a line.  Raises ValueError, TypeError, AttributeError or RecursionError if it is invalid."""
    values = json.loads(line)
    record = kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
    if not all(isinstance(getattr(record, name), of) for name, of in simple.items()):
        raise TypeError
    return record


def _simple_fields(kind: type) -> dict[str, tuple[type, ...]]:
    """The types of a record's simple fields."""
    may_be: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float)}
    return {name: may_be[hint] for name, hint in get_type_hints(kind).items() if hint in may_be}


def _whole_lines(data: bytes) -> Iterator[bytes]:
    """The lines that were written to their end."""
    return iter(data.split(b"\n")[:-1])


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all bytes.  A nearly full disk takes a part first, and raises an error for the rest only."""
    while data:
        data = data[file.write(data) :]


def _lock(file: IO[bytes]) -> None:
    """Lock a file, where the system supports it.  Raises BlockingIOError if another process holds the lock."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks
