"""The records of an evaluation: answers, scores and verdicts, as JSON lines in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar, get_type_hints

from ..errors import OutputError, UsageError
from ..gguf.ollama import model_file
from ..gguf.split import files_of
from ..request import changed
from ..settings import Engine
from ..textfile import lock, owner_only

_DIGITS = 20  # of a key: 80 bits, enough for a billion records without a collision


def key_of(**parts: Any) -> str:
    """A digest of a record's inputs.  A record with a known key is not computed again."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


#: The engine settings that change a model's numbers.
COMPUTED_WITH = frozenset({"cache_type_k", "cache_type_v", "flash_attn"})


def computed_with(engine: Engine) -> dict[str, Any]:
    """The engine settings that change a model's numbers and differ from the defaults.

    Threads, batch size, layout and devices only change rounding, so they are not in any key.
    """
    return {name: getattr(engine, name) for name in changed(engine) & COMPUTED_WITH}


def digest_of(path: Path) -> str:
    """The SHA-256 of a model file; for a split model, of the digests of its parts.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        parts = files_of(model_file(path))
        digests = [_digest(part, (stat := part.stat()).st_size, stat.st_mtime_ns) for part in parts]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """The SHA-256 of a file.  It is cached, because a model often answers, scores and judges."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class AnswerRecord:
    """The record of one system's answer.

    objectives: the name of the `suite.Objectives`.
    system: the name of the `suite.System`.
    prompt_id, prompt: the id and the text of the prompt.
    pushes: the mean push of each preference, in nats per token, if there was a neutral view.
    pieces: the text in pieces, each with its kind and the view that wrote it, as [text, kind, writer or None].
    n_written: the tokens of all answers that were written for this one, with ``best`` and in mode rewrite.  Older
        versions counted the correction alone in mode rewrite, and the oldest none.
    n_at_once: the number of answers that were written at once, which wait for each other; 0 if an older version
        wrote the answer.
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
    n_at_once: int = 0

    @property
    def subject(self) -> tuple[str, ...]:
        """The key of what the record is about: of two records with the same key, the later one counts."""
        return (self.key,)


@dataclass(frozen=True)
class Score:
    """The value of a metric for one answer.

    answer: the answer's key.
    metric: such as ``words``, ``check:pirate``, ``reward:vivid`` or ``fluency``.
    value: of a check, 1 if it is met and 0 if not.
    by: the model that measured it; empty for metrics without a model.
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

    first, second: the keys of the answers.
    aspect: the preference by which they were compared, or ``quality``.
    by: the judge's name.
    p_first, p_second, p_tie: the probabilities of the judge's three possible replies, summing to 1.
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


def voter(name: str) -> str:
    """The name under which a person's votes are saved."""
    name = " ".join(name.split())
    return PERSON if name in ("", PERSON) else f"{PERSON} {name}"


def is_person(by: str) -> bool:
    """True if a person gave the verdict.  A person sees two answers in one order only."""
    return by == PERSON or by.startswith(f"{PERSON} ")


Record = TypeVar("Record", AnswerRecord, Score, Verdict)
_FILES = {AnswerRecord: "answers.jsonl", Score: "scores.jsonl", Verdict: "verdicts.jsonl"}

#: The commands that write each kind of record.
_MADE_BY = {
    AnswerRecord: "pjlocal eval run",
    Score: "pjlocal eval score",
    Verdict: "pjlocal eval score (or vote)",
}


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
        """Convert errors in the body: OutputError if the folder cannot be written, UsageError if a file is locked."""
        try:
            yield
        except BlockingIOError:
            raise UsageError(
                f"another pjlocal is writing into {self.path}: wait for it, or name another folder"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror or error}") from None

    def read(self, kind: type[Record]) -> dict[str, Record]:
        """The records of a kind by their keys, in the order in which they were written.

        Of two records with the same subject, only the later one is returned.  For example, if two models with the
        same name scored an answer, the earlier score was made with another file or other settings.

        Raises:
            UsageError: a line is not a record; the message names the line.
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
                raise UsageError(
                    f"{file} line {number} was changed: remove the line, and {_MADE_BY[kind]} makes it again"
                ) from None
            records.pop(record.subject, None)
            records[record.subject] = record
        return {record.key: record for record in records.values()}

    def hold(self, *kinds: type[AnswerRecord] | type[Score] | type[Verdict]) -> None:
        """Lock the files of these kinds of records until the folder is closed.

        Raises:
            UsageError: another process has locked one, or the path is a file.
            OutputError: the folder cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: name a folder")
        with self.writing():
            for kind in kinds:
                self._file(kind)

    def append(self, record: AnswerRecord | Score | Verdict) -> None:
        """Append a record.  When the method returns, the record survives a kill of the process.

        Raises:
            OutputError: the record cannot be written; earlier records are not damaged.
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
        """Remove a record if it is the last one of its kind; return False if another one was written after it."""
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
        """Open and lock a file for appending, and remove an incomplete line at its end, which a crash may have left."""
        if kind not in self._files:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / _FILES[kind], "ab+", buffering=0, opener=owner_only)  # noqa: SIM115
            self._files[kind] = file
            lock(file)  # before reading: another process may be writing its last line
            file.seek(0)
            data = file.read()
            whole = sum(len(line) + 1 for line in _whole_lines(data))
            if whole > len(data):  # the last line lacks only its end
                _write_all(file, b"\n")
            else:
                file.truncate(whole)
            file.seek(0, os.SEEK_END)
        return self._files[kind]


def _line(record: AnswerRecord | Score | Verdict) -> bytes:
    return json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(kind: type[Record], line: bytes, simple: Mapping[str, tuple[type, ...]]) -> Record:
    """Parse a line.  Raises ValueError, TypeError, AttributeError or RecursionError if it is not a record."""
    values = json.loads(line)
    record = kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
    if not all(isinstance(getattr(record, name), of) for name, of in simple.items()):
        raise TypeError
    return record


def _simple_fields(kind: type) -> dict[str, tuple[type, ...]]:
    may_be: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float)}
    return {name: may_be[hint] for name, hint in get_type_hints(kind).items() if hint in may_be}


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a file, without an incomplete one at its end."""
    *lines, last = data.split(b"\n")
    with suppress(ValueError, RecursionError):
        json.loads(last)
        lines.append(last)
    return lines


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all bytes.  On a nearly full disk, a first call writes a part, and only the next one raises an error."""
    while data:
        data = data[file.write(data) :]
