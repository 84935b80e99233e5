"""Each caller gets the errors of its own grammar and no other messages, even with several grammars at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pjlocal import Engine, Sampling
from pjlocal.engine import filters
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
        FilterChain(model, Sampling(grammar=grammar), (), (0,)).close()
    except UsageError as error:
        return str(error)
    return ""


def test_grammars_of_many_threads_leave_standard_error_as_it_was(model: Model, capfd) -> None:
    before, ended, n_lines = os.fstat(2), threading.Event(), 0

    def write() -> int:
        n = 0
        while not ended.is_set():
            os.write(2, b"another's line %d\n" % n)
            n += 1
        return n

    with ThreadPoolExecutor(9) as threads:
        writing = threads.submit(write)
        grammars = [WRONG % n if n % 3 else RECURSIVE for n in range(300)]
        said = list(threads.map(lambda grammar: complaint(model, grammar), grammars))
        ended.set()
        n_lines = writing.result()
    assert os.path.samestat(before, os.fstat(2))
    assert set(said[1::3] + said[2::3]) == {SAID}
    assert all("left recursion" in each and "of " not in each for each in said[::3])
    lines = sorted(capfd.readouterr().err.splitlines())
    assert lines == sorted(f"another's line {n}" for n in range(n_lines)), "in whichever order"


def test_an_error_of_llama_cpp_in_another_thread_is_not_reported_here(model: Model, tmp_path: Path) -> None:
    filters.forget_errors()
    thread = threading.Thread(target=complaint, args=(model, RECURSIVE))
    thread.start()
    thread.join()
    assert filters.last_error() == ""
