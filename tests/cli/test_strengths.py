"""Strengths, mode both and personas from the shell: what they report, and what is refused in a line."""

from __future__ import annotations

import json
from math import isfinite

import pytest
from commandline import one_line


@pytest.fixture
def small(tiny) -> tuple[str, ...]:
    """Arguments for a quick run."""
    return ("-m", str(tiny("llama")), "-n", "6", "--ignore-end", "--seed", "1")


def test_json_the_trace_and_the_statistics_tell_strengths_and_pushes(pjlocal, small, tmp_path) -> None:
    args = ("run", *small, "-p", "vivid:2", "-p", "creative", "--avoid", "formal", "--mode", "both")
    result = pjlocal(*args, "--stats", "--json", "--trace", tmp_path / "t.jsonl", "hi")
    report = json.loads(result.stdout)
    assert report["mode"] == "both" and report["strengths"] == {"a": 2.0, "b": "auto", "avoid 1": -1.0}
    events = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert all(event["judge"] is None and list(event["pushes"]) == ["a", "b", "avoid 1"] for event in events)
    for name, mean in report["pushes"].items():
        assert mean == pytest.approx(sum(event["pushes"][name] for event in events) / len(events))
        assert f"{name} {mean:+.2f}" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("-p", "vivid", "-p", "creative:2"),
        ("-p", "vivid:2"),
        ("-p", "vivid:auto", "-p", "creative", "-p", "formal:1"),
    ],
)
def test_a_preference_that_speaks_as_it_is_pushes_too(pjlocal, small, args) -> None:
    report = json.loads(pjlocal("run", *small, *args, "--json", "hi").stdout)
    assert report["pushes"].keys() == report["strengths"].keys()
    assert all(isfinite(push) and push for push in report["pushes"].values()), report["pushes"]


def test_of_three_views_each_judges_the_one_before(pjlocal, small, tmp_path) -> None:
    wishes = [part for wish in ("vivid", "creative", "formal:2") for part in ("-p", wish)]
    more = ("--mode", "judge", "--json", "--trace", tmp_path / "t")
    report = json.loads(pjlocal("run", *small, *wishes, *more, "hi").stdout)
    assert report["preferences"] == {"a": ["vivid"], "b": ["creative"], "c": ["formal:2"]}
    for line in (tmp_path / "t").read_text().splitlines():
        event = json.loads(line)
        assert event["judge"] == {"a": "b", "b": "c", "c": "a"}[event["draft"]]


def test_the_mode_of_the_configuration_is_that_of_preferences(pjlocal, small, environment, tmp_path) -> None:
    environment["PJLOCAL_CONFIG"] = str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text('[generation]\nmode = "judge"\nstrength = 2\nbest = 2\n')
    for wishes, mode in (("-p", "vivid", "-p", "creative"), "judge"), ((), "plain"):
        result = pjlocal("run", *small, *wishes, "--json", "hi")
        assert json.loads(result.stdout)["mode"] == mode and "no effect" not in result.stderr
    batch = pjlocal(
        "run", *small, "--batch", "-", stdin='{"prompt": "hi"}\n{"prompt": "hi", "prefer": ["vivid", "creative"]}\n'
    )
    assert sorted(json.loads(line)["mode"] for line in batch.stdout.splitlines()) == ["judge", "plain"]
    chat = pjlocal("chat", *small, "--no-save", stdin="/mode\n/prefer vivid\n/mode\n")
    assert [line for line in chat.stderr.splitlines() if "mode" in line] == [
        "pjlocal: mode plain",
        "pjlocal: mode judge",
    ]


def test_a_persona_is_put_on_by_its_name(pjlocal, small, environment, tmp_path) -> None:
    environment["PJLOCAL_CONFIG"] = str(tmp_path / "config.toml")
    saved = pjlocal("prefs", "save", "brief", "-p", "concise:2", "-p", "simple", "--mode", "both")
    assert (saved.returncode, saved.stdout, saved.stderr) == (0, "", "")
    report = json.loads(pjlocal("run", *small, "-P", "brief", "--json", "hi").stdout)
    assert (report["mode"], report["strengths"]) == ("both", {"a": 2.0, "b": "auto"})
    chat = pjlocal("chat", *small, "--no-save", "-P", "brief", stdin="/mode\n/prefer\nhi\n")
    assert chat.stderr.splitlines()[:3] == ["pjlocal: mode both", "pjlocal: a: concise:2", "pjlocal: b: simple"]
    result = pjlocal("run", *small, "-P", "breif", "hi")
    assert result.returncode == 2 and "unknown persona 'breif': did you mean brief?" in one_line(result.stderr)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("-p", "vivid", "--strength", "hard"), "a strength is a number from -10 to 10, or auto (not 'hard')"),
        (("-p", "vivid", "--strength", "-10.5"), "a strength is a number from -10 to 10, or auto (not '-10.5')"),
        (("-p", "vivid:10.5",), "the preference 'vivid:10.5': a strength is a number from -10 to 10"),
        (("--strength", "2"), "--strength needs a preference, as in: -p vivid -p creative"),
        (("--avoid", "formal"), "--avoid needs a preference, as in: -p vivid -p creative"),
        (("--avoid", "formla"), "unknown preset 'formla': did you mean formal?"),
        (("--mode", "both"), "mode both needs a preference, as in: -p vivid -p creative"),
        (("-p", "vivid", "--floor", "1"), "--floor must be below 1 (not 1.0)"),
        (("-P", "nobody"), "unknown persona 'nobody'"),
        (("-p", "vivid", "--avoid", " "), "a preference is empty"),
        (("--mode", "plain", "--avoid", "formal"), "--avoid needs a preference, as in: -p vivid -p creative"),
        *(
            (("--mode", mode), f"mode {mode} needs a preference, as in: -p vivid -p creative")
            for mode in ("judge", "base", "prompt", "rewrite")
        ),
    ],
)  # fmt: skip
def test_wrong_strengths_are_refused_in_one_line_before_the_model_is_loaded(pjlocal, args, says: str) -> None:
    result = pjlocal("run", "-m", "no-such-model.gguf", *args, "hi")
    assert result.returncode == 2 and result.stdout == ""
    assert says in one_line(result.stderr)
