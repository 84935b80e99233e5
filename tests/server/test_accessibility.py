"""The page for those who do not see it, or not well, or have no mouse: what axe finds in it, the browser's own
accessibility tree, contrasts and widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest
from browser import Chromium, Page
from exported_chats import accepted, resampled
from on_the_page import SETTINGS, WRITTEN, click
from saved_chats import a_turn, saved
from served import VIEWS, Served

from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "12")
AXE = (files("axe_core_python") / "axe.min.js").read_text()
#: What axe finds, be it grave or not: the rule, and where.
FINDINGS = """
var findings = null;
axe.run({ resultTypes: ['violations'] }).then(({ violations }) => {
  findings = violations.flatMap(({ id, nodes }) => nodes.map(({ target, html }) => [id, target.join(' '), html]));
});
"""


@pytest.fixture
def seen(page: Callable[..., Chromium], served: Served) -> Iterator[Callable[..., Chromium]]:
    """Opens the page in a window of some width, light or dark."""

    def load(address: str, width: int, scheme: str) -> Chromium:
        chromium = page()
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        emulated = [{"name": name, "value": value} for name, value in features.items()]
        chromium("Emulation.setEmulatedMedia", features=emulated)
        chromium.size(width, 700)
        chromium.open(served.page(address))
        chromium.wait_for("document.querySelector('#list li')")
        return chromium

    yield load
    page()("Emulation.setEmulatedMedia", features=[])


def found_by_axe(page: Page) -> list[list[str]]:
    if not page.eval("'axe' in window"):
        page.eval(AXE)  # as the developer's tools do it, whom the page's policy does not bind
    page.eval(FINDINGS)
    page.wait_for("findings")
    return page.eval("findings")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_nothing(seen, store: Store, width: int, scheme: str) -> None:
    thought = replace(accepted("<think>Hm</think>"), thought=True)
    answer = [
        thought,
        accepted("Cats **purr**"),
        resampled(" because", instead=" bark", position=1),
        accepted(" `so`", 2),
    ]
    session = saved(store, "Cats", Turn("Why?", answer, SETTINGS, "stop"), settings=SETTINGS)
    chromium = seen("", width, scheme)
    assert found_by_axe(chromium) == [], "empty"
    chromium.eval("document.querySelectorAll('aside details').forEach((part) => (part.open = true))")
    assert found_by_axe(chromium) == [], "preferences and chats"
    chromium.eval(f"location.hash = {session.id}")
    chromium.wait_for(WRITTEN)
    assert found_by_axe(chromium) == [], "a chat"
    chromium.eval("document.querySelector('.thoughts').open = true")
    assert found_by_axe(chromium) == [], "thoughts"
    chromium.eval("document.querySelector('.answer').focus()")
    chromium.press("ArrowRight", modifiers=8)
    assert found_by_axe(chromium) == [], "a token's numbers"
    chromium.press("Enter")
    chromium.wait_for("document.querySelector('.others td')")
    assert found_by_axe(chromium) == [], "other tokens in its place"
    chromium.press("Escape")
    click(chromium, "Edit answer")
    assert found_by_axe(chromium) == [], "an answer to be edited"
    click(chromium, "Cancel")
    chromium.eval("var all = new DataTransfer(); all.items.add(new File(['the cat'], 'notes.txt'))")
    chromium.eval("pick.files = all.files; pick.dispatchEvent(new Event('change'))")
    chromium.wait_for("document.querySelector('#files li')")
    assert found_by_axe(chromium) == [], "a file"
    click(chromium, "Edit question")
    assert found_by_axe(chromium) == [], "a question to be edited"
    chromium.eval("document.activeElement.select()")
    chromium.type("Why not?")
    chromium.press("Enter")
    chromium.wait_for(f"document.querySelector('article h3').textContent === 'Why not?' && {WRITTEN}")
    assert found_by_axe(chromium) == [], "an answer"
    for dialog in ("Rename", "Delete"):
        click(chromium, dialog)
        assert found_by_axe(chromium) == [], dialog
        chromium.press("Escape")
        chromium.wait_for("!document.querySelector('dialog[open]')")
    click(chromium, "Compare modes")
    assert found_by_axe(chromium) == [], "to be compared"
    click(chromium, "Compare")
    chromium.wait_for("document.querySelector('#columns .t') && !document.querySelector('#columns [aria-busy]')")
    assert found_by_axe(chromium) == [], "compared"
    chromium.eval("document.getElementById('refused').hidden = false; asking.showModal()")
    assert found_by_axe(chromium) == [], "the question for the token"


def test_everything_has_a_name_and_a_place_for_those_who_do_not_see_it(page, store: Store) -> None:
    chromium = page(f"#{saved(store, 'names', a_turn(), settings=SETTINGS).id}")
    chromium.wait_for(WRITTEN)
    chromium("Accessibility.enable")
    nodes = [n for n in chromium("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    roles = [node["role"]["value"] for node in nodes]
    for landmark in ("banner", "main", "complementary", "navigation"):
        assert roles.count(landmark) == 1, landmark
    operable = ("button", "textbox", "searchbox", "combobox", "checkbox", "link", "image", "article", "dialog")
    nameless = [n for n in nodes if n["role"]["value"] in operable and not n.get("name", {}).get("value")]
    assert not nameless
    groups = "[...document.querySelectorAll('[role=group]')].every((group) => group.getAttribute('aria-label'))"
    assert chromium.eval(groups)
    levels = chromium.eval("[...document.querySelectorAll(':is(h1, h2, h3)')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert chromium.eval("document.documentElement.lang") == "en"
    live = "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log]')].map((e) => e.id)"
    assert chromium.eval(live) == ["trouble", "said"], "an answer is told when it is whole, not token by token"
    ids = chromium.eval("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    stops = []
    chromium.eval("document.body.tabIndex = -1; document.body.focus()")  # from the beginning
    for _ in range(90):
        chromium.press("Tab")
        stops.append(chromium.eval("document.activeElement.id || document.activeElement.className"))
        outlined = chromium.eval("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        assert outlined or stops[-1] == "", stops[-1]
    assert stops[0] == "skip" and {"mode", "words", "answer", "question", "send"} <= {*stops}


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1200, "dark")])
def test_text_can_be_read_in_light_and_dark_and_on_a_phone(seen, store: Store, width: int, scheme: str) -> None:
    text = "A " + "wide" * 200 + "\n\n```\n" + "code " * 100 + "\n```\n\n| a | b |\n|-|-|\n| " + "c" * 300 + " | d |"
    session = saved(store, "wide", Turn("Why" * 100, [accepted(text)], SETTINGS, "stop"), settings=SETTINGS)
    chromium = seen(f"#{session.id}", width, scheme)
    chromium.wait_for("document.querySelector('#turns .t') && document.querySelector('#list small')")
    assert chromium.eval("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert chromium.eval("document.querySelector('#settings').open") == (width > 960)
    ratios = chromium.eval(CONTRASTS)
    assert min(ratios) >= 4.5, ratios
    chromium.eval("document.querySelector('.answer').setAttribute('aria-busy', 'true')")
    assert chromium.eval("getComputedStyle(document.querySelector('.answer'), '::after').animationName") == "none"


#: Of texts against what is behind them, as WCAG reckons.
CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colors) => {
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => color
    .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  return ['.t', '.facts', '.question', '.legend b', '#send', '#list small', 'legend', '#meaning'].map((selector) => {
    const found = document.querySelector(selector);
    const behind = [];
    for (let one = found; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const [a, b] = [light(rgb(behind)), light(rgb([...behind, getComputedStyle(found).color]))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
})()
"""
