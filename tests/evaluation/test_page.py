"""The page of a report in a browser: untrusted texts stay inert, and search, filters and keys work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from browser import Chromium
from evaluated import HOSTILE, SUITE, answer, answers, score, verdict

from pjlocal.evaluation.compare import Results, compare
from pjlocal.evaluation.records import AnswerRecord, Verdict
from pjlocal.evaluation.report import as_page
from pjlocal.evaluation.suite import Objectives, Suite, System


def page(records: list[AnswerRecord], suite: Suite = SUITE, verdicts: Sequence[Verdict] = ()) -> str:
    results = Results(suite, records, [score(record, "check:pirate", 1, "") for record in records], verdicts)
    return as_page(results, compare(results), ["2 prompts"])


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def press(chromium: Chromium, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        chromium("Input.dispatchKeyEvent", type=kind, key=key, text=key)


def prompts(chromium: Chromium) -> list[str]:
    """The visible prompts, in order."""
    return chromium.eval(
        "[...document.querySelectorAll('article')].filter(a => a.offsetParent).map(a => "
        "a.querySelector('.question').textContent)"
    )


@pytest.mark.slow
def test_nothing_that_an_answer_a_prompt_or_a_name_holds_runs(chromium: Chromium, tmp_path: Path) -> None:
    records, verdicts = [], []
    for at, text in enumerate(HOSTILE):
        parts = [[text, "accepted", "a"], [text, "resampled", None], [text, "bonus", "b"]]
        both, other = answer("both", at, text * 3, objectives=text, pieces=parts), answer(text, at, text, text)
        records += [both, other]
        names = {"aspect": text, "by": text}
        verdicts += [verdict(other, both, 1.0, **names), verdict(both, other, 0.0, **names)]
    objectives = tuple(Objectives(text, (text, "vivid")) for text in HOSTILE)
    systems = (System("both"), *map(System, HOSTILE))
    suite = Suite("x", " ".join(HOSTILE), objectives, systems, baseline="both")
    chromium.open(written(tmp_path, page(records, suite, verdicts)))
    assert chromium.eval("document.title") != "pwned"
    assert chromium.eval("document.querySelectorAll('script').length") == 1
    assert chromium.eval("document.querySelectorAll('img, iframe, svg [onload]').length") == 0
    assert chromium.eval("document.querySelectorAll('article').length") == len(HOSTILE)
    assert chromium.eval("document.querySelectorAll('figure').length") == len(HOSTILE)
    assert chromium.eval("document.querySelectorAll('style').length") == 1 + chromium.eval(
        "document.querySelectorAll('svg style').length"
    )
    shown = chromium.eval("document.body.textContent")
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e]", shown)


@pytest.mark.slow
def test_the_page_asks_for_nothing_from_outside_and_lets_no_other_script_run(
    chromium: Chromium, tmp_path: Path
) -> None:
    chromium.open(written(tmp_path, page(answers(3))))
    assert chromium.eval("performance.getEntriesByType('resource').length") == 0
    text = page(answers(3))
    assert not re.search(r'(src|href)="(?!#)', text) and "@import" not in text
    chromium.eval(
        "var s = document.createElement('script'); s.textContent = 'window.planted = 1'; document.body.append(s);"
        "var i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)"
    )
    assert chromium.eval("window.planted") is None
    assert chromium.eval("document.querySelectorAll('#controls[hidden]').length") == 0, "its own script runs"


def test_the_largest_wins_and_losses_come_first_and_can_be_gone_to(chromium: Chromium, tmp_path: Path) -> None:
    records = answers(5, objectives=("bright",))
    by_key = {record.key: record for record in records}
    verdicts = [
        verdict(by_key[f"bright-both-{n}-0"], by_key[f"bright-prompt-{n}-0"], p)
        for n, p in ((1, 0.5), (2, 0.4), (3, 0.8), (4, 0.1), (5, 0.9))
    ]
    chromium.open(written(tmp_path, page(records, verdicts=verdicts)))
    assert prompts(chromium) == [f"What is {n}?" for n in (5, 3, 4, 2, 1)]
    links = chromium.eval("[...document.querySelectorAll('.leads a')].map(a => a.textContent)")
    assert links[0] == "+0.80 both: What is 5?" and links[2] == "-0.80 both: What is 4?" and len(links) == 4
    chromium.eval("var order = document.querySelector('#order'); order.value = 'at';"
                  "order.dispatchEvent(new Event('change'))")  # fmt: skip
    assert prompts(chromium) == [f"What is {n}?" for n in (1, 2, 3, 4, 5)]
    chromium.eval("document.querySelector('.leads a').click()")
    assert chromium.eval("location.hash") == "#row-4"


def test_a_form_that_the_browser_has_filled_in_orders_the_answers(chromium: Chromium, tmp_path: Path) -> None:
    """A browser that goes back to the page restores the choices of the form before the script runs."""
    records = answers(3, objectives=("bright",))
    by_key = {record.key: record for record in records}
    text = page(records, verdicts=[verdict(by_key["bright-both-3-0"], by_key["bright-prompt-3-0"], 0.9)])
    for restored, order in (
        (text, (3, 1, 2)),
        (text.replace('<option value="at">', '<option value="at" selected>'), (1, 2, 3)),
    ):
        chromium.open(written(tmp_path, restored))
        assert prompts(chromium) == [f"What is {n}?" for n in order]


def test_the_page_filters_by_objectives_words_and_systems(chromium: Chromium, tmp_path: Path) -> None:
    chromium.open(written(tmp_path, page(answers(12))))
    assert len(prompts(chromium)) == 24
    chromium.eval(
        "var o = document.querySelector('#objectives'); o.value = 'sea'; o.dispatchEvent(new Event('change'))"
    )
    assert len(prompts(chromium)) == 12
    press(chromium, "/")
    for key in "12?":
        press(chromium, key)
    assert prompts(chromium) == ["What is 12?"]
    assert chromium.eval("document.querySelector('#count').value") == "1 of 24 shown"
    chromium.eval("document.querySelector('[name=system][value=judge]').click()")
    visible = "[...document.querySelectorAll('article:not([hidden]) [data-system]:not([hidden])')]"
    assert chromium.eval(f"{visible}.map(s => s.dataset.system)") == ["prompt", "both"]


def test_the_keys_go_from_prompt_to_prompt(chromium: Chromium, tmp_path: Path) -> None:
    chromium.size(1000, 700)
    chromium.open(written(tmp_path, page(answers(6))))
    for keys, expected in (("j", "row-0"), ("jj", "row-2"), ("k", "row-1"), ("kkk", "row-0")):
        for key in keys:
            press(chromium, key)
        assert chromium.eval("document.activeElement.id") == expected
    assert chromium.eval("Math.abs(document.activeElement.getBoundingClientRect().top) < 40")


@pytest.mark.parametrize("width", [1400, 700, 360])
def test_answers_stand_side_by_side_where_there_is_room_and_nothing_sticks_out(
    chromium: Chromium, tmp_path: Path, width: int
) -> None:
    chromium.size(width, 800)
    chromium.open(written(tmp_path, page([*answers(2), answer("both", 9, "wide" * 3000)])))
    tops = chromium.eval(
        "[...document.querySelectorAll('article:first-child [data-system]')].map(s => s.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == {1400: 1, 700: 2, 360: 3}[width]
    assert chromium.eval("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_pieces_have_their_writers_colours_in_the_light_and_in_the_dark(chromium: Chromium, tmp_path: Path) -> None:
    records = answers(1)
    verdicts = [verdict(records[0], records[2], 0.9), verdict(records[2], records[0], 0.2)]  # drawn as a figure
    path = written(tmp_path, page(records, verdicts=verdicts))
    colors = {}
    for scheme in ("light", "dark"):
        chromium("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        chromium.open(path)
        colors[scheme] = chromium.eval(
            "['.answer .a', '.answer .b', 'figure svg text', '.answer'].map(s => { var c = getComputedStyle("
            "document.querySelector(s)); return s.includes('svg') ? c.fill : c.color })"
        )
    chromium("Emulation.setEmulatedMedia", features=[])
    assert colors["light"] == ["rgb(11, 110, 133)", "rgb(166, 37, 111)", "rgb(34, 38, 43)", "rgb(34, 38, 43)"]
    assert colors["dark"] == ["rgb(99, 211, 230)", "rgb(243, 139, 197)", "rgb(223, 227, 232)", "rgb(223, 227, 232)"]


@pytest.mark.slow
def test_without_javascript_it_is_a_long_page_that_says_so(chromium: Chromium, tmp_path: Path) -> None:
    path = written(tmp_path, page(answers(3)))
    chromium("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.size(1200, 6000)  # what is far off the screen is not laid out
        chromium.open(path)
        chromium.wait_for("document.body.innerText.split('What is ').length > 6")
        said = chromium.eval("document.body.innerText")
        assert "JavaScript is off: all answers are below" in said
        assert not chromium.eval("document.querySelector('[type=search]').checkVisibility()")
    finally:
        chromium("Emulation.setScriptExecutionDisabled", value=False)
