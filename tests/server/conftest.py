"""What the tests of the server share: an environment with personas, answers as they are alone, and a server with saved
chats, in a browser too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Chromium
from commandline import environment_in
from on_the_page import SETTINGS, WRITTEN
from openai import OpenAI
from saved_chats import saved
from served import BIG, Served, serving
from waiting import PATIENCE_S

from pjlocal import Engine, PersonaJudge
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

ROUNDS_ALIKE = 32  # tokens in a batch: llama.cpp then rounds alike, whatever is read together
CONFIG = """
[personas.bold]
prefer = ["vivid:1.5", "concise"]
mode = "both"
[personas.ahoy]
begin = "Ahoy"
[personas.cook]
system = "You are a ship's cook."
"""


@pytest.fixture(scope="module")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "config.toml").write_text(CONFIG)
    return environment_in(folder) | {"PJLOCAL_CONFIG": str(folder / "config.toml")}


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama")


@pytest.fixture(scope="module")
def big(model: Path, server_environment: dict[str, str]) -> Iterator[Served]:
    """A server with room for answers that do not end."""
    with serving(model, server_environment, *BIG) as made:
        yield made


@pytest.fixture(scope="module")
def client(served: Served) -> OpenAI:
    """OpenAI's own client of the server of the test's module."""
    return served.openai()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, server_environment: dict[str, str]) -> None:
    """The test itself looks for servers where those of `server_environment` listen, and gives them time."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", server_environment["XDG_RUNTIME_DIR"])
    monkeypatch.setattr("pjlocal.client._RESIDENT_S", PATIENCE_S)


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


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "chats.db"


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, model: Path, server_environment: dict[str, str], database: Path
) -> Iterator[Served]:
    """A server of the tiny model with a database of its own, started with the test file's OPTIONS; no error ends up in
    its output."""
    environment = server_environment | {"PJLOCAL_DATABASE": str(database)}
    with serving(model, environment, *request.module.OPTIONS) as made:
        yield made
        status, said = made.end()
        assert status == 0 and said.startswith(made.greeting) and "Traceback" not in said


@pytest.fixture
def store(database: Path, served: Served) -> Iterator[Store]:
    """The server's database."""
    with Store(database) as made:
        yield made


@pytest.fixture
def page(chromium: Chromium, served: Served) -> Iterator[Callable[..., Chromium]]:
    """Opens the server's page as its address is printed, at a chat if one is named (``#3``)."""

    def load(chat: str = "") -> Chromium:
        chromium.size(1200, 800)
        chromium.open(served.page(chat))
        chromium.wait_for("document.querySelector('#list li')")
        return chromium

    yield load
    chromium.eval("addEventListener('pagehide', () => sessionStorage.clear())")  # no unsent question stays
    chromium.open("about:blank#")  # so that nothing is asked any more


@pytest.fixture
def opened(page: Callable[..., Chromium], store: Store) -> Callable[..., tuple[Chromium, Session]]:
    """Saves a chat and opens it on the page."""

    def load(title: str, *turns: Turn, settings: dict[str, Any] = SETTINGS) -> tuple[Chromium, Session]:
        session = saved(store, title, *turns, settings=settings)
        chromium = page(f"#{session.id}")
        if turns:
            chromium.wait_for(WRITTEN)
        return chromium, session

    return load
