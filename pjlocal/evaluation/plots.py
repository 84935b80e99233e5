"""The plots of a report, as SVG for its page and as files of their own.  The same data give the same bytes.

Systems differ in shape and label as well as in colour, so that plots can be read without colours.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import extra
from ..visible import shown_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Rate(NamedTuple):
    """A system's win rate in an aspect, such as a preference, with its interval, from 0 to 1."""

    aspect: str
    system: str
    value: float
    low: float
    high: float


Point = tuple[float, float]  # x, y


@dataclass(frozen=True)
class Plot:
    """A plot: ``title`` describes it, also for screen readers.

    head, rows: its data as a table.
    """

    title: str
    svg: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str | float, ...], ...] = ()
    figure: Figure | None = field(default=None, compare=False, repr=False)

    def as_file(self, form: str) -> bytes:
        """The contents of a file of one of the `FORMATS`."""
        if form == "svg":
            return self.svg.encode()
        if form == "csv":
            text = io.StringIO()
            rows = [self.head, *self.rows]
            csv.writer(text, lineterminator="\n").writerows([shown_line(f"{cell}") for cell in row] for row in rows)
            return text.getvalue().encode()
        assert self.figure is not None
        with _style():
            return _saved(self.figure, form)


#: Formats of a plot in a file of its own, by the ending.
FORMATS = ("svg", "png", "pdf", "csv")


#: Okabe and Ito's colours, which colour-blind people can distinguish, without yellow, which is hard to see on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_MARKERS = "osD^vPX*<>"
_LINES = ("-", "--", "-.", ":")

INK = "#22262b"  # colour of everything except data; a page replaces it in dark mode
FAINT = "#9aa1a9"

_WIDTH = 7.2  # inches
_BESIDE: Any = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}  # puts the legend where it covers no data
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, which can be searched, read aloud, and shown in the page's font
    "svg.hashsalt": "pjlocal",
    "text.parse_math": False,  # a system's name may contain dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with the library, so the layout is the same everywhere
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def win_rates(rates: Sequence[Rate], title: str, against: str) -> Plot:
    """Draw a forest plot: a row for each comparison, and a line at 50 %."""
    rows: list[Rate | str] = []
    for aspect, some in groupby(rates, lambda rate: rate.aspect):
        rows += [aspect, *some]
    with _figure(_WIDTH, 0.9 + 0.3 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel=f"% won against {shorten(against)}")
        axes.set_yticks(range(len(rows)), [shorten(row if isinstance(row, str) else row.system) for row in rows])
        axes.tick_params(axis="y", length=0)
        for at, (row, tick) in enumerate(zip(rows, axes.get_yticklabels(), strict=True)):
            if isinstance(row, str):
                tick.set_fontweight("bold")
                continue
            axes.plot([100 * row.low, 100 * row.high], [at, at], color=_COLORS[0], linewidth=1.4)
            face = _COLORS[0] if row.low > 0.5 or row.high < 0.5 else "white"
            axes.plot(100 * row.value, at, "o", color=_COLORS[0], markerfacecolor=face, markersize=6)
            text = f"{row.value:.0%} [{100 * row.low:.0f}, {100 * row.high:.0f}]"
            axes.annotate(text, (102, at), annotation_clip=False, va="center", fontsize=8)
        return _plot(figure, title, ("aspect", "system", "rate", "low", "high"), rates)


def plane(points: Mapping[str, Point], title: str, x: str, y: str) -> Plot:
    """Draw one point for each system, by its name."""
    with _figure(_WIDTH, 4.2) as figure:
        axes = figure.add_subplot()
        axes.margins(0.16)
        for number, (name, point) in enumerate(points.items()):
            axes.plot(*point, _marker(number), color=_color(number), markersize=8, label=shorten(name))
        axes.set(xlabel=shorten(x, 80), ylabel=shorten(y, 60))
        axes.grid(color=FAINT, alpha=0.3, linewidth=0.6)
        axes.legend(**_BESIDE)
        return _plot(figure, title, ("system", x, y), [(name, *point) for name, point in points.items()])


def lines(panels: Mapping[str, Mapping[str, Sequence[Point]]], title: str, x: str) -> Plot:
    """Draw panels below each other with a shared axis, each with its lines, by their labels."""
    with _figure(_WIDTH, 0.8 + 2.3 * len(panels)) as figure:
        many: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (what, series) in zip(many[:, 0], panels.items(), strict=True):
            for number, (name, points) in enumerate(series.items()):
                style = _LINES[number % len(_LINES)]
                xs, ys = zip(*points, strict=True)
                label, color = shorten(name, 22), _color(number)
                axes.plot(xs, ys, style, marker=_marker(number), color=color, markersize=5, linewidth=1.4, label=label)
            axes.set(ylabel=shorten(what))
            axes.grid(color=FAINT, alpha=0.3, linewidth=0.6)
            if len(series) > 1:
                axes.legend(**_BESIDE)
        many[-1, 0].set(xlabel=shorten(x, 80))
        data = [
            (what, name, *point)
            for what, series in panels.items()
            for name, points in series.items()
            for point in points
        ]
        at = sorted({px for _, _, px, _ in data})
        many[-1, 0].set_xticks(at, [f"{px:g}" for px in at])
        return _plot(figure, title, ("measure", "series", x, "value"), data)


def shorten(text: str, most: int = 34) -> str:
    """A text on one line, with at most so many characters."""
    line = shown_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]


# Files


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, in the report's style.

    Raises:
        UsageError: the library is not installed.
    """
    with extra("eval"):
        from matplotlib.figure import Figure
    with _style():
        yield Figure(figsize=(width, height), layout="constrained")


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # Ignore glyphs that DejaVu Sans lacks: the reader's fonts have them.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _plot(figure: Figure, title: str, head: Sequence[str], rows: Sequence[tuple[str | float, ...]]) -> Plot:
    svg = _saved(figure, "svg").decode()
    figure.set_layout_engine("none")  # laying it out again would move everything a little
    return Plot(shown_line(title), svg, tuple(head), tuple(rows), figure)


#: Metadata that would differ between two files with the same data.
_NOT_SAVED = {"svg": ("Date", "Creator", "Format", "Type"), "png": ("Software",), "pdf": ("CreationDate", "Creator")}


def _saved(figure: Figure, form: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, transparent=form == "svg", dpi=200, metadata=dict.fromkeys(_NOT_SAVED[form]))
    return file.getvalue()


def inline(plot: Plot) -> str:
    """A plot for an HTML page, which adds the beginning of the ``svg`` element itself."""
    svg = plot.svg.partition("<svg")[2]
    used = {name for pair in re.findall(r'"#([^"]+)"|url\(#([^)]+)\)', svg) for name in pair}
    # Unused ids are the same in all plots, such as ``figure_1``.
    return re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
