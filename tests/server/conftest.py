"""What the tests of the server share: an environment with personas, and answers as they are alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import environment_in

from pjlocal import Engine, PersonaJudge

ROUNDS_ALIKE = 32  # tokens in a batch: llama.cpp then rounds alike, whatever is read together
CONFIG = """
[personas.bold]
prefer = ["vivid:1.5", "concise"]
mode = "both"
[personas.cook]
system = "You are a ship's cook."
"""


@pytest.fixture(scope="module")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "config.toml").write_text(CONFIG)
    return environment_in(folder) | {"PJLOCAL_CONFIG": str(folder / "config.toml")}


@pytest.fixture(scope="module")
def alone(tiny: Callable[[str], Path]) -> Iterator[Callable[..., str]]:
    """The text that a prompt gets from the tiny model when nobody else asks."""
    made: dict[tuple[str, ...], PersonaJudge] = {}

    def ask(prompt: str, prefer: tuple[str, ...] = (), **changes: Any) -> str:
        if prefer not in made:
            made[prefer] = PersonaJudge(tiny("llama"), prefer=prefer, engine=Engine(n_threads=1, n_batch=ROUNDS_ALIKE))
        return made[prefer](prompt, **changes).text

    yield ask
    for judge in made.values():
        judge.close()
