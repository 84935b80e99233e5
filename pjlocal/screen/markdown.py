"""Show untrusted Markdown on a terminal, without losing or reordering any of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markdown import BlockQuote, CodeBlock, Heading, ListItem, Markdown, Paragraph, TableElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_DEEPEST = 40  # levels of nested lists and quotes
_NARROW = 8  # least width in columns of indented text
_CELL = 6  # least width in columns of a table's cell


def markdown(text: str) -> RenderableType:
    """A renderable of untrusted Markdown.  Line breaks stay, links show their address, and HTML is plain text.

    Print it with ``overflow="ignore"`` to let the terminal wrap long words and lines of code, so that they can be
    copied whole.
    """
    tokens = _parsed(text)
    if any(token.level >= _DEEPEST - 1 for token in tokens):  # the parser drops deeper parts
        return Text(text)
    renderable = _Markdown("", code_theme="ansi_dark", hyperlinks=False)
    renderable.parsed = tokens
    return renderable


# From text to tokens.


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable("strikethrough").enable("table")
    # Disabled: headings by a line below them, because a text above "---" may not be one; definitions of links, which
    # would disappear; and entities, which a text about HTML should show.
    parser.disable(["lheading", "reference", "entity"])
    parser.inline.ruler.at("escape", _escape)
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]  # show addresses unchanged
    return parser


def _escape(state: StateInline, silent: bool) -> bool:
    """Remove a backslash only where it keeps a character from being Markdown.

    Backslashes in LaTeX, paths and regular expressions stay.
    """
    text, at = state.src, state.pos
    if text[at] != "\\" or not (mark := text[at + 1 : at + 2]) or not re.match(r"[!-/:-@\[-`{-~]", mark):
        return False
    line = text[:at].rpartition("\n")[2]
    in_path = re.search(r"\\\w\S*$|:$", line) is not None
    at_line_start = not line.strip(" 0123456789")
    is_mark = (mark in "*_`~<|" and not in_path) or (mark in "#+-.)>" and at_line_start)
    if not silent:
        state.pending += mark if is_mark else f"\\{mark}"
    state.pos += 2
    return True


def _parsed(text: str) -> list[Token]:
    tokens = _parser().parse(text)
    _add_surplus_cells(tokens, text.split("\n"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline":
            token.children = _spelled_out(token.children or [])
            if before and before.type == "heading_open" and not token.children:
                token.children = [_text(before.markup)]
    return tokens


def _add_surplus_cells(tokens: list[Token], lines: list[str]) -> None:
    """Append the cells that a row has beyond the table's header to its last cell, because the parser drops them."""
    from markdown_it.rules_block.table import escapedSplit

    n_cells = 0
    for i, token in enumerate(tokens):
        if token.type == "tr_open":
            n_cells, line = 0, lines[token.map[0]] if token.map else ""
        elif token.type == "td_open":
            n_cells += 1
        elif token.type == "tr_close" and n_cells:
            cells = escapedSplit(re.sub(r"^[\s>]*", "", line).strip())
            cells = cells[not cells[0].strip() : len(cells) - (not cells[-1].strip())]
            for cell in cells[n_cells:]:
                surplus = _parser().parseInline(f" | {cell.strip()}")[0].children or []
                tokens[i - 2].children = [*(tokens[i - 2].children or []), *surplus]


def _spelled_out(tokens: list[Token]) -> list[Token]:
    """Turn line breaks, addresses, and marks that are not emphasis into text, so that Rich shows them."""
    made: list[list[Token]] = [[token] for token in tokens]
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.type == "softbreak":
            token.type = "hardbreak"
        elif token.type == "image":
            made[i] = _link([_text(token.content)], str(token.attrs["src"]), token.attrs.get("title"))
        elif token.nesting == 1:
            opened.append(i)
        elif token.nesting == -1:
            first = opened.pop()
            inside = tokens[first + 1 : i]
            before = "".join(map(_written, tokens[max(0, first - 1) : first]))[-1:]
            after = "".join(map(_written, tokens[i + 1 : i + 2]))[:1]
            if token.type == "link_close":
                made[first], made[i] = _around_link(tokens[first], "".join(map(_written, inside)), before)
            elif not _is_emphasis(token.markup, before, map(_written, inside), after):
                made[first] = made[i] = [_text(token.markup)]
    return [token for some in made for token in some]


