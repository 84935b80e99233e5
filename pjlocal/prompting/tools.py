"""Functions that a model may call: the syntax of calls in its chat template, or calls as text if it has none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rendering import PROBE, Render, attempt
from .thinking import MARKS

#: A function in the format of templates: ``{"type": "function", "function": {"name", "description", "parameters"}}``.
Tool = Mapping[str, Any]


@dataclass(frozen=True)
class Control:
    """A control token."""

    id: int
    spelling: str


@dataclass(frozen=True)
class Spelled:
    """A text with control tokens, split into texts and control tokens."""

    pieces: tuple[str | Control, ...]

    @property
    def whole(self) -> str:
        return "".join(piece if isinstance(piece, str) else piece.spelling for piece in self.pieces)

    @property
    def visible(self) -> str:
        """The text without control tokens, as an answer shows it."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def lark(self) -> str:
        """The text in the syntax of a Lark rule."""
        return " ".join(json.dumps(p, ensure_ascii=False) if isinstance(p, str) else f"<[{p.id}]>" for p in self.pieces)

    def without(self, beginning: str) -> Spelled:
        """Remove a beginning from the text."""
        first, *others = self.pieces
        rest = str(first).removeprefix(beginning)
        return Spelled((*([rest] if rest else []), *others))


@dataclass(frozen=True)
class CallSyntax:
    """The syntax of a call: ``opening``, the function's name, ``between``, and the arguments as JSON.

    The template's text after the arguments is not needed, because the answer ends there.
    """

    opening: Spelled
    between: Spelled

    @property
    def mark(self) -> str | Control | None:
        """The beginning of ``opening`` that distinguishes a call from text: a control token or a tag."""
        first = self.opening.pieces[0] if self.opening.pieces else ""
        if isinstance(first, Control):
            return first
        tag = re.match(r"<[^<>\s]+>|\[[A-Z_]+\]", first)
        return tag[0] if tag else None

    @property
    def can_be_chosen(self) -> bool:
        """True if a call can be distinguished from an answer in text."""
        return self.mark is not None or self.opening.whole.startswith("{")


#: The syntax for templates that have none of their own.
IN_JSON = CallSyntax(Spelled(('{"name": "',)), Spelled(('", "arguments": ',)))


@dataclass(frozen=True)
class CallSupport:
    """The chat template's support for functions.

    shows_tools: whether it shows functions to the model.
    syntax: its syntax of calls; None if it has none, or if the arguments are not JSON.
    in_text: whether the arguments of earlier calls must be a text instead of an object.
    """

    shows_tools: bool = False
    syntax: CallSyntax | None = None
    in_text: bool = False


@dataclass(frozen=True)
class Tools:
    """The functions that one answer may call.

    opening: the beginning of a call, put at the end of the prompt; may spell control tokens.
    """

    offered: Sequence[Tool] = ()
    opening: str = ""


_NAME, _KEY, _VALUE = (f"{PROBE}{letter}" for letter in "fkv")
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "a function",
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]},
    },
}
_ARGUMENTS = re.compile(rf'\{{\s*"{_KEY}"\s*:\s*"{_VALUE}"\s*\}}')


def find_support(render: Render, spelled: Callable[[str], Spelled]) -> CallSupport:
    """Render a test call to find out how a template shows functions and writes calls."""
    variables = {"tools": [_TOOL]}
    head = attempt(render, [("user", PROBE)], variables) or ""
    shows_tools = _NAME in head
    opened = [at for marks in MARKS if (at := head.find(marks.open, head.rfind(PROBE))) >= 0]
    head = head[: min(opened, default=len(head))]  # without thinking that the prompt opens
    for in_text in (False, True):
        arguments: Any = {_KEY: _VALUE}
        call = make_call("pjlocal00", _NAME, json.dumps(arguments) if in_text else arguments)
        messages = [("user", PROBE), ("assistant", "", {"tool_calls": [call]})]
        text = attempt(render, messages, {**variables, "add_generation_prompt": False}) or ""  # type: ignore[arg-type]
        same = next((n for n, (a, b) in enumerate(zip(head, text, strict=False)) if a != b), min(len(head), len(text)))
        text = text[same:]
        opening, name, rest = text.partition(_NAME)
        match = _ARGUMENTS.search(rest)
        if name and match:
            for marks in MARKS:
                opening = opening.rpartition(marks.close)[2]
            if opening.lstrip()[:1] in "<[{":  # a mark, or JSON; gpt-oss has a space before "to=functions."
                opening = opening.lstrip()
            return CallSupport(shows_tools, CallSyntax(spelled(opening), spelled(rest[: match.start()])), in_text)
    return CallSupport(shows_tools)


def make_call(number: str, name: str, arguments: Any) -> dict[str, Any]:
    """A call in the format of OpenAI's messages.  The arguments are an object or a text."""
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def describe_tools(tools: Sequence[Tool]) -> str:
    """The text that describes functions to a model whose template does not show them."""
    functions = [tool["function"] for tool in tools]
    lines = ["Answer with a call of a function, as JSON with its name and its arguments. You can call:"]
    for function in functions:
        about = f": {function['description']}" if function.get("description") else ""
        schema = json.dumps(function["parameters"], ensure_ascii=False)
        lines.append(f"- {function['name']}{about}\n  The JSON schema of its arguments: {schema}")
    return "\n".join(lines)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change all texts in a JSON value, except for the keys of objects."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(inner, change) for inner in value]
    return value
