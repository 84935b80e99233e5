"""``pjlocal run --batch``: a file of prompts, an answer for each row."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..client import KeyRefused, Server, ServerError, WarningLog, as_finished
from ..config.config import load_config
from ..engine.interrupt import INTERRUPTED, Interrupt, Interrupted, on_sigint
from ..errors import OutputError, PjlocalError, UsageError, plural
from ..events import Result
from ..prompting.conversation import check_begin, parse_conversation
from ..prompting.prompt import Message, last_question
from ..request import GROUPS, KEYS, PREFERENCES, Request
from ..screen.console import say
from ..screen.progress import progress_bars
from ..settings import FORMS, REMOVED, Engine, by_keywords, field_names, flag_names, similar_name
from ..textfile import lock, owner_only, user_path, write_text

if TYPE_CHECKING:
    from ..persona import PersonaJudge

_AT_ONCE = 16  # rows planned together, as a multiple of the answers written at once
_COLUMNS = (".csv", ".tsv")  # formats in which every value is a text

_KEY_OF = flag_names(*GROUPS.values())  # by flag

#: The settings of a row, by their names in a row.
_NAMES = {key: key for key in KEYS} | {name: _KEY_OF[flag] for name, flag in field_names(*GROUPS.values()).items()}


#: Fields that a row cannot have, and what to do instead.
_REFUSED = {
    "model": "one model answers all rows: give it to the command with --model, or rename the field",
    "n": "max_tokens limits the answer's length, and for several answers repeat the row",
    **REMOVED,
    **{name: f"give it to the command with {flag}, or rename the field" for name, flag in field_names(Engine).items()},
}
_KNOWN = {*_NAMES, "persona", "messages", *_REFUSED}


@dataclass(frozen=True)
class Row:
    """A row of the input.

    number: from 1.
    prompt: its last question, which the output repeats.
    error: the reason why it cannot be answered; it then has no conversation.
    """

    number: int
    id: str | int | None
    prompt: str
    request: Request
    conversation: Sequence[Message] = ()
    error: str = ""

    def as_json(self, result: Result | None, error: str = "") -> str:
        """The row of the output."""
        named = {} if self.id is None else {"id": self.id}
        facts = {"error": error or self.error} if result is None else result.as_dict()
        return json.dumps({"row": self.number, **named, "prompt": self.prompt, **facts}, ensure_ascii=False)


def run_batch(
    source: str,
    out: str,
    request: Request,
    interrupt: Interrupt,
    write_all: Callable[[Sequence[Row], Callable[[Row, str], None]], None],
) -> int:
    """Answer every row of a file that is not yet in the output.  Returns the exit status.

    Args:
        source: the file; ``-`` for standard input.
        out: see `_Output`.
        write_all: answers rows, and passes on each row of the output; see `answer_locally` and `answer_on_server`.

    Raises:
        UsageError: the file has no prompts, or the output is another kind of file.
        OutputError: the output cannot be written.
    """
    if source == "-" and sys.stdin.isatty():
        say("a prompt on each line; Ctrl-D ends them")
    rows = read_rows(source, request)
    with on_sigint(interrupt), _Output(out, rows) as output, progress_bars() as progress:
        if output.n_written:
            say(f"{out} already has {output.n_written} of {len(rows)} {plural(len(rows), 'row')}")

        def show_progress() -> None:
            if out != "-":  # rows that are printed are progress enough, and would stand in the bar's line
                progress("answers", output.n_written, len(rows))

        def write(row: Row, line: str) -> None:
            output.write(row.number, line)
            show_progress()

        show_progress()

        todo = [row for row in rows if not output.has(row.number)]
        try:
            for row in todo:
                if row.error:
                    write(row, row.as_json(None))
            write_all([row for row in todo if not row.error], write)
        except Interrupted:
            pass
        finally:
            output.finish()
        n_left = len(rows) - output.n_written
    if interrupt.is_set() or n_left:
        are = "is" if n_left == 1 else "are"
        say(f"{n_left} of {len(rows)} {plural(len(rows), 'row')} {are} left: run the same command to continue")
        return INTERRUPTED
    if errors := output.errors:
        have = "has" if len(errors) == 1 else "have"
        say(f"{len(errors)} of {len(rows)} {plural(len(rows), 'row')} {have} an error instead of an answer")
        number, error = next(iter(errors.items()))
        say(f"row {number}: {error}")
    return 1 if errors else 0


# The rows.


def read_rows(source: str, request: Request) -> list[Row]:
    """Read the rows of a file, each with its request.  Raises UsageError: the file cannot be read, or is empty."""
    from ..evaluation.prompts import file_kind, read_records

    as_text = file_kind(source) in _COLUMNS
    records = [pair for pair in read_records(source) if not isinstance(pair[1], str) or pair[1].strip()]
    rows = [_row(number, place, record, request, as_text) for number, (place, record) in enumerate(records, 1)]
    if not rows:
        raise UsageError(f"{'standard input' if source == '-' else source} is empty: write a prompt on each line")
    return rows


def _row(number: int, place: str, record: Any, request: Request, as_text: bool) -> Row:
    from ..evaluation.prompts import check_characters

    row_id, prompt = None, ""
    try:
        if isinstance(record, dict):
            if type(own := record.get("id")) in (str, int):
                check_characters(str(own), place)
                row_id = own
            used = {name: value for name, value in record.items() if name in _KNOWN}
            check_characters(json.dumps(used, ensure_ascii=False, default=str), place)
        system, conversation = parse_conversation(_prompt(place, record))
        prompt = last_question(conversation)
        with by_keywords(*GROUPS.values()):
            own_settings = record if isinstance(record, dict) else {}
            row_request = _with_settings(request, own_settings, as_text)
            check_begin(own_settings.get("begin") or "", conversation[-1].role == "assistant")
        return Row(number, row_id, prompt, row_request.with_system(system) if system else row_request, conversation)
    except (PjlocalError, TypeError) as error:
        return Row(number, row_id, prompt, request, error=str(error))


def _prompt(place: str, record: Any) -> Any:
    """The text or the messages of a record."""
    from ..evaluation.prompts import FIELDS, known_field, read_prompt

    if isinstance(record, dict):
        name = known_field(record)
        if name is None:
            raise UsageError(f"{place} has no field for its prompt: name it {', '.join(FIELDS[:-1])} or {FIELDS[-1]}")
        if name == "messages":
            return record[name]
        if record.get("messages"):
            raise UsageError(f"a row cannot have both {name!r} and 'messages': leave one out, or rename it")
        return read_prompt(place, record, name)
    return read_prompt(place, record, None)


def _with_settings(request: Request, record: Mapping[str, Any], as_text: bool) -> Request:
    """The request with the persona and the settings of a row.  Other fields are ignored, but misspelt settings and
    fields that seem to be settings are refused.  An empty text resets a setting; in a text table it is nothing."""
    given = {name: value for name, value in record.items() if value is not None and value != ""}
    for name in record:
        if name in _REFUSED and name in given:
            raise UsageError(f"a row cannot have the field {name!r}: {_REFUSED[name]}")
        if name not in _KNOWN and (similar := similar_name(name, _NAMES)):
            raise UsageError(f"unknown field {name!r}: did you mean {similar}?")
    if "persona" in given:
        request = request.override(load_config().persona(str(given["persona"])))
    if not as_text:
        request = request.unset({key for name, key in _NAMES.items() if record.get(name) == ""})
    changes = {
        _NAMES[name]: _parsed(_NAMES[name], value) if as_text else value
        for name, value in given.items()
        if name in _NAMES
    }
    return request.replace(**changes)


def _parsed(key: str, text: str) -> Any:
    """Parse a value of a text table.  Preferences are separated by semicolons; a schema or a grammar is the text."""
    if key in PREFERENCES:
        return [part.strip() for part in text.split(";") if part.strip()]
    if key in FORMS and text != "default":
        return text
    return next(group for group in GROUPS.values() if hasattr(group, key)).parse(key, text)


# The output.


class _Output:
    """The output file: JSON lines, one for each row, each flushed at once.

    A file is sorted when it is complete.  Elsewhere a finished row waits for the rows before it; if the work is
    interrupted, the waiting rows are written too.

    Args:
        out: the file; or ``-`` for standard output, a device or a pipe, which contain no earlier rows.

    Raises:
        UsageError: the file is something else, answers other prompts, or is written by another process.
        OutputError: it cannot be opened for writing.
    """

    def __init__(self, out: str, rows: Sequence[Row]) -> None:
        self._name = out
        self._path = None if out == "-" else user_path(out)
        self._is_file = False
        self._next = 1  # the first row that is not in the file
        self._waiting: dict[int, str] = {}
        self._prompts = {row.number: row.prompt for row in rows}
        self._lines: dict[int, str] = {}
        self._in_file: list[int] = []
        self._file: IO[str] = sys.stdout

    def _read(self) -> dict[int, str]:
        """The rows that are in the file.  Others are removed from it.

        A row that was being written when the process was killed is written again, and so is one whose prompt could
        not be read, because the user may have corrected it.
        """
        assert self._path
        try:  # a device or a pipe has no rows, and reading one may never end
            text = self._path.read_text(encoding="utf-8") if self._is_file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {self._name}: {getattr(error, 'strerror', None) or error}") from None
        lines: dict[int, str] = {}
        n_whole = text.count("\n")
        for place, line in enumerate(text.split("\n")):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                number, prompt = int(row["row"]), row["prompt"]
            except (ValueError, LookupError, TypeError):
                if place == n_whole and (lines or text.startswith('{"row": ')):
                    continue
                raise UsageError(
                    f"{self._name} exists and is not an output of --batch: give --out another name"
                ) from None
            if "error" in row and not prompt:
                continue
            if self._prompts.get(number) != prompt:
                raise UsageError(f"{self._name} answers other prompts (row {number}): give --out another name")
            lines[number] = line
        if text != (whole := "".join(f"{line}\n" for line in lines.values())):
            with closing(self._file):  # it stays locked until the new one is
                self._replace(whole)
                self._open(self._path)
        return lines

    def _open(self, path: Path) -> None:
        """Open the file for appending, and lock it."""
        with self._named_errors():
            self._file = open(path, "a", encoding="utf-8", opener=owner_only)  # noqa: SIM115
        if not path.is_file():
            return
        with suppress(BlockingIOError):
            lock(self._file)
            if os.path.samefile(path, self._file.fileno()):  # else another process has just replaced it
                return
        raise UsageError(f"another pjlocal is writing into {self._name}: wait for it, or give --out another name")

    def __enter__(self) -> _Output:
        if self._path:
            try:
                self._open(self._path)
                self._is_file = self._path.is_file()
                self._lines = self._read()
            except BaseException:
                self.__exit__()
                raise
            self._in_file = [*self._lines]
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not sys.stdout:
            with self._named_errors():
                self._file.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._path:
                raise
            raise OutputError(f"cannot write {self._name}: {error.strerror or error}") from None

    @property
    def n_written(self) -> int:
        return len(self._lines)

    @property
    def errors(self) -> dict[int, str]:
        """The error of each row that has one, by the row's number."""
        rows = (json.loads(self._lines[number]) for number in sorted(self._lines))
        return {row["row"]: row["error"] for row in rows if "error" in row}

    def has(self, number: int) -> bool:
        return number in self._lines

    def write(self, number: int, line: str) -> None:
        """Keep a row, and write it, or all rows that no longer wait for an earlier one."""
        self._lines[number] = self._waiting[number] = line
        if self._is_file:
            self._put(number)
        while self._next in self._lines:
            if self._next in self._waiting:
                self._put(self._next)
            self._next += 1

    def finish(self) -> None:
        """Write the rows that still wait, and sort a complete file whose rows are not in order."""
        for number in sorted(self._waiting):
            self._put(number)
        order = sorted(self._lines)
        if self._is_file and len(order) == len(self._prompts) and self._in_file != order:
            self._replace("".join(f"{self._lines[number]}\n" for number in order))

    def _replace(self, text: str) -> None:
        assert self._path
        if sys.platform == "win32":  # cannot replace an open file
            self._file.close()
        write_text(self._path, text)

    def _put(self, number: int) -> None:
        with self._named_errors():
            self._file.write(f"{self._waiting.pop(number)}\n")
            self._file.flush()
        self._in_file.append(number)


