"""Each caller gets the errors of its own grammar and no other messages, even with several grammars at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pjlocal import Engine, Sampling
from pjlocal.engine.backend import captured_stderr, forget_errors, last_error
from pjlocal.engine.filters import FilterChain
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.errors import UsageError

WRONG = 'root ::= "a" )\nword ::= "of %d"\n\nrest ::= "c"'
SAID = "the grammar cannot be parsed: expecting newline or end at )"
RECURSIVE = "root ::= root"


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Iterator[Model]:
    made = Model(tiny("llama"), Engine(n_threads=1), Interrupt())
    yield made
    made.close()


def complaint(model: Model, grammar: str) -> str:
    try:
        FilterChain(model, Sampling(grammar=grammar), (), (0,))
    except UsageError as error:
        return str(error)
    return ""


def test_grammars_of_many_threads_beside_one_that_prints(model: Model, capfd) -> None:
    before, ended = os.fstat(2), threading.Event()

    def write() -> None:
        while not ended.is_set():
            os.write(2, b"another's line, as long as the beginning of the error\n")

    with ThreadPoolExecutor(9) as threads:
        threads.submit(write)
        grammars = [WRONG % n if n % 3 else RECURSIVE for n in range(300)]
        said = list(threads.map(lambda grammar: complaint(model, grammar), grammars))
        ended.set()
    assert os.path.samestat(before, os.fstat(2))
    assert set(said[1::3] + said[2::3]) == {SAID}
    assert all("left recursion" in each and "of " not in each for each in said[::3])
    assert set(capfd.readouterr().err.splitlines()) <= {"another's line, as long as the beginning of the error"}


def test_lines_that_other_threads_print_meanwhile_are_written_afterwards(capfd) -> None:
    with ThreadPoolExecutor(1) as thread, captured_stderr(lambda line: line == "own\n") as captured:
        for line in (b"another's 1\n", b"own\n", b"another's 2\n"):
            thread.submit(os.write, 2, line).result()
        assert not capfd.readouterr().err
    assert captured == ["own\n"]
    assert capfd.readouterr().err == "another's 1\nanother's 2\n"


def test_an_error_of_llama_cpp_in_another_thread_is_not_reported_here(model: Model, tmp_path: Path) -> None:
    forget_errors()
    thread = threading.Thread(target=complaint, args=(model, RECURSIVE))
    thread.start()
    thread.join()
    assert last_error() == ""
