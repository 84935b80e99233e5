"""config.toml: its settings, their order of precedence, and the messages for wrong values."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import one_line
from config_file import call, settled
from config_file import file as file
from config_file import write as write

from pjlocal.cli.app import app
from pjlocal.config.config import TABLES, Config, config_path, load_config
from pjlocal.errors import UsageError
from pjlocal.prompting import preferences
from pjlocal.settings import Engine, Generation, Prompting, Sampling

# What the file may set.


def test_without_a_file_everything_has_its_default() -> None:
    assert load_config() == Config()
    values = settled()
    assert values["model"] is None and values["views"] == [[], []] and values["view"] == "text"
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
        n_gpu_layers = 20      # or "auto" or "all"
        verbose = true
    """)
    values = settled()
    assert values["model"] == "mine.gguf"
    assert values["views"] == [["vivid"], ["Answer in rhyme"]]
    assert values["view"] == "blame"
    assert values["generation"] == Generation(lam=6, stop=("END",), mode="base")
    assert values["sampling"] == Sampling(temperature=1.0)
    assert values["prompting"] == Prompting(placement="user-turn")
    assert values["engine"] == Engine(n_ctx=2048, n_gpu_layers="20", verbose=True)
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
    assert values["views"] == [["concise"], []]
    assert values["sampling"] == Sampling(json_schema="{}")
    assert settled("--regex", "a+")["sampling"] == Sampling(regex="a+")
    write('draft_prefer = ["vivid"]\njudge_prefer = ["creative"]\n')
    values = settled("-p", "concise")
    assert values["views"] == [["concise"], []]
    assert settled("--draft-prefer", "concise")["views"] == [["concise"], ["creative"]]


def test_an_option_can_turn_off_what_the_file_turns_on(write, file) -> None:
    on = {"ignore_end": "true", "stop": '["a"]', "avoid": '["formal"]', "aligner": '"smollm2"'}
    write("\n".join(("[generation]", *(f"{key} = {value}" for key, value in on.items()),
                     '[sampling]\nregex = "a"\n[engine]\nmlock = true\nverbose = true')))  # fmt: skip
    values = settled("--no-ignore-end", "--stop", "", "--avoid", "", "--aligner", "", "--regex", "",
                     "--no-mlock", "--no-verbose")  # fmt: skip
    assert (values["generation"], values["sampling"], values["engine"]) == (Generation(), Sampling(), Engine())
    for form in ("grammar", "json_schema", "lark"):
        write(f"[sampling]\n{form} = 'file'\n")
        (file.parent / "file").write_text("{}")
        assert settled(f"--{form.replace('_', '-')}", "")["sampling"] == Sampling()


def test_an_empty_option_has_no_effect_where_the_file_sets_nothing() -> None:
    texts = ("strength", "avoid", "aligner", "lora", "stop", "stop-token", "grammar", "json-schema", "regex", "rpc")
    empty = [word for name in texts for word in (f"--{name}", "")]
    assert settled(*empty) == settled()


def test_files_that_it_names_are_found_from_where_it_is(write, file, tmp_path) -> None:
    write('prefer = ["@mine.txt", "vivid"]\n[sampling]\ngrammar = "a.gbnf"\n')
    (file.parent / "mine.txt").write_text("Answer like a pirate.")
    (file.parent / "a.gbnf").write_text("root ::= [a-z]\n")
    values = settled()
    assert values["sampling"].grammar == "root ::= [a-z]"
    assert preferences.prefix(values["views"][0]).startswith("Answer like a pirate.")
    (tmp_path / "b.gbnf").write_text("root ::= [0-9]\n")
    write(f"[sampling]\ngrammar = '{tmp_path / 'b.gbnf'}'\n")
    assert settled()["sampling"].grammar == "root ::= [0-9]"


def test_help_shows_the_built_in_defaults_and_does_not_need_the_file(write) -> None:
    plain = call(app, "run", "--help")
    assert re.search(r"--max-tokens .*1024", plain)
    for text in ("[generation]\nmax_tokens = 7\n", "broken ="):
        write(text)
        assert call(app, "run", "--help") == plain
    assert "--context" not in plain


