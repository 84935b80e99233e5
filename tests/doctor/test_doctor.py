"""``pjlocal doctor`` reports the hardware, broken parts, and how to repair them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import one_line

from pjlocal.doctor import checks, hardware
from pjlocal.doctor.checks import gpu_finding
from pjlocal.doctor.hardware import Card, cards, cuda_wheels
from pjlocal.engine.devices import Device

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


def test_the_memory_of_the_cpu_is_given_once() -> None:
    (cpu,) = (finding for finding in checks._devices() if finding.what == "CPU")
    assert cpu.text.endswith(": CPU"), "ggml calls all of it free"


def test_a_broken_part_is_reported_and_the_other_checks_still_run(
    pjlocal: Callable, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "config" / "pjlocal").mkdir(parents=True)
    (tmp_path / "config" / "pjlocal" / "config.toml").write_text("[sampling]\nregex = '('\n")
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
    assert ": [sampling] regex: the regular expression cannot be used" in found["configuration"]["text"]
    assert "bad.gguf" in found["self-test"]["text"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "missing"), [("libllama.so", "libggml.so.0"), (None, "its library llama")], ids=["cut off", "none"]
)
def test_a_llama_cpp_that_cannot_be_loaded_is_reported_once_with_the_way_out(
    process: Callable, tmp_path: Path, environment: dict[str, str], library: str | None, missing: str
) -> None:
    """As a build for a graphics card whose runtime libraries are missing."""
    if library:
        installed = Path(str(importlib.util.find_spec("llama_cpp").origin)).parent / "lib" / library
        shutil.copy(installed, tmp_path)
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment |= {"LLAMA_CPP_LIB_PATH": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = process("run", "hello")
    assert one_line(run.stderr) == (
        f"pjlocal: llama.cpp cannot be loaded: {missing} is missing. Install the runtime libraries of the graphics "
        "card (CUDA's or ROCm's), or llama.cpp for the CPU: pip install --no-cache-dir --force-reinstall "
        "llama-cpp-python"
    )
    found = findings(process("doctor", "--json"))
    (broken,) = (finding for finding in found.values() if finding["state"] == "broken")
    assert broken["what"] == "llama.cpp" and f"pjlocal: {broken['text']}\n" == run.stderr
    assert "NVIDIA GeForce RTX 3090" in found["GPU"]["text"] and "whl/cu125" in found["GPU"]["text"]


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
    unused = gpu_finding(there, [], ["CPU"])
    assert unused.state == "note"
    assert "was built without support for NVIDIA GeForce RTX 3090" in unused.text
    assert "/whl/cu125 --config-settings cmake.args=-DGGML_CUDA=on" in unused.text
    assert gpu_finding(there, [gpu("CUDA0", there[0].name)], ["CUDA", "CPU"]).text == "llama.cpp uses CUDA0"
    without_driver = gpu_finding(there, [], ["CUDA", "CPU"])
    assert without_driver.state == "note" and "finds no device for it" in without_driver.text
    assert "pip" not in without_driver.text
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert not [card for card in cards() if "RTX" in card.name]


def gpu(name: str, description: str) -> Device:
    return Device(name, description, "GPU", name.rstrip("0123456789"), 1, 1)


def test_a_card_is_reported_that_is_not_used_while_another_is() -> None:
    nvidia = Card("Tesla T4", "CUDA", "cu124", "-DGGML_CUDA=on")  # an older driver leaves NVIDIA out
    intel = Card("an Intel GPU", "Vulkan", "vulkan", "-DGGML_VULKAN=on")
    slower = gpu_finding([nvidia, intel], [gpu("Vulkan0", "Intel(R) UHD Graphics 620")], ["Vulkan", "CPU"])
    assert slower.state == "note" and slower.facts["reinstall"] == nvidia.reinstall
    assert slower.text.startswith("llama.cpp uses Vulkan0, but this llama.cpp was built without support for Tesla T4.")
    best = gpu_finding([nvidia, intel], [gpu("CUDA0", "Tesla T4")], ["CUDA", "CPU"])
    assert (best.state, best.text) == ("ok", "llama.cpp uses CUDA0 and not an Intel GPU")
    both = gpu_finding([intel], [gpu("Vulkan0", "NVIDIA T4"), gpu("Vulkan1", "Intel(R) Iris(R)")], ["Vulkan", "CPU"])
    assert both.text == "llama.cpp uses Vulkan0, Vulkan1"


@pytest.mark.parametrize(
    ("vendor", "there", "system", "name", "wheels", "option"),
    [
        ("0x1002", ("_KFD", "_ROCM"), "linux", "an AMD card with ROCm", "rocm72", "-DGGML_HIP=on"),
        ("0x1002", ("_KFD",), "linux", "an AMD card", "vulkan", "-DGGML_VULKAN=on"),
        ("0x1002", (), "linux", "an AMD card", "vulkan", "-DGGML_VULKAN=on"),
        ("0x8086", (), "linux", "an Intel GPU", "vulkan", "-DGGML_VULKAN=on"),
        (None, (), "darwin", "Apple's GPU", "metal", "-DGGML_METAL=on"),
        ("0x1a03", (), "linux", None, None, None),  # a server's own screen
    ],
)
def test_each_make_of_card_has_one_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vendor: str | None,
    there: tuple[str, ...],
    system: str,
    name: str | None,
    wheels: str | None,
    option: str | None,
) -> None:
    device = tmp_path / "drm" / "card0" / "device"
    device.mkdir(parents=True)
    if vendor:
        (device / "vendor").write_text(vendor + "\n")
    monkeypatch.setattr(hardware, "_nvidia", list)
    monkeypatch.setattr(hardware, "_DRM", tmp_path / "drm")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hardware.ctypes.util, "find_library", lambda name: None)
    for folder in ("_KFD", "_ROCM"):
        monkeypatch.setattr(hardware, folder, tmp_path if folder in there else tmp_path / "none")
    monkeypatch.setattr(hardware.sys, "platform", system)
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    finding = gpu_finding(cards(), [], ["CPU"])
    if name is None:
        assert finding.state == "ok" and finding.facts["cards"] == []
        return
    assert finding.text == (
        f"this llama.cpp was built without support for {name}. To use the card: pip install --force-reinstall "
        '--no-cache-dir --prefer-binary "llama-cpp-python>=0.3.36" --extra-index-url '
        f"https://abetlen.github.io/llama-cpp-python/whl/{wheels} --config-settings cmake.args={option}"
    )


def test_the_command_installs_no_older_llama_cpp_than_pjlocal_works_with() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"llama-cpp-python>={hardware._LEAST_VERSION}"' in project


def test_windows_names_its_display_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_windows_adapters", lambda: ["AMD Radeon(TM) 780M", "Intel(R) Arc(TM) A770"])
    monkeypatch.setattr(hardware, "_nvidia", list)
    assert [card.name for card in cards()] == ["AMD Radeon(TM) 780M", "Intel(R) Arc(TM) A770"]


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
