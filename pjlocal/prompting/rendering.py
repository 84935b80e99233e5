"""A conversation written out: as the model's Jinja template wants it, or as a plain dialogue where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..engine.model import Model
from .jinja import Refusal, TemplateProcess

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant", "tool"]

#: Who says what; of calls and their results, the other fields of the message too.
TemplateMessage = tuple[Role, str] | tuple[Role, str, Mapping[str, Any]]

#: Writes a conversation, with the template's variables; raises `Refusal` where the template does not take it.
Render = Callable[[Sequence[TemplateMessage], Mapping[str, Any]], str]

#: A text that no template changes but for upper and lower case, whatever it escapes.
PROBE = "pjlocalprobe"

#: Conversations in which a message of that role is the probe; the user's comes first, which the others need.
PROBES: dict[Role, list[TemplateMessage]] = {
    "user": [("user", PROBE)],
    "system": [("system", PROBE), ("user", "hello")],
    "assistant": [("user", "hello"), ("assistant", PROBE), ("user", "hello")],
}


def attempt(render: Render, said: Sequence[TemplateMessage], variables: Mapping[str, Any] = {}) -> str | None:
    """What a template writes, or None where it refuses."""
    try:
        return render(said, variables)
    except Refusal:
        return None


def reaches(render: Render, role: Role) -> bool:
    """Whether what a role says comes into the prompt."""
    return PROBE in (attempt(render, PROBES[role]) or "").casefold()


def jinja(model: Model, process: TemplateProcess) -> Render | None:
    """The model's Jinja template, which runs in a process of its own; None without a usable one.

    Raises:
        ModelError: it takes too much time or memory.
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
    """A text, or a list of parts, as the template takes it from each role.

    Templates of models that also see pictures (SmolVLM, Idefics) may know nothing but lists, and pass over a text.
    """
    in_parts: frozenset[Role] = frozenset()
    for role in PROBES:
        with_list = in_parts | {role}
        if not reaches(partial(render, in_parts), role) and reaches(partial(render, with_list), role):
            in_parts = with_list
    return partial(render, in_parts)


_DIALOGUE_NAMES = {"user": "User", "assistant": "Assistant"}


def dialogue(said: Sequence[TemplateMessage], variables: Mapping[str, Any]) -> str:
    """A plain written-out dialogue, for models without a chat template."""
    if any(_others(each) for each in said):
        raise Refusal("it cannot show calls")
    return "\n\n".join([*(_speech(each[0], each[1]) for each in said), "Assistant:"])


def _speech(role: Role, text: str) -> str:
    if role == "system":
        return text
    space = "" if text[:1].isspace() else " "  # a model writes its own behind the colon
    return f"{_DIALOGUE_NAMES[role]}:{space}{text}".rstrip()
