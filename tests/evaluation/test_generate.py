"""Answers of an evaluation are the same with any number at once and after interruptions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace

import pytest
import tiny_models
from waiting import PATIENCE_S

from pjlocal import Engine, Generation, Sampling
from pjlocal.client import ServerGone
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.errors import OutputError, UsageError
from pjlocal.evaluation.generate import generate
from pjlocal.evaluation.records import AnswerRecord, Folder, Score, digest_of
from pjlocal.evaluation.run import AnsweringModel, Run, Task, make_contestant, make_tasks, read_run, write_run
from pjlocal.evaluation.suite import Check, Objectives, Prompt, Suite, System
from pjlocal.events import Statistics
from pjlocal.request import Request

SUITE = Suite(
    name="tiny",
    title="A tiny one",
    objectives=(Objectives("bright", ("vivid", "creative")), Objectives("brief", ("concise",))),
    systems=(
        System("plain", {"mode": "plain"}),
        System("prompt", {"mode": "prompt"}),
        System("judge", {"mode": "judge"}),
        System("both, behind", {"mode": "both", "strength": "2", "placement": "question"}),
        System("first alone", {"mode": "prompt"}, only=1),
    ),
    baseline="prompt",
    settings={"ignore_end": True, "max_tokens": 10},
)
PROMPTS = [Prompt(f"p{i}", f"What is {what}?") for i, what in enumerate(("rain", "a cat", "a very long walk home"))]
ENGINE = Engine(n_threads=1)


def tasks(
    model: Path,
    suite: Suite = SUITE,
    prompts: Sequence[Prompt] = PROMPTS,
    generation: Generation = Generation(),
    engine: Engine = ENGINE,
    **sampling: float,
) -> list[Task]:
    request = Request(generation=generation, sampling=Sampling(**sampling))
    contestants = [
        make_contestant(suite, system, request, engine, AnsweringModel(str(model), "digest"))
        for system in suite.systems
    ]
    return make_tasks(suite, contestants, prompts)


def test_filters_are_the_models_where_neither_the_user_nor_the_suite_sets_them(tmp_path: Path) -> None:
    says = {"temp": 0.6, "top_k": 40, "top_p": 0.95}
    model = tiny_models.write_llama(tmp_path / "says.gguf", recommends=says)
    suite = replace(SUITE, settings={"top_k": 20})
    asked = Request(sampling=Sampling(defaults="model", temperature=0.7), explicit=frozenset({"temperature"}))
    made = make_contestant(suite, suite.systems[0], asked, ENGINE, AnsweringModel(str(model), "digest"))
    assert made.request.sampling == Sampling(temperature=0.7, top_k=20, top_p=0.95)
    assert made.request.with_model_defaults({}) == made.request  # a server changes none of them


def test_keys_are_the_same_as_in_earlier_versions(tmp_path: Path) -> None:
    """An evaluation goes on under a newer pjlocal, and takes no answer for another."""
    model = tiny_models.write_llama(tmp_path / "any.gguf")
    placed = [System(name, {"mode": "judge", "placement": name}) for name in ("system", "question")]
    own = Objectives("own", ("Answer in rhyme", "Use short words"))
    suite = replace(SUITE, systems=(*placed, System("unplaced", {"mode": "judge"})), objectives=(own,))
    keys = {task.contestant.system.name: task.key for task in tasks(model, suite, PROMPTS[:1])}
    assert keys["system"] == "53cd1f064c9865e31fbf" and keys["question"] == "e67706b4f0f45a9a64c0"
    assert len({*keys.values()}) == 3


def test_a_system_that_names_no_mode_is_written_in_mode_both_and_not_taken_for_one_in_judge(tmp_path: Path) -> None:
    """A run whose answers were written when judge was the default keeps them: it has their keys."""
    model = tiny_models.write_llama(tmp_path / "any.gguf")
    of_mode = {}
    for mode in (None, "both", "judge"):
        suite = replace(SUITE, systems=(System("prompt", {"mode": mode} if mode else {}),))
        of_mode[mode] = [task.key for task in tasks(model, suite)]
    assert of_mode[None] == of_mode["both"] and not {*of_mode["both"]} & {*of_mode["judge"]}


def test_a_strength_changes_no_answer_of_a_mode_that_has_none(tmp_path: Path) -> None:
    model = tiny_models.write_llama(tmp_path / "any.gguf")
    keys: dict[str, set[str]] = {}
    for strength in (None, "1.5"):
        suite = replace(SUITE, systems=tuple(System(mode, {"mode": mode}) for mode in ("plain", "rewrite", "judge")))
        for task in tasks(model, suite, PROMPTS[:1], Generation(strength=strength)):
            keys.setdefault(task.contestant.system.name, set()).add(task.key)
    # Two objectives.  A plain answer is the same for both, but has a key for each.
    assert {mode: len(of) for mode, of in keys.items()} == {"plain": 2, "rewrite": 2, "judge": 4}


def write(path: Path, wanted: Sequence[Task], parallel: int = 4) -> list[AnswerRecord]:
    with Folder(path) as folder:
        generate(folder, wanted, parallel, Interrupt(), lambda done, total: None)
        return untimed(folder, wanted)


def untimed(folder: Folder, wanted: Sequence[Task]) -> list[AnswerRecord]:
    """Without times, and without the pushes, which rounding in batches of other widths changes a little."""
    written = folder.read(AnswerRecord)
    return [replace(written[task.key], prefill_s=0.0, decode_s=0.0, pushes={}, n_at_once=1) for task in wanted]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_the_answers_are_the_same_however_many_are_written_at_once(
    tiny: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    wanted = tasks(tiny(kind))
    alone = write(tmp_path / "1", wanted, parallel=1)
    assert write(tmp_path / "3", wanted, parallel=3) == alone == write(tmp_path / "8", wanted, parallel=8)
    assert len({record.text for record in alone}) > 1
    for parallel in (1, 3, 8):
        with Folder(tmp_path / str(parallel)) as folder:
            assert {record.n_at_once for record in folder.read(AnswerRecord).values()} == {parallel}


@pytest.mark.slow
def test_an_interrupted_run_continues_and_repeats_nothing(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    wanted, chance = tasks(tiny("llama")), random.Random(1)
    expected = write(tmp_path / "whole", wanted)
    breaks = 0
    with Folder(tmp_path / "broken") as folder:
        while True:
            interrupt, stop_at = Interrupt(), chance.randrange(1, 6)
            told: list[int] = []

            def progress(done: int, total: int, told=told, stop_at=stop_at, interrupt=interrupt) -> None:
                told.append(done)
                if len(told) == stop_at + 1:
                    interrupt.set()

            try:
                generate(folder, wanted, 4, interrupt, progress)
                break
            except Interrupted:
                breaks += 1
        assert untimed(folder, wanted) == expected
    lines = (tmp_path / "broken" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len(wanted) and breaks >= 3


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 40, 200])
def test_an_incomplete_line_is_written_again(tiny: Callable[[str], Path], tmp_path: Path, cut: int) -> None:
    wanted = tasks(tiny("llama"))
    expected = write(tmp_path, wanted)
    file = tmp_path / "answers.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert write(tmp_path, wanted) == expected
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_whole_last_record_without_a_line_end_is_kept(tmp_path: Path) -> None:
    scores = [Score(f"k{n}", f"a{n}", "words", float(n)) for n in range(3)]
    file = tmp_path / "scores.jsonl"
    with Folder(tmp_path) as folder:
        for score in scores[:2]:
            folder.append(score)
    file.write_bytes(file.read_bytes()[:-1])
    with Folder(tmp_path) as folder:
        assert [*folder.read(Score).values()] == scores[:2]
        folder.append(scores[2])
        assert [*folder.read(Score).values()] == scores
    assert len(file.read_text().splitlines()) == 3


def test_a_key_contains_what_changes_the_text_and_nothing_else(tmp_path: Path) -> None:
    def keys(suite: Suite = SUITE, **sampling: float) -> list[str]:
        return [task.key for task in tasks(tmp_path / "m.gguf", suite, PROMPTS, **sampling)]

    assert len(set(keys())) == len(SUITE.objectives) * len(SUITE.systems) * len(PROMPTS)
    assert not set(keys()) & set(keys(temperature=0.5))
    assert not set(keys()) & set(keys(replace(SUITE, settings={**SUITE.settings, "max_tokens": 11})))
    checked = replace(SUITE.objectives[0], checks=(Check("rain", regex="rain"),))
    assert keys() == keys(replace(SUITE, objectives=(checked, SUITE.objectives[1]), title="Another"))


def test_keys_omit_the_length_limit_of_the_first_version(tmp_path: Path) -> None:
    def key(max_tokens: int) -> str:
        wanted = tasks(tmp_path / "m.gguf", replace(SUITE, settings={"max_tokens": max_tokens}), PROMPTS[:1])
        return wanted[0].key

    assert key(128) == "e0084a3d98479de3ebbe" != key(1024)


def test_a_key_contains_engine_settings_that_change_numbers_and_digests_of_files(tmp_path: Path) -> None:
    def keys(engine: Engine = ENGINE, **generation: object) -> set[str]:
        suite = replace(SUITE, systems=(SUITE.systems[2],), settings=generation)
        return {task.key for task in tasks(tmp_path / "m.gguf", suite, PROMPTS, engine=engine)}

    usual = keys()
    for changes in ({"cache_type_k": "q8_0"}, {"cache_type_v": "q8_0"}, {"flash_attn": "off"}, {"n_ctx": 300}):
        assert not keys(ENGINE.replace(**changes)) & usual
    for changes in ({"n_threads": 2}, {"n_batch": 64}, {"layout": "batched"}, {"n_gpu_layers": "0"}, {"mmap": False}):
        assert keys(ENGINE.replace(**changes)) == usual
    assert keys(lookahead=8) == keys(schedule="reference") == usual
    for setting in ("lora", "lora_a", "control_vector", "control_vector_b"):
        file = tmp_path / f"{setting}.gguf"
        file.write_bytes(b"1")
        first, half = keys(**{setting: (str(file),)}), keys(**{setting: (f"{file}:0.5",)})
        moved = file.rename(tmp_path / "moved.gguf")
        assert keys(**{setting: (str(moved),)}) == first
        moved.write_bytes(b"22")
        other = keys(**{setting: (str(moved),)})
        assert not (first & other or first & half or first & usual)
    with pytest.raises(UsageError, match=r"cannot read .*none\.gguf: No such file"):
        keys(lora=(str(tmp_path / "none.gguf"),))


def test_the_keys_of_a_servers_answers_contain_no_engine_setting_of_this_machine() -> None:
    def key(engine: Engine) -> str:
        there = AnsweringModel("m", "digest", recommended={})
        contestant = make_contestant(SUITE, SUITE.systems[0], Request(), engine, there)
        return make_tasks(SUITE, [contestant], PROMPTS)[0].key

    assert key(ENGINE.replace(flash_attn="off", n_ctx=300)) == key(ENGINE)


def test_every_part_of_a_model_is_in_its_digest(tmp_path: Path) -> None:
    parts = tiny_models.write_split(tmp_path / "split.gguf")
    before = digest_of(parts[0])
    data = bytearray(parts[-1].read_bytes())
    data[-1] ^= 1
    parts[-1].write_bytes(data)
    assert len(parts) > 1 and digest_of(parts[0]) != before


def test_a_prompt_too_long_is_named_before_anything_is_generated(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    wanted = tasks(tiny("llama"), prompts=[*PROMPTS, Prompt("long", "word " * 600)])
    with Folder(tmp_path) as folder, pytest.raises(UsageError, match="prompt long: the prompt is too long"):
        generate(folder, wanted, 4, Interrupt(), lambda done, total: None)
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_written(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import resource

    wanted = tasks(tiny("llama"))
    expected = write(tmp_path / "whole", wanted)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write into"):
            write(tmp_path / "full", wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = (tmp_path / "full" / "answers.jsonl").read_bytes()
    assert kept.endswith(b"\n") and kept.count(b"\n") >= 2
    assert write(tmp_path / "full", wanted) == expected


class _Answer(list[object]):
    """An answer of a server."""

    result = SimpleNamespace(text="yes", finish_reason="stop", n_written=1, statistics=Statistics())


class _Server:
    """A server that fails to answer the first prompt with this error, and answers the others after that."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._both_begun = Barrier(2)
        self._has_failed = Event()

    def check(self, request: Request) -> None:
        """Accept every request."""

    check_can_write = check

    def answer_when_free(self, request: Request, messages: Sequence[dict[str, str]]) -> _Answer:
        self._both_begun.wait(PATIENCE_S)
        if messages[0]["content"] == PROMPTS[0].text:
            self._has_failed.set()
            raise self._error
        self._has_failed.wait(PATIENCE_S)
        return _Answer()


