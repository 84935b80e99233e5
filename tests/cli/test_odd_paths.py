"""Every path that a user can give may be of any bytes, and one that cannot be is told in a line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from commandline import PREFER, one_line
from served import serving

ODD = os.fsdecode(b"caf\xe9")  # not UTF-8
NOBODY = "~nosuchuser/x"


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("run", "-m", f"{NOBODY}.gguf", "hi"), 1),
        (("chat", "-m", f"{NOBODY}.gguf"), 1),
        (("bench", "--quick", "-m", f"{NOBODY}.gguf"), 1),
        (("run", "-p", f"@{NOBODY}", "hi"), 2),
        (("run", "--trace", NOBODY, "hi"), 2),
        (("run", "--grammar", NOBODY, "hi"), 2),
        (("run", "--json-schema", NOBODY, "hi"), 2),
        (("sessions", "export", "x", f"{NOBODY}.md"), 1),
        (("prefs", "add", "mine", f"@{NOBODY}"), 2),
    ],
)
def test_the_home_of_an_unknown_user_is_reported_in_one_line(
    pjlocal, environment, tmp_path: Path, tiny, args, status
) -> None:
    if args[0] == "sessions":
        pjlocal("chat", "-m", tiny("llama"), "-n", "2", "--session", "x", stdin="hi\n")
    result = pjlocal(*args)
    assert "cannot use the path ~nosuchuser/x" in one_line(result.stderr) and result.returncode == status
    assert not (tmp_path / "~nosuchuser").exists()


@pytest.mark.parametrize(
    ("variable", "args", "status"),
    [
        ("PJLOCAL_DATABASE", ("chat",), 2),
        ("PJLOCAL_DATABASE", ("sessions", "list"), 2),
        ("PJLOCAL_CONFIG", ("run", "hi"), 2),
        ("PJLOCAL_MODEL", ("run", "hi"), 1),
    ],
)
def test_the_home_of_an_unknown_user_in_the_environment_is_reported(
    pjlocal, environment, variable: str, args, status: int
) -> None:
    environment[variable] = NOBODY
    result = pjlocal(*args)
    assert f"cannot use the path {NOBODY}" in one_line(result.stderr) and result.returncode == status


@pytest.mark.parametrize(
    "args",
    [
        ("run", "-p", "@FILE", "hi"),
        ("run", "--json-schema", "FILE", "hi"),
        ("run", "--grammar", "FILE", "hi"),
        ("sessions", "import", "FILE"),
        ("prefs", "import", "FILE"),
        ("eval", "run", "FILE", "-o", "out"),
        ("config", "show"),
        ("prefs", "add", "mine", "a b"),
    ],
)
def test_a_file_without_an_end_is_read_to_a_limit(pjlocal, environment, args: tuple[str, ...]) -> None:
    if args in (("config", "show"), ("prefs", "add", "mine", "a b")):
        environment["PJLOCAL_CONFIG"] = "/dev/full"
    result = pjlocal(*(arg.replace("FILE", "/dev/zero") for arg in args))
    assert re.search(r"/dev/(zero|full) is larger than (64|256) MiB", one_line(result.stderr))
    assert result.returncode == 2


def test_a_chat_continues_after_an_invalid_path(pjlocal, tiny) -> None:
    lines = [f"/model {NOBODY}", f"/export {NOBODY}.md", f"/set grammar {NOBODY}", f"/prefer @{NOBODY}"]
    lines += [f"/model {'n' * 300}", f"/model /{'n' * 300}", "/model a\0b", "/model a\0/b", "/export a\0.md"]
    lines += ["/prefer @a\0b", "/set grammar a\0b", "/load a\0b"]
    result = pjlocal("chat", "-m", tiny("llama"), "--regex", "a", stdin="\n".join(["Why?", *lines, "How?\n"]))
    said = result.stderr.splitlines()
    assert len(said) == len(lines) and all(line.startswith("pjlocal: ") for line in said), said
    assert all("no home folder is known for ~nosuchuser" in line for line in said[:4])
    assert pjlocal("sessions", "list").stdout.split()[3] == "2"


@pytest.fixture
def odd_model(tiny, tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / f"{ODD}.gguf"
    path.symlink_to(tiny("llama"))
    return path


@pytest.mark.slow
def test_a_model_whose_name_is_not_utf8_is_used_shown_saved_and_exported(pjlocal, odd_model, tmp_path: Path) -> None:
    for name in (ODD, f"{ODD}.gguf", str(odd_model)):
        result = pjlocal("run", "-m", name, *PREFER, "--regex", "a", "--json", "hi")
        assert json.loads(result.stdout)["model"] == odd_model.name and result.stderr == ""
    assert (
        pjlocal("chat", "-m", ODD, "--save-cache", *PREFER, "--regex", "a", "--session", "x", stdin="Why?\n").returncode
        == 0
    )
    assert pjlocal("chat", "--continue", "--save-cache", stdin="Why?\n/model\n").stderr.startswith("pjlocal: caf")
    (listed,) = json.loads(pjlocal("sessions", "list", "--json").stdout)
    assert listed["model"] == str(odd_model) and listed["n_turns"] == 2
    assert "caf" in pjlocal("sessions", "list").stdout and "caf" in pjlocal("sessions", "show", "x").stdout
    for form in ("md", "json", "html"):
        assert pjlocal("sessions", "export", "x", f"{ODD}.{form}").returncode == 0
        text = (tmp_path / f"{ODD}.{form}").read_text(encoding="utf-8")
        assert "caf\\udce9.gguf" in text if form == "json" else "caf\ufffd.gguf" in text
    assert "cannot open a file whose name is not UTF-8" in one_line(pjlocal("bench", "--quick", "-m", ODD).stderr)
    assert "no model 'caf" in one_line(pjlocal("run", "-m", f"{ODD}.ggu", "hi").stderr)


@pytest.mark.slow
def test_other_files_may_have_such_names_too(pjlocal, environment, odd_model, tmp_path: Path) -> None:
    (tmp_path / ODD).mkdir()
    wish, grammar, trace = (tmp_path / ODD / f"{ODD}.{end}" for end in ("txt", "gbnf", "jsonl"))
    wish.write_text("Be brief.\n")
    grammar.write_text('root ::= "Yes."\n')
    environment["PJLOCAL_DATABASE"] = str(tmp_path / ODD / "chats.db")
    environment["PJLOCAL_CONFIG"] = str(tmp_path / ODD / "config.toml")
    Path(environment["PJLOCAL_CONFIG"]).write_text("[generation]\nmax_tokens = 30\n")
    args = ("-m", odd_model, "-p", f"@{wish}", "-p", "vivid", "--grammar", grammar)
    assert pjlocal("run", *args, "--trace", trace, "hi").returncode == 0 and trace.read_text()
    result = pjlocal("chat", *args, "--save-cache", stdin="Why?\n/sessions\n")
    assert result.returncode == 0 and result.stderr == ""
    assert pjlocal("chat", "--continue", "--save-cache", stdin="And?\n").returncode == 0
    assert re.search(" 2 turns +caf", pjlocal("sessions", "list").stdout)
    assert "caf" in pjlocal("config", "path").stdout and "caf" in pjlocal("sessions", "path").stdout
    Path(environment["PJLOCAL_CONFIG"]).write_text("broken")
    assert "is not valid TOML" in one_line(pjlocal("config", "show").stderr)


def test_a_server_of_a_model_and_a_preference_with_such_names_answers(environment, odd_model, tmp_path: Path) -> None:
    wish = tmp_path / f"{ODD}.txt"
    wish.write_text("Be brief.\n")
    with serving(odd_model, environment, "-p", f"@{wish}", "--regex", "a") as served:
        assert [model["id"] for model in served.http.get("/v1/models").json()["data"]] == [ODD]
        about = served.http.get("/api/model").json()
        assert about["name"] == ODD and about["settings"]["preferences"]["a"] == [f"@{wish}"]
        assert served.complete()["model"] == ODD
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        first = served.http.post("/v1/chat/completions", json=body).text.splitlines()[0]
        assert json.loads(first.removeprefix("data: "))["model"] == ODD
        refused = served.http.post("/v1/chat/completions", json=body | {"model": "other"})
        assert refused.status_code == 404 and ODD in refused.json()["error"]["message"]


@pytest.mark.slow
def test_commands_of_a_piped_chat_may_name_such_files_and_questions_may_not(pjlocal, odd_model, tiny, tmp_path) -> None:
    stdin = f"Why?\n/model {ODD}\n/export {ODD}.md\n".encode(errors="surrogateescape")
    result = pjlocal("chat", "-m", tiny("llama"), "--regex", "a", stdin=stdin)
    assert result.returncode == 0 and (tmp_path / f"{ODD}.md").exists()
    assert [line.partition(" caf")[0] for line in result.stderr.splitlines()] == ["pjlocal:", "pjlocal: written to"]
    result = pjlocal("chat", "-m", tiny("llama"), "-n", "2", stdin=b"caf\xe9?\n")
    assert result.returncode == 2 and "standard input is not UTF-8 text (byte 3" in one_line(result.stderr)
