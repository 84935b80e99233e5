"""Grammars in GBNF.  llama.cpp parses them, except those that it would crash or hang on: they are refused here."""

from __future__ import annotations

import re
import textwrap
from itertools import accumulate
from typing import Any

from llama_cpp import llama_cpp as lib

from ..errors import UsageError
from .backend import captured_stderr, forget_errors, last_error
from .model import Model

# llama.cpp's parser recurses at every open bracket and crashes on 20,000.  Its search for left recursion recurses at
# every rule that begins with another rule, and crashes on a chain of 100,000.
_DEEPEST = 1000
_COMPLAINT = "parse: error parsing grammar: "
_MOST_RULES = 10_000
_REPETITION = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#.*')  # literals, sets of characters, comments


def parse_grammar(model: Model, grammar: str) -> Any:
    """Make llama.cpp's sampler of a grammar.

    Raises:
        UsageError: the grammar cannot be parsed.
    """
    if "\0" in grammar:
        raise UsageError("the grammar cannot be parsed: it contains a NUL character")
    if grammar.count("(") > _DEEPEST and max(accumulate((c == "(") - (c == ")") for c in grammar)) > _DEEPEST:
        raise UsageError(f"the grammar cannot be parsed: its brackets are nested more than {_DEEPEST} deep")
    if grammar.count("::=") > _MOST_RULES:
        raise UsageError(f"the grammar cannot be parsed: it has more than {_MOST_RULES} rules")
    for least, most in _REPETITION.findall(_QUOTED.sub("", grammar)):
        if len(least + most) > 18:
            raise UsageError("the grammar cannot be parsed: it repeats something too often")
        if most and int(most) < int(least or 0):  # llama.cpp would loop for ever
            raise UsageError(f"the grammar cannot be parsed: it repeats something from {least} to {most} times")
    forget_errors()
    try:
        data = grammar.encode()
    except UnicodeEncodeError:
        raise UsageError("the grammar is not valid UTF-8") from None
    own = {line.strip() for line in grammar.splitlines()} | {""}  # the parser prints the grammar after its error
    with captured_stderr(lambda line: line.startswith(_COMPLAINT) or line.strip() in own) as captured:
        sampler = lib.llama_sampler_init_grammar(model.vocab, data, b"root")
    if not sampler:
        complaint = next((line for line in captured if line.startswith(_COMPLAINT)), "")
        reason = complaint.removeprefix(_COMPLAINT).strip() or last_error() or "it has no rule named root"
        raise UsageError(f"the grammar cannot be parsed: {textwrap.shorten(reason, 160, placeholder=' …')}")
    return sampler
