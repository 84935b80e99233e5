"""The documents that are shipped with the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files


def topics() -> dict[str, str]:
    """The subject of each document, by topic, in the order of the index."""
    return dict(re.findall(r"^- \[([\w-]+)\]\(\1\.md\): (.*)$", read("README"), re.MULTILINE))


def read(topic: str) -> str:
    """The Markdown of a document."""
    return files("pjlocal").joinpath("docs", f"{topic}.md").read_text(encoding="utf-8")


def passages(topic: str) -> Iterator[tuple[int, str]]:
    """The number of the first line and the text of each paragraph, list item, table row and line of code."""
    lines: list[str] = []
    begin, is_code = 0, False
    for number, line in enumerate([*read(topic).splitlines(), ""], 1):
        is_fence = line.lstrip().startswith("```")
        stands_alone = is_code or is_fence or not line.strip() or line.startswith(("#", "|"))
        if lines and (stands_alone or line.lstrip().startswith("- ")):
            yield begin, " ".join(lines)
            lines = []
        if stands_alone:
            yield number, line.strip()
        else:
            begin = begin if lines else number
            lines.append(line.strip())
        is_code ^= is_fence
