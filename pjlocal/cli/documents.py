"""The documents that are shipped with the package."""

from __future__ import annotations

import re
from importlib.resources import files


def topics() -> dict[str, str]:
    """The subject of each document, by topic, in the order of the index."""
    return dict(re.findall(r"^- \[([\w-]+)\]\(\1\.md\): (.*)$", read("README"), re.MULTILINE))


def read(topic: str) -> str:
    """The Markdown of a document."""
    return files("pjlocal").joinpath("docs", f"{topic}.md").read_text(encoding="utf-8")
