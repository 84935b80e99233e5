"""Limits of this process's control groups (cgroups, versions 1 and 2), as in a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")  # the folder that holds ``proc`` and ``sys``


def cpu_limit() -> float | None:
    """The processor time that the process's cgroups allow, in cores; None for no limit."""
    return min(filter(None, map(_cpu_limit, _folders("cpu"))), default=None)


def free_memory() -> int | None:
    """Bytes that can be allocated before a cgroup reaches its limit, page cache included; None without a limit."""
    free = (_free_memory(folder) for folder in _folders("memory"))
    return min((n for n in free if n is not None), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """The folders of the process's cgroup and of all above it.

    In a container the paths may be those of the host and not exist; then the topmost folder has the limits.
    """
    mounted = _ROOT / "sys/fs/cgroup"
    for line in _text(_ROOT / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controllers  # version 2 has no controllers in the path
        if not top.is_dir():
            top = mounted / controller
        path = PurePosixPath(name.lstrip("/"))
        yield from (top / each for each in (path, *path.parents))


def _cpu_limit(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
    if quota.isdigit() and period.isdigit() and int(period):  # "max" or -1 mean no limit
        return int(quota) / int(period)
    return None


def _free_memory(folder: Path) -> int | None:
    for limit, used, total in (("max", "current", ""), ("limit_in_bytes", "usage_in_bytes", "total_")):
        most, now = (_text(folder / f"memory.{name}").strip() for name in (limit, used))
        if most.isdigit() and now.isdigit():
            pages = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
            page_cache = sum(int(pages.get(f"{total}{kind}_file", 0)) for kind in ("active", "inactive"))
            return max(0, int(most) - int(now) + page_cache)
    return None


def _text(path: Path) -> str:
    """A file's text; empty if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
