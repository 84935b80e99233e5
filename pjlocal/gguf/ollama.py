"""Read Ollama's store: a manifest for each model name, and a blob, named by its checksum, for each layer of a model.

Manifests are identified by their paths: two names may share the weights and differ in other layers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

_MANIFEST_BYTES = 1 << 20  # a limit; manifests have about 1 kB
_PARAMETER_BYTES = 1 << 20
_DEEPEST = 4  # levels of folders: registry, user, model; one more for a registry's own folders
_MEDIA_TYPE = re.compile(r"application/vnd\.ollama\.image\.(\w+)")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")

#: Fields of `settings.Sampling` by the names of Ollama's parameters.
SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_last_n": "penalty_last_n",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


@dataclass(frozen=True)
class Manifest:
    """A model name in Ollama's store.

    name: Ollama's spelling, such as ``llama3.2:3b``.
    layers: the files of the layers by kind: model, system, params, adapter, template, ...
    """

    path: Path
    name: str
    layers: dict[str, Path]

    @property
    def model(self) -> Path:
        return self.layers["model"]

    @property
    def repo(self) -> str | None:
        """The repository on Hugging Face that the model came from; None for other models."""
        host, _, rest = self.name.rpartition(":")[0].partition("/")
        return rest if host == "hf.co" else None

    def parameters(self) -> dict[str, Any]:
        """The model's parameters by Ollama's names; empty if they cannot be read."""
        try:
            with self.layers["params"].open("rb") as file:
                found = json.loads(file.read(_PARAMETER_BYTES))
        except (OSError, ValueError, KeyError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def unused(self, needless: Collection[str] = ()) -> str:
        """A message about unused layers and parameters, with the options for them; may be empty.

        Args:
            needless: parameters that would have no effect.
        """
        names = [name for name in self.parameters() if name not in needless]
        others = [name for name in names if name not in SAMPLING]
        layers = {
            "system": "its system prompt (--system gives one)",
            "adapter": f"its adapter (--lora {self.layers.get('adapter')} applies it)",
            "messages": "its example messages",
        }
        unused = [text for kind, text in layers.items() if kind in self.layers]
        unused += [f"its parameters {', '.join(others)}"] if others else []
        parts = [f"parts of Ollama's model are not used: {', '.join(unused)}"] if unused else []
        if taken := ", ".join(name for name in names if name in SAMPLING):
            parts.append(f"--sampling model uses its {taken}")
        return "; ".join(parts)


def manifests(store: Path) -> Iterator[Manifest]:
    """The manifests of a store, one for each model name."""
    top = store / "manifests"
    for folder, folders, files in os.walk(top, followlinks=True):
        is_deepest = len(Path(folder).relative_to(top).parts) == _DEEPEST
        folders[:] = [] if is_deepest else sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and (manifest := manifest_at(Path(folder, name))):
                yield manifest


def manifest_at(path: Path) -> Manifest | None:
    """Read a manifest; None for any other file."""
    path = path.absolute()
    at = len(path.parts) - 1 - path.parts[::-1].index("manifests") if "manifests" in path.parts else 0
    behind = path.parts[at + 1 :]
    if not at or len(behind) < 2 or path.suffix.lower() == ".gguf":
        return None
    try:
        if not S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            layers = _layers(json.loads(file.read(_MANIFEST_BYTES)), Path(*path.parts[:at]) / "blobs")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Manifest(path, _spelled(behind), layers) if "model" in layers else None


def _layers(document: Any, blobs: Path) -> dict[str, Path]:
    layers: dict[str, Path] = {}
    for layer in document["layers"]:
        kind, digest = _MEDIA_TYPE.fullmatch(layer["mediaType"]), _DIGEST.fullmatch(layer["digest"])
        if kind and digest:
            layers.setdefault(kind[1], blobs / f"sha256-{digest[1]}")
    return layers


def _spelled(behind: tuple[str, ...]) -> str:
    """A name as Ollama prints it, without the default registry and library."""
    *above, name, tag = behind
    for default in ("registry.ollama.ai", "library"):
        if above[:1] == [default]:
            above = above[1:]
    return "/".join([*above, name]) + f":{tag}"


def model_file(path: Path) -> Path:
    """The file with the weights: the blob that a manifest names, or the path itself."""
    manifest = manifest_at(path)
    return manifest.model if manifest else path


def shown_name(path: Path) -> str:
    """The display name of a model: Ollama's name (also for a blob that a manifest names), or the file's name."""
    if manifest := manifest_at(path):
        return manifest.name
    if path.name.startswith("sha256-") and path.absolute().parent.name == "blobs":
        for manifest in manifests(path.absolute().parents[1]):
            if manifest.model.name == path.name:
                return manifest.name
    return path.name
