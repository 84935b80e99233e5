"""`pjlocal run --batch`: an answer for each row, in order, resumed, with errors as rows of their own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from commandline import configure, one_line
from served import serving
from waiting import PATIENCE_S

from pjlocal import PersonaJudge, textfile
from pjlocal.cli.batch import Row, answer_locally, answer_on_server, read_rows, run_batch
from pjlocal.client import KeyRefused, ServerGone
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.errors import PjlocalError, UsageError
from pjlocal.request import Request

Batch = Callable[..., "list[dict[str, Any]]"]


@pytest.fixture
def options(tiny: Callable[[str], Path]) -> tuple[str, ...]:
    """Short answers, alike whatever is written beside them."""
    return ("-m", str(tiny("llama")), "-n", "6", "--seed", "1", "--ignore-end")


@pytest.fixture
def batch(pjlocal, options: tuple[str, ...], tmp_path: Path) -> Batch:
    def run(text: str, name: str = "in.jsonl", *more: str, status: int = 0, out: str = "out.jsonl") -> Any:
        (tmp_path / name).write_text(text)
        done = pjlocal("run", *options, "--batch", name, "--out", out, *more)
        assert done.returncode == status, done.stderr
        rows = [json.loads(line) for line in (tmp_path / out).read_text().splitlines()]
        batch_said.append(done.stderr)
        return rows

    batch_said: list[str] = []
    run.said = batch_said  # type: ignore[attr-defined]
    return run


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_each_row_is_answered_in_order_with_its_own_settings(batch: Batch, pjlocal, options) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "the cat"}]
    rows = batch(
        lines(
            "the sun",
            {"prompt": "the sun", "id": "x7", "topic": "not a setting"},
            {"prompt": "the sun", "max_tokens": 3, "seed": 5},
            {"question": "the sun", "prefer": ["vivid", "concise"], "lambda": 2, "mode": "base"},
            {"messages": messages, "system": "Be brief."},
            {"prompt": "Hi", "begin": "the cat"},
            {"prompt": "Count", "json_schema": {"enum": [17]}, "temperature": 0},
            {"messages": messages, "begin": "the dog"},
        ),
        status=1,
    )
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows[0]["text"] == rows[1]["text"], "equal prompts are answered too"
    alone = json.loads(pjlocal("run", *options, "--json", "the sun").stdout)
    assert rows[0]["text"] == alone["text"] and rows[0].keys() == {"row", "prompt", *alone}
    assert rows[1]["id"] == "x7" and rows[2]["usage"]["completion_tokens"] == 3 and rows[2]["seed"] == 5
    assert rows[3]["preferences"] == {"a": ["vivid"], "b": ["concise"]}
    assert (rows[3]["mode"], rows[3]["lambda"]) == ("base", 2)
    assert not rows[4]["text"].startswith("the cat") and rows[5]["text"].startswith("the cat")
    assert rows[6]["text"] == "17"
    assert rows[7]["error"].startswith("begin is for a new answer")


def test_bad_rows_get_an_error_and_the_others_an_answer(batch: Batch) -> None:
    rows = batch(
        lines("one", {"prompt": "two", "max_tokens": 0}, {"prompt": "three", "max_tokns": 2}, {"id": 1})
        + "{broken\n"
        + lines({"prompt": "the cat " * 9000}, {"prompt": "x", "grammar": "root ::= ("}, "last"),
        status=1,
    )
    errors = {row["row"]: row["error"] for row in rows if "error" in row}
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8] and sorted(errors) == [2, 3, 4, 5, 6, 7]
    assert errors[2] == "max_tokens must be at least 1 (not 0)"
    assert errors[3] == "unknown field 'max_tokns': did you mean max_tokens?"
    assert "line 4 has no field for its prompt" in errors[4] and "is not valid JSON" in errors[5]
    assert "too long" in errors[6]
    counts, first = batch.said[0].splitlines()  # type: ignore[attr-defined]
    assert counts == "pjlocal: 6 of 8 rows have an error instead of an answer"
    assert first == f"pjlocal: row 2: {errors[2]}"


def test_the_error_of_a_row_cannot_control_the_terminal(batch: Batch) -> None:
    (row,) = batch(lines({"prompt": "x", "json_schema": {"type": "\x1b]0;title\x07"}}), status=1)
    assert "\x1b" in row["error"]
    said = batch.said[0]  # type: ignore[attr-defined]
    assert said.splitlines()[-1].startswith("pjlocal: row 1: ") and "␛]0;title␇" in said and "\x1b" not in said


def test_a_row_may_name_a_persona_and_no_model(batch: Batch, environment: dict[str, str]) -> None:
    configure(environment, '[personas.bard]\nprefer = ["vivid", "creative"]\nmax_tokens = 3\nsystem = "Sing."\n')
    rows = batch(
        lines(
            {"prompt": "one", "persona": "bard"},
            {"prompt": "two", "max_tokens": 2, "persona": "Bard", "prefer": ["concise"]},
            {"prompt": "three", "persona": "brad"},
            {"prompt": "four", "persona": None, "model": None, "n": ""},
            {"prompt": "five", "model": "qwen"},
            {"prompt": "six", "n": 3},
        ),
        status=1,
    )
    assert [row.get("preferences") for row in rows[:2]] == [
        {"a": ["vivid"], "b": ["creative"]},
        {"a": ["concise"], "b": []},
    ]
    assert [row["usage"]["completion_tokens"] for row in rows if "usage" in row] == [3, 2, 6]
    assert [row["error"] for row in rows if "error" in row] == [
        "unknown persona 'brad': did you mean bard?",
        "a row cannot have the field 'model': one model answers all rows: give it to the command with --model, or "
        "rename the field",
        "a row cannot have the field 'n': max_tokens limits the answer's length, and for several "
        "answers repeat the row",
    ]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("Why?\n\nHow?", ["Why?", "How?"]),
        ('{"prompt": "Why?", "max_tokens": 2}\n"How?"\n', ["Why?", "How?"]),
        ('"Why?" he asked\n[1]\n', ['"Why?" he asked', "[1]"]),
        ('\n  \n{"prompt": "Why?"}\n', ["Why?"]),
    ],
)
def test_standard_input_is_a_file_too(pjlocal, options, text: str, prompts: list[str]) -> None:
    done = pjlocal("run", *options, "--batch", "-", "--out", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == prompts


def test_rows_that_are_there_are_not_answered_again(batch: Batch, tmp_path: Path) -> None:
    text = lines("one", "two", "three")
    whole = batch(text)
    out = tmp_path / "out.jsonl"
    first, _, third = out.read_text().splitlines(keepends=True)
    marked = first.replace('"text": "', '"text": "KEPT ')
    out.write_text(third + marked + '{"row": 2, "pro')  # as kill -9 leaves it, and an order that Ctrl-C leaves
    rows = batch(text)
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert rows[0]["text"].startswith("KEPT ") and [row["text"] for row in rows[1:]] == [r["text"] for r in whole[1:]]
    stat = out.stat()
    batch(text, "in.jsonl", "-n", "3")
    assert one_line(batch.said[-1]) == "pjlocal: out.jsonl already has 3 of 3 rows"  # type: ignore[attr-defined]
    assert out.stat().st_mtime_ns == stat.st_mtime_ns or out.read_text().splitlines() == [*map(json.dumps, rows)]


def write_numbers(rows: Sequence[Row], write: Callable[[Row, str], None]) -> None:
    """Answers without a model."""
    for row in rows:
        write(row, row.as_json(None, f"answer {row.number}"))


def test_half_a_character_in_a_row_is_an_error_of_that_row(tmp_path: Path) -> None:
    half = "\ud83d"
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad: list[dict[str, Any]] = [
        {"prompt": "b", "id": half},
        {"messages": [{"role": "user", "content": f"b{half}"}]},
        {"prompt": "b", "begin": half},
        {"prompt": half, "id": 7},
    ]
    source.write_text(lines("a", *bad, {"prompt": "c", "comment": half}))
    for _ in range(2):  # as a new output, and continued
        run_batch(str(source), str(out), Request(), Interrupt(), write_numbers)
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6]
        assert [row["prompt"] for row in rows if "answer" in row["error"]] == ["a", "c"]
        assert rows[4]["id"] == 7
        for row in rows[1:5]:
            assert row["error"] == f"{source} line {row['row']} contains half a character (a lone surrogate)"


def test_a_row_that_could_not_be_read_is_answered_when_it_is_corrected(tmp_path: Path, capsys) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines("one") + "{broken\n" + lines("three"))
    run_batch(str(source), str(out), Request(), Interrupt(), write_numbers)
    broken = json.loads(out.read_text().splitlines()[1])
    assert broken["prompt"] == "" and "is not valid JSON" in broken["error"]
    source.write_text(lines("one", "two", "three"))
    capsys.readouterr()
    run_batch(str(source), str(out), Request(), Interrupt(), write_numbers)
    assert "already has 2 of 3 rows" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["row"], row["prompt"]) for row in rows] == [(1, "one"), (2, "two"), (3, "three")]


def test_a_whole_last_row_without_a_line_end_is_kept_and_blank_lines_do_not_matter(tmp_path: Path, capsys) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("one\ntwo\nthree\n")
    there = [json.dumps({"row": n, "prompt": prompt, "text": "KEPT"}) for n, prompt in ((1, "one"), (2, "two"))]
    out.write_text("\n\n".join(there))
    run_batch(str(source), str(out), Request(), Interrupt(), write_numbers)
    assert "already has 2 of 3 rows" in capsys.readouterr().err
    assert out.read_text().splitlines()[:2] == there and len(out.read_text().splitlines()) == 3


def test_a_table_is_known_by_its_last_ending(tmp_path: Path) -> None:
    lines_file, table = tmp_path / "export.csv.jsonl", tmp_path / "export.jsonl.csv"
    lines_file.write_text(lines({"prompt": "x", "max_tokens": 3, "prefer": ["vivid"]}))
    table.write_text("prompt,max_tokens,prefer\nx,3,vivid; concise\n")
    for source in (lines_file, table):
        (row,) = read_rows(str(source), Request())
        assert not row.error and row.request.generation.max_tokens == 3


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("notes\n", "out.jsonl exists and is not an output of --batch: give --out another name"),
        ("notes", "out.jsonl exists and is not an output of --batch: give --out another name"),
        ('{"row": 1, "prompt": "other"}\n', "out.jsonl answers other prompts (row 1): give --out another name"),
    ],
)
def test_a_file_of_something_else_is_left_alone(pjlocal, options, tmp_path: Path, there: str, says: str) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    (tmp_path / "out.jsonl").write_text(there)
    done = pjlocal("run", *options, "--batch", "in.txt", "--out", "out.jsonl")
    assert done.returncode == 2 and one_line(done.stderr) == f"pjlocal: {says}"
    assert (tmp_path / "out.jsonl").read_text() == there


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such devices")
def test_a_device_is_written_and_never_read(process, options, tmp_path: Path) -> None:
    """Reading /dev/full before the first answer took all of the memory."""
    (tmp_path / "in.txt").write_text("one\n")
    done = process("run", *options, "--batch", "in.txt", "--out", "/dev/full")
    assert (done.returncode, done.stderr) == (1, "pjlocal: cannot write /dev/full: No space left on device\n")
    assert process("run", *options, "--batch", "in.txt", "--out", "/dev/null").returncode == 0


def test_an_empty_text_resets_a_setting_except_in_a_table(tmp_path: Path) -> None:
    lines_file, table = tmp_path / "in.jsonl", tmp_path / "in.csv"
    lines_file.write_text(lines({"prompt": "x", "begin": "", "regex": "", "stop": "", "prefer": "", "lora": ""}))
    table.write_text("prompt,begin,regex,stop,prefer\nx,,,,\n")
    configured = Request().replace(begin="Ahoy", regex="a+", stop=["b"], prefer=["vivid"])
    (row,) = read_rows(str(lines_file), configured)
    assert not row.error and row.request == Request()
    (row,) = read_rows(str(table), configured)
    assert not row.error and row.request == configured


def test_a_beginning_from_the_command_line_is_a_default_for_new_answers(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "the cat"}]
    source.write_text(lines({"messages": messages}, "Hi", {"messages": messages, "begin": "Yo"}))
    continued, new, wrong = read_rows(str(source), Request().replace(begin="Ahoy"))
    assert not continued.error and not new.error and new.request.prompting.begin == "Ahoy"
    assert wrong.error.startswith("begin is for a new answer")


@pytest.mark.parametrize(("key", "text"), [("json_schema", '{"enum": [17]}'), ("grammar", 'root ::= "17"')])
def test_a_schema_or_a_grammar_is_the_text_itself_in_every_format(tmp_path: Path, key: str, text: str) -> None:
    lines_file, table = tmp_path / "in.jsonl", tmp_path / "in.csv"
    lines_file.write_text(lines({"prompt": "x", key: text}))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", key), ("x", text)])
    for source in (lines_file, table):
        (row,) = read_rows(str(source), Request())
        assert not row.error and getattr(row.request.sampling, key) == text


def test_plain_lines_and_tables_are_read_by_their_endings(batch: Batch, pjlocal, options, tmp_path: Path) -> None:
    assert [row["prompt"] for row in batch("one\n\ntwo\n", "in.txt", out="a")] == ["one", "two"]
    rows = batch('prompt,max_tokens,prefer\n"a, b",3,vivid; Be brief\nc,,\n', "in.csv", out="b")
    assert [row["prompt"] for row in rows] == ["a, b", "c"]
    assert [row["usage"]["completion_tokens"] for row in rows] == [3, 6]
    assert rows[0]["preferences"] == {"a": ["vivid"], "b": ["Be brief"]}
    (row,) = batch('prompt\tmax_tokens\n"Hi," he said; why?\t3\n', "in.tsv", out="d")
    assert (row["prompt"], row["usage"]["completion_tokens"]) == ('"Hi," he said; why?', 3)
    (row,) = batch("prompt,max_tokens\nx,many\n", "in.csv", out="c", status=1)
    assert row["error"] == "max_tokens must be a whole number (not 'many')"
    (tmp_path / "in.txt").write_text("one\n")
    assert json.loads(pjlocal("run", *options, "--batch", "in.txt").stdout)["row"] == 1, "standard output"


def test_wrong_use_is_reported(pjlocal, options, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\nobj\n")
    own = "--batch has its own prompts and output"
    for args, says in (
        (("--batch", "none.txt"), "cannot read prompts none.txt: No such file or directory"),
        (("--batch", "empty.txt"), "empty.txt is empty: write a prompt on each line"),
        (("--batch", "-"), "standard input is empty: write a prompt on each line"),
        (("--batch", "empty.txt", "Why?"), f"{own}: leave out the prompt"),
        (("--batch", "empty.txt", "--stats", "--view", "blame"), f"{own}: leave out --view and --stats"),
        (("--batch", "a.pdf"), "a.pdf line 1 is not text: prompts come from a text, JSON, CSV, TSV or Parquet file"),
        (("--out", "x", "Why?"), "--out and --parallel belong to --batch FILE: add it, or leave them out"),
    ):
        done = pjlocal("run", *options, *args)
        assert done.returncode == 2 and one_line(done.stderr).startswith(f"pjlocal: {says}")


def test_a_stop_keeps_what_is_done(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(f"w{n}" for n in range(40)))
    with PersonaJudge(tiny("llama"), n_threads=1, max_tokens=4, ignore_end=True) as judge:
        rows = read_rows(str(tmp_path / "in.txt"), judge.request)
        written: list[int] = []

        def write(row: Any, line: str) -> None:
            written.append(row.number)
            if len(written) == 10:
                judge.interrupt.set()

        with pytest.raises(Interrupted):
            answer_locally(judge, rows, 4, write)
        assert 10 <= len(written) < 20


@pytest.mark.parametrize(
    ("is_file", "expected"), [(True, [[3], [3, 1], [3, 1, 2]]), (False, [[], [1], [1, 2, 3]])], ids=["file", "pipe"]
)
def test_a_file_gets_each_row_at_once_and_a_pipe_gets_them_in_order(tmp_path, capsys, is_file, expected) -> None:
    """Rows that waited in memory for a slower one were lost with kill -9."""
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("one\ntwo\nthree\n")
    printed, seen = "", []

    def write_all(rows: Sequence[Row], write: Callable[[Row, str], None]) -> None:
        nonlocal printed
        for row in (rows[2], rows[0], rows[1]):
            write(row, row.as_json(None, "answered"))
            printed += capsys.readouterr().out
            seen.append(numbers(out.read_text() if is_file else printed))

    def numbers(text: str) -> list[int]:
        return [json.loads(line)["row"] for line in text.splitlines()]

    run_batch(str(source), str(out) if is_file else "-", Request(), Interrupt(), write_all)
    assert seen == expected
    assert numbers(out.read_text() if is_file else printed) == [1, 2, 3], "a file is sorted at the end"


def test_rows_that_wait_for_an_earlier_one_are_written_if_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\nthree\n")
    out = tmp_path / "out.jsonl"

    def write_all(rows: Sequence[Row], write: Callable[[Row, str], None]) -> None:
        write(rows[1], rows[1].as_json(None, "two"))
        raise ServerGone("the server has stopped")

    with pytest.raises(ServerGone):
        run_batch(str(tmp_path / "in.txt"), str(out), Request(), Interrupt(), write_all)
    assert [json.loads(line)["error"] for line in out.read_text().splitlines()] == ["two"]


def test_two_commands_do_not_write_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    source, out = str(tmp_path / "in.txt"), tmp_path / "out.jsonl"
    Path(source).write_text("one\ntwo\n")
    out.write_text('{"row": 1, "prompt": "one"}\n{"row": 2, "pro')

    def is_refused() -> None:
        with pytest.raises(UsageError, match=f"another pjlocal is writing into {out}: wait for it, or give --out"):
            run_batch(source, str(out), Request(), Interrupt(), write_numbers)
        refused.append(True)

    def write_text(path: Path, text: str) -> None:
        is_refused()
        textfile.write_text(path, text)

    def write_all(rows: Sequence[Row], write: Callable[[Row, str], None]) -> None:
        is_refused()
        write_numbers(rows, write)

    refused: list[bool] = []
    monkeypatch.setattr("pjlocal.cli.batch.write_text", write_text)
    run_batch(source, str(out), Request(), Interrupt(), write_all)
    assert len(refused) == 2, "also while the broken row is removed"
    assert [json.loads(line)["row"] for line in out.read_text().splitlines()] == [1, 2]


class _Answer(list[object]):
    """An answer of a server."""

    finish_reason = "stop"

    @property
    def result(self) -> _Answer:
        return self

    def as_dict(self) -> dict[str, str]:
        return {"text": "yes"}


class _Server:
    """A server that fails to answer "bad" with this error, and answers the other prompt after that."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._both_begun = Barrier(2)
        self._has_failed = Event()

    def answer_when_free(self, request: Request, messages: Sequence[dict[str, str]]) -> _Answer:
        self._both_begun.wait(PATIENCE_S)
        if messages[0]["content"] == "bad":
            self._has_failed.set()
            raise self._error
        self._has_failed.wait(PATIENCE_S)
        return _Answer()