# The two ways to answer them.


def answer_locally(judge: PersonaJudge, rows: Sequence[Row], parallel: int, write: Callable[[Row, str], None]) -> None:
    """Answer rows with a model loaded in this process.

    Raises:
        Interrupted: on request; the rows that were answered are written.
    """
    for first in range(0, len(rows), n := parallel * _AT_ONCE):
        plans, plan_rows = [], []
        for row in rows[first : first + n]:
            try:
                judge.check(row.request)
                plan = judge.plan_request(row.conversation, judge.with_model_defaults(row.request))
                judge.answer(plan, judge.decoder)  # in mode rewrite there may be no room for two
            except PjlocalError as error:
                write(row, row.as_json(None, str(error)))
            else:
                plans.append(plan)
                plan_rows.append(row)
        for number, answer, _ in judge.write(plans, parallel, keep_errors=True):
            if answer.error:
                write(plan_rows[number], plan_rows[number].as_json(None, str(answer.error)))
            elif answer.is_done and answer.finish_reason != "interrupted":
                write(plan_rows[number], plan_rows[number].as_json(answer.result))
        if judge.interrupt.is_set():
            raise Interrupted


def answer_on_server(server: Server, rows: Sequence[Row], parallel: int, write: Callable[[Row, str], None]) -> None:
    """Let a server answer rows.

    Raises:
        Interrupted: on request; the rows that were answered are written.
        KeyRefused, ServerError: the server does not answer.
    """
    log_warnings = WarningLog()

    def answer(row: Row) -> tuple[Row, str]:
        messages = [{"role": message.role, "content": message.content} for message in row.conversation]
        try:
            written = server.answer_when_free(row.request, messages=messages)
            written.on_started = log_warnings
            for _ in written:
                pass
        except (KeyRefused, ServerError):  # the server does not answer: the same command answers the row later
            raise
        except PjlocalError as error:
            return row, row.as_json(None, str(error))
        if written.result.finish_reason == "interrupted":
            raise Interrupted
        return row, row.as_json(written.result)

    with closing(as_finished(answer, rows, parallel)) as answered:
        for row, line in answered:
            write(row, line)
