"""Functions in requests: the fields that offer them, the constraint for a call, and the call in an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BeforeValidator, Field

from ..engine.constraint import check_constraint, json_rule
from ..engine.json_schema import ANNOTATIONS, without_unknown_formats
from ..errors import UsageError
from ..events import TokenEvent
from ..prompting.thinking import ThinkingText
from ..prompting.tools import IN_JSON, CallSupport, CallSyntax, Control, Tools, make_call
from ..request import Overrides, Request
from ..settings import FORMS, Sampling
from .bodies import Strict, Wrong

NOT_OFFERED = (
    "tools were not offered: this model's chat template shows no tools, or its calls cannot be distinguished from "
    "text. To get a call, name a function in tool_choice, or use tool_choice required"
)
_ANYTHING = r"/(.|\n)*/"
#: Settings of an answer that must be a call: it ends after the arguments.
_ENDS: Mapping[str, Any] = {"stop": (), "stop_token": (), "ignore_end": False}


# The fields of a request.


class Function(Strict):
    """A function that the model may call.

    strict: whether the request is refused if the schema of the arguments cannot be enforced.
    """

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
    description: str = ""
    parameters: dict[str, Any] = Field(default={})
    strict: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The JSON schema of the arguments object, which is empty if the function has no parameters."""
        others = self.parameters.keys() - {"type", "properties", "required", *ANNOTATIONS}
        is_empty = not (others or self.parameters.get("properties"))
        return {"type": "object", **self.parameters} | ({"additionalProperties": False} if is_empty else {})

    def choose_schema(self, warn: Callable[[str], None]) -> str:
        """The JSON schema that the arguments follow, as text.

        Raises:
            Wrong: the schema is not that of an object, or is strict and cannot be enforced.
        """
        where = f"tools: the parameters of {self.name}"
        if self.arguments["type"] != "object":
            raise Wrong(f"{where}: their type must be 'object'", "tools")
        if not self.strict:
            return loosened(self.arguments, f"{where} are", warn)
        schema = json.dumps(self.arguments)
        try:
            check_constraint(Sampling(json_schema=schema))
        except UsageError as error:
            raise Wrong(f"{where}: {error}", "tools") from None
        return schema

    def as_tool(self) -> dict[str, Any]:
        """The function in the format of chat templates."""
        described = {"description": self.description} if self.description else {}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": self.arguments}}


def loosened(schema: Mapping[str, Any], which: str, warn: Callable[[str], None]) -> str:
    """A JSON schema that is not strict, as text, without unknown formats.

    If it cannot be enforced, that of any value of its type, with a warning that begins with ``which``.
    """
    text = json.dumps(without_unknown_formats(schema))
    try:
        check_constraint(Sampling(json_schema=text))
    except UsageError as error:
        warn(f"{which} not enforced: {error}")
        return json.dumps({"type": schema["type"], "additionalProperties": True} if "type" in schema else {})
    return text


class Tool(Strict):
    """A tool.  Only functions are supported, not the tools of OpenAI's servers."""

    type: Literal["function"] = "function"
    function: Function


def _as_text(arguments: Any) -> Any:
    return json.dumps(arguments) if isinstance(arguments, dict) else arguments


class Called(Strict):
    """The function in a call."""

    name: str
    arguments: Annotated[str, BeforeValidator(_as_text)] = "{}"


