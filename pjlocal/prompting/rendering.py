"""A conversation as prompt text: by the model's Jinja template, or as a plain dialogue without one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..engine.model import Model
from .jinja import Refusal, TemplateProcess

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant", "tool"]

#: The role and the text of a message; for calls and their results, its other fields too.
TemplateMessage = tuple[Role, str] | tuple[Role, str, Mapping[str, Any]]

#: Renders a conversation with the template's variables; raises `Refusal` if the template refuses it.
Render = Callable[[Sequence[TemplateMessage], Mapping[str, Any]], str]

#: A text that templates leave unchanged except for upper and lower case.
PROBE = "pjlocalprobe"

#: Conversations with the probe as a message of that role.  The user's comes first because the others need it.
PROBES: dict[Role, list[TemplateMessage]] = {
    "user": [("user", PROBE)],
    "system": [("system", PROBE), ("user", "hello")],
    "assistant": [("user", "hello"), ("assistant", PROBE), ("user", "hello")],
}


def attempt(render: Render, said: Sequence[TemplateMessage], variables: Mapping[str, Any] = {}) -> str | None:
    """The output of a template; None if it refuses."""
    try:
        return render(said, variables)
    except Refusal:
        return None


def reaches(render: Render, role: Role) -> bool:
    """True if a role's text is in the prompt."""
    return PROBE in (attempt(render, PROBES[role]) or "").casefold()


def jinja(model: Model, process: TemplateProcess) -> Render | None:
    """The model's Jinja template, which runs in a process of its own; None without a usable one.

    Raises:
        ModelError: the template takes too much time or memory.
    """
    if not model.chat_template:
        process.close()
        return None
    try:
        process.compile(model.chat_template, eos_token=model.eos_text, bos_token=model.bos_text)
    except Refusal as error:
        log.warning("the model's chat template is broken (%s): using a plain dialogue instead", error)
        process.close()
        return None

    def render(in_parts: frozenset[Role], said: Sequence[TemplateMessage], variables: Mapping[str, Any]) -> str:
        messages = [{"role": s[0], "content": _content(s[1], s[0] in in_parts), **_others(s)} for s in said]
        return process.render(messages, variables)

    return _with_parts_where_needed(render)


def _others(said: TemplateMessage) -> Mapping[str, Any]:
    return said[2] if len(said) == 3 else {}


def _content(text: str, in_parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if in_parts else text


def _with_parts_where_needed(
    render: Callable[[frozenset[Role], Sequence[TemplateMessage], Mapping[str, Any]], str],
) -> Render:
    """Pass each role's content as a text, or as a list of parts if the template needs it.

    Templates of models that also read images (SmolVLM, Idefics) may accept only lists, and ignore texts.
    """
    in_parts: frozenset[Role] = frozenset()
    for role in PROBES:
        with_list = in_parts | {role}
        if not reaches(partial(render, in_parts), role) and reaches(partial(render, with_list), role):
            in_parts = with_list
    return partial(render, in_parts)


_DIALOGUE_NAMES = {"user": "User", "assistant": "Assistant"}


def dialogue(said: Sequence[TemplateMessage], variables: Mapping[str, Any]) -> str:
    """A plain dialogue as text, for models without a chat template."""
    if any(_others(each) for each in said):
        raise Refusal("it cannot show calls")
    return "\n\n".join([*(_speech(each[0], each[1]) for each in said), "Assistant:"])


def _speech(role: Role, text: str) -> str:
    if role == "system":
        return text
    space = "" if text[:1].isspace() else " "  # the model writes its own space after the colon
    return f"{_DIALOGUE_NAMES[role]}:{space}{text}".rstrip()
