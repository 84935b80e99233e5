"""``pjlocal eval`` from the shell: from a suite to a report, and what is refused before anything is generated."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import evaluated
import pytest
from commandline import PJLOCAL, configure
from tiny_models import write_control_vector, write_llama, write_lora
from waiting import PATIENCE_S, when

from pjlocal.evaluation.records import AnswerRecord, Folder, Score
from pjlocal.evaluation.run import Run, read_run, write_run
from pjlocal.evaluation.suitefile import load_suite, ready_suites

Pjlocal = Callable[..., "subprocess.CompletedProcess[str]"]

SUITE = """
title = "Small"
baseline = "prompt"
max_tokens = 8
ignore_end = true
prompts = "questions.txt"
systems = [
  { name = "plain", mode = "plain" },
  { name = "prompt", mode = "prompt" },
  { name = "both", mode = "both", strength = 2 },
]
[[objectives]]
name = "bright"
prefer = ["vivid", "creative"]
[[objectives.checks]]
name = "brief"
max_words = 3
"""


def with_systems(*systems: str) -> str:
    """The suite with other systems besides prompting, each as the inside of an inline table."""
    head, tail = SUITE.split("systems = ")
    tables = ", ".join(f"{{ {system} }}" for system in ('name = "prompt", mode = "prompt"', *systems))
    return f"{head}systems = [{tables}]\n{tail[tail.index('[[objectives]]') :]}"


@pytest.fixture
def suite(tmp_path: Path) -> str:
    (tmp_path / "small.toml").write_text(SUITE)
    (tmp_path / "questions.txt").write_text("".join(f"What is {what}?\n" for what in ("rain", "a cat", "tea", "snow")))
    return "small.toml"


@pytest.mark.slow
def test_from_a_suite_to_a_report(
    pjlocal: Pjlocal, environment: dict[str, str], tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    run = ["eval", "run", suite, "--out", "out", "-m", tiny("llama"), "--threads", "1"]
    result = pjlocal(*run)
    assert result.returncode == 0, result.stderr
    assert "suite small: 12 answers. 4 prompts are too few for any win rate to be significant" in result.stderr
    for heading in (
        "Checks that need no model",
        "Scores by llama.gguf",
        "bright: difference from prompt",
    ):
        assert heading in result.stdout, result.stdout
    assert "tokens/s" not in result.stdout, "several answers were written at once"
    again = pjlocal(*run)
    assert again.stdout == result.stdout, "nothing is made twice, not even timed"

    assert pjlocal("eval", "report", "out").stdout == result.stdout
    for name in ("r.html", "r.md", "r.json"):
        assert pjlocal("eval", "report", "out", name).returncode == 0
        refused = pjlocal("eval", "report", "out", name)
        assert refused.returncode == 2 and "give --force" in refused.stderr
    page = tmp_path / "out" / "report.html"
    assert f"pjlocal: the report with its figures and all answers is {page.relative_to(tmp_path)}" in result.stderr
    assert page.read_text() == (tmp_path / "r.html").read_text()
    page.unlink()
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PJLOCAL, "eval", "score", "out"]
    closed = subprocess.run(command, env=environment, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert closed.returncode == 0 and "the report with its figures" in closed.stderr and page.exists()
    for name in ("f.svg", "f.PNG", "f.pdf", "f.csv"):
        figure = pjlocal("eval", "report", "out", name)
        assert figure.returncode == 0 and (tmp_path / name).stat().st_size > 50
        assert figure.stderr.startswith(f"pjlocal: {name}: Reward against fluency for bright")
        assert pjlocal("eval", "report", "out", name).returncode == 2
        assert pjlocal("eval", "report", "out", name, "--force").returncode == 0
    unknown = pjlocal("eval", "report", "out", "x.txt")
    assert unknown.returncode == 2
    assert unknown.stderr.endswith("end the name in .md, .json, .html, .svg, .png, .pdf or .csv\n")
    rows = {row["system"]: row for row in json.loads((tmp_path / "r.json").read_text())["systems"]}
    assert rows.keys() == {"plain", "prompt", "both"} and rows["both"]["answers"] == 4
    shown = pjlocal("eval", "show", "out", "--system", "both")
    assert shown.returncode == 0 and shown.stdout.count("both") >= 4

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
        bare = pjlocal(*run)
    assert bare.returncode == 0 and bare.stdout == result.stdout
    assert bare.stderr.splitlines()[-1].startswith(
        "pjlocal: out/report.html is not written: pjlocal eval needs the package matplotlib"
    )

    warmer = pjlocal("eval", "run", suite, "--out", "warm", "-m", tiny("llama"), "-t", "2", "--no-reward")
    assert warmer.returncode == 0, warmer.stderr
    without = pjlocal("eval", "report", "warm", "f.svg", "--force")
    assert without.returncode == 2 and "this evaluation has no figures" in without.stderr
    compared = pjlocal("eval", "compare", "out", "warm", "--json")
    assert json.loads(compared.stdout)["prompts"] == 4
    vote = pjlocal("eval", "vote", "out")
    assert vote.returncode == 2 and "needs a terminal" in vote.stderr


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["lora", "control_vector_b", "aligner"])
def test_a_file_that_changed_under_its_name_is_another_one(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path, setting: str
) -> None:
    file = tmp_path / "changed.gguf"
    writers = {"lora": write_lora, "control_vector_b": write_control_vector}
    mode = "rewrite" if setting == "aligner" else "judge"
    value = '"changed.gguf"' if setting == "aligner" else '["changed.gguf:0.5"]'
    (tmp_path / "own.toml").write_text(with_systems(f'name = "s", mode = "{mode}", {setting} = {value}'))
    command = ["eval", "run", "own.toml", "--out", "out", "-m", tiny("llama"), "--threads", "1", "--parallel", "1"]
    command += ["--no-reward", "--limit", "2"]

    def texts(seed: int) -> dict[str, list[str]]:
        file.unlink(missing_ok=True)
        write_llama(file, seed=seed) if setting == "aligner" else writers[setting](file, seed=seed)
        (tmp_path / "out" / "run.json").unlink(missing_ok=True)  # with it, other answers are refused
        result = pjlocal(*command)
        assert result.returncode == 0, result.stderr
        with Folder(tmp_path / "out") as folder:
            written, wanted = folder.read(AnswerRecord), read_run(folder).keys
        return {name: [written[k].text for k in wanted if written[k].system == name] for name in ("prompt", "s")}

    first, other, again = texts(1), texts(2), texts(1)
    assert first["s"] != other["s"] and first["prompt"] == other["prompt"] and again == first
    n_lines = len((tmp_path / "out" / "answers.jsonl").read_text().splitlines())
    assert n_lines == 2 + 2 * 2, "what did not change is not written again, nor what was there before"


@pytest.mark.slow
@pytest.mark.parametrize("setting", [("--cache-type-k", "f32"), ("--flash-attn", "off"), ("--ctx", "300")])
def test_another_cache_type_or_context_size_writes_and_scores_again(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path, setting: tuple[str, str]
) -> None:
    command = ["eval", "run", suite, "--out", "out", "-m", tiny("llama"), "--threads", "1", "--limit", "1"]
    assert pjlocal(*command).returncode == 0
    (tmp_path / "out" / "run.json").unlink()
    assert pjlocal(*command, *setting).returncode == 0
    with Folder(tmp_path / "out") as folder:
        answers, run = folder.read(AnswerRecord), read_run(folder)
        assert len(answers) == 6 and len(run.keys) == 3
        scored = {score.answer for score in folder.read(Score).values() if score.metric == "fluency"}
        assert scored == set(answers)
    for same in (["--threads", "2"], ["--batch-size", "64"], ["--parallel", "1"]):
        assert pjlocal(*command, *setting, *same).returncode == 0
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 6


@pytest.mark.slow
def test_the_context_that_a_suite_gives_a_system_is_in_force(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    text = with_systems('name = "short", mode = "prompt", n_ctx = 150').replace("max_tokens = 8", "max_tokens = 200")
    (tmp_path / "own.toml").write_text(text)
    result = pjlocal("eval", "run", "own.toml", "--out", "out", "-m", tiny("llama"), "--no-reward", "--limit", "1")
    assert result.returncode == 0, result.stderr
    with Folder(tmp_path / "out") as folder:
        tokens = {answer.system: answer.tokens for answer in folder.read(AnswerRecord).values()}
    assert tokens["prompt"] == 200 and tokens["short"] < 100


@pytest.mark.slow
@pytest.mark.parametrize("setting", [[], ["--cache-type-k", "f32"]])
def test_scores_have_the_prompt_and_the_engine_settings_of_the_run(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path, setting: list[str]
) -> None:
    (tmp_path / "own.toml").write_text('system = "Be brief."\n' + SUITE)
    (tmp_path / "other.toml").write_text('system = "Be long."\n' + SUITE)
    run = ["-m", tiny("llama"), "--threads", "1", "--limit", "1", *setting, "--out"]
    assert pjlocal("eval", "run", "own.toml", *run, "own").returncode == 0
    for given in (suite, "other.toml"):
        assert pjlocal("eval", "run", given, "--system", "Be brief.", *run, given.split(".")[0]).returncode == 0

    def scores(name: str) -> set[str]:
        with Folder(tmp_path / name) as folder:
            return {score.key for score in folder.read(Score).values() if score.by}

    expected = scores("own")
    for name in ("own", "small", "other"):
        assert scores(name) == expected
        assert pjlocal("eval", "score", name, "--scorer", tiny("llama"), "--threads", "1").returncode == 0
        assert scores(name) == expected, "nothing is scored again"
    assert pjlocal("eval", "score", "own", "--scorer", tiny("llama"), "--system", "Be long.").returncode == 0
    assert not scores("own") & expected, "a given option counts"


@pytest.mark.slow
def test_two_runs_in_one_folder_and_a_file_as_folder_are_refused(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    run = ["eval", "run", suite, "-m", tiny("llama"), "--limit", "1", "--no-reward", "--out"]
    with Folder(tmp_path / "out") as folder:
        folder.hold(AnswerRecord)
        result = pjlocal(*run, "out")
        assert result.returncode == 2 and "another pjlocal is writing into out" in result.stderr
    assert pjlocal(*run, "out").returncode == 0
    result = pjlocal("eval", "report", "out", "out/run.json", "--force")
    assert result.returncode == 2 and "give the report another name" in result.stderr
    result = pjlocal(*run, suite)
    assert result.returncode == 2 and "is a file: name a folder" in result.stderr


@pytest.mark.slow
def test_a_run_that_leaves_out_answers_of_the_folder_is_refused(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    run = ["eval", "run", suite, "-m", tiny("llama"), "--no-reward", "--out", "out"]
    assert pjlocal(*run, "--limit", "1").returncode == 0
    file = tmp_path / "out" / "run.json"
    first = file.read_text()
    warmer = pjlocal(*run, "--limit", "1", "-t", "2")
    assert warmer.returncode == 2 and file.read_text() == first
    assert "this command leaves out 3 of its answers: give another --out, or remove out/run.json" in warmer.stderr
    assert pjlocal(*run, "--limit", "2").returncode == 0, "it may grow"
    file.unlink()
    assert pjlocal(*run, "--limit", "2", "-t", "2").returncode == 0
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 12


@pytest.mark.slow
def test_preferences_and_a_seed_replace_the_suites_and_settings_fixed_by_it_are_reported(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    options = [
        "-p",
        "Talk like a pirate",
        "-p",
        "concise",
        "--limit",
        "2",
        "--no-reward",
        "--mode",
        "both",
        "--strength",
        "2",
        "--seed",
        "7",
    ]
    result = pjlocal("eval", "run", suite, "--out", "out", "-m", tiny("llama"), *options)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert {answer["objectives"] for answer in answers} == {"Talk like a pirate + concise"} and len(answers) == 6
    assert {answer["seed"] for answer in answers} == {7}
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["suite"]["settings"]
    assert settings["strength"] == "2" and "seed" not in settings
    assert "every system of the suite sets --mode itself, so your value has no effect" in result.stderr


@pytest.mark.slow
def test_the_config_files_model_answers_and_its_preferences_do_not_change_the_suite(
    pjlocal: Pjlocal, environment: dict[str, str], tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    configure(environment, f'model = "{tiny("llama")}"\nprefer = ["helpful"]\n')
    for out, model in (("config", None), ("environment", tiny("space_prefix"))):
        if model:
            environment["PJLOCAL_MODEL"] = str(model)
        result = pjlocal("eval", "run", suite, "--out", out, "--limit", "1", "--no-reward")
        assert result.returncode == 0, result.stderr
        run = json.loads((tmp_path / out / "run.json").read_text())
        assert list(run["made_with"]["models"]) == [f"{'space_prefix' if model else 'llama'}.gguf"]
        assert [of["name"] for of in run["suite"]["objectives"]] == ["bright"]


@pytest.mark.slow
def test_two_models_whose_files_have_one_name_are_told_apart(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    paths = [tmp_path / folder / "m.gguf" for folder in ("a", "b")]
    for path, kind in zip(paths, ("llama", "space_prefix"), strict=True):
        path.parent.mkdir()
        path.symlink_to(tiny(kind))
    named = [option for path in paths for option in ("-m", str(path))]
    assert pjlocal("eval", "run", suite, *named, "--limit", "1", "--no-reward", "--out", "out").returncode == 0
    models = json.loads((tmp_path / "out" / "run.json").read_text())["made_with"]["models"]
    assert [*models] == [str(path) for path in paths] and len({*models.values()}) == 2


def test_a_personas_preferences_for_each_view_replace_the_suites_or_are_refused(
    pjlocal: Pjlocal, environment: dict[str, str], tiny: Callable[[str], Path], suite: str, tmp_path: Path
) -> None:
    configure(
        environment,
        '[personas.brief-pirate]\ndraft_prefer = ["Talk like a pirate"]\njudge_prefer = ["concise"]\n'
        '[personas.lopsided]\ndraft_prefer = ["vivid", "concise"]\n',
    )
    run = ["eval", "run", suite, "-m", tiny("llama"), "--limit", "1", "--no-reward", "--out", "out"]
    refused = pjlocal(*run, "-P", "lopsided")
    assert refused.returncode == 2 and "an evaluation gives the views their preferences in turn" in refused.stderr
    assert pjlocal(*run, "-P", "brief-pirate").returncode == 0
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [of["name"] for of in told["suite"]["objectives"]] == ["Talk like a pirate + concise"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nosuch"], "there is no suite 'nosuch'"),
        ([""], "name a suite"),
        (["small.toml", "--prompts", "nosuch.txt"], "nosuch.txt"),
        (["small.toml", "--field", "x", "--prompts", "questions.json"], "x"),
        (["small.toml", "-m", "nosuch"], "nosuch"),
        (["small.toml", "--judge", "nosuch"], "nosuch"),
        (["small.toml", "--scorer", "nosuch"], "nosuch"),
        (["small.toml", "--judge-url", "http://127.0.0.1:1/v1"], "--judge-url needs the name of the server's model"),
        (["small.toml", "--judge-url", "ftp://x", "--judge", "m"], "http"),
        (["small.toml", "-m", "text.gguf"], "text.gguf"),
        (["bad.toml"], "bad.toml: max_tokens must be a whole number"),
        (["small.toml", "--judge", "text.gguf"], "text.gguf"),
        (["small.toml", "--reward-model", "PLAIN"], "is not a reward model"),
        (["small.toml", "--strength", "11"], "a strength is a number"),
        (
            ["small.toml", "-p", "vivid", "-p", "vivid"],
            "pjlocal: objectives 'vivid + vivid': prefer names one preference twice",
        ),
        (["small.toml", "--parallel", "0"], "parallel"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line_before_anything_is_generated(
    pjlocal: Pjlocal, tiny: Callable[[str], Path], suite: str, tmp_path: Path, args: list[str], said: str
) -> None:
    (tmp_path / "questions.json").write_text('[{"prompt": "What?"}]')
    (tmp_path / "bad.toml").write_text(SUITE.replace("max_tokens = 8", "max_tokens = 'many'"))
    (tmp_path / "text.gguf").write_text("no model")
    model = [] if "-m" in args else ["-m", str(tiny("llama"))]
    args = [str(tiny("llama")) if arg == "PLAIN" else arg for arg in args]
    result = pjlocal("eval", "run", *args, *model, "--out", "out")
    assert result.returncode in (1, 2) and said in result.stderr, result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out" / "answers.jsonl").exists()


def test_a_folder_without_an_evaluation_is_reported(pjlocal: Pjlocal, tmp_path: Path) -> None:
    for command in (["report", "none"], ["show", "none"], ["score", "none"], ["compare", "none", "none"]):
        result = pjlocal("eval", *command)
        assert result.returncode == 2 and "contains no evaluation" in result.stderr, result.stderr


def test_an_evaluation_without_answers_is_reported(pjlocal: Pjlocal, suite: str, tmp_path: Path) -> None:
    write_run(Folder(tmp_path / "out"), Run(load_suite(str(tmp_path / suite)), (), ("a",)))
    for command in (["report", "out"], ["show", "out"], ["score", "out"], ["compare", "out", "out"]):
        result = pjlocal("eval", *command)
        assert result.returncode == 2 and "out has no answers yet: pjlocal eval run writes them" in result.stderr


@pytest.mark.parametrize(
    "line", ["cannot be read as JSON", "[]", '{"key": 1}', '{"answer": "a"}', '{"key": "k", "answer": 5}']
)
def test_a_line_that_pjlocal_did_not_write_is_named(pjlocal: Pjlocal, suite: str, tmp_path: Path, line: str) -> None:
    with Folder(tmp_path / "out") as folder:
        answer = evaluated.answer("plain", 1)
        write_run(folder, Run(load_suite(str(tmp_path / suite)), (), (answer.key,)))
        folder.append(answer)
    for name, command in (("scores", "score"), ("answers", "run")):
        (tmp_path / "out" / f"{name}.jsonl").write_text(line + "\n")
        result = pjlocal("eval", "report", "out")
        says = f"{name}.jsonl line 1 was changed: remove the line, and pjlocal eval {command} makes it again"
        assert result.returncode == 2 and says in result.stderr, result.stderr


def test_a_comparison_names_the_folders_and_the_systems_that_only_one_has(pjlocal: Pjlocal, tmp_path: Path) -> None:
    records = evaluated.answers(3, objectives=("bright",))
    for name, missing in ((".", "both"), ("e2", "judge"), ("x/e2", "")):
        some = [record for record in records if record.system != missing]
        with Folder(tmp_path / name) as folder:
            write_run(folder, Run(evaluated.SUITE, (), tuple(record.key for record in some)))
            for record in some:
                folder.append(record)
    result = pjlocal("eval", "compare", ".", "e2")
    assert f"bright: e2 minus {tmp_path.name}" in result.stdout, result.stderr
    assert result.stdout.endswith(f"Only in {tmp_path.name}: judge (bright).\nOnly in e2: both (bright).\n")
    result = pjlocal("eval", "compare", "e2", "x/e2")
    assert "bright: x/e2 minus e2" in result.stdout and "Only in x/e2: judge (bright)." in result.stdout
    assert result.stdout.count("Only in") == 1


@pytest.mark.slow
def test_ctrl_c_keeps_finished_answers_and_says_how_to_continue(
    tiny: Callable[[str], Path], environment: dict[str, str], suite: str, tmp_path: Path
) -> None:
    options = ["--max-tokens", "200", "--parallel", "1", "--threads", "1", "--no-reward"]
    process = subprocess.Popen(
        [*PJLOCAL, "eval", "run", suite, "--out", "out", "-m", str(tiny("llama")), *options],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = tmp_path / "out" / "answers.jsonl"
    when(lambda: file.exists() and file.stat().st_size)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "the same command continues" in err, err
    n = len(file.read_text().splitlines())
    assert 1 <= n < 12 and not out
    command = [*PJLOCAL, "eval", "report", "out"]
    report = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{n} of 12 answers: the run is not finished" in report.stdout


@pytest.mark.slow
def test_killed_and_run_again_it_reports_the_same(
    tiny: Callable[[str], Path], environment: dict[str, str], suite: str, tmp_path: Path
) -> None:
    """Times are left out: they are never the same."""

    def command(out: str) -> list[str]:
        options = ["--max-tokens", "30", "--parallel", "3", "--threads", "1", "--no-reward"]
        return [*PJLOCAL, "eval", "run", suite, "--out", out, "-m", str(tiny("llama")), *options]

    def report(out: str) -> object:
        subprocess.run([*PJLOCAL, "eval", "report", out, f"{out}.json"], env=environment, cwd=tmp_path, check=True)
        values = json.loads((tmp_path / f"{out}.json").read_text())
        for system in values["systems"]:
            del system["tokens_per_s"], system["seconds"]
        return values

    subprocess.run(command("whole"), env=environment, cwd=tmp_path, check=True, capture_output=True)
    file, sizes, chance = tmp_path / "killed" / "answers.jsonl", [0], random.Random(2)
    for _ in range(3):
        process = subprocess.Popen(
            command("killed"), env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        more = sizes[-1] + chance.randrange(1500)
        when(lambda: process.poll() is not None or (file.exists() and file.stat().st_size > more))
        process.kill()
        process.wait()
        sizes.append(file.stat().st_size if file.exists() else 0)
    subprocess.run(command("killed"), env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert report("killed") == report("whole")
    assert len(file.read_text().splitlines()) == 3 * 4


@pytest.mark.slow
def test_the_suites_are_listed(pjlocal: Pjlocal) -> None:
    _, *rows = pjlocal("eval", "suites").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ready_suites(), "one row each"
