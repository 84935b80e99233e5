"""A report as one page: tables, plots and every answer, in the colours of who wrote what.  It loads nothing.

All answers stand in the page as text, so that it needs no script to be read and the browser's own search finds
everything; the script filters and sorts.  What is not on the screen is not laid out (``content-visibility``): 1,602
answers in 106,800 pieces, 3.2 MB, are there after 0.3 to 0.8 s (Chromium, two busy cores).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files

from .. import __version__
from ..settings import PANEL_NAMES
from ..visible import shown, shown_line
from .grid import Grid, html_grid
from .plots import Plot, inline
from .records import AnswerRecord
from .sheets import ALL, Lead, Piece, Sheet, pieces, views
from .suite import Suite, System

_N_LARGEST = 10


@dataclass(frozen=True)
class Page:
    """What a report tells.

    facts: in a few words each: models, prompts, judges.
    notes: sentences that one must know to read the rest.
    leads: how far each answer is ahead of the baseline's, the furthest first; told_by: by what that is told.
    """

    suite: Suite
    facts: Sequence[str]
    notes: Sequence[str]
    grids: Sequence[Grid]
    plots: Sequence[Plot]
    sheets: Sequence[Sheet]
    leads: Sequence[Lead] = ()
    told_by: str = ""


def as_html(page: Page) -> str:
    """The page; the same data give the same bytes."""
    script = _file("report.js")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{_digest(script)}'; base-uri 'none'"
    title = _text(page.suite.title or page.suite.name)
    facts = " ".join(f"<bdi>{_text(fact)}</bdi>" for fact in page.facts)
    notes = "".join(f"<li>{_text(note)}</li>" for note in page.notes)
    plots = "".join(map(_figure, page.plots))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="pjlocal {__version__}">
<title>{title}</title>
<style>{_file("../blame.css")}{_file("report.css")}</style>
</head>
<body>
<header>
<h1 dir="auto">{title}</h1>
<p class="facts">{facts}</p>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
<nav><a href="#tables">Tables</a> <a href="#plots">Plots</a> <a href="#answers">Answers</a></nav>
</header>
<main>
<section id="tables">
{"".join(map(html_grid, page.grids))}</section>
<section id="plots">
{plots}</section>
<section id="answers">
<h2>Answers</h2>
{_answers(page)}</section>
</main>
<script>{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    folder = files("pjlocal") if name.startswith("../") else files(__package__)
    return folder.joinpath(name.removeprefix("../")).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What tells a browser that this script, and no other, is the page's own."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def _text(text: str) -> str:
    return escape(shown_line(text))


def _figure(plot: Plot) -> str:
    svg = inline(plot).replace("<svg", f'<svg role="img" aria-label="{_text(plot.title)}"', 1)
    return f"<figure>\n<figcaption>{_text(plot.title)}</figcaption>\n{svg}</figure>\n"


# Answers


def _answers(page: Page) -> str:
    largest = [lead for lead in page.leads if lead.margin > 0][:_N_LARGEST]
    losses = [lead for lead in reversed(page.leads) if lead.margin < 0][:_N_LARGEST]
    number = {id(sheet): at for at, sheet in enumerate(page.sheets)}
    first = dict.fromkeys(number[id(lead.sheet)] for lead in [*largest, *losses])
    order = [*first, *(at for at in range(len(page.sheets)) if at not in first)]
    systems = {system.name: system for system in page.suite.systems}
    articles = "".join(_article(page.sheets[at], at, systems) for at in order)
    lists = "".join(
        _leads(f"The {len(leads)} largest {what} against the baseline, by {page.told_by}", leads, number)
        for what, leads in (("wins", largest), ("losses", losses))
        if leads
    )
    return f"""<ul class="legend">
<li>In the colour of the view that wrote it:</li>
<li><span class="resampled">resampled</span> in place of a rejected token</li>
<li><span class="bonus">bonus</span> after λ accepted ones</li></ul>
<noscript><p class="hint">JavaScript is off: all answers stand below, without filters.</p></noscript>
{_controls(page.sheets)}
<div class="leads">
{lists}</div>
<div id="sheets">
{articles}</div>
"""


def _controls(sheets: Iterable[Sheet]) -> str:
    """What the script works with; it shows them."""
    objectives = dict.fromkeys(sheet.objectives for sheet in sheets)
    systems = dict.fromkeys(system for sheet in sheets for system in sheet.answers)
    options = "".join(f'<option value="{escape(shown(name))}">{_text(name)}</option>' for name in objectives)
    boxes = "".join(
        f'<label><input type="checkbox" name="system" value="{escape(shown(name))}" checked> <bdi>{_text(name)}</bdi>'
        "</label>"
        for name in systems
    )
    return f"""<form id="controls" hidden>