def written_by(server: _Server, folder: Path) -> tuple[dict[int, dict[str, Any]], Exception | None]:
    """The rows that a server writes, and the error that ends the work."""
    (folder / "in.txt").write_text("bad\ngood\n")
    written: dict[int, dict[str, Any]] = {}
    rows = read_rows(str(folder / "in.txt"), Request())
    try:
        answer_on_server(server, rows, 2, lambda row, line: written.update({row.number: json.loads(line)}))  # type: ignore[arg-type]
    except PjlocalError as error:
        return written, error
    return written, None


def test_an_answer_that_fails_on_a_server_is_an_error_of_its_row(tmp_path: Path) -> None:
    written, error = written_by(_Server(PjlocalError("the server: not enough memory")), tmp_path)
    assert error is None and written[1]["error"] == "the server: not enough memory" and written[2]["text"] == "yes"


@pytest.mark.parametrize("gone", [ServerGone("the server has stopped"), KeyRefused("the server refuses this key")])
def test_answers_that_a_server_finishes_after_an_error_are_written(tmp_path: Path, gone: PjlocalError) -> None:
    written, error = written_by(_Server(gone), tmp_path)
    assert error is gone and 1 not in written and written[2]["text"] == "yes"


def test_fields_that_a_row_cannot_have_are_its_error(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "y"}]
    fine = [{"prompt": "x", "prefer": ["nope"]}, {"prompt": "x", "messages": None, "n_ctx": None, "verbose": ""}]
    wrong = [{"prompt": "x", "n_ctx": 512}, {"prompt": "x", "gpu_layers": 9}, {"question": "x", "messages": said}]
    (tmp_path / "in.jsonl").write_text(lines(*fine, *wrong))
    rows = read_rows(str(tmp_path / "in.jsonl"), Request())
    assert [row.error for row in rows] == [
        "",  # presets are read later
        "",
        "a row cannot have the field 'n_ctx': give it to the command with --ctx, or rename the field",
        "a row cannot have the field 'gpu_layers': give it to the command with --gpu-layers, or rename the field",
        "a row cannot have both 'question' and 'messages': leave one out, or rename it",
    ]
    with pytest.raises(UsageError, match="cannot read prompts"):
        read_rows(str(tmp_path / "none.jsonl"), Request())


@pytest.mark.slow
def test_a_server_writes_them_too(batch: Batch, pjlocal, tiny, environment, options, tmp_path: Path) -> None:
    text = lines("one", {"prompt": "two", "prefer": ["vivid"]}, {"prompt": "three", "max_tokens": 0}, "four")
    text += lines({"prompt": "five", "grammar": 'root ::= "\\x00"'}, "six")
    here = batch(text, "in.jsonl", "--no-server", "--threads", "1", status=1)
    with serving(tiny("llama"), environment) as served:
        there = ("run", *options[2:], "--batch", "in.jsonl", "--out", "there.jsonl", "--parallel", "2", "--server")
        refused = pjlocal(*there, f"{served.url}/?token=wrong")
        assert refused.returncode == 2 and "refuses this key" in one_line(refused.stderr)
        assert "four" not in (tmp_path / "there.jsonl").read_text(), "these rows would not be answered again"
        done = pjlocal(*there, f"{served.url}/?token={served.token}")
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "there.jsonl").read_text().splitlines()]
    assert [row.get("text") for row in rows] == [row.get("text") for row in here]
    assert [row.get("error") for row in rows] == [row.get("error") for row in here]
