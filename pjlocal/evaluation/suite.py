"""A suite: prompts, objectives with checks, and the systems that answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

from ..config.config import TABLES, Config
from ..errors import UsageError, extra, plural
from ..request import GROUPS, Request, changed, deal, excluded_by
from ..settings import Engine, Generation, Settings, flag, setting


@dataclass(frozen=True)
class Prompt:
    """A prompt of a set, with an id that is unique in the set."""

    id: str
    text: str


@dataclass(frozen=True)
class Check(Settings):
    """Requirements for an answer's text.  None means no requirement.

    name: the check's name in the report.
    of: the preference that it checks, in the spelling of the objectives.
    regex, not_regex: must be found somewhere in the text, or nowhere.  ``(?i)`` ignores case.
    finished: the answer must have come to its end by itself.
    lowercase: no letter may be a capital.
    shorter_than: the largest share of the plain answer's words (same prompt and seed).
    simpler_than_plain: the text must be easier to read than the plain answer.

    Raises:
        UsageError: a regular expression is not valid, or the requirements exclude each other.
    """

    name: str
    of: str | None = None
    regex: str | None = None
    not_regex: str | None = None
    max_words: int | None = setting(None, least=1)
    min_words: int | None = setting(None, least=1)
    max_sentences: int | None = setting(None, least=1)
    finished: bool = False
    lowercase: bool = False
    shorter_than: float | None = setting(None, above=0)
    simpler_than_plain: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("regex", "not_regex"):
            if (pattern := getattr(self, key)) is not None:
                try:
                    compiled(pattern)
                except UsageError as error:
                    raise UsageError(f"{key}: {error}") from None
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise UsageError(f"min_words must be at most max_words, {self.max_words} (not {self.min_words})")

    @property
    def asks(self) -> bool:
        """True if it has any requirement."""
        return any(getattr(self, f.name) not in (None, False) for f in fields(self) if f.name not in ("name", "of"))

    @property
    def needs_plain(self) -> bool:
        """True if the answer is compared with the plain one."""
        return self.shorter_than is not None or self.simpler_than_plain


@cache
def compiled(pattern: str) -> Any:
    """Compile a regular expression with the package ``regex``, because Python's ``re`` has no time limit.

    Raises:
        UsageError: the pattern is invalid, or the package is missing.
    """
    with extra("eval"):
        import regex
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None


@dataclass(frozen=True)
class Objectives(Settings):
    """Preferences that are used together, in the format of ``-p``, and checks of whether answers follow them."""

    name: str
    prefer: tuple[str, ...]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class System(Settings):
    """A way of answering: a mode with other settings.

    settings: the system's own settings by name (``mode``, ``strength``, ``placement``).
    only: the number of the only preference that it gets, from 1; None for all preferences.
    model: the system's own model; None for the command line's.
    against: the system that it is compared with; None for the suite's baseline.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    only: int | None = setting(None, least=1)
    model: str | None = setting(None, model=True)
    against: str | None = None

    def views(self, objectives: Objectives) -> list[list[str]]:
        """The two views' preferences."""
        return deal(self.preferred(objectives.prefer))

    def preferred(self, prefer: Sequence[str]) -> Sequence[str]:
        """Those of the objectives' preferences that the system has."""
        return prefer if self.only is None else prefer[self.only - 1 : self.only]


