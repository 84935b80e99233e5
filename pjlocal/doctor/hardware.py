"""The graphics cards of the system, and the command to install a llama.cpp that uses them."""

from __future__ import annotations

import ctypes.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.devices import Device

#: llama-cpp-python's own index of wheels, and its versions of CUDA.
_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"
_CUDA_WHEELS = ((11, 8), (12, 1), (12, 2), (12, 3), (12, 4), (12, 5), (13, 0), (13, 2))
_LEAST_VERSION = "0.3.36"  # as in pyproject.toml
_PATIENCE_S = 10

_DRM = Path("/sys/class/drm")  # the graphics cards of Linux
_KFD = Path("/dev/kfd")  # AMD's driver for computing, which Linux has without ROCm too
_ROCM = Path("/opt/rocm")
_AMD_ID, _INTEL_ID = "0x1002", "0x8086"  # vendors on the PCI bus
#: The makers of cards by words in the names of their cards.
_MAKERS = {"NVIDIA": "NVIDIA", "AMD": "AMD", "Radeon": "AMD", "Intel": "Intel", "Apple": "Apple"}


@dataclass(frozen=True)
class Card:
    """A graphics card.

    name: the driver's name for the card.
    backend: llama.cpp's name for its back end.
    wheels: the folder of the wheel index with builds for it.
    build: the CMake option for building llama.cpp for it.
    """

    name: str
    backend: str
    wheels: str
    build: str

    def is_among(self, devices: Iterable[Device]) -> bool:
        """True if one of llama.cpp's devices is a card of the same maker; without a maker's name, of the same back
        end."""

        def is_it(device: Device) -> bool:
            of_card, of_device = _makers(self.name), _makers(device.description)
            return bool(of_card & of_device) if of_card and of_device else device.backend == self.backend

        return any(map(is_it, devices))

    @property
    def reinstall(self) -> str:
        """The command that installs a llama.cpp for this card: a wheel of the index, or a build if none fits.

        pip's --config-settings, instead of CMAKE_ARGS in the environment, is the same in every shell.
        """
        return (
            f'pip install --force-reinstall --no-cache-dir --prefer-binary "llama-cpp-python>={_LEAST_VERSION}" '
            f"--extra-index-url {_WHEELS}/{self.wheels} --config-settings cmake.args={self.build}"
        )


def _makers(name: str) -> set[str]:
    return {maker for word, maker in _MAKERS.items() if word in name}


def cards() -> list[Card]:
    """The graphics cards of this machine that llama.cpp could use, those with the fastest back end first."""
    return [*_nvidia(), *_amd(), *_apple(), *_intel()]


def _nvidia() -> list[Card]:
    if listed := _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        version = re.search(r"CUDA(?: UMD)? Version: *(\d+)\.(\d+)", _output("nvidia-smi"))
        wheels = cuda_wheels((int(version[1]), int(version[2])) if version else None)
        return [Card(line.strip(), "CUDA", wheels, "-DGGML_CUDA=on") for line in listed.splitlines() if line.strip()]
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return [Card("an NVIDIA card (nvidia-smi does not name it)", "CUDA", cuda_wheels(None), "-DGGML_CUDA=on")]
    return []


def cuda_wheels(driver: tuple[int, int] | None) -> str:
    """The folder of wheels for the newest CUDA that a driver supports; CUDA 12.4 if the driver does not report one."""
    fitting = [version for version in _CUDA_WHEELS if version <= (driver or (12, 4))]
    major, minor = fitting[-1] if fitting else _CUDA_WHEELS[0]
    return f"cu{major}{minor}"


def _amd() -> list[Card]:
    if _KFD.exists() and (_ROCM.exists() or shutil.which("rocminfo") or ctypes.util.find_library("amdhip64")):
        return [Card("an AMD card with ROCm", "ROCm", "rocm72", "-DGGML_HIP=on")]
    return _vulkan("an AMD card", _AMD_ID, "AMD")


def _apple() -> list[Card]:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return [Card("Apple's GPU", "MTL", "metal", "-DGGML_METAL=on")]
    return []


def _intel() -> list[Card]:
    return _vulkan("an Intel GPU", _INTEL_ID, "Intel")


def _vulkan(name: str, vendor: str, maker: str) -> list[Card]:
    """A vendor's card for the Vulkan back end, which works with the ordinary graphics driver."""
    on_linux = any(_text(file) == vendor for file in _DRM.glob("card*/device/vendor"))
    on_windows = [adapter for adapter in _windows_adapters() if maker in _makers(adapter)]
    return [Card(each, "Vulkan", "vulkan", "-DGGML_VULKAN=on") for each in on_windows or [name] * on_linux]


def _windows_adapters() -> list[str]:
    """The names of the display adapters in Windows' registry; none on other systems."""
    names: list[str] = []
    if sys.platform == "win32":
        import winreg

        adapters = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, adapters) as key:
            for number in range(winreg.QueryInfoKey(key)[0]):
                with suppress(OSError), winreg.OpenKey(key, f"{number:04}") as adapter:
                    names.append(str(winreg.QueryValueEx(adapter, "DriverDesc")[0]))
    return names


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """The output of a command; empty if it does not exist or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
