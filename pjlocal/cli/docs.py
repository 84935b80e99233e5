"""``pjlocal docs``: the documents of the package."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, did_you_mean
from ..screen.console import make_console, paged, say
from ..screen.display import in_columns
from . import completion, documents

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDEST = 110  # columns of text; longer rows are hard to read


def docs(
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            help="The document to show; without it, print the list. More WORDS of --search may follow it.",
            autocompletion=completion.documents,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            "-s",
            metavar="WORDS",
            help="Print the passages with all WORDS, in all documents or in TOPIC; passages with WORDS in this order "
            "come first.",
        ),
    ] = None,
) -> None:
    topics = documents.topics()
    named, *words = topic or [""]
    if search is not None:
        if named not in topics:  # WORDS without quotation marks
            named, words = "", [named, *words]
        _print_passages(" ".join([search, *words]), [named] if named else [*topics])
    elif words:
        raise UsageError(f"give one document, or search in it: pjlocal docs {named} --search {shlex.join(words)}")
    elif topic:
        if named not in topics:
            hint = did_you_mean(named, topics) or f"there are {', '.join(topics)}"
            raise UsageError(f"there is no document {named!r}: {hint}")
        _show(named)
    else:
        width = max(map(len, topics))
        for name, about in topics.items():
            typer.echo(in_columns(f"{name:{width}}  ", about, sys.stdout))


def _print_passages(text: str, topics: list[str]) -> None:
    words = text.casefold().split()
    if not words:
        raise UsageError("--search needs a word")
    found = [
        (topic, number, passage)
        for topic in topics
        for number, passage in documents.passages(topic)
        if all(word in passage.casefold() for word in words)
    ]
    for topic, number, passage in sorted(found, key=lambda hit: " ".join(words) not in hit[2].casefold()):
        if sys.stdout.isatty():
            _show_passage(f"{topic}:{number}: ", passage, words)
        else:
            typer.echo(f"{topic}:{number}: {passage}")
    if not found:
        advice = ": use fewer words" if len(words) > 1 else ""
        where = f" in {topics[0]}" if len(topics) == 1 else ""
        say(f"nothing found{where}{advice}")


def _show_passage(head: str, passage: str, words: list[str]) -> None:
    """Print a passage on a terminal: wrapped between words, without the targets of links, the found words in bold."""
    from rich.text import Text

    text = Text(in_columns(head, _without_targets(passage), sys.stdout))
    text.highlight_words(words, "bold", case_sensitive=False)
    make_console(sys.stdout).print(text, soft_wrap=True)


def _show(topic: str) -> None:
    """Page through a document on a terminal; print its Markdown elsewhere."""
    text = documents.read(topic)
    if not sys.stdout.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        typer.echo(text, nl=False)
    else:
        console = make_console(sys.stdout)
        with paged(console):
            console.print(_rendered(text), width=min(console.width, _WIDEST))


def _without_targets(text: str) -> str:
    """The text with links between documents as commands, because a terminal cannot follow links."""
    text = re.sub(r"\]\((\w+)\.md(#[\w-]+)?\)", r"] (`pjlocal docs \1`)", text)
    text = re.sub(r"\[([^][]+)\] \(`", r"\1 (`", text)
    return re.sub(r"\[([^][]+)\]\(#[\w-]+\)", r"\1", text)


def _rendered(text: str) -> RenderableType:
    from rich.markdown import Markdown

    return Markdown(_without_targets(text), code_theme="ansi_dark", hyperlinks=False)