<label>Objectives <select id="objectives"><option value="">all</option>{options}</select></label>
<label>Search in prompts <input id="words" type="search" autocomplete="off" spellcheck="false"></label>
<label>Order <select id="order"><option value="first">largest wins and losses first</option>
<option value="at">as they were asked</option></select></label>
<fieldset><legend>Systems</legend>{boxes}</fieldset>
<output id="count"></output>
<p class="hint">Keys: / searches, j and k go to the next and the previous prompt.</p>
</form>"""


def _leads(title: str, leads: Iterable[Lead], number: Mapping[int, int]) -> str:
    items = "".join(
        f'<li><a href="#sheet-{number[id(lead.sheet)]}"><b>{lead.margin:+.2f}</b> <bdi>{_text(lead.system)}</bdi>: '
        f"<bdi>{_text(_short(lead.sheet.prompt))}</bdi></a></li>\n"
        for lead in leads
    )
    return f"<section><h3><bdi>{_text(title)}</bdi></h3>\n<ol>\n{items}</ol></section>\n"


def _short(text: str, most: int = 80) -> str:
    line = shown_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _article(sheet: Sheet, at: int, systems: Mapping[str, System]) -> str:
    facts = " ".join(
        f"<bdi>{_text(fact)}</bdi>" for fact in (sheet.objectives, f"prompt {sheet.prompt_id}", f"seed {sheet.seed}")
    )
    legends = dict.fromkeys(
        legend for name, answer in sheet.answers.items() if (legend := _legend(sheet, systems.get(name), answer))
    )
    answers = "".join(_answer(name, answer) for name, answer in sheet.answers.items())
    objectives = escape(shown(sheet.objectives))
    return f"""<article id="sheet-{at}" data-at="{at}" data-objectives="{objectives}" tabindex="-1">
<h3 class="question" dir="auto">{escape(shown(sheet.prompt))}</h3>
<p class="facts">{facts}</p>
{"".join(legends)}<div class="side">
{answers}</div>
</article>
"""


def _legend(sheet: Sheet, system: System | None, answer: AnswerRecord) -> str:
    """Which view has which preferences and colour; empty where one view decoded alone."""
    wishes = views(sheet.prefer, system, answer)
    items = [_view(name, ", ".join(wish) or "no preference") for name, wish in wishes.items()]
    if any(piece.writer == ALL for piece in pieces(answer)):
        items.append(_view(ALL, "what they agree on"))
    return f'<ul class="legend">{"".join(items)}</ul>\n' if wishes else ""


def _view(name: str, text: str) -> str:
    return f'<li class="{_class(name)}"><b>{_text(name)}</b> <bdi>{_text(text)}</bdi></li>'


def _answer(name: str, answer: AnswerRecord) -> str:
    facts = [f"{answer.tokens} tokens"]
    if answer.acceptance_rate is not None:
        facts.append(f"{answer.acceptance_rate:.0%} accepted")
    if answer.finish_reason != "stop":
        facts.append("cut at the length limit" if answer.finish_reason == "length" else _text(answer.finish_reason))
    told = " ".join(f"<bdi>{fact}</bdi>" for fact in facts)
    text = "".join(map(_piece, pieces(answer))) or '<span class="none">no answer</span>'
    return f"""<section data-system="{escape(shown(name))}"><h4><bdi>{_text(name)}</bdi></h4>
<div class="answer" dir="auto">{text}</div><p class="facts">{told}</p></section>
"""


#: Colours that blame.css has; the views of a larger panel begin with the first again.
_N_COLORS = 6
_TAGS = {"resampled": "u", "bonus": "b"}  # short names: a page has a hundred thousand pieces


def _piece(piece: Piece) -> str:
    tag, color = _TAGS.get(piece.kind, "i"), _class(piece.writer or "")
    text = escape(piece.text)
    if not color:
        return text if tag == "i" else f"<{tag}>{text}</{tag}>"
    return f'<{tag} class="{color}">{text}</{tag}>'


def _class(name: str) -> str:
    """What gives a view its colour."""
    return PANEL_NAMES[PANEL_NAMES.index(name) % _N_COLORS] if len(name) == 1 and name in PANEL_NAMES else ""
