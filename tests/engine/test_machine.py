"""The limits of a container are respected: its cores and its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commandline import PJLOCAL

from pjlocal import Engine
from pjlocal.engine import cgroup, machine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.errors import ModelError

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a system in which the process's cgroups are these, with these files below /sys/fs/cgroup."""

    def make(cgroups: str, files: dict[str, str]) -> None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(cgroups)
        for name, text in files.items():
            path = tmp_path / "sys" / "fs" / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        monkeypatch.setattr(cgroup, "_ROOT", tmp_path)

    return make


V1 = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("cgroups", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
        ("0::/\n", {}, None),
        ("", {"cpu.max": "200000 100000"}, None),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/host/path\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 4.0),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "50000", "cpu/docker/abc/cpu.cfs_period_us": "25000"}, 2.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "7", "cpu,cpuacct/cpu.cfs_period_us": "0"}, None),
    ],
)
def test_the_smallest_limit_of_cores_above_the_process_is_in_force(
    system: Callable, cgroups: str, files: dict[str, str], limit: float | None
) -> None:
    system(cgroups, files)
    assert cgroup.cpu_limit() == limit


def memory_v2(folder: str, most: str, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon {used - cached}\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}"
    return {f"{folder}memory.max": most, f"{folder}memory.current": str(used), f"{folder}memory.stat": stat}


@pytest.mark.parametrize(
    ("cgroups", "files", "free"),
    [
        ("0::/\n", memory_v2("", str(4 * GIB), GIB), 3 * GIB),
        ("0::/\n", memory_v2("", str(4 * GIB), 4 * GIB, cached=2 * GIB), 2 * GIB),
        ("0::/\n", memory_v2("", "max", GIB), None),
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.max": "0", "memory.current": "4096"}, 0),
        ("0::/a/b\n", memory_v2("a/", str(2 * GIB), GIB) | memory_v2("a/b/", str(4 * GIB), 0), GIB),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": str(4 * GIB),
                "memory/memory.usage_in_bytes": str(3 * GIB),
                "memory/memory.stat": f"active_file 1\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}",
            },
            3 * GIB,
        ),
    ],
)
def test_free_memory_is_what_the_container_leaves_with_its_page_cache(
    system: Callable, cgroups: str, files: dict[str, str], free: int | None
) -> None:
    system(cgroups, files)
    assert cgroup.free_memory() == free


@pytest.mark.parametrize(
    ("limit", "there", "used", "says"),
    [
        (2.0, 64, 2, "2 threads (the container's limit)"),
        (1.5, 64, 2, "2 threads (the container's limit)"),
        (0.1, 64, 1, "1 thread (the container's limit)"),
        (8.0, 4, 4, ""),
        (None, 4, 4, ""),
    ],
)
def test_no_more_threads_than_cores_that_the_container_allows(monkeypatch, limit, there, used, says) -> None:
    monkeypatch.setattr(machine, "cpu_limit", lambda: limit)
    monkeypatch.setattr(machine, "_physical_cores", lambda: there)
    assert machine.cores().amount == used
    assert machine.threads_in_words(None) == says
    assert machine.threads_in_words(7) == ""


def test_weights_that_are_read_whole_must_fit(tiny, monkeypatch) -> None:
    monkeypatch.setattr("pjlocal.engine.model.memory", lambda: machine.Limit(100_000, in_container=True))
    Model(tiny("llama"), Engine(), Interrupt()).close()
    with pytest.raises(ModelError, match=r"not enough memory in this container: the weights of .* take 518 kB"):
        Model(tiny("llama"), Engine(mmap=False), Interrupt())


# In real ones, where the tests may make them.


@pytest.fixture
def container() -> Iterator[Callable[..., list[str]]]:
    """The beginning of a command that runs in cgroups of its own, with a limit of cores and of bytes."""
    top = Path("/sys/fs/cgroup")
    made: list[Path] = []

    def limited(cores: float, n_bytes: int) -> list[str]:
        version_1 = {
            "cpu": {"cpu.cfs_quota_us": int(cores * 100_000)},
            "memory": {"memory.limit_in_bytes": n_bytes},
        }
        version_2 = {"": {"cpu.max": f"{int(cores * 100_000)} 100000", "memory.max": n_bytes}}
        try:
            for controller, limits in (version_2 if (top / "cgroup.controllers").exists() else version_1).items():
                folder = top / controller / f"pjlocal-test-{os.getpid()}"
                folder.mkdir()
                made.append(folder)
                for name, value in limits.items():
                    (folder / name).write_text(str(value))
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        join = "".join(f"echo $$ > {folder}/cgroup.procs && " for folder in made)
        return ["sh", "-c", f'{join}exec "$@"', "sh"]

    yield limited
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="has no cgroups")
def test_the_limits_of_a_container_are_shown_and_respected(container, tiny, environment) -> None:
    if machine._physical_cores() < 2:
        pytest.skip("this machine has one core")
    limited = container(0.5, GIB)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*limited, *PJLOCAL, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    found = {each["what"]: each for each in json.loads(run("doctor", "-m", tiny("llama"), "--json").stdout)["findings"]}
    assert found["cores"]["facts"] == {"amount": 1, "in_container": True}
    assert "the limit of this container" in found["cores"]["text"]
    assert found["memory"]["facts"]["in_container"] and found["memory"]["facts"]["amount"] < GIB
    said = run("run", "-m", tiny("llama"), "-n", "2", "--stats", "Hello").stderr
    assert "all layers on the CPU, 1 thread (the container's limit)" in said
    refused = run("run", "-m", tiny("llama"), "--ctx", "100000000", "-n", "100000000", "Hello")
    assert refused.returncode == 1 and "not enough memory" in refused.stderr.splitlines()[-1]
    assert "in this container" in refused.stderr