@dataclass(frozen=True)
class Suite(Settings):
    """The definition of an evaluation.

    baseline: the system that the others are compared with.
    settings: settings of all systems by name, which systems override.
    prompts: a file, a data set and its file, or ``default``.
    field: the field of the file that contains the prompt.
    limit: the most prompts.
    sample: the seed of a random sample of ``limit`` prompts; None for the first ones.
    min_chars, max_chars: limits of a prompt's length in characters.
    seeds: every prompt is answered once with each.
    timed: the answers are written one by one, and the report begins with their times.
    """

    name: str
    title: str
    objectives: tuple[Objectives, ...]
    systems: tuple[System, ...]
    baseline: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: str = "default"
    field: str | None = None
    limit: int | None = setting(None, least=1)
    sample: int | None = setting(None, least=0)
    min_chars: int | None = setting(None, least=1)
    max_chars: int | None = setting(None, least=1)
    seeds: tuple[int, ...] = (0,)
    timed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError("seeds must be different numbers, at least one")
        for seed in self.seeds:
            if seed < 0:  # -1 means a random seed
                raise UsageError(f"seeds must be at least 0 (not {seed})")
            Generation(seed=seed)  # checks the limits

    def in_force(self, system: System, name: str) -> Any:
        """A setting of a system, its own or that of all; None if the suite does not set it."""
        return system.settings.get(name, self.settings.get(name))

    @property
    def baselines(self) -> dict[str, str | None]:
        """The name of the system that each is compared with; None for the suite's baseline."""
        against = {system.name: system.against or self.baseline for system in self.systems}
        return {name: None if other == name else other for name, other in against.items()}

    def leads(self, one: str, other: str) -> bool:
        """True if the report compares system ``one`` with system ``other``, and not the other way round.

        It does if ``other`` is the baseline of ``one``.  If neither is the other's baseline, the one that is further
        down in the suite is compared with the other.  The suite's baseline counts as first.
        """
        baselines = self.baselines
        forth, back = baselines[one] == other, baselines[other] == one
        if forth != back:
            return forth
        places = [*dict.fromkeys([self.baseline, *baselines])]
        return places.index(one) > places.index(other)


PANEL = "Scoring"  # of the options in help texts


@dataclass(frozen=True)
class Scoring(Settings):
    """The models that score answers, named by options.

    scorer: models whose likelihoods give the implicit rewards and the fluency.
    reward_model: a model with a head for ranking.
    judge: a model that compares two answers, on the server ``judge_url`` if that is given.
    judge_pairs: the number of each system's answers that are judged; None for all.
    """

    scorer: tuple[str, ...] = setting(
        (),
        help="Another model that scores how likely the answers are (repeatable).",
        panel=PANEL,
        model=True,
        metavar="MODEL",
    )
    reward_model: str | None = setting(
        None, help="A reward model that scores the answers.", panel=PANEL, model=True, metavar="MODEL"
    )
    judge: str | None = setting(
        None, help="A model that compares each answer with the baseline's.", panel=PANEL, model=True, metavar="MODEL"
    )
    judge_url: str | None = setting(
        None,
        help="An OpenAI-compatible server that runs the judge. Its key comes from PJLOCAL_JUDGE_KEY or OPENAI_API_KEY.",
        panel=PANEL,
        metavar="URL",
    )
    judge_pairs: int | None = setting(None, help="The most pairs of each system to judge.", least=1, panel=PANEL)

    @property
    def loads_models(self) -> bool:
        """True if a model that scores is loaded on this machine."""
        return bool(self.scorer or self.reward_model or (self.judge and not self.judge_url))


def system_request(suite: Suite, system: System, request: Request) -> Request:
    """The request of a system.  A setting comes from the system, else from the suite, else from ``request``.

    Raises:
        UsageError: settings exclude each other.
    """
    common = request.override(suite_settings(suite))
    common = replace(common, explicit=request.explicit | common.as_defaults().explicit)  # others are defaults
    return common.override(_by_table(system.settings))


def system_engine(suite: Suite, system: System, engine: Engine) -> Engine:
    """The engine settings of a system, from the same sources as its request."""
    return _by_table(system.settings).apply_to(suite_settings(suite).apply_to(engine))


def suite_settings(suite: Suite) -> Config:
    """The settings of all systems of a suite."""
    return _by_table(suite.settings)


