"""The folders of models: pjlocal's own, and those of other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..folders import user_folder


@dataclass(frozen=True)
class Place:
    """A folder with models.

    owner: the name of the program that it belongs to.
    """

    owner: str
    folder: Path


PJLOCAL, HUGGING_FACE, LLAMA_CPP = "pjlocal", "Hugging Face", "llama.cpp"
LM_STUDIO, OLLAMA = "LM Studio", "Ollama"


def model_folders() -> list[Path]:
    """pjlocal's own folders: ``models/`` in the current folder, in a checkout, and in the user's data folder."""
    checkout = Path(__file__).resolve().parents[2] / "models"
    folders = [here := Path("models")]
    # The current folder may not exist, or the user may not enter it.
    is_here = os.path.exists(here) and checkout.exists() and here.samefile(checkout)
    if checkout.is_dir() and (checkout.parent / "pyproject.toml").is_file() and not is_here:
        folders.append(checkout)
    if data := user_folder("data"):
        folders.append(data / "models")
    return folders


def places() -> Iterator[Place]:
    """Every folder that may contain models, existing or not; names in an earlier folder have priority."""
    for folder in model_folders():
        yield Place(PJLOCAL, folder)
    home, cache = _home(), _cache_home()
    if hub := hugging_face_folder():
        yield Place(HUGGING_FACE, hub)
    if llama := _named("LLAMA_CACHE") or (cache and cache / "llama.cpp"):
        yield Place(LLAMA_CPP, llama)
    if home:
        yield Place(LM_STUDIO, home / ".lmstudio" / "models")
        yield Place(LM_STUDIO, home / ".cache" / "lm-studio" / "models")
    if ollama := _named("OLLAMA_MODELS") or (home and home / ".ollama" / "models"):
        yield Place(OLLAMA, ollama)
    if "OLLAMA_MODELS" not in os.environ and sys.platform == "linux":
        yield Place(OLLAMA, Path("/usr/share/ollama/.ollama/models"))  # if Ollama runs as a service


def hugging_face_folder() -> Path | None:
    """The download folder of huggingface_hub, from its environment variables, without importing it."""
    if folder := _named("HF_HUB_CACHE") or _named("HUGGINGFACE_HUB_CACHE"):
        return folder
    if folder := _named("HF_HOME"):
        return folder / "hub"
    home = _home()
    cache = _named("XDG_CACHE_HOME") or (home and home / ".cache")
    return cache and cache / "huggingface" / "hub"


def _cache_home() -> Path | None:
    """The folder of llama.cpp's cache."""
    home = _home()
    if sys.platform == "darwin":
        return home and home / "Library" / "Caches"
    if sys.platform == "win32":
        return _named("LOCALAPPDATA")
    return _named("XDG_CACHE_HOME") or (home and home / ".cache")


def _named(variable: str) -> Path | None:
    """The folder that an environment variable names."""
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        return Path(os.path.expandvars(value)).expanduser()
    except RuntimeError:
        return None


def _home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None
