"""A report as one HTML page: tables, plots and every answer, coloured by view.  The page loads nothing.

The page contains all answers as text, so it can be read without the script, which filters and sorts, and the browser's
search finds everything.  Answers outside the screen are not laid out (``content-visibility``): 1,602 answers in 106,800
spans, 3.2 MB, appear after 0.3 to 0.8 s (Chromium, two busy cores).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from ..html import render, source
from ..visible import shown_line
from .plots import Plot, inline
from .records import AnswerRecord
from .side_by_side import Lead, SideBySide, facts, legends, spans
from .suite import Suite
from .table import Table

_N_LARGEST = 10


@dataclass(frozen=True)
class Page:
    """The contents of a report's page.

    facts: models, prompts and judges, in a few words each.
    notes: sentences that explain the tables.
    leads: the margin of each answer over the baseline's, the largest first.
    measured_by: the name of the measure of these margins.
    """

    suite: Suite
    facts: Sequence[str]
    notes: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot]
    answers: Sequence[SideBySide]
    leads: Sequence[Lead] = ()
    measured_by: str = ""


def as_html(page: Page) -> str:
    """The page as HTML.  The same data give the same bytes."""
    script = source("evaluation/report.js")
    wins = [lead for lead in page.leads if lead.margin > 0][:_N_LARGEST]
    losses = [lead for lead in reversed(page.leads) if lead.margin < 0][:_N_LARGEST]
    return render(
        "evaluation/report.html",
        page=page,
        title=page.suite.title or page.suite.name,
        script=script,
        digest=b64encode(sha256(script.encode()).digest()).decode(),  # lets the browser run this script and no other
        leads={"wins": wins, "losses": losses},
        order=[*dict.fromkeys([*(lead.at for lead in [*wins, *losses]), *range(len(page.answers))])],
        objectives=[*dict.fromkeys(row.objectives for row in page.answers)],
        systems=[*dict.fromkeys(system for row in page.answers for system in row.answers)],
        legends=legends,
        facts_of=_facts,
        spans=spans,
        svg=inline,
        shorten=_shorten,
    )


def _facts(answer: AnswerRecord) -> list[str]:
    ending = {"stop": [], "length": ["cut at the length limit"]}.get(answer.finish_reason, [answer.finish_reason])
    return [*facts(answer), *ending]


def _shorten(text: str, most: int = 80) -> str:
    line = shown_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