def _is_emphasis(mark: str, before: str, inner: Iterator[str], after: str) -> bool:
    """True if marks around a text mean emphasis, unlike those in 2*3*4, *.txt, __init__ or _name."""
    if mark[0] == "_":
        return any(re.search(r"\s", part) for part in inner)
    if mark == "*" and (next(inner).startswith((".", "/", ")")) or re.match(r"[A-Za-z0-9_(]", after)):
        return False
    return mark[0] != "*" or not re.match(r"[A-Za-z0-9_)\]}/\\^]", before)


def _around_link(opening: Token, inner: str, before: str) -> tuple[list[Token], list[Token]]:
    """The tokens before and after the text of a link.

    They show its address, or the original brackets if it may not be a link, as in f[i](x).
    """
    address, title = str(opening.attrs["href"]), opening.attrs.get("title")
    if opening.info == "auto":
        usual = re.match(r"(https?|ftp|mailto):", address) is not None
        return ([_style("link_url", 1)], [_style("link_url", -1)]) if usual else ([_text("<")], [_text(">")])
    if re.match(r"[A-Za-z0-9_)\]]", before) or not re.search(r"[/.:#?]", address):
        titled = f' "{title}"' if title else ""
        return [_text("[")], [_text(f"]({address}{titled})")]
    if inner == address and not title:
        return [_style("link_url", 1)], [_style("link_url", -1)]
    opened, *closed = _link([], address, title)
    return [opened], closed


def _link(inner: list[Token], address: str, title: object) -> list[Token]:
    titled = f' "{title}"' if title else ""
    url = [_style("link_url", 1), _text(address), _style("link_url", -1)]
    return [_style("link", 1), *inner, _style("link", -1), _text(" ("), *url, _text(f"{titled})")]


def _written(token: Token) -> str:
    """The approximate source of a token."""
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    if token.type == "text":
        return token.content
    return token.markup + token.content + token.markup if token.content else token.markup


def _text(text: str) -> Token:
    from markdown_it.token import Token

    return Token("text", "", 0, content=text)


def _style(name: str, nesting: Any) -> Token:
    from markdown_it.token import Token

    return Token("style", name, nesting)


# From tokens to the screen.


class _Paragraph(Paragraph):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield _wrapped_at_words(self.text, options)


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield _wrapped_at_words(self.text, options)


def _wrapped_at_words(text: Text, options: ConsoleOptions) -> Text:
    """Wrap a text at words if the terminal wraps longer words itself; otherwise return it unchanged."""
    if options.overflow != "ignore":
        return text
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        line.expand_tabs(8)
        breaks, filled = [], 0
        for word in re.finditer(r"\s*\S+\s*", line.plain):
            if filled and filled + cell_len(word[0].rstrip()) > options.max_width:
                breaks.append(word.start())
                filled = 0
            filled += cell_len(word[0])
        lines += line.divide(breaks)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


class _CodeBlock(CodeBlock):
    """Code without a frame, so that it can be copied.  Text after the language of its fence is shown above it."""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _CodeBlock:
        info = token.info.strip()
        block = cls(_language(info) or "text", markdown.code_theme)
        block.fence, block.info = token.markup, info
        return block

    fence = info = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        code = str(self.text).rstrip()
        if not code:
            yield Text(self.fence + self.info, "dim")
            return
        if self.info != _language(self.info):
            yield Text(self.info, "dim")
        text = Syntax(code, self.lexer_name, theme=self.theme).highlight(code)
        text.rstrip()
        text.no_wrap = options.overflow == "ignore"
        yield text


@cache
def _language(info: str) -> str:
    """The language in the first word after a fence; empty if it is unknown."""
    name = info.partition(" ")[0]
    return name if name and Syntax("", name).lexer else ""


class _BlockQuote(BlockQuote):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        mark = Segment("▌ ", self.style)
        yield from _set_in(console, options, self.elements, self.style, mark, mark)