@pytest.mark.parametrize("error", [ServerGone("the server has stopped"), UsageError("too long"), Interrupted()])
def test_answers_that_a_server_finishes_after_an_error_are_saved(tmp_path: Path, error: Exception) -> None:
    suite = replace(SUITE, systems=SUITE.systems[:1], objectives=SUITE.objectives[:1])
    wanted = tasks(tmp_path / "m.gguf", suite, PROMPTS[:2])
    with Folder(tmp_path / "out") as folder:
        with pytest.raises(type(error)):
            generate(folder, wanted, 2, Interrupt(), lambda done, total: None, _Server(error))  # type: ignore[arg-type]
        assert [*folder.read(AnswerRecord)] == [wanted[1].key]


def test_run_json_can_be_read_again(tmp_path: Path) -> None:
    run = Run(SUITE, tuple(PROMPTS), ("a", "b"), {"pjlocal": "1"})
    with Folder(tmp_path) as folder:
        write_run(folder, run)
        assert read_run(folder) == run
        folder.run_file.write_text('{"format": 99}')
        with pytest.raises(UsageError, match="another version"):
            read_run(folder)
        folder.run_file.write_text("{")
        with pytest.raises(UsageError, match="is not valid"):
            read_run(folder)
    with Folder(tmp_path / "none") as folder, pytest.raises(UsageError, match="contains no evaluation"):
        read_run(folder)


def test_a_system_can_choose_the_best_of_several_answers(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """The chosen one is kept, with the tokens that all of them took.  Seeds share no answer."""
    systems = [System(str(n), {"mode": "both", "strength": "2", "best": n}) for n in (1, 3)]
    suite = replace(SUITE, systems=(*systems,), seeds=(0, 1), objectives=SUITE.objectives[:1])
    wanted = tasks(tiny("llama"), suite, PROMPTS[:1])
    assert len({task.key for task in wanted}) == 4
    assert [task.request.generation.seed for task in wanted] == [0, 1, 0, 3]
    records = write(tmp_path / "best", wanted)
    assert [(record.tokens, record.n_written) for record in records] == [(10, 10), (10, 10), (10, 30), (10, 30)]
    assert write(tmp_path / "one", wanted, parallel=1) == records
