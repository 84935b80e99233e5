"""The cores and memory that this process may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import psutil

from ..errors import plural
from .cgroup import cpu_limit, free_memory


@dataclass(frozen=True)
class Limit:
    """An amount of a resource, and its limit.

    in_container: whether a cgroup allows less than the machine has.
    """

    amount: int
    in_container: bool = False

    @property
    def where(self) -> str:
        """A phrase for messages that names the container, or an empty text."""
        return " in this container" if self.in_container else ""


def cores() -> Limit:
    """The cores that this process may use.  Hyper-threads of one core count once; part of a core counts as one."""
    physical = _physical_cores()
    allowed = cpu_limit()
    if allowed is not None and (most := max(1, ceil(allowed))) < physical:
        return Limit(most, in_container=True)
    return Limit(physical)


def threads_in_words(n_threads: int | None) -> str:
    """A phrase for the number of threads if a container limits it; else empty."""
    default = cores()
    if n_threads or not default.in_container:
        return ""
    return f"{default.amount} {plural(default.amount, 'thread')} (the container's limit)"


def _physical_cores() -> int:
    try:  # on Linux a process may be limited to some of the cores
        cpus = os.sched_getaffinity(0)
        siblings = {Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in cpus}
        return len(siblings)
    except (AttributeError, OSError):
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def memory() -> Limit:
    """Bytes that can be allocated without swapping and without being killed by the container."""
    available = int(psutil.virtual_memory().available)
    allowed = free_memory()
    if allowed is not None and allowed < available:
        return Limit(allowed, in_container=True)
    return Limit(available)


def resident_bytes(peak: bool = False) -> int | None:
    """The memory of this process in bytes, or its peak, which only Linux reports; None if unknown."""
    if not peak:
        return int(psutil.Process().memory_info().rss)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        return None
