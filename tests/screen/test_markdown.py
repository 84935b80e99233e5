"""Markdown on a terminal loses and moves nothing: every character that carries meaning is shown, in order."""

from __future__ import annotations

import io
import re
import shutil
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from terminal import Tmux

from pjlocal.screen.flows import MarkdownFlow
from pjlocal.screen.markdown import markdown
from pjlocal.screen.region import print_permanently


def shown(text: str, width: int = 60) -> str:
    return printed(width, markdown(text))


def printed(width: int, *renderables: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for renderable in renderables:
        print_permanently(console, renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Roses are red\nviolets are blue  \nhard\\\nbreak", "Roses are red\nviolets are blue\nhard\\\nbreak"),
        ("1986. A good year", " 1986. A good year"),
        ("1986.", " 1986."),
        ("007) Bond", " 007) Bond"),
        ("3. x\n4. y\n   - deep\n   - [ ] to do", " 3. x\n 4. y\n     • deep\n     • [ ] to do"),
        ("*", " *"),
        ("+ 30\n- 12", " + 30\n\n • 12"),
        ("#", "#"),
        ("```", "```"),
        ("2*3*4, 2**3**4, a*(b+c)*d, a^*b^*", "2*3*4, 2**3**4, a*(b+c)*d, a^*b^*"),
        ("*.txt and *.md, (*.o) and (*.c)", "*.txt and *.md, (*.o) and (*.c)"),
        ("__init__.py, _private_, a_b_c", "__init__.py, _private_, a_b_c"),
        ("*one* **two** _three four_ **S**pecific **.NET**", "one two three four Specific .NET"),
        (r"C:\dir\*.txt, \(a+b\), \[ x \\ y \], example\.com", r"C:\dir\*.txt, \(a+b\), \[ x \\ y \], example\.com"),
        (r"5 \* 3, a\_b, \`x\`", "5 * 3, a_b, `x`"),
        ("&lt;b&gt; &copy; <b>x</b>", "&lt;b&gt; &copy; <b>x</b>"),
        ("<div>\n<p>hi</p>\n</div>", "<div>\n<p>hi</p>\n</div>"),
        ('[docs](https://a.b/ü?x=1&y=2 "Title")', 'docs (https://a.b/ü?x=1&y=2 "Title")'),
        ("见[文档](https://a.b)", "见文档 (https://a.b)"),
        ("*![](x.png)*", " (x.png)"),
        ("one ![a cat](cat.png) two", "one a cat (cat.png) two"),
        ("a [![badge](b.svg)](https://c.d) e", "a badge (b.svg) (https://c.d) e"),
        ("<https://x.org> <std:vector> f[i](x)", "https://x.org <std:vector> f[i](x)"),
        ("As shown [1][2].\n\n[1]: http://a.b\n[^2]: note", "As shown [1][2].\n\n[1]: http://a.b\n[^2]: note"),
        ("Text\n===", "Text\n==="),
        ("```python title=a.py\nx = 1\n```", "python title=a.py\nx = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("    one\n      two", "one\n  two"),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |", "a  b\n────────\n1  2 | 3"),
    ],
)
def test_plain_text_is_shown_unchanged(text: str, expected: str) -> None:
    lines = [line.rstrip() for line in shown(text).rstrip("\n").split("\n")]
    assert [re.sub(" {2,}", "  ", line) if "|" in text else line for line in lines] == expected.split("\n")


def test_text_above_a_rule_is_not_a_title() -> None:
    assert shown("text\n---\nmore", 20) == f"text\n\n{'-' * 20}\n\nmore\n"


PIECES = (
    *'ab1 \n*_`#>-+.|()[]!<&;\\~:/"=',
    *("```", "**", "\n\n", "\n- ", "\n1. ", "| ", "\n|", "|-|-|\n", "](", "![", "~~~", "    ", "\n> ", "word"),
    *("http://x.y/z", "---", "<br>", "\n# ", "```python\n"),
)
written = st.lists(st.sampled_from(PIECES), max_size=60)


