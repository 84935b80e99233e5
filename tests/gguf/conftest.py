"""A user's folders, all in one place of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any models; the current folder is another, and empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / ".local/share"))
    monkeypatch.chdir(here)
    return home


@pytest.fixture
def put(home: Path) -> Callable[..., Path]:
    """Make a file below the home folder, with some bytes in it."""

    def make(name: str, content: bytes = b"GGUF") -> Path:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make
