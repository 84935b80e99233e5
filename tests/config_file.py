"""A config file that is a test's own, and what a command gets by it.

A test file has the fixtures that it imports, as in ``from config_file import file as file``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from pjlocal.cli.options import ModelOption, takes_settings
from pjlocal.prompting import preferences
from pjlocal.request import GROUPS, Request
from pjlocal.settings import Engine, View


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The config file of a test, not there yet."""
    path = tmp_path / "settings" / "config.toml"
    monkeypatch.setenv("PJLOCAL_CONFIG", str(path))
    for name in ("PJLOCAL_MODEL", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    yield path
    preferences.use_own({})


@pytest.fixture
def write(file: Path):
    """Write the config file."""

    def write(text: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    return write


def call(app: typer.Typer, *args: str, stdin: str = "") -> str:
    """What a command prints; its errors are raised here."""
    result = CliRunner().invoke(app, args, input=stdin, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def settled(*args: str) -> dict[str, Any]:
    """The values that a command of pjlocal gets for these arguments."""
    probe, seen = typer.Typer(), {}

    @probe.command()
    @takes_settings()
    def command(
        model: ModelOption = None,
        view: Annotated[View, typer.Option()] = "text",
        *,
        request: Request,
        engine: Engine,
    ) -> None:
        seen.update(model=model, view=view, engine=engine, views=[*map(list, request.views)])
        seen.update({name: getattr(request, name) for name in GROUPS})

    call(probe, *args)
    return seen
