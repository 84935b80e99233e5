"""Render a conversation as prompt text, with the model's Jinja template or as a plain dialogue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ..engine.model import Model
from .jinja import Refusal, TemplateProcess

log = logging.getLogger("pjlocal")

Role = Literal["system", "user", "assistant", "tool"]

#: The role and the text of a message; for calls and their results, its other fields too.
TemplateMessage = tuple[Role, str] | tuple[Role, str, Mapping[str, Any]]

#: Renders a conversation with the template's variables; raises `Refusal` if the template refuses it.
Render = Callable[[Sequence[TemplateMessage], Mapping[str, Any]], str]

#: A word that templates leave unchanged except for its case.
PROBE = "pjlocalprobe"

#: A conversation with the probe as a message of each role.  The user's comes first, because the others contain a user's
#: message.
PROBES: dict[Role, list[TemplateMessage]] = {
    "user": [("user", PROBE)],
    "system": [("system", PROBE), ("user", "hello")],
    "assistant": [("user", "hello"), ("assistant", PROBE), ("user", "hello")],
}


def attempt(render: Render, messages: Sequence[TemplateMessage], variables: Mapping[str, Any] = {}) -> str | None:
    """Render messages; None if the template refuses them."""
    try:
        return render(messages, variables)
    except Refusal:
        return None


def reaches(render: Render, role: Role) -> bool:
    """True if the template puts the messages of a role into the prompt."""
    return PROBE in (attempt(render, PROBES[role]) or "").casefold()


def jinja(model: Model, process: TemplateProcess) -> Render | None:
    """The model's Jinja template, which runs in a process of its own; None without a usable one.

    Templates of models that also read images (SmolVLM, Idefics) may accept only lists of parts, and ignore texts.

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

    in_parts: set[Role] = set()  # whose content must be a list of parts

    def content(role: Role, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if role in in_parts else text

    def render(messages: Sequence[TemplateMessage], variables: Mapping[str, Any]) -> str:
        return process.render(
            [{"role": m[0], "content": content(m[0], m[1]), **_others(m)} for m in messages], variables
        )

    for role in PROBES:
        if not reaches(render, role):
            in_parts.add(role)
            if not reaches(render, role):
                in_parts.remove(role)
    return render


def _others(message: TemplateMessage) -> Mapping[str, Any]:
    return message[2] if len(message) == 3 else {}


_DIALOGUE_NAMES = {"user": "User", "assistant": "Assistant"}

#: End an answer in a plain dialogue, whose next turn the model would write too.  The first also leave out the
#: empty line before it.
DIALOGUE_STOPS = tuple(f"{lines}{name}:" for lines in ("\n\n", "\n") for name in _DIALOGUE_NAMES.values())

#: Stands between a name and its text in a plain dialogue.  The model writes it, and it is no part of the answer.
DIALOGUE_SPACE = " "


def dialogue(messages: Sequence[TemplateMessage], variables: Mapping[str, Any]) -> str:
    """Render a plain dialogue, for models without a chat template."""
    if any(_others(message) for message in messages):
        raise Refusal("it cannot show calls")
    return "\n\n".join([*(_speech(message[0], message[1]) for message in messages), "Assistant:"])


def _speech(role: Role, text: str) -> str:
    if role == "system":
        return text
    return f"{_DIALOGUE_NAMES[role]}:{behind_name(text)}".rstrip()


def behind_name(text: str) -> str:
    """The text as it stands behind a name in a plain dialogue: with a space before it, unless it begins with white
    space."""
    return text if not text or text[0].isspace() else f"{DIALOGUE_SPACE}{text}"
