"""`pjlocal config` shows what is in force, and opens the file in an editor."""

from __future__ import annotations

import re
import shlex
import stat
import sys
from typing import get_type_hints

import pytest
from config_file import call, settled
from config_file import file as file
from config_file import write as write

from pjlocal.cli.config import config_app
from pjlocal.config.config import TABLES, Config, load_config
from pjlocal.errors import UsageError

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
    with pytest.raises(UsageError, match=": save must be true or false"):
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
