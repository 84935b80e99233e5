"""config.toml: what it may set, what goes before it, what is said when it is wrong; and the user's own presets."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from conftest import one_line
from typer.testing import CliRunner

from pjlocal.cli.app import app
from pjlocal.cli.config import config_app, prefs_app
from pjlocal.cli.options import DraftPreferOption, JudgePreferOption, ModelOption, PreferOption, takes_settings
from pjlocal.config.config import TABLES, Config, config_path, load_config
from pjlocal.errors import OutputError, UsageError
from pjlocal.prompting import preferences
from pjlocal.settings import Engine, Generation, Prompting, Sampling, View


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The config file of a test, not there yet."""
    path = tmp_path / "settings" / "config.toml"
    monkeypatch.setenv("PJLOCAL_CONFIG", str(path))
    for name in ("PJLOCAL_MODEL", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    yield path
    preferences.use_own({})


@pytest.fixture
def write(file: Path):
    """Write the config file."""

    def write(text: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    return write


def call(app: typer.Typer, *args: str, stdin: str = "") -> str:
    """What a command prints; its errors are raised here."""
    result = CliRunner().invoke(app, args, input=stdin, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def settled(*args: str) -> dict[str, Any]:
    """The values that a command of pjlocal gets for these arguments."""
    probe, seen = typer.Typer(), {}

    @probe.command()
    @takes_settings()
    def command(
        model: ModelOption = None,
        prefer: PreferOption = [],  # noqa: B006
        draft_prefer: DraftPreferOption = [],  # noqa: B006
        judge_prefer: JudgePreferOption = [],  # noqa: B006
        view: Annotated[View, typer.Option()] = "text",
        *,
        generation: Generation,
        sampling: Sampling,
        prompting: Prompting,
        engine: Engine,
    ) -> None:
        seen.update(locals())

    call(probe, *args)
    return seen


# What the file may set.


def test_without_a_file_everything_has_its_default() -> None:
    assert load_config() == Config()
    values = settled()
    assert values["model"] is None and values["prefer"] == [] and values["view"] == "text"
    assert [values[name] for name in TABLES] == [settings() for settings in TABLES.values()]


def test_the_file_is_in_the_users_folder_unless_the_environment_names_another(file, monkeypatch, tmp_path) -> None:
    assert config_path() == file
    monkeypatch.delenv("PJLOCAL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert config_path() == tmp_path / "pjlocal" / "config.toml"
    assert config_path().name == "config.toml"


def test_the_file_gives_defaults_to_every_option(write) -> None:
    write("""
        model = "mine.gguf"
        prefer = ["vivid", "Answer in rhyme"]
        view = "blame"
        save = false
        [generation]
        lam = 6
        stop = ["END"]
        mode = "base"
        [sampling]
        temperature = 1        # a whole number will do where a number is wanted
        [prompting]
        placement = "user-turn"
        [engine]
        n_ctx = 2048
        verbose = true
    """)
    values = settled()
    assert values["model"] == "mine.gguf"
    assert values["prefer"] == ["vivid", "Answer in rhyme"]
    assert values["view"] == "blame"
    assert values["generation"] == Generation(lam=6, stop=("END",), mode="base")
    assert values["sampling"] == Sampling(temperature=1.0)
    assert values["prompting"] == Prompting(placement="user-turn")
    assert values["engine"] == Engine(n_ctx=2048, verbose=True)
    config = load_config()
    assert config.save is False
    assert config.generation == {"lam": 6, "stop": ("END",), "mode": "base"}, "only what was set"
    assert config.draft_prefer is None


def test_an_option_goes_before_the_environment_and_that_before_the_file(write, monkeypatch) -> None:
    write('model = "file"\nview = "blame"\n[generation]\nlam = 6\nstop = ["END"]\n[sampling]\ntop_k = 5\n')
    assert settled()["model"] == "file"
    monkeypatch.setenv("PJLOCAL_MODEL", "environment")
    assert settled()["model"] == "environment"
    values = settled("-m", "option", "-l", "4", "--stop", "x", "--view", "text")
    assert values["model"] == "option" and values["view"] == "text"
    assert values["generation"] == Generation(lam=4, stop=("x",)), "also where the option says what the default is"
    assert values["sampling"] == Sampling(top_k=5)


def test_an_option_sets_aside_what_it_excludes_in_the_file(write, file) -> None:
    write('prefer = ["vivid", "creative"]\n[sampling]\ngrammar = "a.gbnf"\n')
    (file.parent / "a.gbnf").write_text("root ::= [a-z]\n")
    (file.parent / "schema.json").write_text("{}")
    values = settled("--draft-prefer", "concise", "--json-schema", str(file.parent / "schema.json"))
    assert values["prefer"] == [] and values["draft_prefer"] == ["concise"]
    assert values["sampling"] == Sampling(json_schema="{}")
    write('draft_prefer = ["vivid"]\njudge_prefer = ["creative"]\n')
    values = settled("-p", "concise")
    assert values["prefer"] == ["concise"] and values["draft_prefer"] == values["judge_prefer"] == []
    assert settled("--draft-prefer", "concise")["judge_prefer"] == ["creative"]


def test_files_that_it_names_are_found_from_where_it_is(write, file, tmp_path) -> None:
    write('prefer = ["@mine.txt", "vivid"]\n[sampling]\ngrammar = "a.gbnf"\n')
    (file.parent / "mine.txt").write_text("Answer like a pirate.")
    (file.parent / "a.gbnf").write_text("root ::= [a-z]\n")
    values = settled()
    assert values["sampling"].grammar == "root ::= [a-z]"
    assert preferences.prefix(values["prefer"]).startswith("Answer like a pirate.")
    (tmp_path / "b.gbnf").write_text("root ::= [0-9]\n")
    write(f"[sampling]\ngrammar = '{tmp_path / 'b.gbnf'}'\n")
    assert settled()["sampling"].grammar == "root ::= [0-9]"


def test_help_tells_the_built_in_defaults_and_does_not_need_the_file(write) -> None:
    plain = call(app, "run", "--help")
    assert re.search(r"--max-tokens .*128", plain)
    for text in ("[generation]\nmax_tokens = 7\n", "broken ="):
        write(text)
        assert call(app, "run", "--help") == plain
    assert "--context" not in plain


def test_starting_up_loads_neither_tomlkit_nor_numpy() -> None:
    code = "import pjlocal.cli.main as m, sys; print({'tomlkit', 'numpy', 'llama_cpp', 'rich', 'platformdirs'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# What is said when it is wrong.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "\n# x\n[sampling]\ntemprature = 1",
            "line 4: unknown key 'temprature' in [sampling]: did you mean temperature?",
        ),
        ("[generation]\nlambda = 3", "line 2: unknown key 'lambda' in [generation]: did you mean lam?"),
        ("temperature = 1", "line 1: unknown key 'temperature': it belongs in [sampling]"),
        ("[sampling]\nmodel = 'x'", "line 2: unknown key 'model' in [sampling]: it belongs at the top"),
        ("[samplng]\ntop_k = 1", "line 1: unknown key 'samplng': did you mean sampling?"),
        ("[prompting]\nzzz = 1", "line 2: unknown key 'zzz' in [prompting]: known are system, placement"),
        ("sampling.top_k = 1.5", "line 1: top_k must be a whole number (not 1.5)"),
        ("engine = {n_ctx = true}", "line 1: n_ctx must be a whole number (not True)"),
        ("[sampling]\ntemperature = 'hot'", "line 2: temperature must be a number (not 'hot')"),
        ("[sampling]\ntop_p = 0", "line 2: top_p must be above 0 (not 0.0)"),
        ("[sampling]\nmin_p = nan", "line 2: min_p must be a finite number"),
        ("[generation]\nlam = 0", "line 2: lam must be at least 1 (not 0)"),
        ("[generation]\nmode = 'jugde'", "line 2: mode must be one of judge, base, prompt, plain (not 'jugde')"),
        ("[generation]\nstop = 'x'", "line 2: stop must be a list of texts"),
        ("[generation]\nstop = [\n  'x',\n  '',\n]", "line 2: stop must not be empty"),
        ("view = 'blam'", "line 1: view must be one of text, blame, markdown (not 'blam')"),
        ("save = 1", "line 1: save must be true or false (not 1)"),
        ("sampling = 3", "line 1: sampling must be a table, as in [sampling]"),
        ("prefer = ['vivid',\n  'vivdi']", "line 1: unknown preset 'vivdi': did you mean vivid?"),
        ("prefer = ['vivid']\ndraft_prefer = ['concise']", "line 2: prefer deals the preferences out"),
        ("[sampling]\n\ngrammar = 'no.gbnf'", "line 3: cannot read grammar file"),
        (
            "[sampling]\njson_schema = 's.json'\ngrammar = 's.json'",
            "line 3: grammar and json_schema exclude each other",
        ),
        ("[presets]\nvivid = 'x'", "line 2: 'vivid' is a built-in preset: give yours another name"),
        ("[presets]\n'two words' = 'x'", "line 2: a preset's name is one bare word"),
        ("[presets]\nmine = 1", "line 2: mine must be a text in quotes (not 1)"),
        ("[presets]\nmine = ' '", "line 2: the preset 'mine' is empty"),
        ("[presets]\nmine = 'x'\nMine = 'x'", "line 3: there is a preset 'mine' already"),
        ("save = true\n\nmodel = smollm2", "line 3: this is not TOML"),
        ("prefer = [\n  'vivid'\n  'concise'\n]", "line 3: this is not TOML"),
        ("save = true\nmodel = '''\n\n\nx", "line 2: this is not TOML"),
        ("save = true\n\nsave = false\nview = 'text'", 'line 3: this is not TOML: Key "save" already exists'),
        ("[engine]\n[sampling]\ntop_k = 1\n[engine]\nn_ctx = 9\n", "line 4: this is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, file, text, says) -> None:
    write(text)
    (file.parent / "s.json").write_text("{}")
    with pytest.raises(UsageError, match=re.escape(f"config.toml {says}")):
        load_config()


def test_a_file_that_cannot_be_read_is_named(write, file, monkeypatch) -> None:
    write("")
    file.write_bytes(b'model = "\xe9"\n')
    with pytest.raises(UsageError, match=r"config\.toml is not UTF-8"):
        load_config()
    with pytest.raises(UsageError, match=r"cannot read config file .*: Is a directory"):
        load_config(file.parent)
    file.write_bytes("\ufeffmodel = 'x'\r\nsave = true\r\n".encode())
    assert load_config() == Config(model="x", save=True), "a byte order mark and Windows line ends are fine"


def test_run_takes_the_file_and_stops_when_it_is_wrong(pjlocal, environment, write, file) -> None:
    environment["PJLOCAL_CONFIG"] = str(file)
    write("""
        prefer = ["pirate", "concise"]
        [generation]
        max_tokens = 3
        seed = 5
        [presets]
        pirate = "Talk like a pirate."
    """)
    report = json.loads(pjlocal("run", "--json", "hi").stdout)
    assert report["preferences"] == {"a": ["pirate"], "b": ["concise"]}
    assert report["seed"] == 5 and report["usage"]["completion_tokens"] <= 3
    write("[sampling]\ntemprature = 1\n")
    result = pjlocal("run", "hi")
    assert result.returncode == 2 and result.stdout == ""
    assert "config.toml line 2: unknown key" in one_line(result.stderr)


# pjlocal config


def test_path_prints_where_it_is_even_when_it_is_broken(write, file) -> None:
    assert call(config_app, "path") == f"{file}\n"
    write("broken =")
    assert call(config_app, "path") == f"{file}\n"


def test_show_prints_what_is_in_force_and_where_it_comes_from(write, monkeypatch) -> None:
    write('prefer = ["vivid"]\n[sampling]\ntop_k = 7\n[presets]\npirate = "Arr\\u001b[31m"\n')
    monkeypatch.setenv("PJLOCAL_MODEL", "m.gguf")
    lines = call(config_app, "show").splitlines()
    for line in (
        'environment model = "m.gguf"',
        'file        prefer = ["vivid"]',
        "file        sampling.top_k = 7",
        "default     sampling.top_p = 0.9",
        "default     generation.seed: not set",
    ):
        assert line in lines
    assert "\x1b" not in "".join(lines)


def editor(does: str) -> str:
    """An editor that runs this Python on ``path``."""
    return shlex.join([sys.executable, "-c", f"import sys; path = sys.argv[1]; {does}"])


def test_edit_makes_a_commented_file_and_opens_it(file, monkeypatch) -> None:
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv("VISUAL", editor("open(path, 'a').write('mine = \"Be mine.\"')"))
    call(config_app, "edit")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_config() == Config(presets={"mine": "Be mine."})


def test_every_line_of_the_commented_file_may_be_uncommented(file, monkeypatch) -> None:
    monkeypatch.setenv("EDITOR", "true")
    call(config_app, "edit")
    text = re.sub(r"^#(draft|judge)_prefer", r"# \1", file.read_text(), flags=re.M)
    text = re.sub(r"^#(?=\w+ = <)", "# ", text, flags=re.M)
    text = re.sub(r"^#(?=\w)", "", text, flags=re.M)
    file.write_text(text)
    values = settled()
    assert [values[name] for name in TABLES] == [settings() for settings in TABLES.values()]
    shown = re.findall(r"^(?:# )?(\w+) = ", text, flags=re.M)
    assert {key for settings in TABLES.values() for key in get_type_hints(settings)} <= set(shown)


def test_edit_opens_a_broken_file_and_checks_what_comes_of_it(write, monkeypatch) -> None:
    write("broken =")
    monkeypatch.setenv("EDITOR", editor("open(path, 'w').write('save = true')"))
    call(config_app, "edit")
    assert load_config().save is True
    monkeypatch.setenv("EDITOR", editor("open(path, 'w').write('save = 1')"))
    with pytest.raises(UsageError, match="line 1: save must be true or false"):
        call(config_app, "edit")


@pytest.mark.parametrize(
    ("editor", "says"),
    [
        ("", "set VISUAL or EDITOR to your editor"),
        ("no-such-editor -w", "cannot start the editor no-such-editor -w"),
        ("a '", "cannot start the editor"),
        ("false", "the editor false failed"),
    ],
)
def test_edit_without_an_editor_says_so(monkeypatch, editor, says) -> None:
    monkeypatch.setenv("EDITOR", editor)
    with pytest.raises(Exception, match=says):
        call(config_app, "edit")


# pjlocal prefs


def test_own_presets_stand_beside_the_built_in_ones(write) -> None:
    call(prefs_app, "add", "pirate", "Talk like a pirate.")
    call(prefs_app, "add", "long", "-", stdin="Two\nlines.\n")
    listed = call(prefs_app, "list").splitlines()
    assert len(listed) == len(preferences.PRESETS) + 2
    assert listed[0].split(maxsplit=2) == ["helpful", "built-in", preferences.PRESETS["helpful"]]
    assert [line.split(maxsplit=2) for line in listed[-2:]] == [
        ["pirate", "own", "Talk like a pirate."],
        ["long", "own", "Two lines."],
    ]
    assert call(prefs_app, "show", "long") == "Two\nlines.\n"
    assert call(prefs_app, "show", "vivid") == preferences.PRESETS["vivid"] + "\n"
    assert "pirate" not in preferences.PRESETS
    with pytest.raises(UsageError, match=r"unknown preset 'pirat': did you mean pirate"):
        call(prefs_app, "show", "pirat")


def test_own_presets_are_preferences_by_name_whatever_the_case(write) -> None:
    write('prefer = ["Pirate"]\n[presets]\nPIRATE = "Talk like a pirate."\n"fröhlich" = "Be glad."\n')
    assert preferences.prefix(settled()["prefer"]) == "Talk like a pirate."
    assert preferences.resolve("fröhlich") == "Be glad."
    with pytest.raises(UsageError, match=r"unknown preset 'pirat': did you mean pirate"):
        preferences.resolve("pirat")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("add", "vivid", "x y"), "'vivid' is a built-in preset: give yours another name"),
        (("add", "Vivid", "x y", "--force"), "'Vivid' is a built-in preset"),
        (("add", "two words", "x y"), "a preset's name is one bare word"),
        (("add", "@file", "x y"), "a preset's name is one bare word"),
        (("add", "new", " "), "the preset 'new' is empty"),
        (("add", "new", "-"), "the preset 'new' is empty"),
        (("add", "new", "@missing.txt"), "cannot read preference file missing.txt"),
        (("add", "Pirate", "x y"), "there is a preset 'pirate' already: --force replaces it"),
        (("rm", "vivid"), "cannot remove the preset 'vivid': it is built in"),
        (("rm", "new"), "cannot remove the preset 'new': there is none in .*config.toml"),
    ],
)
def test_presets_that_cannot_be_are_refused(write, file, args, says) -> None:
    write('[presets]\npirate = "Talk like a pirate."\n')
    before = file.read_text()
    with pytest.raises(UsageError, match=says):
        call(prefs_app, *args)
    assert file.read_text() == before


def test_adding_and_removing_presets_keeps_comments_and_layout(write, file) -> None:
    before = (
        "# mine\nmodel  =  'x' # this one\n\n[presets]   # my own\n# of the sea\npirate = 'Talk like a pirate.' # arr\n"
        "\n# the filters\n[sampling]\ntop_k=1\n"
    )
    write(before)
    file.chmod(0o640)
    call(prefs_app, "add", "rhyme", "Answer in rhyme.")
    added = before.replace("# arr\n", '# arr\nrhyme = "Answer in rhyme."\n')
    assert file.read_text() == added
    call(prefs_app, "add", "Rhyme", "Rhyme, please.", "--force")
    assert file.read_text() == added.replace("Answer in rhyme.", "Rhyme, please.")
    call(prefs_app, "rm", "RHYME")
    assert file.read_text() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"], "no temporary file is left"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "model = 'x'",
        "[sampling]\ntop_k = 1\n# end\n\n\n",
        "presets = {a = 'A a'}\nsave = true\n",
        "presets.a = 'A a'\nsave = true\npresets.b = 'B b'\n[engine]\n",
        "[presets]\n\n# the filters\n[sampling]\n",
        "\ufeff[presets]\r\na = 'A a'\r\n\r\n[sampling]\r\n",
    ],
)
@pytest.mark.parametrize("text", ["Be new.", 'Say "so" \\ \t\u001b or\n\'\'\'""" that"', "Grüße,\u2028海盗"])
def test_a_preset_can_be_added_to_any_file(write, before, text) -> None:
    write(before)
    old = load_config()
    call(prefs_app, "add", "new", text)
    assert load_config() == Config(
        **{**vars(old), "presets": {**old.presets, "new": text}},
    )
    call(prefs_app, "rm", "new")
    assert load_config() == old


def test_a_link_stays_a_link_and_what_is_no_file_is_not_replaced(write, file, tmp_path, monkeypatch) -> None:
    write("")
    real = tmp_path / "real.toml"
    file.rename(real)
    file.symlink_to(real)
    call(prefs_app, "add", "new", "Be new.")
    assert file.is_symlink() and "Be new." in real.read_text()
    monkeypatch.setenv("PJLOCAL_CONFIG", "/dev/null")
    with pytest.raises(OutputError, match="cannot write /dev/null: it is not a plain file"):
        call(prefs_app, "add", "new", "Be new.")


def test_a_broken_file_is_not_edited(write, file) -> None:
    write("[presets\n")
    with pytest.raises(UsageError, match="line 1: this is not TOML"):
        call(prefs_app, "add", "new", "Be new.")
    assert file.read_text() == "[presets\n"
