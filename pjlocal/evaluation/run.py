"""The tasks of an evaluation: every system answers every prompt for all objectives and seeds.  ``run.json`` stores
them."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from .. import __version__
from ..client import Server
from ..errors import UsageError, plural
from ..gguf.header import read_header
from ..gguf.ollama import shown_name
from ..gguf.sampling import recommended
from ..prompting.preferences import prefix, strength_in_force, without_strength
from ..request import GROUPS, Request, deal
from ..settings import ADAPTERS, DEFAULT_MODE, Engine, Generation, Prompting, Sampling, Settings, split_scale
from ..textfile import user_path, write_text
from .checks import checks_of
from .records import COMPUTED_WITH, AnswerRecord, Folder, Score, Verdict, computed_with, digest_of, key_of
from .suite import (
    Objectives,
    Prompt,
    Suite,
    System,
    suite_from_dict,
    suite_settings,
    system_engine,
    system_request,
    unique_labels,
)

FORMAT = 1  # of run.json


@dataclass(frozen=True)
class Contestant:
    """A system with all settings of its answers except prompt, preferences and seed.

    files: the digests of the aligner and the adapters, by their names in the settings.
    """

    system: System
    request: Request
    engine: Engine
    model: AnsweringModel
    files: Mapping[str, str]

    def views(self, objectives: Objectives) -> list[list[str]]:
        """The two views' preferences; none in mode plain, whose answer does not depend on them."""
        return deal([]) if self.request.generation.mode == "plain" else self.system.views(objectives)


@dataclass(frozen=True)
class Task:
    """An answer to write.  Tasks with the same key have the same answer."""

    key: str
    objectives: Objectives
    contestant: Contestant
    prompt: Prompt
    seed: int

    @property
    def request(self) -> Request:
        request = self.contestant.request.replace(views=self.contestant.views(self.objectives))
        # The answers of one seed, where the best of several is chosen, share no seed with those of the next one.
        return request.replace(seed=self.seed * request.generation.best % 2**63)


@dataclass(frozen=True)
class Run:
    """The content of ``run.json``.

    keys: the keys of the run's answers, in order; the folder may contain others.
    made_with: versions, machine, model files and settings, to reproduce the run.
    """

    suite: Suite
    prompts: tuple[Prompt, ...]
    keys: tuple[str, ...]
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def facts(self, n_written: int) -> list[str]:
        """Texts about models, prompts, versions and machine, for the report.

        Args:
            n_written: the number of the run's answers that exist.
        """
        origin = self.made_with
        models = ", ".join(f"{name} ({digest[:12]})" for name, digest in origin.get("models", {}).items())
        versions = f"pjlocal {origin.get('pjlocal')}, llama-cpp-python {origin.get('llama_cpp_python')}"
        n, n_all = len(self.prompts), len(self.keys)
        missing = [f"{n_written:,} of {n_all:,} answers: the run is not finished"] if n_written < n_all else []
        return [f"models: {models}", f"{n} {plural(n, 'prompt')}", *missing, versions, str(origin.get("machine"))]


@dataclass(frozen=True)
class AnsweringModel:
    """A model that answers.

    name: the path of its file, or its name on a server.
    digest: the digest of the file, or of the server's description.
    recommended: the sampling settings that the server recommends for it; None for a file.
    """

    name: str
    digest: str
    recommended: Mapping[str, Any] | None = None


def server_model(server: Server, suite: Suite) -> AnsweringModel:
    """The model of a server.

    Raises:
        UsageError: a system of the suite names a model.
        ServerError: the server does not answer.
    """
    for system in suite.systems:
        if system.model:
            raise UsageError(
                f"the system {system.name} names a model, and {server.name} has its own: leave --server out"
            )
    about = server.model()
    known = json.dumps([about["lasting_name"], about["description"]])
    return AnsweringModel(about["name"], sha256(known.encode()).hexdigest(), about["recommended"])


