"""Fixtures of the tests of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pjlocal import Engine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Closes models, scorers and judges at the end of the test."""
    with ExitStack() as stack:
        yield lambda thing: stack.enter_context(closing(thing))


@pytest.fixture
def load(tiny: Callable[[str], Path], opened: Callable[[Any], Any]) -> Callable[..., Model]:
    """Loads tiny models by their kind."""
    return lambda kind, engine=Engine(n_threads=1): opened(Model(tiny(kind), engine, Interrupt()))
