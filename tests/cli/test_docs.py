"""The documents: listed, shown and searched in the terminal; their links, commands and options are true."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from commandline import PJLOCAL, one_line
from served import serving
from terminal import Terminal
from tools import write_options

import pjlocal as package
from pjlocal.cli.app import app
from pjlocal.cli.documents import topics
from pjlocal.config.config import load_config

ROOT = Path(__file__).parents[2]
FOLDER = Path(package.__file__).parent / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(FOLDER.glob("*.md"))]


def test_every_document_is_listed_with_a_line_of_what_it_is_about(pjlocal) -> None:
    assert {*topics()} == {page.stem for page in FOLDER.glob("*.md")} - {"README"}
    listed = pjlocal("docs").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [*topics()]
    assert all(line.endswith(about) for line, about in zip(listed, topics().values(), strict=True))


def test_a_pipe_gets_a_document_as_it_is_written(pjlocal) -> None:
    assert pjlocal("docs", "server").stdout == (FOLDER / "server.md").read_text(encoding="utf-8")


def test_an_unknown_document_is_one_line_that_names_the_nearest(pjlocal) -> None:
    done = pjlocal("docs", "sever")
    assert done.returncode == 2 and "did you mean server" in one_line(done.stderr)


def test_a_search_prints_the_passages_that_contain_the_words(pjlocal) -> None:
    lines = pjlocal("docs", "--search", "Retry-after").stdout.splitlines()
    assert lines and all("retry-after" in line.casefold() for line in lines)
    topic, number, text = lines[0].split(":", 2)
    begin = (FOLDER / f"{topic}.md").read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert text.strip().startswith(begin.strip())
    assert all(line.startswith("page:") for line in pjlocal("docs", "page", "--search", "the").stdout.splitlines())
    lines = pjlocal("docs", "--search", "stops  an Ctrl-C answer").stdout.splitlines()
    assert any(line.startswith("chat:") for line in lines), "the words may stand in any order"
    lines = pjlocal("docs", "--search", "default  model").stdout.splitlines()
    in_order = ["default model" in line.casefold() for line in lines]
    assert in_order[0] and not in_order[-1] and in_order == sorted(in_order, reverse=True)
    written = (FOLDER / "server.md").read_text(encoding="utf-8")
    first, second = re.search(r"^- (\w+ \w+) .*\n  (\w+ \w+)", written, re.MULTILINE).groups()
    lines = pjlocal("docs", "server", "--search", f"{first} {second}").stdout.splitlines()
    assert any(first in line and second in line for line in lines), "a passage may be wrapped between the words"
    together = pjlocal("docs", "chat", "--search", "stops an Ctrl-C").stdout
    assert together and pjlocal("docs", "chat", "--search", "stops", "an", "Ctrl-C").stdout == together
    together = pjlocal("docs", "--search", "default model").stdout
    assert together and pjlocal("docs", "--search", "default", "model").stdout == together
    none = pjlocal("docs", "--search", "xyzzy")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "pjlocal: nothing found\n")
    assert pjlocal("docs", "--search", "how to xyzzy").stderr == "pjlocal: nothing found: use fewer words\n"


def test_a_search_on_a_terminal_wraps_between_words_and_marks_the_found_ones(on_terminal, pjlocal) -> None:
    words = ("docs", "chat", "--search", "colours")
    terminal = on_terminal(*PJLOCAL, *words, columns=60, lines=60)
    assert terminal.end() == 0
    assert "colours (`pjlocal docs preferences`)" in " ".join(terminal.text.split()) and "](" not in terminal.text
    written, shown = (set(re.findall(r"[a-z]+", text)) for text in (pjlocal(*words).stdout, terminal.text))
    assert shown - {"docs", "pjlocal"} <= written, "no word is broken"
    bold = {cell.data for line in terminal.screen.buffer.values() for cell in line.values() if cell.bold}
    assert bold == {*"colours"}
    assert on_terminal(*PJLOCAL, *words, TERM="dumb").end() == 0


@pytest.mark.slow
def test_a_terminal_pages_through_a_document(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(*PJLOCAL, "docs", "server", columns=140, PAGER="tail -20")
    assert terminal.end() == 0
    rows = terminal.text.splitlines()
    assert 10 < len(rows) <= 20 and max(map(len, rows)) <= 110 and "](" not in terminal.text


def test_a_terminal_without_cursor_keys_gets_the_text(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(*PJLOCAL, "docs", "page", TERM="dumb")
    assert terminal.end() == 0
    assert terminal.text.startswith("# ")


# What the documents say.


def code_and_text(page: Path) -> tuple[list[tuple[str, str]], str]:
    """The blocks of code, each with its language, and the text without them."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return blocks, re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", code_and_text(page)[1], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", code_and_text(page)[1]):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_the_page_of_options_is_current() -> None:
    same = write_options.FILE.read_text(encoding="utf-8") == write_options.page()
    assert same, "options have changed: run python tests/tools/write_options.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scripts_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\btests/[\w/]+\.py", " ".join(page.read_text(encoding="utf-8").split())):
        assert (ROOT / name).exists(), name


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of the package in a text, without the variables that are set for it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=";|&")
        lexer.whitespace_split = True
        for separates, words in itertools.groupby(lexer, lambda word: set(word) <= set(";|&")):
            words = [*itertools.dropwhile(lambda word: re.match(r"\w+=", word), words)]
            words = [*itertools.takewhile(lambda word: not word.startswith((">", "<")), words)]
            if not separates and words[:1] == ["pjlocal"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    blocks, text = code_and_text(page)
    for language, block in blocks:
        if language == "console":
            typed = "\n".join(line for line in block.splitlines() if line.startswith("$ ") or line.endswith("\\"))
            for words in commands(typed):
                understand(words)
    for code in re.findall(r"`(pjlocal [^`]+)`", text):
        for words in commands(" ".join(code.split())):
            understand(words, is_whole=False)


def understand(words: list[str], is_whole: bool = True) -> None:
    """Parse a command without running it; fails where pjlocal would refuse its words.

    is_whole: nothing that it needs may be left out, as it may in a sentence about it.
    """
    if "..." in words or words == ["NAME"]:
        return
    if words == ["--install-completion"]:  # which parsing alone would run, for whoever runs the tests
        return
    command, context = typer.main.get_command(app), None
    try:
        while True:
            context = command.make_context(command.name or "pjlocal", [*words], parent=context)
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not hasattr(command, "resolve_command") or not rest:
                return
            _, command, words = command.resolve_command(context, rest)
    except (typer.Exit, SystemExit):
        pass  # --help and --version end here
    except Exception as error:
        if is_whole or type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
            raise AssertionError(f"{shlex.join(words)}: {error}") from error


def run_typed(commands: list[str], environment: dict[str, str], folder: Path) -> list[str]:
    """Run commands of the documents in a shell, one after the other, and return what each prints."""
    bin = folder / "bin"
    bin.mkdir()
    for name, command in (("pjlocal", PJLOCAL), ("python", [sys.executable])):
        (bin / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (bin / name).chmod(0o755)
    env = environment | {"PATH": f"{bin}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    printed = []
    for command in commands:
        done = subprocess.run(["bash", "-c", command], env=env, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
        printed.append(done.stdout.strip())
    return printed


def typed_in(text: str) -> list[str]:
    """The commands after a dollar sign, without the comments behind them."""
    return [re.sub(r" +# .*", "", command) for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE)]


@pytest.mark.slow
def test_the_first_commands_of_the_readme_answer(environment: dict[str, str], tmp_path: Path) -> None:
    chapter = README.read_text(encoding="utf-8").partition("## 60 seconds")[2].partition("\n## ")[0]
    typed = typed_in(chapter)
    assert len(typed) == 5
    assert all(run_typed(typed, environment, tmp_path))


@pytest.mark.slow
def test_the_commands_of_scripts_run(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[generation]\nmax_tokens = 8\n", encoding="utf-8")  # for the time it takes
    for name in ("notes.txt", "plan.md"):
        (tmp_path / name).write_text("Feed the cat.\n", encoding="utf-8")
    typed = [
        command.replace("git diff", "cat notes.txt")
        for language, block in code_and_text(FOLDER / "scripts.md")[0]
        if language == "console"
        for command in typed_in(block)
    ]
    run_typed(typed, environment | {"PJLOCAL_CONFIG": str(tmp_path / "config.toml")}, tmp_path)
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8").strip()
    assert len((tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, FOLDER / "scripts.md"], ids=lambda page: page.stem)
def test_python_of_the_documents_runs(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    codes = [code for language, code in code_and_text(page)[0] if language == "python" and "PersonaJudge" in code]
    assert codes
    for code in codes:
        env = environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.slow
def test_python_of_the_documents_reaches_a_server(environment: dict[str, str], smollm2: Path) -> None:
    codes = [
        code
        for page in (README, FOLDER / "server.md")
        for language, code in code_and_text(page)[0]
        if language == "python" and "client" in code
    ]
    assert len(codes) == 4
    with serving(smollm2, environment, "--parallel", "1", "--ctx", "2048") as served:
        code = "\n".join(codes).replace("http://127.0.0.1:8473", served.url)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 4, done.stderr


def test_the_documents_name_the_llama_cpp_that_is_required() -> None:
    required = re.search(r'"llama-cpp-python>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert required
    for page in PAGES:
        text = " ".join(page.read_text(encoding="utf-8").split())
        for version in re.findall(r"llama-cpp-python>=([\d.]+)|([\d.]+) or newer, pip", text):
            assert required[1] in version, page


def test_the_configuration_of_the_documents_is_one(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    [text] = [code for language, code in code_and_text(FOLDER / "configuration.md")[0] if language == "toml"]
    file.write_text(text, encoding="utf-8")
    config = load_config(file)
    assert config.personas["pirate-brief"].flat()["temperature"] == 0.5 and "pirate" in config.presets
