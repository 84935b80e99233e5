"""What the tests of chats share: a chat, a database for what is saved of it, and what starts one on a terminal.

Where the words of an answer must be known, a grammar allows no others.  Then a tiny random model is as good as a real
one, and faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from commandline import PJLOCAL, PREFER
from talking import Talk, talk
from terminal import Terminal, database

from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

Start = Callable[..., Terminal]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "chats.db", timeout=0.05) as store:
        yield store


@pytest.fixture
def chat(tiny, store: Store) -> Iterator[Talk]:
    with talk(tiny("llama"), store=store) as chat:
        yield chat


@pytest.fixture(scope="module")
def lasting_chat(tiny) -> Iterator[Talk]:
    """A chat for tests that leave its settings as they were; to begin one takes a tenth of a second."""
    with talk(tiny("llama")) as chat:
        yield chat


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the editor leave a text."""

    def leave(text: str) -> None:
        monkeypatch.setattr("pjlocal.chat.commands.answers.edit_text", lambda before: text)

    return leave


@pytest.fixture
def start(on_terminal: Callable[..., Terminal]) -> Start:
    """Starts chats; each is ready for the first line."""

    def start(*args: str, ready: bool = True, **options: object) -> Terminal:
        chat = on_terminal(*PJLOCAL, "chat", *args, **options)
        if ready:
            chat.at_prompt()
        return chat

    return start


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with room for long chats."""
    return tiny_models.write_llama(tmp_path_factory.mktemp("toy") / "toy.gguf", n_ctx_train=8192)


@pytest.fixture
def toy(toy_model: Path, tmp_path: Path) -> tuple[str, ...]:
    """Arguments for a chat with it; by its name, from a folder of models."""
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "toy.gguf").symlink_to(toy_model)
    return ("-m", "toy.gguf", *PREFER)


@pytest.fixture
def slow_toy(tmp_path: Path) -> tuple[str, ...]:
    """As `toy`, at a pace at which one can see it write."""
    path = tiny_models.write_llama(tmp_path / "slow.gguf", n_ctx_train=8192, n_embd=256, n_layer=4, n_ff=512)
    return ("-m", str(path), *PREFER)


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Arguments that make any model answer with one text."""

    def says(text: str, name: str = "answer.gbnf") -> tuple[str, ...]:
        (tmp_path / name).write_text(f"root ::= {json.dumps(text, ensure_ascii=False)}\n")
        return ("--grammar", name, "-n", "8000")

    return says


@pytest.fixture
def sessions(environment: dict[str, str]) -> Callable[[], list[Session]]:
    """What is saved, the oldest session first."""

    def sessions() -> list[Session]:
        with Store(database(environment)) as store:
            return [store.load(summary.id) for summary in sorted(store.summaries(), key=lambda s: s.id)]

    return sessions
