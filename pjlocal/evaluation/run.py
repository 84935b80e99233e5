"""What an evaluation is to answer: every objective by every system, each prompt and seed; kept in ``run.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OutputError, UsageError
from ..gguf.header import read_header
from ..gguf.sampling import followed, recommended
from ..prompting.preferences import prefix
from ..settings import ADAPTERS, Engine, Generation, Prompting, Sampling, Settings, split_scale
from ..textfile import user_path, write_text
from .records import Folder, computed_with, digest_of, key_of
from .suite import Objectives, Prompt, Suite, System, in_force, suite_as_dict, suite_from_dict

FORMAT = 1  # of run.json


@dataclass(frozen=True)
class Manner:
    """A system with the settings that it answers under, and the digest of its model file.

    strength: of preferences that have none of their own.
    files: the digests of the aligner and the adapters, by the names that the settings have for them.
    """

    system: System
    generation: Generation
    strength: str
    sampling: Sampling
    prompting: Prompting
    model: str
    digest: str
    engine: Engine
    files: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """One answer that is wanted; two of the same key would be the same answer."""

    key: str
    objectives: Objectives
    manner: Manner
    prompt: Prompt
    seed: int

    @property
    def generation(self) -> Generation:
        seeded: Generation = self.manner.generation.replace(seed=self.seed)
        return seeded


@dataclass(frozen=True)
class Run:
    """What stands in ``run.json``.

    keys: of the answers that the report is about, in their order; the folder may hold more.
    made_with: versions, machine and model files, for who wants to do it again.
    """

    suite: Suite
    prompts: tuple[Prompt, ...]
    keys: tuple[str, ...]
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> list[str]:
        """What a report says of how it was made."""
        made = self.made_with
        models = ", ".join(f"{name} ({digest[:12]})" for name, digest in made.get("models", {}).items())
        versions = f"pjlocal {made.get('pjlocal')}, llama-cpp-python {made.get('llama_cpp_python')}"
        return [f"models: {models}", f"{len(self.prompts)} prompts", versions, str(made.get("machine"))]


@dataclass(frozen=True)
class Asked:
    """What the command line gives; ``given`` are the names of what the user gave of it, ``own`` those and of what the
    user's config file sets."""

    generation: Generation
    sampling: Sampling
    prompting: Prompting
    given: Collection[str] = ()
    own: Collection[str] = ()
    engine: Engine = Engine()


def make_manner(suite: Suite, system: System, asked: Asked, model: str, digest: str) -> Manner:
    """How a system answers.

    Raises:
        UsageError: settings that cannot be had together.
        ModelError: the filters are to be the model's, and its file cannot be read.
    """
    from ..prompting.plan import in_mode, strength_in_force  # loads llama.cpp, which reports do without

    generation = in_force(suite, system, asked.generation, asked.given)
    mode = generation.mode or "judge"
    return Manner(
        system,
        in_mode(generation, mode),
        strength_in_force(generation, mode),
        _filters(suite, system, asked, model),
        in_force(suite, system, asked.prompting, asked.given),
        model,
        digest,
        in_force(suite, system, asked.engine, asked.given),
        _digests(in_mode(generation, mode)),
    )


def _digests(generation: Generation) -> dict[str, str]:
    """Of every file besides the model that the settings name."""
    from ..gguf.locate import find_model

    files = {spec: user_path(split_scale(spec)[0]) for _, spec in generation.adapters()}
    if generation.aligner is not None:
        files[generation.aligner] = find_model(generation.aligner)
    return {name: digest_of(path) for name, path in files.items()}


def _filters(suite: Suite, system: System, asked: Asked, model: str) -> Sampling:
    """The filters as they will be, with those that the model's file names where they are to be the model's."""
    sampling = in_force(suite, system, asked.sampling, asked.given)
    if sampling.defaults == "own":
        return sampling
    said = recommended(read_header(Path(model)).metadata.get)
    settled: Sampling = followed(sampling, said, {*asked.own, *suite.settings, *system.settings}).replace(
        defaults="own"
    )
    return settled


_BLOCK = 10  # prompts that every system answers before the next ones: a run that is broken off compares like with like


