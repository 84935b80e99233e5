"""``pjlocal doctor`` reports the hardware, broken parts, and how to repair them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pjlocal.doctor import checks
from pjlocal.doctor.checks import gpu_finding
from pjlocal.doctor.hardware import cards, cuda_wheels

SMI = """#!/bin/sh
case "$1" in
--query-gpu=name) echo "NVIDIA GeForce RTX 3090"; echo "NVIDIA T4" ;;
*) echo "| NVIDIA-SMI 560.35   Driver Version: 560.35   CUDA Version: 12.6 |" ;;
esac
"""


def findings(result) -> dict[str, dict]:
    return {finding["what"]: finding for finding in json.loads(result.stdout)["findings"]}


@pytest.mark.slow
def test_a_new_installation_has_no_broken_part(pjlocal: Callable) -> None:
    result = pjlocal("doctor")
    assert result.returncode == 0 and not result.stderr
    lines = {line[8:22].strip(): line for line in result.stdout.splitlines()}
    assert {"llama.cpp", "CPU", "GPU", "configuration", "models", "chats", "self-test"} <= lines.keys()
    assert "wrote 10 tokens in" in lines["self-test"] and "back ends: " in lines["llama.cpp"]
    assert "BROKEN" not in result.stdout


def test_a_broken_part_is_reported_and_the_other_checks_still_run(
    pjlocal: Callable, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "config" / "pjlocal").mkdir(parents=True)
    (tmp_path / "config" / "pjlocal" / "config.toml").write_text("mode = 1\n")
    database = tmp_path / "data" / "pjlocal" / "chats.db"
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as foreign:
        foreign.execute("CREATE TABLE other (x)")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    result = pjlocal("doctor", "--json", "-m", tmp_path / "bad.gguf")
    assert result.returncode == 1 and not result.stderr
    found = findings(result)
    assert json.loads(result.stdout)["ok"] is False
    assert {what for what, finding in found.items() if finding["state"] == "broken"} == {
        "configuration", "chats", "self-test",
    }  # fmt: skip
    assert ": unknown key 'mode'" in found["configuration"]["text"]
    assert "bad.gguf" in found["self-test"]["text"]


@pytest.mark.parametrize("base", ["/proc/nope", "file"])
def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / base))
    data, cache = checks._folders()
    assert (data.state, cache.state) == ("note", "ok")
    assert data.text.startswith(f"{tmp_path / base}/pjlocal cannot be made in ")
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_an_unused_card_is_reported_with_the_command_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    there = cards()
    assert [card.name for card in there[:2]] == ["NVIDIA GeForce RTX 3090", "NVIDIA T4"]
    unused = gpu_finding(there, [], offloads=False)
    assert unused.state == "note"
    assert "was built without support for NVIDIA GeForce RTX 3090" in unused.text
    assert "--prefer-binary llama-cpp-python --extra-index-url" in unused.text and "/whl/cu125 " in unused.text
    assert gpu_finding(there, ["CUDA0"], offloads=True).text == "llama.cpp uses CUDA0"
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert not [card for card in cards() if "RTX" in card.name]


@pytest.mark.parametrize(
    ("driver", "wheels"),
    [
        ((11, 4), "cu118"),
        ((12, 0), "cu118"),
        ((12, 4), "cu124"),
        ((12, 9), "cu125"),
        ((13, 1), "cu130"),
        (None, "cu124"),
    ],
)
def test_the_wheels_are_those_that_the_driver_runs(driver: tuple[int, int] | None, wheels: str) -> None:
    assert cuda_wheels(driver) == wheels