def letters(text: str) -> str:
    """A text without all that may be markup."""
    return re.sub(r"[\W_]|(?<=```)python(?=\n)", "", text)


@settings(deadline=None, max_examples=100)
@given(written)
@example(["> "] * 50 + ["deep"])
@example(["- "] * 50 + ["deep"])
@example(["``` a\n- "])
def test_every_letter_is_shown_in_order_on_a_wide_screen_and_none_is_lost_on_a_narrow_one(pieces: list[str]) -> None:
    text = "".join(pieces)
    if "python" not in text:
        assert letters(shown(text, 300)) == letters(text)
    narrow = sorted(letters(shown(text, 30)))
    for letter in letters(text):
        assert letter in narrow
        narrow.remove(letter)


@settings(deadline=None, max_examples=30)
@given(written)
@example(["```a\nb\n\n", "\n", "c\n\n", "d"])
def test_nothing_is_lost_however_the_tokens_of_an_answer_are_cut(pieces: list[str]) -> None:
    flow, finished = MarkdownFlow(), []
    for piece in pieces:
        flow.add(piece, "")
        finished += flow.take_finished()
        printed(300, Group(*flow.rest()))
    finished += flow.take_finished(everything=True)
    assert letters(printed(300, *finished)) == letters("".join(pieces)) or "python" in "".join(pieces)


ADDRESS = "https://example.com/" + "/".join(map(str, range(40)))
TABLE = f"| site | address |\n|---|---|\n| it | {ADDRESS} |\n| {'w' * 70} | b |"
COLUMNS = "|".join(f"c{i}" for i in range(12)) + "\n" + "|".join("-" * 12) + "\n" + "|".join(f"v{i}" for i in range(12))


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, 200])
def test_a_table_is_folded_and_not_cut(width: int) -> None:
    table = shown(TABLE, width)
    assert "…" not in table and max(map(len, table.split("\n"))) <= width
    column = "".join(line.split()[-1] for line in table.split("\n") if line.strip())
    assert ADDRESS in column or ADDRESS in re.sub(r"\s|w", "", table)
    assert table.count("w") == 70
    values = re.findall(r"\bv\d+", shown(COLUMNS, width))
    assert values == [f"v{i}" for i in range(12)], "as many columns as the screen has no room for"


CODE = f"print('{'y ' * 60}')"


@pytest.mark.parametrize("text", [f"```python\n{CODE}\n```", f"1. Do it:\n\n   ```python\n   {CODE}\n   ```"])
def test_a_long_line_of_code_is_whole_where_it_stays_and_folded_in_a_panel(text: str) -> None:
    assert CODE in shown(text, 40)
    console = Console(file=io.StringIO(), width=40)
    console.print(Panel(markdown(f"{text}\n\n{ADDRESS}")))
    panel = console.file.getvalue()
    assert panel.count("y") == 60 and ADDRESS in re.sub(r"[\s│]", "", panel)
    assert max(map(len, panel.split("\n"))) == 40


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
@pytest.mark.parametrize("flow", ["LineFlow", "MarkdownFlow"])
def test_copied_code_and_addresses_have_no_additional_line_ends(environment, tmp_path, flow) -> None:
    code = f"""
from rich.console import Console, Group
from rich.text import Text
from pjlocal.screen.region import LiveRegion
from pjlocal.screen.flows import {flow}
region, flow = LiveRegion(Console()), {flow}()
for character in {f"see {ADDRESS} there{chr(10)}{chr(10)}```{chr(10)}{CODE}{chr(10)}```{chr(10)}{chr(10)}The end."!r}:
    flow.add(character, "cyan")
    region.draw(Group(*flow.rest(), Text("status")), flow.take_finished())
region.close(flow.take_finished(everything=True))
input("done")"""
    with Tmux(environment, tmp_path, [sys.executable, "-c", code], columns=60, lines=30) as tmux:
        tmux.until("done")
        lines = [line.rstrip() for line in tmux.text.split("\n")]
    assert CODE in lines
    assert any(ADDRESS in line for line in lines)
    assert "status" not in "".join(lines)