class _ListItem(ListItem):
    """An item with its original number."""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _ListItem:
        item = cls()
        item.number, item.mark = token.info, token.markup
        return item

    number = mark = ""

    def render_bullet(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        # A plus sign may be meant, as in an addition or a list of changes.
        bullet = "•" if self.mark != "+" and list(self.elements) else self.mark  # type: ignore[call-overload]
        mark = Segment(f" {bullet} ", console.get_style("markdown.item.bullet"))
        return _set_in(console, options, self.elements, self.style, mark, Segment("   "))

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> Iterator[Any]:
        mark = Segment(f" {self.number}{self.mark} ", console.get_style("markdown.item.number"))
        return _set_in(console, options, self.elements, self.style, mark, Segment(" " * mark.cell_length))


def _set_in(
    console: Console, options: ConsoleOptions, elements: Any, style: Style, first: Segment, others: Segment
) -> Iterator[Segment]:
    """Render elements to the right of a mark, or below it on a narrow screen."""
    room = options.max_width - first.cell_length
    narrow = room < _NARROW
    inside = options if narrow else options.update(width=room)
    lines = [*Segment.split_lines(Segment.apply_style(console.render(elements, inside), style))]
    if narrow or not lines:
        yield from (first, Segment.line())
    for i, line in enumerate(lines):
        if not narrow:
            yield others if i else first
        yield from (*line, Segment.line())


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        rows = [[cell.content for cell in row.cells] for row in (self.body.rows if self.body else [])]
        header = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        widths = [max(cell.cell_len for cell in column) for column in zip(header, *rows, strict=True)]
        between = 3 * (len(header) - 1)
        if sum(widths) + between > options.max_width < _CELL * len(header) + between:
            yield from _as_records(header, rows)
            return
        segments: Any = super().__rich_console__(console, options)
        for table in segments:
            table.show_edge = False
            for column in table.columns:
                column.overflow = "fold"
            yield table


def _as_records(header: list[Text], rows: list[list[Text]]) -> Iterable[Text]:
    """The cells of a table that is too wide for the screen, one to a line."""
    if not rows:
        yield Text(" | ").join(header)
    for i, row in enumerate(rows):
        if i:
            yield Text()
        for name, cell in zip(header, row, strict=True):
            name = name.copy()
            name.stylize("markdown.table.header")
            yield Text.assemble(name, ": ", cell, overflow="fold")


class _Markdown(Markdown):
    """Rich's Markdown without empty rows at its ends and without spaces at the ends of rows.

    Rich fills rows with spaces, which would wrap into rows of their own when the screen gets narrower.
    """

    elements: ClassVar[Any] = {
        **Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "blockquote_open": _BlockQuote,
        "list_item_open": _ListItem,
        "table_open": _Table,
    }
    inlines = Markdown.inlines | {"link", "link_url"}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        segments: Any = super().__rich_console__(console, options)
        begun, empty = False, 0  # empty rows since the last row with text
        for line in Segment.split_lines(segments):
            while line and not line[-1].text.strip():
                line.pop()
            if not line:
                empty += begun
                continue
            last = line.pop()
            yield from [Segment.line()] * empty
            yield from (*line, Segment(last.text.rstrip(), last.style), Segment.line())
            begun, empty = True, 0


def finished_blocks(text: str) -> tuple[str, int, str]:
    """Split a growing Markdown text after the last block that later text cannot change.

    It is split before a block, before an item of a list, or after a blank line in code.

    Returns:
        The beginning, the number of blank rows to show below it, and the rest, which repeats the fence if the split is
        in code.
    """
    fence = opening = again = ""
    done = gap = at = blanks = 0
    in_list = in_code = False
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n") and not re.search(r"\S\s", line):
            break  # an unfinished line may still change its meaning
        stripped, flush = line.strip(), not line[0].isspace()
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
            elif in_code and blanks and flush:
                done, gap, again = at, blanks, opening
            in_code = in_code or bool(stripped)
        else:
            item = re.match(r"([-*+]|\d{1,9}[.)])\s", line) is not None
            if (item and in_list) or (blanks and flush):
                done, gap, again = at, 0 if item and in_list else 1, ""
                in_list = False
            in_list = in_list or item
            if mark := re.match(r" {0,3}(```+|~~~+)", line):
                fence, in_code = mark[1], False
                opening = f"{mark[0]}{_language(line[mark.end() :].strip())}\n"
        blanks = 0 if stripped else blanks + 1
        at += len(line)
    return text[:done], gap, again + text[done:]
