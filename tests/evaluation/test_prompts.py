"""Prompts from files of many kinds: the same ones each time, and an error message for unsuitable files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pyarrow
import pytest
from counted import n_lines
from pyarrow import parquet

from pjlocal.errors import UsageError
from pjlocal.evaluation import prompts
from pjlocal.evaluation.prompts import load_prompts, located
from pjlocal.evaluation.suite import Prompt


def texts(source: object, **options) -> list[str]:
    return [prompt.text for prompt in load_prompts(str(source), **options)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


# The project's own.


def test_sixty_prompts_come_with_the_package() -> None:
    prompts = load_prompts()
    assert [prompt.id for prompt in prompts] == [f"p{number:02}" for number in range(1, 61)]
    assert len({prompt.text for prompt in prompts}) == 60
    for prompt in prompts:
        assert 15 < len(prompt.text) < 150 and "\n" not in prompt.text


def test_the_first_forty_are_of_every_kind() -> None:
    lines = files("pjlocal.evaluation").joinpath("prompts.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = Counter(json.loads(line)["kind"] for line in lines[:40])
    assert len(kinds) == 15 and set(kinds.values()) == {2, 3}


# Every format gives the same prompts.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "Why?\n\nHow so, and \"when\"?\n"),
        ("a.txt", "\ufeffWhy?\r\nHow so, and \"when\"?"),
        ("a.prompts", "  Why?  \nHow so, and \"when\"?\n\n"),
        ("a.jsonl", '{"prompt": "Why?"}\n\n{"prompt": "How so, and \\"when\\"?", "x": 1}\n'),
        ("a.ndjson", '{"turns": ["Why?", "And then?"]}\n{"turns": ["How so, and \\"when\\"?"]}'),
        ("a.jsonl", '"Why?"\n"How so, and \\"when\\"?"\n'),
        ("a.json", '["Why?", "How so, and \\"when\\"?"]'),
        ("a.json", '[{"question": "Why?"},\n {"question": "How so, and \\"when\\"?"}]'),
        ("a.json", '{"prompt": "Why?"}\n{"prompt": "How so, and \\"when\\"?"}\n'),  # JSON lines, as many are called
        ("a.csv", 'n,prompt\r\n1,Why?\r\n\r\n2,"How so, and ""when""?"\r\n'),
        ("a.csv", 'n;prompt\n1;Why?\n2;"How so, and ""when""?"\n'),
        ("a.tsv", 'prompt\tn\nWhy?\t1\n"How so, and ""when""?"\t2\n'),
        ("A.CSV", 'prompt\nWhy?\n"How so, and ""when""?"\n'),
    ],
)  # fmt: skip
def test_every_format_gives_the_prompts(tmp_path: Path, name: str, text: str) -> None:
    assert texts(write(tmp_path / name, text)) == ["Why?", 'How so, and "when"?']


@pytest.mark.parametrize(("ending", "codec"), [(".gz", "gzip"), (".bz2", "bz2"), (".ZST", "zstd")])
def test_a_compressed_file_is_read(tmp_path: Path, ending: str, codec: str) -> None:
    rows = [{"prompt": "Why?"}, {"prompt": "How?"}]
    table = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    contents = {
        "a.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "a.json": json.dumps(rows).encode(),
        "a.csv": b"prompt,n\nWhy?,1\nHow?,2\n",
        "a.txt": b"Why?\nHow?",
        "a.parquet": table.getvalue().to_pybytes(),
    }
    for name, data in contents.items():
        path = tmp_path / (name + ending)
        with pyarrow.CompressedOutputStream(str(path), codec) as file:
            file.write(data)
        assert texts(path) == ["Why?", "How?"]
        path.write_bytes(path.read_bytes()[:-6])
        with pytest.raises(UsageError, match=r"cannot read prompts .* stream|is not a readable Parquet file"):
            texts(path)


@pytest.mark.parametrize("name", ["a.zip", "a.jsonl.xz", "a.csv.zip", "a.tar.gz", "a.7z", "a.json.lz4"])
def test_unsupported_archives_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"cannot read prompts .*{name}: unpack the file first, or use gzip"):
        texts(write(tmp_path / name, "PK"))


def test_parquet_gives_the_prompts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [7, 8], "prompt": ["Why?", "How?"]}), path)
    assert load_prompts(str(path)) == [Prompt("7", "Why?"), Prompt("8", "How?")]
    assert texts(path, field="prompt", limit=1) == ["Why?"]
    with pytest.raises(UsageError, match=r"a\.parquet has no field 'promt': did you mean prompt\?"):
        texts(path, field="promt")


def test_parquet_reads_only_the_needed_columns(tmp_path: Path) -> None:
    """Nanoseconds and the year 10,000 are nothing that Python can hold; some data sets have their texts as bytes."""
    nanoseconds = pyarrow.array([1, 2], pyarrow.timestamp("ns"))
    years = pyarrow.array([253_402_300_800_000, 1], pyarrow.timestamp("ms"))
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string()), ("at", nanoseconds.type)])
    talk = [
        [{"role": "system", "content": "Be kind.", "at": 1}, {"role": "user", "content": ask, "at": 3}] for ask in "ab"
    ]
    columns = {
        "id": nanoseconds,
        "when": years,
        "prompt": pyarrow.array([b"Why?", "Schön?".encode()]),
        "messages": pyarrow.array(talk, pyarrow.list_(message)),
        "kind": pyarrow.array(["x", "y"]).dictionary_encode(),
        "view": pyarrow.array(["v", "w"], pyarrow.string_view()),
        "broken": pyarrow.array([b"x", b"\xff"]),
        "empty": pyarrow.array(["x", None]),
        "packed": pyarrow.array([[b"p"], [b"q"]]),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    assert load_prompts(str(path)) == [Prompt("1", "Why?"), Prompt("2", "Schön?")]
    for field, expected in {"messages": "ab", "kind": "xy", "view": "vw", "packed": "pq"}.items():
        assert texts(path, field=field) == [*expected]
    for field, said in {
        "when": "a.parquet contains no text under 'when'",
        "broken": "row 2 is not UTF-8 text",
        "empty": "row 2 contains no text under 'empty'",
    }.items():
        with pytest.raises(UsageError, match=said):
            texts(path, field=field)


def test_without_a_package_for_parquet_a_line_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("a.parquet", "a.jsonl.gz"):
        with pytest.raises(UsageError, match=r"needs the package pyarrow: pip install 'pjlocal\[eval\]'"):
            texts(write(tmp_path / name, "x"))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "prompt\nCats, dogs; birds\n", ["Cats, dogs; birds"]),
        ("a.csv", 'prompt\n"Cats, dogs"\nNo, \tyes, "so"', ["Cats, dogs", 'No, \tyes, "so"']),
        ("a.csv", '"last; first; middle",prompt\nx,Why?', ["Why?"]),
        ("a.csv", '"a ""; ; ;"" b",prompt\nx,Why?', ["Why?"]),
        ("a.csv", '"two\nlines; ; ;",prompt\nx,Why?', ["Why?"]),
        ("a.csv", 'prompt\tn\nWhy?\t1\n', ["Why?"]),
        ("a.csv", '\n\nn,prompt\n\n1,Why?\n', ["Why?"]),
        ("a.csv", 'n,prompt\n1,"Why?\r\nHow?"\n', ["Why?\r\nHow?"]),
        ("a.csv", "prompt\n" + "x" * 300_000, ["x" * 300_000]),
        ("a.csv", 'n,prompt\n1,"' + "x\n" * 100_000 + 'x"\n', ["x\n" * 100_000 + "x"]),
        ("a.tsv", "a,b,c,d\tprompt\nx\tWhy, so?\n", ["Why, so?"]),
        ("a.tsv", 'n\tprompt\n"1"\t"Why?" he "asked"\n2\t"a\nb"\n', ['"Why?" he "asked"', "a\nb"]),
        ("a.TSV", "prompt\nWhy, so?\nHow; so?", ["Why, so?", "How; so?"]),
    ],
)  # fmt: skip
def test_the_separator_of_a_table_is_found(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    assert texts(write(tmp_path / name, text)) == expected


def test_a_conversation_gives_its_first_question(tmp_path: Path) -> None:
    conversation = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    parts = [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]
    nested = [{"role": "user", "content": [{"type": "text", "text": "When?"}]}]
    lines = "\n".join(json.dumps({"messages": it}) for it in (conversation, parts, nested))
    assert texts(write(tmp_path / "a.jsonl", lines)) == ["Why?", "How?", "When?"]


def test_a_field_is_the_one_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "no", "ask": "yes"}\n')
    assert texts(path, field="ask") == ["yes"]
    assert texts(path) == ["no"]


# Which ones, and their ids.


def test_ids_are_the_files_own_or_numbers_and_always_distinct(tmp_path: Path) -> None:
    rows = [{"id": "a"}, {"id": "a"}, {"id": 3}, {"id": None}, {"id": "a-2"}, {"id": "a"}, {}, {"id": "3"}]
    path = write(
        tmp_path / "a.jsonl", "\n".join(json.dumps({**row, "prompt": f"text {n}"}) for n, row in enumerate(rows))
    )
    ids = [prompt.id for prompt in load_prompts(str(path))]
    assert ids == ["a", "a-2", "3", "4", "a-2-2", "a-3", "7", "3-2"]


def test_a_file_whose_rows_have_one_id_is_read_in_time_in_proportion_to_its_length(tmp_path: Path) -> None:
    def work(n: int) -> int:
        rows = "\n".join(json.dumps({"id": "a", "prompt": f"text {number}"}) for number in range(n))
        path = write(tmp_path / "a.jsonl", rows)
        return n_lines(lambda: load_prompts(str(path)))

    assert work(200) < 3 * work(100)


def test_a_prompt_that_comes_again_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo\n one \nthree\ntwo\n")
    assert [(prompt.id, prompt.text) for prompt in load_prompts(str(path), limit=3)] == [
        ("1", "one"),
        ("2", "two"),
        ("4", "three"),
    ]


def test_an_id_does_not_depend_on_skipped_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n".join(f"prompt {'x' * n}" for n in range(20)))
    everything = {prompt.text: prompt.id for prompt in load_prompts(str(path))}
    for options in ({"limit": 3}, {"limit": 5, "sample": 1}, {"min_chars": 12}, {"max_chars": 15}):
        for prompt in load_prompts(str(path), **options):
            assert everything[prompt.text] == prompt.id


def test_lengths_count_before_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a long one\nab\nabc\nabcd\nanother long one\n")
    assert texts(path, max_chars=4) == ["ab", "abc", "abcd"]
    assert texts(path, min_chars=3, max_chars=4) == ["abc", "abcd"]
    assert texts(path, max_chars=4, limit=2) == ["ab", "abc"]


def test_a_sample_is_the_seeds_own_and_a_larger_one_has_all_of_it() -> None:
    ten, twenty = (load_prompts(limit=limit, sample=7) for limit in (10, 20))
    assert ten == load_prompts(limit=10, sample=7) != load_prompts(limit=10, sample=8)
    assert [prompt.id for prompt in ten] == ["p04", "p07", "p09", "p11", "p12", "p22", "p26", "p34", "p35", "p57"]
    assert set(ten) < set(twenty)
    assert load_prompts(limit=99, sample=7) == load_prompts()


@pytest.mark.slow
def test_every_prompt_is_as_likely_in_a_sample() -> None:
    """Binomial(2000, 1/6) within 5 standard deviations, for 60 prompts: other seeds would fail 1 time in 30,000."""
    counts = Counter(prompt.id for seed in range(2000) for prompt in load_prompts(limit=10, sample=seed))
    assert all(abs(counts[f"p{n:02}"] - 2000 / 6) < 5 * (2000 * 5 / 36) ** 0.5 for n in range(1, 61))


def test_a_limit_stops_reading_early(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "Why?"}\nbroken')
    assert texts(path, limit=1) == ["Why?"]


# Data sets by name.


def test_helpsteer2_gives_every_second_of_the_short_prompts_as_the_authors_took_them(tmp_path: Path) -> None:
    prompts = ["one", "x" * 101, "two", "y" * 100]
    rows = [{"prompt": prompt, "response": str(n)} for prompt in prompts for n in range(2)]
    lines = write(tmp_path / "validation.jsonl", "\n".join(map(json.dumps, rows)))
    assert texts(f"helpsteer2:{lines}") == ["one", "two", "y" * 100]
    assert [prompt.id for prompt in load_prompts(f"helpsteer2:{lines}", limit=2)] == ["2", "6"]
    whole = write(tmp_path / "validation.json", json.dumps(rows))
    assert load_prompts(f"helpsteer2:{whole}") == load_prompts(f"helpsteer2:{lines}")


def test_koala_gives_the_prompts_of_its_list(tmp_path: Path) -> None:
    path = write(tmp_path / "koala_eval_50.json", json.dumps([{"id": "k", "question": "no", "prompt": "Why?"}]))
    assert load_prompts(f"koala:{path}") == [Prompt("k", "Why?")]


def test_a_file_that_a_suite_names_is_found_from_its_folder(tmp_path: Path) -> None:
    assert located("default", tmp_path) == "default"
    assert located("a.txt", tmp_path) == str(tmp_path / "a.txt")
    assert located("koala:a.json", tmp_path) == f"koala:{tmp_path / 'a.json'}"
    assert located("/elsewhere/a.json", tmp_path) == "/elsewhere/a.json"


# What will not do.

_LIST = "must be a list of texts, or of objects with a text"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", r"a\.txt is empty: it contains no prompts"),
        ("a.txt", " \n\n", "is empty: it contains no prompts"),
        ("a.jsonl", "\n", "is empty: it contains no prompts"),
        ("a.json", " ", "is empty: it contains no prompts"),
        ("a.json", "[]", "is empty: it contains no prompts"),
        ("a.csv", "", "is empty: it contains no prompts"),
        ("a.csv", "prompt\n", "is empty: it contains no prompts"),
        ("a.jsonl", '{"prompt": "  "}', "is empty: it contains no prompts"),
        ("a.jsonl", '"x"\n{"prompt": }', r"a\.jsonl line 2 is not valid JSON: Expecting value \(column 12\)"),
        ("a.json", '[\n"a",\n', r"a\.json is not valid JSON: Expecting value \(line 2 column 5\)|\(line 3 column 1\)"),
        ("a.json", '{"prompts": ["x"],\n"n": 1}', _LIST),
        ("a.json", "[" * 100_000, "a number is too large, or the nesting too deep"),
        ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", "too large|contains no text"),
        ("a.jsonl", '{"wish": "x", "n": 1}', r"line 1 has no field with a known name: it has wish, n\."),
        ("a.jsonl", '{"prompt": "x"}\n{"promt": "y"}', r"line 2 has no field 'prompt': did you mean promt\?"),
        ("a.jsonl", '{"prompt": 3}', r"line 1 contains no text under 'prompt'"),
        ("a.jsonl", '{"prompt": null}', r"line 1 contains no text under 'prompt'"),
        ("a.jsonl", '{"turns": []}', r"line 1 contains no text under 'turns'"),
        ("a.jsonl", "3", r"line 1 contains no text"),
        ("a.jsonl", '{"prompt": "\\ud800"}', r"line 1 contains half a character"),
        ("a.json", '["x", {}]', r"item 2 has no field with a known name: it has none"),
        ("a.csv", "prompt,n\nHow so, and when?,1\n", r"line 2 has 3 fields, and the first line names 2: put quotes"),
        ("a.csv", "wish,n\nx,1\n", r"it has wish, n\. Name the field of the prompts with --field"),
        ("a.csv", 'n,prompt\n1,"a\nb"\n\n2,b,c\n', r"line 5 has 3 fields, and the first line names 2: put quotes"),
        ("a.csv", 'prompt,n\n\n"To be" is what?,1\n', r"line 3 is not valid CSV: quotes inside .* must be doubled"),
        ("a.csv", 'prompt\n"To be" is what?\n', r"line 2 is not valid CSV: quotes inside .* must be doubled"),
        ("a.csv", 'prompt\nx\n"To be\nor\n', r"line 3 is not valid CSV: a quoted text has no end"),
        ("a.csv", "prompt,n\nx\n", r"line 2 has 1 fields, and the first line names 2$"),
        ("a.csv", "prompt,n\rx,2\r", r"line 1 is not valid CSV: save it with another kind of line ends"),
        ("a.csv", 'prompt,"n', r"line 1 is not valid CSV: a quoted text has no end"),
        ("a.tsv", "prompt,n\nWhy?,1", r"it has prompt,n\. Name the field of the prompts with --field"),
        ("a.parquet", "x" * 100, r"a\.parquet is not a readable Parquet file: "),
        ("a.jsonl.gz", "x", "cannot read prompts .*Truncated compressed stream"),
        ("a.txt", "a\0b", r"line 1 is not UTF-8 text: save it as UTF-8"),
    ],
)  # fmt: skip
def test_an_unsuitable_file_gives_an_error(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        texts(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("data", ["Schön, warum?".encode("latin-1"), "prompt\nWhy?".encode("utf-16")])
def test_a_file_in_another_encoding_gives_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match="is not UTF-8 text: save it as UTF-8"):
        texts(tmp_path / name)


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7\nplain\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04\x14\0\x06\0", b"\x7fELF\x02\x01\x01\0\0"]
)
def test_a_file_that_is_not_text_gives_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UsageError, match="a line 1 is not text: prompts come from a text, JSON, CSV, TSV or Parquet"):
        texts(tmp_path / "a")


def test_a_path_that_is_not_a_file_gives_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read prompts .*none\.txt: No such file or directory"):
        texts(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="the file name is empty"):
        texts("")
    with pytest.raises(UsageError, match="Is a directory"):
        texts(tmp_path)
    with pytest.raises(UsageError, match="contains a NUL character"):
        texts("a\0b")
    for name in ("koala", "helpsteer2:"):
        with pytest.raises(UsageError, match=rf"give it as {name.strip(':')}:FILE"):
            texts(name)


def test_a_file_without_end_is_refused_not_read(monkeypatch) -> None:
    monkeypatch.setattr("pjlocal.evaluation.prompts._MOST_LINE", 1000)
    monkeypatch.setattr("pjlocal.evaluation.prompts._MOST_JSON", 1000)
    with pytest.raises(UsageError, match="line 1 is longer than 1,000 bytes, too long for prompts"):
        texts("/dev/zero")
    with pytest.raises(UsageError, match="larger than 1,000 bytes: convert it to JSON lines"):
        list(prompts._json(Path("/dev/zero")))


def test_a_selection_without_prompts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Why?\n")
    with pytest.raises(UsageError, match="has an allowed length"):
        texts(path, min_chars=10)
    with pytest.raises(UsageError, match="--sample needs --limit"):
        texts(path, sample=1)
    with pytest.raises(UsageError, match=r"line 1 is plain text and has no field 'ask': leave the field out"):
        texts(path, field="ask")
