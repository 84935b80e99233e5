"""Parse the prompt of a Python program: a text, or messages in OpenAI's format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from .prompt import Message, last_question

#: A text, or a conversation: each message is a `Message` or a dict with ``role`` and ``content``.
Prompt = str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]]

_SYSTEM = ("system", "developer")
_BYTES: tuple[type, ...] = (bytes, bytearray)  # iterables of numbers, not of messages


def parse_conversation(prompt: Prompt) -> tuple[str, Sequence[Message]]:
    """Split a prompt into system text and conversation.

    Returns:
        The joined system texts, and the messages, of which the last one is the user's or the beginning of the answer.

    Raises:
        TypeError: the prompt has another type.
        UsageError: the prompt is empty, or a message is not valid.
    """
    if isinstance(prompt, str):
        prompt = Message("user", prompt)
    if isinstance(prompt, Message | Mapping):
        prompt = [prompt]
    if not isinstance(prompt, Iterable) or isinstance(prompt, _BYTES):
        raise TypeError(f"a prompt must be a text or a list of messages, not {type(prompt).__name__}")
    system, turns = [], []
    for given in prompt:
        role, message = _parse_message(given)
        if role in _SYSTEM:
            system.append(message.content)
        else:
            turns.append(message)
    if not last_question(turns).strip():
        raise UsageError("the prompt is empty")
    return "\n\n".join(text for text in system if text), turns


def check_begin(begin: str, continues: bool) -> None:
    """Refuse a ``begin`` that is given for one answer, if the answer continues a text.  A default then has no effect.

    Raises:
        UsageError: it is given, and a text is continued.
    """
    if begin and continues:
        raise UsageError("--begin is for a new answer: write these words at the end of the text that is continued")


def _parse_message(given: Any) -> tuple[str, Message]:
    """Parse a message, and return its original role and the message."""
    role: Any
    if isinstance(given, Message):
        role, content = given.role, given.content
    elif isinstance(given, Mapping):
        role, content = given.get("role"), _text(given.get("content"))
        if others := [key for key, value in given.items() if key not in ("role", "content") and value]:
            raise UsageError(f"a message has only a role and a content: leave out {', '.join(map(str, others))}")
    else:
        raise TypeError(
            'a message must be a Message, or a dict as in {"role": "user", "content": "Hi"}, '
            f"not {type(given).__name__}"
        )
    if role in _SYSTEM:
        return role, Message("system", content)
    if role == "user" or role == "assistant":
        return role, given if isinstance(given, Message) else Message(role, content)
    raise UsageError(f"a message's role must be user, assistant, system or developer (not {role!r:.100})")


def _text(content: Any) -> str:
    """The text of a message's content, which is a text or a list of text parts."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [_text_of_part(part) for part in content] if isinstance(content, list | tuple) else [None]
    if None in texts:
        raise UsageError(f"a message's content must be a text, or a list of parts of type text (not {content!r:.100})")
    return "".join(text for text in texts if text)


def _text_of_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None
