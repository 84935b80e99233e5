"""Make the pictures of README.md from real runs of the embedded model, and the chart of results.md from its table:

    python tests/tools/make_pictures.py [colours] [chat] [page] [best]

The terminal's are SVG files that Rich exports from what the command writes on a pseudo-terminal; the page's is a
screenshot by headless Chromium, with the packages of the extra 'serve'; the chart needs those of the extra 'eval'.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from browser import Chromium
from commandline import PJLOCAL, environment_in
from matplotlib import rc_context
from matplotlib.figure import Figure
from on_the_page import WRITTEN, ask
from rich.console import Console
from rich.style import Style
from rich.text import Text
from served import serving
from terminal import Terminal

from pjlocal.gguf.locate import embedded_model

TESTS = Path(__file__).parents[1]
FOLDER = TESTS.parent / ".github" / "pictures"
WISHES = ("Talk like a pirate", "simple")
QUESTION = "How does a refrigerator keep food cold?"
OPTIONS = ("-p", WISHES[0], "-p", WISHES[1], "--seed", "2")
COLUMNS = 96


def colours(folder: Path) -> None:
    """One answer twice: who wrote each token, and which preference pulled it in."""
    lines: list[Text] = []
    for view in ("blame", "push"):
        command = ("run", *OPTIONS, "--view", view, QUESTION)
        terminal = Terminal(_environment(folder), folder, (*PJLOCAL, *command), COLUMNS, 20)
        assert terminal.end() == 0, terminal.text
        lines += [Text(f"$ {shlex.join(['pjlocal', *command])}".replace("'", '"'), "bold"), *_shown(terminal), Text()]
    _write("colours.svg", "pjlocal run", lines[:-1])


def chat(folder: Path) -> None:
    """A chat: an answer, another preference, the same question again."""
    terminal = Terminal(_environment(folder), folder, (*PJLOCAL, "chat", *OPTIONS), COLUMNS, 22)
    terminal.at_prompt()
    for line in (QUESTION, "/prefer b Answer in one short sentence", "/view push", "/regen"):
        terminal.say(line)
    lines = _shown(terminal)
    terminal.leave()
    _write("chat.svg", "pjlocal chat", lines)


def page(folder: Path) -> None:
    """The server's page: an answer in the colours of who wrote it, and the numbers of one token."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    browser = Chromium(executable, folder / "profile")
    model = embedded_model()
    assert model
    try:
        with serving(model, _environment(folder), *OPTIONS) as served:
            browser.size(1120, 720)
            browser.open(served.page())
            browser.wait_for("document.body.innerText.includes('none yet')")  # the list of chats is there
            ask(browser, QUESTION)
            browser.wait_for(WRITTEN)
            tokens = browser.eval(
                "[...document.querySelectorAll('.answer .t')].map((t, i) => t.id = `token${i}`) && "
                "[...document.querySelectorAll('.answer .t.resampled')].map((t) => t.id)"
            )
            browser.hover(f"#{tokens[-3]}")
            shot = browser("Page.captureScreenshot", format="png")
    finally:
        browser.close()
    (FOLDER / "page.png").write_bytes(base64.b64decode(shot["data"]))


def best(folder: Path) -> None:
    """Answers that meet both preferences against the tokens written, for --best 1, 2, 4 and 8."""
    table = (TESTS.parent / "pjlocal" / "docs" / "results.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:one answer|`--best \d`) \| (.*) \|$", table, re.MULTILINE)
    cells = [[re.findall(r"\d+", cell) for cell in row.split("|")] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for first, (model, marker) in enumerate((("SmolLM2-135M", "o"), ("Qwen2.5-Coder-1.5B", "s"))):
        points = [row[3 * first : 3 * first + 3] for row in cells if row[3 * first]]
        met, low, high = ([int(point[0][i]) for point in points] for i in range(3))
        tokens = [int(point[2][0]) for point in points]
        errors = [[m - n for m, n in zip(met, low, strict=True)], [n - m for m, n in zip(met, high, strict=True)]]
        bars = axes.errorbar(tokens, met, errors, marker=marker, capsize=3, label=model)
        limit = [int(point[1][0]) for point in points]
        axes.plot(tokens, limit, "--", marker=marker, mfc="none", color=bars[0].get_color(), label=f"{model}, limit")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks := [25, 50, 100, 200, 300], ticks)
    axes.set(xlabel="tokens written a prompt", ylabel="both preferences met, %", ylim=(0, None))
    axes.legend(loc="lower right")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pjlocal", "font.family": "sans-serif"}):
        figure.savefig(FOLDER / "best.svg", metadata={"Date": None})


def _environment(folder: Path) -> dict[str, str]:
    seen = folder / "data" / "pjlocal" / "small-model-notice"
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.touch()  # of a user who has seen the notice about the small model
    return environment_in(folder) | {"TERM": "xterm-256color", "PYTHONPATH": str(TESTS.parent)}


def _shown(terminal: Terminal) -> list[Text]:
    """The rows that a terminal shows, in their colours, without the empty ones at the end."""
    screen = terminal.screen
    rows = [_row([screen.buffer[y][x] for x in range(screen.columns)]) for y in range(screen.lines)]
    while rows and not rows[-1].plain:
        rows.pop()
    return rows


def _row(cells: list[Any]) -> Text:
    row = Text()
    for cell in cells:
        style = Style(
            color=_color(cell.fg), bgcolor=_color(cell.bg), bold=cell.bold, italic=cell.italics,
            underline=cell.underscore, strike=cell.strikethrough, reverse=cell.reverse,
        )  # fmt: skip
        row.append(cell.data, style)
    row.rstrip()
    return row


def _color(name: str) -> str | None:
    """A colour as Rich names it, of those of pyte."""
    if name == "default":
        return None
    name = name.replace("brown", "yellow")
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else re.sub("^bright", "bright_", name)


def _write(name: str, title: str, lines: list[Text]) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for line in lines:
        console.print(line)
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # it would load fonts from elsewhere
    (FOLDER / name).write_text(svg.replace("Fira Code, monospace", "monospace"), encoding="utf-8")


PICTURES: dict[str, Callable[[Path], None]] = {"colours": colours, "chat": chat, "page": page, "best": best}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            PICTURES[wanted](Path(folder))
