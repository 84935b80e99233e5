"""A conversation written out: as the model's Jinja template wants it, or as a plain dialogue where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from ..engine.model import Model

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant"]

#: Who says what.
Said = tuple[Role, str]

#: Writes a conversation, with the template's variables.  A template refuses by raising whatever it likes.
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
    except Exception:
        return None


def reaches(render: Render, role: Role) -> bool:
    """Whether what a role says comes into the prompt."""
    return PROBE in (attempt(render, PROBES[role]) or "").casefold()


def jinja(model: Model) -> Render | None:
    """The model's Jinja template behind llama-cpp-python's sandboxed formatter; None without a usable one."""
    if not model.chat_template:
        return None
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter = Jinja2ChatFormatter(model.chat_template, eos_token=model.eos_text, bos_token=model.bos_text)
    except Exception as error:  # whatever Jinja makes of a broken template
        log.warning("the model's chat template is broken (%s): using a plain dialogue instead", error)
        return None

    def render(in_parts: frozenset[Role], said: Sequence[Said], variables: Mapping[str, Any]) -> str:
        messages: list[Any] = [{"role": role, "content": _content(text, role in in_parts)} for role, text in said]
        return str(formatter(messages=messages, **variables).prompt)

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
