"""Personas: preferences and settings under a name, in config.toml and on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from config_file import call, settled
from config_file import file as file
from config_file import write as write

from pjlocal.cli.config import config_app, prefs_app
from pjlocal.config.config import load_config
from pjlocal.errors import UsageError
from pjlocal.prompting import preferences
from pjlocal.request import Overrides, Request
from pjlocal.settings import Generation, Prompting, Sampling

FILE = """
prefer = ["vivid"]
[generation]
lam = 6
floor = 0.3
[presets]
pirate = "Talk like a pirate."
[personas.pirate-brief]
prefer = ["pirate:1.5", "concise"]
mode = "both"
floor = 0.05
avoid = ["formal:2"]
temperature = 1
system = "You cook."
[personas.Placed]
judge_prefer = ["formal"]
"""


def test_a_persona_goes_before_the_file_and_an_option_before_both(write) -> None:
    write(FILE)
    values = settled("-P", "Pirate-Brief", "--floor", "0.2")
    assert values["views"] == [["pirate:1.5"], ["concise"]]
    assert preferences.prefix(["pirate:1.5"]) == "Talk like a pirate."
    assert values["generation"] == Generation(mode="both", floor=0.2, avoid=("formal:2",), lam=6)
    assert values["sampling"] == Sampling(temperature=1.0) and values["prompting"] == Prompting(system="You cook.")
    assert settled()["generation"] == Generation(lam=6, floor=0.3), "nobody wears one unasked"
    assert settled("-P", "pirate-brief", "-p", "simple")["views"] == [["simple"], []]


def test_numbers_may_be_written_in_either_way(write) -> None:
    write("[generation]\nstrength = 1.5\nlam = 6.0\nseed = -1\n[personas.strong]\nstrength = 2")
    assert settled()["generation"] == Generation(strength="1.5", lam=6, seed=None)
    assert settled("-P", "strong")["generation"].strength == "2"


def test_preferences_that_a_persona_places_set_those_aside_that_the_file_deals_out(write) -> None:
    write(FILE)
    values = settled("--persona", "placed")
    assert values["views"] == [[], ["formal"]]
    values = settled("--persona", "pirate-brief", "--draft-prefer", "simple")
    assert values["views"] == [["simple"], []]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pirate-breif", "unknown persona 'pirate-breif': did you mean pirate-brief?"),
        ("", "unknown persona '': known are pirate-brief, placed"),
        ("Vivid", "'Vivid' is a preset: use -p Vivid"),
        ("pirate", "'pirate' is a preset: use -p pirate"),
    ],
)
def test_an_unknown_persona_is_refused_with_the_nearest_name(write, name: str, says: str) -> None:
    write(FILE)
    with pytest.raises(UsageError, match=re.escape(says)):
        settled("-P", name)


def test_a_persona_that_is_given_as_a_preference_is_named_as_one(write) -> None:
    write(FILE)
    settled()
    for name in ("pirate-brief", "Placed"):
        with pytest.raises(UsageError, match=f"'{name}' is a persona: use -P {name}"):
            preferences.resolve(name)


def test_without_personas_the_error_says_how_to_add_one() -> None:
    with pytest.raises(UsageError, match="unknown persona 'x': pjlocal prefs save NAME saves one"):
        settled("-P", "x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("personas = 3", ": personas must be a table, as in [personas.NAME]"),
        ("[personas]\nmine = 3", ": [personas] mine: personas.mine must be a table, as in [personas.mine]"),
        ("[personas.'two words']\nlam = 3", ": a persona's name is one bare word"),
        ("[personas.vivid]\nlam = 3", ": a preset is named 'vivid': give the persona another name"),
        ("[personas.a]\nlam = 3\n[personas.A]\nlam = 3", ": [personas] A: two personas are named 'a'"),
        ("[personas.a]\nrule = 'mod'", ": unknown key 'rule' in [personas.a]: it was removed, and mode both adds"),
        ("[personas.a]\nlam = 3\n\nmod = 'both'", ": unknown key 'mod' in [personas.a]: did you mean mode"),
        ("[personas.a]\nn_ctx = 300", ": unknown key 'n_ctx' in [personas.a]: it belongs in [engine]"),
        ("[personas.a]\nmodel = 'x'", ": unknown key 'model' in [personas.a]: it belongs at the top"),
        (
            "[personas.a]\nmode = 'bth'",
            ": [personas.a] mode must be one of judge, base, both, prompt, rewrite, plain (not 'bth')",
        ),
        ("[personas.a]\nfloor = 1", ": [personas.a] floor must be below 1 (not 1.0)"),
        ("[personas.a]\nstrength = true", ": [personas.a] strength must be a number or a text in quotes (not true)"),
        (
            "[personas.a]\nstrength = 'hard'",
            ": [personas.a] strength: a strength is a number from -10 to 10, or auto (not 'hard')",
        ),
        ("[personas.a]\nprefer = ['vivdi']", ": [personas.a] prefer: unknown preset 'vivdi': did you mean vivid?"),
        (
            "[personas.a]\nlam = 2\navoid = ['vivdi']",
            ": [personas.a] avoid: unknown preset 'vivdi': did you mean vivid?",
        ),
        (
            "[personas.a]\nprefer = ['vivid']\ndraft_prefer = ['formal']",
            ": [personas.a] draft_prefer: prefer excludes draft_prefer",
        ),
        ("[generation]\navoid = ['vivdi']", ": [generation] avoid: unknown preset 'vivdi': did you mean vivid?"),
        ("prefer = ['vivid:12']", ": prefer: the preference 'vivid:12': a strength is a number from -10 to 10"),
    ],
)
def test_an_error_in_a_persona_names_its_table_and_key(write, text: str, says: str) -> None:
    write(text)
    with pytest.raises(UsageError, match=re.escape(f"config.toml{says}")):
        load_config()


def test_files_that_personas_and_settings_name_are_found_from_where_the_file_is(write, file) -> None:
    write('[generation]\navoid = ["@dull.txt:2"]\n[personas.x]\nprefer = ["@odd.txt:1.5"]\ngrammar = "a.gbnf"\n')
    (file.parent / "odd.txt").write_text("Be odd.")
    (file.parent / "dull.txt").write_text("Be dull.")
    (file.parent / "a.gbnf").write_text("root ::= [a-z]")
    values = settled("-P", "x")
    assert preferences.prefix(values["views"][0]) == "Be odd." and values["views"][0][0].endswith("odd.txt:1.5")
    assert preferences.prefix(values["generation"].avoid) == "Be dull."
    assert values["sampling"].grammar == "root ::= [a-z]"


def test_adapters_that_a_persona_names_are_found_from_where_the_file_is(write, file) -> None:
    write('[personas.x]\nlora_a = ["pirate.gguf:0.5"]\ncontrol_vector = ["/calm.gguf"]\n')
    generation = settled("-P", "x")["generation"]
    assert generation.lora_a == (f"{file.parent}/pirate.gguf:0.5",)
    assert generation.control_vector == ("/calm.gguf",)
    call(prefs_app, "save", "y", "--lora-b", "other.gguf:2")
    assert settled("-P", "y")["generation"].lora_b == (f"{Path.cwd()}/other.gguf:2",)
    write('[personas.x]\nlora = ["a.gguf:5000"]\n')
    with pytest.raises(UsageError, match=r"\[personas\.x\] lora: .*a scale is a number from -1000 to 1000"):
        load_config()


# pjlocal prefs, pjlocal config


def test_a_persona_is_saved_from_options_listed_shown_and_removed(write, file) -> None:
    before = "# mine\nprefer = ['vivid']\n\n# of the sea\n[presets]\npirate = 'Talk like a pirate.'\n"
    write(before)
    options = ("-p", "pirate:1.5", "-p", "concise", "--mode", "both", "--avoid", "formal", "-t", "1")
    call(prefs_app, "save", "brief", *options)
    added = 'prefer = ["pirate:1.5", "concise"]\nmode = "both"\navoid = ["formal"]\ntemperature = 1.0\n'
    assert file.read_text() == f"{before}\n[personas.brief]\n{added}"
    assert call(prefs_app, "show", "Brief") == added
    assert call(prefs_app, "list").splitlines()[-1] == "brief         persona   " + added.strip().replace("\n", ", ")
    assert 'file        personas.brief.mode = "both"' in call(config_app, "show").splitlines()
    call(prefs_app, "save", "briefer", "-P", "brief", "--floor", "0.2")
    assert load_config().personas["briefer"].flat() == load_config().personas["brief"].flat() | {"floor": 0.2}
    call(prefs_app, "save", "BRIEF", "--system", 'A "cook"', "--force")
    assert load_config().personas["brief"] == Overrides(prompting={"system": 'A "cook"'})
    call(prefs_app, "rm", "brief")
    call(prefs_app, "rm", "Briefer")
    assert file.read_text() == before


def test_removing_a_persona_keeps_the_comment_of_the_next_table(write, file) -> None:
    write("[personas.a]\nsystem = '''\n[not a table]\n'''\n")
    with pytest.raises(UsageError, match=r"cannot separate \[personas.a\] from the rest"):
        call(prefs_app, "rm", "a")
    write("personas = {a = {lam = 3}, b = {lam = 4}}\n")
    with pytest.raises(UsageError, match="change it with pjlocal config edit"):
        call(prefs_app, "rm", "a")
    with pytest.raises(UsageError, match="has its personas in one line: change it with pjlocal config edit"):
        call(prefs_app, "save", "c", "-l", "3")
    write("[personas.b]\nlam = 2\n[personas.a]  # short\nstop = [\n  'x',\n]\n\n# the filters\n[sampling]\ntop_k = 1\n")
    call(prefs_app, "rm", "A")
    assert file.read_text() == "[personas.b]\nlam = 2\n\n# the filters\n[sampling]\ntop_k = 1\n"


def test_a_persona_names_its_files_in_full(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "odd.txt").write_text("Be odd.")
    monkeypatch.chdir(tmp_path)
    call(prefs_app, "save", "odd", "-p", "@odd.txt:2", "-p", "vivid")
    assert load_config().personas["odd"].prefer == (f"@{tmp_path}/odd.txt:2", "vivid")


def test_a_persona_names_its_aligner_so_that_it_means_the_same_file_everywhere(
    write, tmp_path: Path, monkeypatch
) -> None:
    write("")
    (tmp_path / "j.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    for name, saved in (("./j.gguf", str(tmp_path / "j.gguf")), ("smollm2", "smollm2"), ("org/none", "org/none")):
        call(prefs_app, "save", "better", "--mode", "rewrite", "--aligner", name, "--force")
        assert load_config().personas["better"].generation["aligner"] == saved


def test_a_persona_may_set_the_seed_to_random(write) -> None:
    write("[generation]\nseed = 5\n")
    call(prefs_app, "save", "any", "--seed", "-1")
    assert call(prefs_app, "show", "any") == "seed = -1\n"
    assert Request().override(load_config()).override(load_config().persona("any")).generation.seed is None


def test_an_empty_option_sets_nothing_in_a_persona(write) -> None:
    write("[personas.old]\nregex = 'a+'\nlam = 3\n")
    call(prefs_app, "save", "new", "-P", "old", "--regex", "", "--json-schema", "", "--strength", "")
    assert load_config().personas["new"].flat() == {"lam": 3}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("save", "x"), "give the settings of the persona, as in: pjlocal prefs save brief -p concise"),
        (("save", "vivid", "-l", "3"), "a preset is named 'vivid': give the persona another name"),
        (("save", "two words", "-l", "3"), "a persona's name is one bare word"),
        (("save", "There", "-l", "3"), "the persona 'there' exists already: --force replaces it"),
        (("save", "x", "-p", "vivdi"), "unknown preset 'vivdi'"),
        (("save", "x", "-p", "a b:2", "-p", "c d", "-p", "e f", "--mode", "base"), "or use --mode both"),
        (("save", "x", "--regex", "("), "the regular expression cannot be used: unclosed group"),
        (("save", "x", "-p", "vivid", "--aligner", ""), "a persona cannot unset --aligner: leave it out"),
        (("save", "x", "--grammar", "g.gbnf"), 'leave --grammar out, and write grammar = "FILE" below [personas.x] in'),
        (("add", "there", "Be there."), "a persona is named 'there': give the preset another name"),
        (("show", "thre"), "unknown preset 'thre': did you mean there"),
        (("rm", "thre"), "cannot remove the preset 'thre': "),
    ],
)
def test_personas_that_cannot_be_are_refused(write, file, tmp_path, monkeypatch, args, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.gbnf").write_text("root ::= [a-z]")
    write("[personas.there]\nlam = 3\n[generation]\naligner = 'smollm2'\n")
    before = file.read_text()
    with pytest.raises(UsageError, match=re.escape(says)):
        call(prefs_app, *args)
    assert file.read_text() == before