def make_tasks(suite: Suite, manners: Sequence[Manner], prompts: Sequence[Prompt]) -> list[Task]:
    """Every answer, in the order in which they are written."""
    depends = {
        (objectives.name, manner.system.name): _depends(objectives, manner)
        for objectives in suite.objectives
        for manner in manners
    }
    return [
        Task(
            key_of(
                **depends[objectives.name, manner.system.name],
                prompt=prompt.text,
                seed=seed,
                named=[objectives.name, manner.system.name, prompt.id],
            ),
            objectives,
            manner,
            prompt,
            seed,
        )
        for start in range(0, len(prompts), _BLOCK)
        for objectives in suite.objectives
        for manner in manners
        for prompt in prompts[start : start + _BLOCK]
        for seed in suite.seeds
    ]


def _depends(objectives: Objectives, manner: Manner) -> dict[str, Any]:
    """What every answer of a system under these objectives depends on, besides prompt and seed."""
    views = manner.system.views(objectives)
    generation = _changed(manner.generation.replace(seed=None, lookahead=0, schedule="lockstep"))  # which no text shows
    for name in (name for names in ADAPTERS.values() for name in names if name in generation):
        generation[name] = [[manner.files[spec], split_scale(spec)[1]] for spec in generation[name]]
    if manner.generation.aligner is not None:
        generation["aligner"] = manner.files[manner.generation.aligner]
    if manner.strength != "1":
        generation["strength"] = manner.strength  # another version may have another default
    asked = [[wish, prefix([wish])] for names in views for wish in names]
    if manner.generation.mode == "plain":
        asked = []  # the same answer whatever would have been asked for
    engine = computed_with(manner.engine) | ({"n_ctx": manner.engine.n_ctx} if manner.engine.n_ctx else {})
    return {
        "model": manner.digest,
        "asked": asked,
        "avoided": [prefix([text]) for text in manner.generation.avoid],
        "generation": generation,
        "sampling": _changed(manner.sampling),
        "prompting": _changed(manner.prompting),
        **({"engine": engine} if engine else {}),  # no key of an earlier version has it
    }


#: What the defaults were in the first version, where they are others now: a key means the same in every version.
_FIRST_DEFAULTS = {"max_tokens": 128, "placement": "system"}


def _changed(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults, so that a setting that another version brings changes no key."""
    defaults = type(settings)().as_dict() | _FIRST_DEFAULTS
    return {name: value for name, value in settings.as_dict().items() if value != defaults[name]}


def write_run(folder: Folder, run: Run) -> None:
    """Raises OutputError where it cannot be written."""
    values = {
        "format": FORMAT,
        "suite": suite_as_dict(run.suite),
        "prompts": [asdict(prompt) for prompt in run.prompts],
        "keys": list(run.keys),
        "made_with": dict(run.made_with),
    }
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.run_file, json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write into {folder.path}: {error.strerror or error}") from None


def read_run(folder: Folder) -> Run:
    """What `write_run` wrote.

    Raises:
        UsageError: the folder holds no evaluation, or one of another version.
    """
    try:
        values = json.loads(folder.run_file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise UsageError(f"{folder.path} was made by another version of pjlocal (format {values['format']})")
        prompts = tuple(Prompt(**prompt) for prompt in values["prompts"])
        return Run(suite_from_dict(values["suite"]), prompts, tuple(values["keys"]), values["made_with"])
    except FileNotFoundError:
        raise UsageError(
            f"{folder.path} holds no evaluation: make one with pjlocal eval run --out {folder.path}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder.run_file} cannot be read: {error}") from None


def made_with(manners: Sequence[Manner], asked: Asked) -> dict[str, Any]:
    """Versions, machine and model files."""
    import llama_cpp
    import numpy

    return {
        "pjlocal": __version__,
        "llama_cpp_python": llama_cpp.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "models": {Path(manner.model).name: manner.digest for manner in manners},
        "files": {name: digest for manner in manners for name, digest in manner.files.items()},
        "settings": {
            "generation": asked.generation.as_dict(),
            "sampling": asked.sampling.as_dict(),
            "prompting": asked.prompting.as_dict(),
            "engine": asked.engine.as_dict(),
        },
    }