def make_contestant(
    suite: Suite, system: System, request: Request, engine: Engine, model: AnsweringModel
) -> Contestant:
    """Make the contestant of a system.

    Raises:
        UsageError: settings exclude each other.
        ModelError: the model's recommended settings are needed, and its file cannot be read.
    """
    from ..prompting.plan import in_mode  # loads llama.cpp, which reports do not need

    request = system_request(suite, system, request)
    request = in_mode(request, request.generation.mode or DEFAULT_MODE).with_group(_filters(request, model))
    request = request.without_model_defaults()
    is_on_server = model.recommended is not None
    engine = Engine() if is_on_server else system_engine(suite, system, engine)
    return Contestant(system, request, engine, model, _digests(request.generation))


def _digests(generation: Generation) -> dict[str, str]:
    """Digests of all files in the settings, except the model."""
    from ..gguf.locate import find_model

    files = {spec: user_path(split_scale(spec)[0]) for _, spec in generation.adapters()}
    if generation.aligner is not None:
        files[generation.aligner] = find_model(generation.aligner)
    return {name: digest_of(path) for name, path in files.items()}


def _filters(request: Request, model: AnsweringModel) -> Sampling:
    """The sampling settings, with the model's values if ``--sampling model`` is set."""
    if request.sampling.defaults == "own":
        return request.sampling
    path, values = Path(model.name), model.recommended
    if values is None:
        values = recommended(read_header(path).metadata.get, path)
    sampling: Sampling = request.with_model_defaults(values).sampling.replace(defaults="own")
    return sampling


_BLOCK = 10  # prompts that all systems answer before the next ones, so that an interrupted run can be compared


def make_tasks(suite: Suite, contestants: Sequence[Contestant], prompts: Sequence[Prompt]) -> list[Task]:
    """Make the tasks, in the order in which the answers are written."""
    tasks = []
    for start in range(0, len(prompts), _BLOCK):
        for objectives, contestant in product(suite.objectives, contestants):
            depends = _depends(objectives, contestant)
            for prompt, seed in product(prompts[start : start + _BLOCK], suite.seeds):
                named = [objectives.name, contestant.system.name, prompt.id]
                key = key_of(**depends, prompt=prompt.text, seed=seed, named=named)
                tasks.append(Task(key, objectives, contestant, prompt, seed))
    return tasks


def _depends(objectives: Objectives, contestant: Contestant) -> dict[str, Any]:
    """All inputs of a system's answers under these objectives, besides prompt and seed."""
    views, request, engine = contestant.views(objectives), contestant.request, contestant.engine
    mode = request.generation.mode or DEFAULT_MODE
    # These settings do not change the text.
    generation = _changed(request.generation.replace(seed=None, lookahead=0, schedule="lockstep"))
    for name in (name for names in ADAPTERS.values() for name in names if name in generation):
        generation[name] = [[contestant.files[spec], split_scale(spec)[1]] for spec in generation[name]]
    if request.generation.aligner is not None:
        generation["aligner"] = contestant.files[request.generation.aligner]
    if (strength := strength_in_force(request.generation, mode)) != "1":
        generation["strength"] = strength  # the default may change between versions
    computed = computed_with(engine) | ({"n_ctx": engine.n_ctx} if engine.n_ctx else {})
    return {
        "model": contestant.model.digest,
        "asked": [[preference, prefix([preference])] for view in views for preference in view],
        "avoided": [prefix([text]) for text in request.generation.avoid],
        "generation": generation,
        "sampling": _changed(request.sampling),
        "prompting": _changed(request.prompting),
        **({"engine": computed} if computed else {}),  # left out if empty, as in keys of earlier versions
    }


#: Defaults of the first version that have changed since, so that keys stay the same in all versions.
_FIRST_DEFAULTS = {"max_tokens": 128, "placement": "system"}


