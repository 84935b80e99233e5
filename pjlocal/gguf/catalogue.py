"""A few good small models under short names, for `pjlocal models pull NAME`.

Sizes and memory are for the quantization Q4_K_M.  The names of the repositories were taken from their pages; none of
the downloads has been tried.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    name: the short name, with which the file's name begins too, so that ``-m`` finds the file by it.
    size_gb: approximate size of the file.
    memory_gb: estimate (by `memory`) for four views with contexts of 8192 tokens on a CPU.
    """

    name: str
    repo: str
    size_gb: float
    memory_gb: float
    licence: str

    @property
    def command(self) -> str:
        """The command that downloads it."""
        return f"pjlocal models pull {self.name}"

    @property
    def facts(self) -> str:
        """The size of the download, and the licence."""
        return f"{self.size_gb:.1f} GB to download, licence {self.licence}"


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", 0.5, 1.2, "Apache-2.0"),
        Entry("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF", 1.1, 2.9, "Apache-2.0"),
        Entry("qwen2.5-3b", "Qwen/Qwen2.5-3B-Instruct-GGUF", 2.1, 5.1, "Qwen Research"),
        Entry("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct-GGUF", 4.7, 9.8, "Apache-2.0"),
        Entry("llama-3.2-1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", 0.8, 2.6, "Llama 3.2"),
        Entry("llama-3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", 2.0, 7.3, "Llama 3.2"),
        Entry("meta-llama-3.1-8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", 4.9, 12.5, "Llama 3.1"),
        Entry("gemma-2-2b", "bartowski/gemma-2-2b-it-GGUF", 1.7, 6.3, "Gemma"),
        Entry("mistral-7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", 4.4, 11.5, "Apache-2.0"),
    )
}

#: The models to begin with, from the smallest to the largest, one of each size.
_RECOMMENDED = ("qwen2.5-0.5b", "qwen2.5-1.5b", "llama-3.2-3b", "qwen2.5-7b")


#: The largest file that is recommended for a CPU.  Every token of the four views reads all weights: a memory of 20 GB/s
#: allows at most ten tokens a second with 2 GB of weights, and four with 5 GB.
_MOST_ON_CPU_GB = 2.0


def recommend(free: int, on_cpu: bool) -> Entry | None:
    """The largest recommended model that fits into ``free`` bytes of memory; None if none fits.

    Args:
        on_cpu: whether the CPU reads the weights, because there is no GPU.
    """
    fitting = [
        entry
        for name in _RECOMMENDED
        if (entry := CATALOGUE[name]).memory_gb * 1e9 <= free and not (on_cpu and entry.size_gb > _MOST_ON_CPU_GB)
    ]
    return fitting[-1] if fitting else None
