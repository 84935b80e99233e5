"""The notice after the first answer of the embedded model: a better model, and the command that gets it."""

from __future__ import annotations

import os

from ..engine.machine import memory
from ..folders import user_folder
from ..gguf.catalogue import recommend
from ..gguf.locate import EMBEDDED, all_models, embedded_model

_MARK = "small-model-notice"  # an empty file in the data folder of a user who has seen it


def small_model_notice(model: str) -> str:
    """The notice, once for each user.  Empty for other models, for a user who has seen it, and without a data folder.

    Args:
        model: the file name of the model that answered.
    """
    embedded, folder = embedded_model(), user_folder("data")
    if embedded is None or folder is None or model != embedded.name:
        return ""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / _MARK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:  # seen, or it could not be remembered
        return ""
    from ..engine.devices import for_layers  # imports llama.cpp
    from ..gguf.summary import summary  # imports NumPy

    about = f"The small model {EMBEDDED} (135M parameters) shows how pjlocal works, but its answers are poor."
    if any(found.name != EMBEDDED and not summary(found).trouble for found in all_models()):
        return f"{about} Use another model on this machine with -m: pjlocal models list shows them"
    if entry := recommend(memory().amount, on_cpu=not for_layers()):
        return f"{about} This gets a better one that fits this machine's memory: {entry.command} ({entry.facts})"
    return f"{about} pjlocal models pull lists better ones, which need more memory than is free now"