def with_settings(suite: Suite, request: Request, given: Collection[str]) -> Suite:
    """The suite with the settings that the user gave on the command line, instead of its own, and those of the
    configuration that it does not set.

    Those of the engine are only removed: the command line's depend on the machine.
    """
    common = suite_settings(suite).without(given).flat()
    kept = {*common, *excluded_by(common), "seed"}  # the suite's seeds contain the seed
    own = {
        key: value
        for group in (getattr(request, name) for name in GROUPS)
        for key, value in vars(group).items()
        if key in changed(group).union(given) - kept
    }
    return replace(suite, settings=common | own)


def without_effect(suite: Suite, given: Collection[str]) -> list[str]:
    """The flags of the user's settings that have no effect, because every system has its own."""
    fixed = {*given}.intersection(*(system.settings for system in suite.systems))
    return sorted(flag(f) for table in TABLES.values() for f in fields(table) if f.name in fixed)


def _by_table(values: Mapping[str, Any]) -> Config:
    tables: dict[str, Any] = {
        name: {key: value for key, value in values.items() if key in get_type_hints(table)}
        for name, table in TABLES.items()
    }
    return Config(**tables)


def check_systems(suite: Suite, request: Request) -> None:
    """Refuse a suite with a system that cannot answer.

    Raises:
        UsageError: objectives name a preference twice; settings of a system exclude each other; or the objectives have
            no preference of the number ``only``.
    """
    from ..prompting.plan import make_roles  # loads llama.cpp, which reports and comparisons do not need

    for system, objectives in product(suite.systems, suite.objectives):
        n = len(objectives.prefer)
        if len(set(objectives.prefer)) < n:
            raise UsageError(f"objectives {objectives.name!r}: prefer names one preference twice")
        if system.only and system.only > n:
            raise UsageError(
                f"system {system.name!r}: only = {system.only}, but the objectives {objectives.name!r} have {n} "
                f"{plural(n, 'preference')}"
            )
        try:
            make_roles(system_request(suite, system, request).replace(views=system.views(objectives)))
        except UsageError as error:
            raise UsageError(f"system {system.name!r} with objectives {objectives.name!r}: {error}") from None


def with_models(suite: Suite, models: Sequence[str]) -> Suite:
    """The suite with every system on every model, each compared with its baseline on the same model.  A system with its
    own model stays as it is.

    Raises:
        UsageError: a model is given twice.
    """
    if not models:
        return suite
    if len(set(models)) < len(models):
        raise UsageError(f"a model is given twice: {', '.join(models)}")
    names = [Path(model).name.removesuffix(".gguf") for model in models]  # Path.stem would cut qwen2.5-0.5b
    labels = unique_labels(names, models)
    fixed = {system.name for system in suite.systems if system.model}

    def on(label: str, name: str) -> str:
        return name if name in fixed else f"{name} on {label}"

    systems = [
        replace(
            system,
            name=on(label, system.name),
            model=system.model or model,
            against=on(label, system.against or suite.baseline),
        )
        for model, label in zip(models, labels, strict=True)
        for system in suite.systems
        if system.name not in fixed or model == models[0]
    ]
    return replace(suite, systems=tuple(systems), baseline=on(labels[0], suite.baseline))


def unique_labels(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The names of models; the path instead of a name that several have."""
    return [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


def suite_from_dict(values: Mapping[str, Any]) -> Suite:
    """The suite from the result of `dataclasses.asdict`.  Unknown names, which other versions may have, are ignored.

    Raises:
        UsageError: the values are not those of a suite.
    """
    try:
        objectives = [
            Objectives.from_dict({**of, "checks": [*map(Check.from_dict, of["checks"])]}) for of in values["objectives"]
        ]
        systems = [System.from_dict({**of, "settings": _as_settings(of["settings"])}) for of in values["systems"]]
        built = {"objectives": objectives, "systems": systems, "settings": _as_settings(values["settings"])}
        return Suite.from_dict({"timed": values.get("shape") == "time", **values, **built})  # older versions: shape
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the suite cannot be used: {type(error).__name__}: {error}") from None


def _as_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
