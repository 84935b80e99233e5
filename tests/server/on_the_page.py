"""What a user does on the server's page, and what is seen there."""

from __future__ import annotations

import json
from typing import Any

from browser import Page

SETTINGS: dict[str, Any] = {"preferences": {"a": ["vivid"], "b": ["concise"]}}
ENDLESS = SETTINGS | {"generation": {"max_tokens": 30_000, "ignore_end": True}}
WRITTEN = "document.querySelector('#turns article:last-child .actions button')"
EDITED = "document.querySelector('.rewriting textarea')"  # the question or the answer, while it is edited
TOKENS = "document.querySelectorAll('#turns article:last-child .t').length"


def says(text: str) -> dict[str, Any]:
    """The settings of a chat in which all answers are this text."""
    return SETTINGS | {"sampling": {"grammar": f"root ::= {json.dumps(text)}"}, "generation": {"max_tokens": 500}}


def ask(page: Page, question: str) -> None:
    page.eval("document.getElementById('question').focus()")
    page.type(question)
    page.press("Enter")
    page.wait_for(f"document.querySelector('#turns article:last-child h3').textContent === {json.dumps(question)}")


def button_of(text: str) -> str:
    """The expression for the button with this text."""
    return f"[...document.querySelectorAll('button')].find((button) => button.textContent === {json.dumps(text)})"


def click(page: Page, text: str) -> None:
    found = button_of(text)
    page.wait_for(found)
    page.eval(f"var button = {found}; button.focus(); button.click()")
