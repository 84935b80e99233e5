"""Plots: the same bytes for the same data, text that stays text, and systems told apart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest
from evaluated import HOSTILE, SUITE, answers, score

from pjlocal.errors import UsageError
from pjlocal.evaluation.compare import Results, compare
from pjlocal.evaluation.plots import Plot, Rate, inline, lines, plane, win_rates
from pjlocal.evaluation.report import write_figures

NAMES = "{http://www.w3.org/2000/svg}"


def texts(plot: Plot) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(plot.svg).iter(f"{NAMES}text")]


def drawn() -> list[Plot]:
    rates = [Rate("vivid", "both", 0.66, 0.55, 0.75), Rate("vivid", "judge", 0.5, 0.4, 0.6), Rate("", "both", 0, 0, 0)]
    points = {"prompt": (0.2, -1.3), "judge": (0.2001, -1.3001), "both": (0.1999, -1.2999)}
    series = {"vivid": [(1, 50), (4, 60)], "creative": [(1, 50), (4, 60)]}
    return [win_rates(rates, "W", "prompt"), plane(points, "P", "x", "y"),
            lines({"won": series, "speed": {"vivid": series["vivid"]}}, "L", "λ")]  # fmt: skip


def test_the_same_data_give_the_same_bytes_and_no_date() -> None:
    first, second = drawn(), drawn()
    assert first == second
    assert not any(re.search(r"20\d\d-\d\d|dc:date|Matplotlib v", plot.svg) for plot in first)


@pytest.mark.parametrize(("form", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF-1.4")])
def test_a_plot_is_a_file_of_its_own_with_the_same_bytes(form: str, begins: bytes) -> None:
    for first, second in zip(drawn(), drawn(), strict=True):
        assert first.as_file(form).startswith(begins) and first.as_file(form) == second.as_file(form)


def test_a_plot_gives_its_data_as_a_table() -> None:
    rates, points, series = (plot.as_file("csv").decode().splitlines() for plot in drawn())
    assert rates[:2] == ["aspect,system,rate,low,high", "vivid,both,0.66,0.55,0.75"]
    assert points[:2] == ["system,x,y", "prompt,0.2,-1.3"]
    assert series[:2] == ["measure,series,λ,value", "won,vivid,1,50"] and len(series) == 1 + 4 + 2


@pytest.mark.slow
def test_several_figures_are_numbered_and_written_all_or_none(tmp_path: Path) -> None:
    scores = [score(a, m, 0.1, "m") for a in answers() for m in ("fluency", "reward:vivid", "reward:concise")]
    results = Results(SUITE, answers(), scores)
    (tmp_path / "f-2.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"f-2\.csv exists already: choose another name, or give --force"):
        write_figures(results, compare(results), tmp_path / "f.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f-2.csv"]
    written = write_figures(results, compare(results), tmp_path / "f.csv", force=True)
    assert [path.name for path, _ in written] == ["f-1.csv", "f-2.csv"]
    assert written[1][1] == "Reward against fluency for sea, by m"
    assert all(path.read_text().startswith('system,"least implicit reward') for path, _ in written)


def everywhere(text: str) -> list[Plot]:
    return [
        win_rates([Rate(text, text, 0.5, 0.4, 0.6)], text, text),
        plane({text: (1, 2)}, text, text, text),
        lines({text: {text: [(1, 1)], "other": [(1, 1)]}}, text, text),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("text", [*HOSTILE, "cost $x_1$ of $5", "\\frac", "名前 ←"])
def test_text_stays_text_and_nothing_in_it_is_markup(text: str) -> None:
    def elements(plot: Plot) -> set[str]:
        return {element.tag for element in ElementTree.fromstring(plot.svg).iter()}

    for plot in everywhere(text):
        assert plot.as_file("csv").count(b"\n") == 1 + len(plot.rows)
    assert [elements(plot) for plot in everywhere(text)] == [elements(plot) for plot in everywhere("harmless")]
    if len(text) < 30 and text.isprintable():
        assert all(text in texts(plot) for plot in everywhere(text))


@pytest.mark.parametrize("n", [3, 16])
def test_every_system_has_one_label_and_labels_do_not_overlap(n: int) -> None:
    names = [f"system {at}" for at in range(n)]
    points = {name: (0.2 + 0.002 * (at % 3), -1.3 + 0.001 * at) for at, name in enumerate(names)}
    series = {name: [(1, 50), (4, 50 + at)] for at, name in enumerate(names)}
    for plot in (plane(points, "t", "x", "y"), lines({"won": series}, "t", "x")):
        heights = sorted(
            float(element.get("y", 0))
            for element in ElementTree.fromstring(plot.svg).iter(f"{NAMES}text")
            if "".join(element.itertext()) in names
        )
        assert len(heights) == n
        assert all(below - above > 8 for above, below in pairwise(heights)), "two names stand on each other"


def test_systems_differ_in_shape_as_well_as_in_colour() -> None:
    svg = plane({f"s{n}": (n, n) for n in range(7)}, "t", "x", "y").svg
    shapes = set(re.findall(r'<path id="m[0-9a-f]+" d="([^"]+)"[^>]*#(?!22262b)', svg, re.DOTALL))
    colors = {color for color in re.findall(r"fill: (#[0-9a-f]{6})", svg) if color not in ("#22262b", "#ffffff")}
    assert len(colors) == 7 and len(shapes) >= 7


def test_ids_in_a_page_are_unique_and_every_reference_has_its_id() -> None:
    page = "".join(map(inline, drawn()))
    ids = re.findall(r' id="([^"]+)"', page)
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used and used == set(ids)
    assert "<?xml" not in page and "<metadata" not in page and "<!DOCTYPE" not in page