class Call(Strict):
    """A call in an earlier answer."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Called

    def as_dict(self) -> dict[str, Any]:
        """The call in the format of chat templates, with its arguments as an object if they are valid JSON."""
        arguments: Any = self.function.arguments
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments or "{}")
        return make_call(self.id, self.function.name, arguments)


class Offering(Strict):
    """The fields of a request that offer functions."""

    tools: list[Tool] = Field(default=[])
    tool_choice: Any = "auto"

    @property
    def functions(self) -> list[Function]:
        """The functions that the answer may call.

        Raises:
            Wrong: ``tool_choice`` names another, or two have the same name.
        """
        functions = [tool.function for tool in self.tools]
        names = [function.name for function in functions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise Wrong(f"tools: two functions have the name {twice}", "tools")
        if not isinstance(self.tool_choice, dict):
            if self.tool_choice not in ("none", "auto", "required", "any"):
                if chosen := [function for function in functions if function.name == self.tool_choice]:
                    return chosen
                raise Wrong("tool_choice must be 'none', 'auto', 'required' or the name of a function", "tool_choice")
            if self.must_call and not functions:
                raise Wrong(f"tool_choice {self.tool_choice} needs tools", "tool_choice")
            return [] if self.tool_choice == "none" else functions
        if self.tool_choice.get("type") != "function":
            raise Wrong("tool_choice.type must be 'function'", "tool_choice")
        named = self.tool_choice.get("function")
        name = (named if isinstance(named, dict) else self.tool_choice).get("name")  # the Responses API has it flat
        chosen = [function for function in functions if function.name == name]
        if not chosen:
            known = ", ".join(names) or "none"
            raise Wrong(f"tool_choice names {json.dumps(name)[:100]}, and tools has: {known}", "tool_choice")
        return chosen[:1]

    @property
    def must_call(self) -> bool:
        return self.tool_choice not in ("none", "auto")


# The call in an answer.


@dataclass(frozen=True)
class Part:
    """The text that tokens add to the answer, to the thinking, and to the arguments of a call.

    begins: whether the arguments begin with this part."""

    thinking: str = ""
    text: str = ""
    arguments: str = ""
    begins: bool = False


@dataclass(frozen=True)
class Calling:
    """The functions that an answer may call, and their syntax.

    tools: the functions for the prompt.
    settings: the settings for the constraint.
    heads: the names of the functions, by the text of a call before its arguments.
    mark: the text that begins a call anywhere in the answer; None if a call must be the whole answer.
    opening: the visible text that only calls begin with, if there is no mark.
    warnings: messages about schemas that are not enforced.
    """

    tools: Tools
    settings: Overrides
    heads: Mapping[str, str]
    mark: str | Control | None = None
    opening: str = ""
    warnings: Sequence[str] = ()


@dataclass
class Reader:
    """Separates the thinking, the text and the call of an answer, token by token."""

    calling: Calling | None
    name: str = ""  # of the called function
    #: Nine letters and digits, as Mistral's templates require.
    id: str = field(default_factory=lambda: uuid4().hex[:9])
    _arguments: str = ""
    _texts: ThinkingText = field(default_factory=ThinkingText)
    _held: str = ""  # text that may become the head of a call
    _is_marked: bool = False
    _is_over: bool = False  # no call can follow

    def push(self, events: Sequence[TokenEvent]) -> Part:
        return _joined([self._push(event.id, *self._texts.push(event)) for event in events])

    def read(self, events: Sequence[TokenEvent]) -> Part:
        """Split a whole answer into its parts."""
        return _joined([self.push(events), self.finish()])

    def finish(self) -> Part:
        """Return the text that was held back, unless it is a call that was cut off."""
        last = self._push(None, *self._texts.finish())
        held, self._held = self._held, ""
        if self.calling:
            mark = self.calling.mark if isinstance(self.calling.mark, str) else self.calling.opening
            held = "" if self._is_marked or held.startswith(mark) else held
        return _joined([last, Part(text=held)])

    def finish_reason(self, reason: str) -> str:
        if not self.name or reason != "stop":
            return reason
        try:
            json.loads(self._arguments)
        except (ValueError, RecursionError):  # a stop string cut them off
            return "length"
        return "tool_calls"

    def _push(self, token: int | None, thinking: str, text: str) -> Part:
        if self.name:
            self._arguments += text
            return Part(thinking, arguments=text)
        if self.calling is None or self._is_over:
            return Part(thinking, text)
        mark = self.calling.mark
        if isinstance(mark, Control) and not self._is_marked:
            self._is_marked = token == mark.id
            return Part(thinking, text)
        held = self._held + text
        heads = {f"{head}{{": head for head in self.calling.heads}  # the arguments are an object
        places = [at for at, character in enumerate(held) if character == mark[0]] if isinstance(mark, str) else [0]
        for at in places:
            if head := next((head for head in heads if held.startswith(head, at)), None):
                self.name, self._held = self.calling.heads[heads[head]], ""
                self._arguments = held[at + len(heads[head]) :]
                return Part(thinking, held[:at], self._arguments, begins=True)
        keep = next((at for at in places if any(head.startswith(held[at:]) for head in heads)), len(held))
        self._is_over = not isinstance(mark, str) and keep > 0
        self._held = held[keep:]
        return Part(thinking, held[:keep])


def _joined(parts: Sequence[Part]) -> Part:
    names = ("thinking", "text", "arguments")
    texts = {name: "".join(getattr(part, name) for part in parts) for name in names}
    return Part(**texts, begins=any(part.begins for part in parts))


def arrange(functions: Sequence[Function], must_call: bool, support: CallSupport, request: Request) -> Calling | None:
    """Prepare the calls of functions in an answer; None if the model cannot choose between a call and text.

    Raises:
        Wrong: a schema is wrong, or strict and not supported, or the request has another constraint besides the choice.
    """
    syntax = support.syntax or IN_JSON
    if not must_call and not (support.shows_tools and support.syntax and syntax.can_be_chosen):
        return None
    warnings: list[str] = []
    schemas = {function.name: function.choose_schema(warnings.append) for function in functions}
    offered = [function.as_tool() for function in functions]
    before, between = syntax.opening.whole, syntax.between
    if must_call and len(functions) == 1:
        ((name, schema),) = schemas.items()
        form = Overrides(sampling={"json_schema": schema}, generation=_ENDS)
        return Calling(Tools(offered, f"{before}{name}{between.whole}"), form, {"": name}, warnings=warnings)
    if must_call:
        rules = "\n".join(["start: call", *_rules(schemas, between.lark)])
        form = Overrides(sampling={"lark": rules}, generation=_ENDS)
        heads = {f"{name}{between.visible}": name for name in schemas}
        return Calling(Tools(offered, before), form, heads, warnings=warnings)
    lark = [*_choice(syntax, request.sampling), *_rules(schemas, between.lark)]
    heads = {f"{syntax.opening.visible}{name}{between.visible}": name for name in schemas}
    form = Overrides(sampling={"lark": "\n".join(lark)})
    return Calling(Tools(offered), form, heads, syntax.mark, syntax.opening.visible, warnings)


def _rules(schemas: Mapping[str, str], between: str) -> Iterator[str]:
    yield f"call: {' | '.join(f'call_{n}' for n, _ in enumerate(schemas))}"
    for n, (name, schema) in enumerate(schemas.items()):
        yield f'call_{n}: "{name}" {between} arguments_{n}'
        yield f"arguments_{n}: {json_rule(schema)}"


def _choice(syntax: CallSyntax, sampling: Sampling) -> Iterator[str]:
    """The Lark rules of an answer that is text, in its required form, or contains a call."""
    if others := [name for name in FORMS if name != "json_schema" and getattr(sampling, name) is not None]:
        raise Wrong(f"tools and {others[0]} exclude each other where tool_choice is auto", "tools")
    opening, mark = syntax.opening, syntax.mark
    yield f"TEXT: {_ANYTHING}"
    if sampling.json_schema is not None:
        yield f"start: {json_rule(sampling.json_schema)} | {opening.lark} call"
    elif isinstance(mark, Control):
        yield f"start: TEXT | TEXT {opening.lark} call"
    elif mark:
        yield f"start: TEXT | marked {opening.without(mark).lark} call"
        yield f"marked[lazy]: TEXT {json.dumps(mark)}"
    else:
        yield f"start: OTHER_TEXT | {opening.lark} call"
        yield f"OTHER_TEXT: {_ANYTHING} & ~/{_as_regex(opening.whole)}(.|\\n)*/"


def _as_regex(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)
