"""The graphics cards of the system, and the command to install a llama.cpp that uses them."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: llama-cpp-python's own index of wheels, and its versions of CUDA.
_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"
_CUDA_WHEELS = ((11, 8), (12, 1), (12, 2), (12, 3), (12, 4), (12, 5), (13, 0), (13, 2))
_PATIENCE_S = 10


@dataclass(frozen=True)
class Card:
    """A graphics card.

    name: the driver's name for the card.
    wheels: the folder of the wheel index with builds for it.
    build: the CMake option for building llama.cpp for it.
    """

    name: str
    wheels: str
    build: str

    @property
    def reinstall(self) -> str:
        """The command that installs a llama.cpp for this card."""
        return (
            "pip install --force-reinstall --no-cache-dir --prefer-binary llama-cpp-python "
            f"--extra-index-url {_WHEELS}/{self.wheels}"
        )


def cards() -> list[Card]:
    """The graphics cards of this machine that llama.cpp could use."""
    return [*_nvidia(), *_amd(), *_apple()]


def _nvidia() -> list[Card]:
    if listed := _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        version = re.search(r"CUDA(?: UMD)? Version: *(\d+)\.(\d+)", _output("nvidia-smi"))
        wheels = cuda_wheels((int(version[1]), int(version[2])) if version else None)
        return [Card(line.strip(), wheels, "-DGGML_CUDA=on") for line in listed.splitlines() if line.strip()]
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return [Card("an NVIDIA card (nvidia-smi does not name it)", cuda_wheels(None), "-DGGML_CUDA=on")]
    return []


def cuda_wheels(driver: tuple[int, int] | None) -> str:
    """The folder of wheels for the newest CUDA that a driver supports; CUDA 12.4 if the driver does not report one."""
    fitting = [version for version in _CUDA_WHEELS if version <= (driver or (12, 4))]
    major, minor = fitting[-1] if fitting else _CUDA_WHEELS[0]
    return f"cu{major}{minor}"


def _amd() -> list[Card]:
    if not Path("/dev/kfd").exists():
        return []
    return [Card("an AMD card with ROCm", "rocm72", "-DGGML_HIP=on")]


def _apple() -> list[Card]:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return [Card("Apple's GPU", "metal", "-DGGML_METAL=on")]
    return []


def _output(*command: str) -> str:
    """The output of a command; empty if it does not exist or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
