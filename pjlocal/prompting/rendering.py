"""A conversation written out: as the model's Jinja template wants it, or as a plain dialogue where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..engine.model import Model
from .jinja import Refusal, TemplateProcess

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant"]

#: Who says what.
Said = tuple[Role, str]

#: Writes a conversation, with the template's variables; raises `Refusal` where the template does not take it.
Render = Callable[[Sequence[Said], Mapping[str, Any]], str]

#: A text that no template changes but for upper and lower case, whatever it escapes.
PROBE = "pjlocalprobe"

#: Conversations in which a message of that role is the probe; the user's comes first, which the others need.
PROBES: dict[Role, list[Said]] = {
    "user": [("user", PROBE)],
    "system": [("system", PROBE), ("user", "hello")],
    "assistant": [("user", "hello"), ("assistant", PROBE), ("user", "hello")],
}


def attempt(render: Render, said: Sequence[Said], variables: Mapping[str, Any] = {}) -> str | None:
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

    def render(in_parts: frozenset[Role], said: Sequence[Said], variables: Mapping[str, Any]) -> str:
        messages = [{"role": role, "content": _content(text, role in in_parts)} for role, text in said]
        return process.render(messages, variables)

    return _with_parts_where_needed(render)


def _content(text: str, in_parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if in_parts else text


def _with_parts_where_needed(render: Callable[[frozenset[Role], Sequence[Said], Mapping[str, Any]], str]) -> Render:
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


def dialogue(said: Sequence[Said], variables: Mapping[str, Any]) -> str:
    """A plain written-out dialogue, for models without a chat template."""
    return "\n\n".join([*(_speech(role, text) for role, text in said), "Assistant:"])


def _speech(role: Role, text: str) -> str:
    if role == "system":
        return text
    space = "" if text[:1].isspace() else " "  # a model writes its own behind the colon
    return f"{_DIALOGUE_NAMES[role]}:{space}{text}".rstrip()