def test_starting_up_loads_neither_tomlkit_nor_numpy() -> None:
    heavy = {"tomlkit", "numpy", "llama_cpp", "rich", "platformdirs"}
    code = f"import pjlocal.cli.main, sys; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_constraints_in_the_file_are_compiled_only_by_commands_that_check_it(write, monkeypatch) -> None:
    code = "import pjlocal.config.config as c, sys; c.load_config(); print({'numpy', 'llguidance'} & set(sys.modules))"
    monkeypatch.setenv("EDITOR", "true")
    for table in ("sampling", "personas.p"):
        write(f"[{table}]\nregex = '('")
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
        for command in (["config", "show"], ["config", "edit"]):
            with pytest.raises(UsageError, match=rf": \[{table}\] regex: the regular expression cannot be used: uncl"):
                call(app, *command)


# What is said when it is wrong.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "\n# x\n[sampling]\ntemprature = 1",
            ": unknown key 'temprature' in [sampling]: did you mean temperature?",
        ),
        ("[generation]\nrule = 'mod'", ": unknown key 'rule' in [generation]: it was removed, and mode both adds"),
        ("[generation]\npanel = false", ": unknown key 'panel' in [generation]: it was removed, and preferences of"),
        ("[generation]\nlambda = 3", ": unknown key 'lambda' in [generation]: did you mean lam?"),
        ("[engine]\nctx = 9", ": unknown key 'ctx' in [engine]: did you mean n_ctx?"),
        ("[engine]\nthreads = 1", ": unknown key 'threads' in [engine]: did you mean n_threads?"),
        ("threads = 1", ": unknown key 'threads': it belongs in [engine] as n_threads"),
        ("temperature = 1", ": unknown key 'temperature': it belongs in [sampling]"),
        ("[sampling]\nmodel = 'x'", ": unknown key 'model' in [sampling]: it belongs at the top"),
        ("top_keys = 1", ": unknown key 'top_keys': known are prefer, draft_prefer, judge_prefer, generation,"),
        ("[samplng]\ntop_k = 1", ": unknown key 'samplng': did you mean sampling?"),
        ("[prompting]\nzzz = 1", ": unknown key 'zzz' in [prompting]: known are system, placement"),
        ("sampling.top_k = 1.5", ": [sampling] top_k must be a whole number (not 1.5)"),
        ("engine = {n_ctx = true}", ": [engine] n_ctx must be a whole number (not true)"),
        ("[sampling]\ntemperature = 'hot'", ": [sampling] temperature must be a number (not 'hot')"),
        ("[sampling]\ntop_p = 0", ": [sampling] top_p must be above 0 (not 0.0)"),
        ("[sampling]\nmin_p = nan", ": [sampling] min_p must be a finite number"),
        ("[sampling]\nlogit_bias = ['foo']", ": [sampling] logit_bias 'foo' is not TOKEN=BIAS"),
        ("model = ''", ": model: the name is empty: name a model"),
        ("[generation]\nlam = 0", ": [generation] lam must be at least 1 (not 0)"),
        (
            "[generation]\nmode = 'jugde'",
            ": [generation] mode must be one of judge, base, both, prompt, rewrite, plain (not 'jugde')",
        ),
        ("[generation]\nstop = 'x'", ": [generation] stop must be a list of texts"),
        ("[generation]\nstop = [\n  'x',\n  '',\n]", ": [generation] stop must not be empty"),
        ("view = 'blam'", ": view must be one of text, blame, push, markdown (not 'blam')"),
        ("save = 1", ": save must be true or false (not 1)"),
        ("sampling = 3", ": sampling must be a table, as in [sampling]"),
        ("[server]\nurl = 'x'", ': server must be true, false or a URL, as in server = "http://localhost:8473"'),
        ("server = 8473", ": server must be true, false or a URL"),
        ("prefer = ['vivid',\n  'vivdi']", ": prefer: unknown preset 'vivdi': did you mean vivid?"),
        ("prefer = ['vivid']\ndraft_prefer = ['concise']", ": draft_prefer: prefer excludes draft_prefer"),
        ("[sampling]\n\ngrammar = 'no.gbnf'", ": [sampling] grammar: cannot read grammar file"),
        (
            "[sampling]\njson_schema = 's.json'\ngrammar = 's.json'",
            ": [sampling] grammar and json_schema exclude each other",
        ),
        ("[presets]\nvivid = 'x'", ": 'vivid' is a built-in preset: give yours another name"),
        ("[presets]\n'two words' = 'x'", ": a preset's name is one bare word"),
        ("[presets]\nmine = 1", ": [presets] mine must be a text in quotes (not 1)"),
        ("[presets]\nmine = ' '", ": the preset 'mine' is empty"),
        ("[presets]\nmine = 'x'\nMine = 'x'", ": [presets] Mine: two presets are named 'mine'"),
        ("save = true\n\nmodel = smollm2", " line 3 is not valid TOML"),
        ("prefer = [\n  'vivid'\n  'concise'\n]", " line 3 is not valid TOML"),
        ("save = true\nmodel = '''\n\n\nx", " line 5 is not valid TOML: it ends too early"),
        ("save = true\n\nsave = false\nview = 'text'", ' is not valid TOML: Key "save" already exists'),
        ("[engine]\n[sampling]\ntop_k = 1\n[engine]\nn_ctx = 9\n", ' is not valid TOML: Key "engine" already exists'),
    ],
)
def test_an_error_names_its_table_and_key(write, file, text, says) -> None:
    write(text)
    (file.parent / "s.json").write_text("{}")
    with pytest.raises(UsageError, match=re.escape(f"config.toml{says}")):
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


