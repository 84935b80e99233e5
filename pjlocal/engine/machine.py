"""What this machine has: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path


def physical_cores() -> int:
    """Cores this process may use, hyper-threads of one core counted once where the system says so (Linux)."""
    try:
        cpus = os.sched_getaffinity(0)
        siblings = {Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in cpus}
        return len(siblings)
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def available_bytes() -> int | None:
    """Memory that can be had without swapping, where the system says so (Linux)."""
    return _kilobytes("/proc/meminfo", "MemAvailable:")


def resident_bytes(peak: bool = False) -> int | None:
    """Memory this process holds, or the most it ever held, where the system says so (Linux)."""
    return _kilobytes("/proc/self/status", "VmHWM:" if peak else "VmRSS:")


def _kilobytes(path: str, key: str) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration, ValueError):
        return None