def _changed(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults, so that a new setting in another version changes no key."""
    defaults = type(settings)().as_dict() | _FIRST_DEFAULTS
    return {name: value for name, value in settings.as_dict().items() if value != defaults[name]}


def write_run(folder: Folder, run: Run) -> None:
    """Write ``run.json``.  Raises OutputError if that fails."""
    values = {
        "format": FORMAT,
        "suite": asdict(run.suite),
        "prompts": [asdict(prompt) for prompt in run.prompts],
        "keys": list(run.keys),
        "made_with": dict(run.made_with),
    }
    with folder.writing():
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.run_file, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def read_run(folder: Folder) -> Run:
    """Read the result of `write_run`.

    Raises:
        UsageError: the folder contains no evaluation, or one of another version.
    """
    try:
        values = json.loads(folder.run_file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise UsageError(
                f"{folder.path} was made by another version of pjlocal (format {values['format']}): use that version, "
                "or run the evaluation again in another folder"
            )
        prompts = tuple(Prompt(**prompt) for prompt in values["prompts"])
        return Run(suite_from_dict(values["suite"]), prompts, tuple(values["keys"]), values["made_with"])
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder.path} contains no evaluation: make one with pjlocal eval run --out {folder.path}"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder.run_file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder.run_file} is not valid ({error!r}): run the evaluation again in another folder"
        ) from None


def scoring_settings(
    run: Run, prompting: Prompting, engine: Engine, given: Collection[str]
) -> tuple[Prompting, Engine]:
    """The settings for a run's scores: those of its answers, unless the user gives others.

    Args:
        prompting, engine: from the command line.
        given: the names of the settings that the user gave there.
    """
    made = run.made_with.get("settings", {})
    of_answers = made.get("prompting", {}) | {k: v for k, v in made.get("engine", {}).items() if k in COMPUTED_WITH}
    of_answers = {name: value for name, value in of_answers.items() if name not in given}
    common = suite_settings(run.suite).without({*given, *run.made_with.get("given", ())})  # that of older versions
    return (
        common.apply_to(Prompting.from_dict(prompting.as_dict() | of_answers)),
        common.apply_to(Engine.from_dict(engine.as_dict() | of_answers)),
    )


def written_answers(folder: Folder, run: Run) -> list[AnswerRecord]:
    """The answers of the run that exist already, in the order of its keys.  Raises UsageError if there are none."""
    written = folder.read(AnswerRecord)
    if written.keys().isdisjoint(run.keys):
        raise UsageError(f"{folder.path} has no answers yet: pjlocal eval run writes them")
    return [written[key] for key in run.keys if key in written]


def written_scores(folder: Folder, run: Run, answers: Iterable[AnswerRecord]) -> list[Score]:
    """The scores of answers by the run's checks and preferences.  The folder keeps those of others that it had."""
    objectives = {answer.key: answer.objectives for answer in answers}
    named = {
        of.name: {"all", *(check.name for check in checks_of(of)), *(without_strength(wish) for wish in of.prefer)}
        for of in run.suite.objectives
    }

    def belongs(score: Score) -> bool:
        _, _, of = score.metric.partition(":")
        return score.answer in objectives and (not of or of in named[objectives[score.answer]])

    return [score for score in folder.read(Score).values() if belongs(score)]


def written_verdicts(folder: Folder, answers: Iterable[AnswerRecord]) -> list[Verdict]:
    """The verdicts between these answers."""
    keys = {answer.key for answer in answers}
    return [verdict for verdict in folder.read(Verdict).values() if {verdict.first, verdict.second} <= keys]


def made_with(contestants: Sequence[Contestant], request: Request, engine: Engine) -> dict[str, Any]:
    """The versions, machine, model files and settings of a run."""
    import llama_cpp
    import numpy

    digests = {each.model.name: each.model.digest for each in contestants}
    names = [shown_name(Path(path)) for path in digests]
    return {
        "pjlocal": __version__,
        "llama_cpp_python": llama_cpp.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "models": dict(zip(unique_labels(names, [*digests]), digests.values(), strict=True)),
        "files": {name: digest for contestant in contestants for name, digest in contestant.files.items()},
        "settings": {
            **{name: getattr(request, name).as_dict() for name in GROUPS},
            "engine": engine.as_dict(),
        },
    }