@pytest.mark.slow
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
    assert "config.toml: unknown key 'temprature' in [sampling]" in one_line(result.stderr)


def test_a_model_path_in_the_file_is_relative_to_the_file(write, file, tmp_path) -> None:
    def model(name: str) -> str:
        write(f"model = {json.dumps(name)}\n")
        return settled()["model"]

    there = file.parent
    for name, found in (
        ("sub/x.gguf", there / "sub" / "x.gguf"),
        ("./x.gguf", there / "x.gguf"),
        ("../x.gguf", there / ".." / "x.gguf"),
        (str(tmp_path / "x.gguf"), tmp_path / "x.gguf"),
        ("~/x.gguf", Path.home() / "x.gguf"),
    ):
        assert model(name) == str(found)
    for name in ("x.gguf", "smollm2", "~x.gguf"):
        assert model(name) == name, "a name is looked up"
        (there / name).touch()
    for name in ("org/repo", "org/repo:Q8_0", "hf.co/org/repo:Q8_0"):
        assert model(name) == name, "a repository's name, or Ollama's"
    assert model("x.gguf") == str(there / "x.gguf") and model("~x.gguf") == str(there / "~x.gguf")
    assert model("smollm2") == "smollm2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = '~nosuchuser/x.gguf'", ": model: cannot use the path ~nosuchuser/x.gguf: no home folder is known"),
        ('model = "a/\\u0000"', ": model: 'a/\\x00' cannot be the name of a file"),
        ("prefer = ['@~nosuchuser/x']", ": prefer: cannot use the path ~nosuchuser/x: no home"),
        (
            "[generation]\naligner = '~nosuchuser/x'",
            ": [generation] aligner: cannot use the path ~nosuchuser/x: no home",
        ),
        ("[sampling]\ngrammar = '~nosuchuser/x'", ": [sampling] grammar: cannot use the path ~nosuchuser/x: no home"),
        ('[sampling]\ngrammar = "\\u0000"', ": [sampling] grammar: '\\x00' cannot be the name of a file"),
    ],
)
def test_a_path_that_cannot_be_is_named_with_its_key(write, text, says) -> None:
    write(text)
    with pytest.raises(UsageError, match=re.escape(f"config.toml{says}")):
        load_config()


def test_a_model_of_the_file_may_be_a_repository(write, file) -> None:
    write('model = "org/repo:Q4_K_M"\n')
    assert load_config().model == "org/repo:Q4_K_M"
    there = file.parent / "org" / "repo"
    there.mkdir(parents=True)
    write('model = "org/repo"\n[generation]\naligner = "org/other"\n')
    assert load_config().model == str(there)
    assert load_config().generation["aligner"] == "org/other"
