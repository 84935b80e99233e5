"""`pjlocal prefs` keeps the user's own presets, and leaves the rest of the file as it was."""

from __future__ import annotations

import stat

import pytest
from commandline import one_line
from config_file import call, settled
from config_file import file as file
from config_file import write as write

from pjlocal.cli.config import prefs_app
from pjlocal.config.config import Config, load_config
from pjlocal.errors import OutputError, UsageError
from pjlocal.prompting import preferences

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
    write(
        'prefer = ["Pirate"]\n[presets]\nPIRATE = "Talk like a pirate."\n"fröhlich" = "Be glad."\n'
        '"मज़ेदार" = "Be funny."\n"cafe\u0301" = "Sit."\nf = "Be formal."\n'
    )
    assert preferences.prefix(settled()["views"][0]) == "Talk like a pirate."
    assert preferences.resolve("fröhlich") == preferences.resolve("fro\u0308hlich") == "Be glad."
    assert preferences.resolve("मज़ेदार") == "Be funny." and preferences.resolve("CAFÉ") == "Sit."
    assert preferences.resolve("f") == "Be formal."
    with pytest.raises(UsageError, match=r"unknown preset 'pirat': did you mean pirate"):
        preferences.resolve("pirat")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("add", "vivid", "x y"), "'vivid' is a built-in preset: give yours another name"),
        (("add", "Vivid", "x y", "--force"), "'Vivid' is a built-in preset"),
        (("add", "A", "x y"), "'A' has a meaning in /prefer or /avoid: give the preset another name"),
        (("add", "default", "x y"), "'default' has a meaning in /prefer"),
        (("add", "two words", "x y"), "a preset's name is one bare word"),
        (("add", "@file", "x y"), "a preset's name is one bare word"),
        (("add", "new", " "), "the preset 'new' is empty"),
        (("add", "new", "-"), "the preset 'new' is empty"),
        (("add", "new", "@missing.txt"), "cannot read preference file missing.txt"),
        (("add", "Pirate", "x y"), "the preset 'pirate' exists already: --force replaces it"),
        (("rm", "vivid"), "cannot remove the preset 'vivid': it is built in"),
        (("rm", "new"), "cannot remove the preset 'new': .*config.toml does not contain it"),
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
        "presets = {one = 'A a'}\nsave = true\n",
        "presets.one = 'A a'\nsave = true\npresets.two = 'B b'\n[engine]\n",
        "[presets]\n\n# the filters\n[sampling]\n",
        "\ufeff[presets]\r\none = 'A a'\r\n\r\n[sampling]\r\n",
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


@pytest.mark.parametrize(
    ("user", "where"),
    [
        ("prefer = ['Pirate:2', 'vivid']\n", "prefer"),
        ("[generation]\navoid = ['pirate']\n", "generation.avoid"),
        ("[personas.brief]\nprefer = ['vivid', 'pirate:1.5']\n", "personas.brief.prefer"),
    ],
)
def test_a_preset_that_is_in_use_is_not_removed_which_would_leave_a_file_that_nothing_reads(
    write, file, user: str, where: str
) -> None:
    before = user + "[presets]\npirate = 'Talk like a pirate.'\n"
    write(before)
    with pytest.raises(UsageError, match=f"cannot remove the preset 'Pirate': {where} in .*config.toml names it$"):
        call(prefs_app, "rm", "Pirate")
    assert file.read_text() == before


def test_a_link_stays_a_link_and_a_device_is_not_replaced(write, file, tmp_path, monkeypatch) -> None:
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
    with pytest.raises(UsageError, match="line 1 is not valid TOML"):
        call(prefs_app, "add", "new", "Be new.")
    assert file.read_text() == "[presets\n"


@pytest.mark.parametrize("name", ["talk like a poet", "step by step", "@/etc/hostname"])
def test_show_prints_presets_and_personas_alone(pjlocal, name) -> None:
    shown = pjlocal("prefs", "show", name)
    assert (shown.returncode, shown.stdout) == (2, "") and f"unknown preset {name!r}: " in one_line(shown.stderr)


def test_half_a_character_is_refused_in_a_line(pjlocal, write, file, tmp_path) -> None:
    write("")
    (tmp_path / "card.json").write_text('{"name": "Ann", "description": "cut \\ud83d"}')
    refused = pjlocal("prefs", "import", "card.json")
    assert refused.returncode == 1 and "is not a character" in one_line(refused.stderr)
    assert file.read_text() == ""
