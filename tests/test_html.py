"""Pages from templates: no value becomes markup or gives orders, and the wheel has every file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit
from jinja2 import DictLoader, UndefinedError

import pjlocal
from pjlocal import html

PACKAGE = Path(pjlocal.__file__).parent


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Templates of a test instead of the package's."""
    templates: dict[str, str] = {}
    monkeypatch.setattr(html._environment(), "loader", DictLoader(templates))
    yield templates
    html._environment().cache.clear()


def test_every_value_is_escaped_and_its_control_characters_are_visible(template: dict[str, str]) -> None:
    template["x"] = '<b title="{{ text }}">{{ text }}{{ text|line }}{{ text|upper }}{{ text ~ "\n" }}</b>'
    page = html.render("x", text="<i>\x1b[2J\u202e\ud800\"'&")
    assert page.lower().count("&lt;i&gt;") == 5 and "<" not in page[4:-4] and page.count('"') == 2
    assert page.count("␛[2J&lt;U+202E&gt;\ufffd") == 5
    page.encode()


def test_a_value_that_is_missing_is_an_error(template: dict[str, str]) -> None:
    template["x"] = "{{ missing }}"
    with pytest.raises(UndefinedError):
        html.render("x")


def test_views_have_six_colours_in_turn_and_other_writers_none() -> None:
    assert [html.view_color(view) for view in ("a", "f", "g", "m", "all", "", None)] == ["a", "f", "a", "a", "", "", ""]


def test_the_wheel_has_every_template_style_and_script() -> None:
    project = tomlkit.parse((PACKAGE.parent / "pyproject.toml").read_text()).unwrap()
    packaged: set[Path] = set()
    for package, names in project["tool"]["setuptools"]["package-data"].items():
        for name in names:
            packaged |= {*PACKAGE.parent.joinpath(*package.split(".")).glob(name)}
    found = {path for ending in ("html", "css", "js") for path in PACKAGE.rglob(f"*.{ending}")}
    assert found and found <= packaged
