"""Read character cards (versions 1 to 3, JSON or inside a PNG picture).  Their text becomes a persona's system text.

The format: https://github.com/malfoyslastname/character-card-spec-v2
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..textfile import decode_utf8, name_parts, read_bytes

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNKS = (b"ccv3", b"chara")  # the newer one first


@dataclass(frozen=True)
class Character:
    """A character.

    persona: the character's name in a form that is valid for a persona.
    system: the system text.
    """

    persona: str
    system: str


def read_character(path: Path) -> Character:
    """Read the character of a card.

    Raises:
        UsageError: the file cannot be read, or is not a card.
    """
    values = _card(path, read_bytes(path, str(path)))
    data = values.get("data")
    return _character(path, data if isinstance(data, dict) else values)


def _card(path: Path, content: bytes) -> dict[str, Any]:
    if content.startswith(_PNG):
        texts = dict(_text_chunks(content))
        encoded = next((texts[name] for name in _CHUNKS if name in texts), None)
        if encoded is None:
            raise UsageError(f"{path} is a picture without a character card in it")
        try:
            content = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise UsageError(f"the character card in {path} is broken: it is not base64") from None
    try:
        values = json.loads(decode_utf8(content, str(path)))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a character card: it is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a character card: its JSON is not an object")
    return values


def _text_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and the text of each complete tEXt chunk of a PNG picture."""
    at = len(_PNG)
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        data = content[at + 8 : at + 8 + length]
        if kind == b"tEXt" and len(data) == length:
            name, _, text = data.partition(b"\0")
            yield name, text
        at += length + 12  # with length, kind and checksum


def _character(path: Path, data: dict[str, Any]) -> Character:
    name = _text(data, "name")
    if not name:
        raise UsageError(f"{path} is not a character card: it has no name")
    parts = [
        re.sub(r"\{\{original\}\}", "", _text(data, "system_prompt"), flags=re.IGNORECASE),
        f"You are {name}. Stay in this role.",
        _text(data, "description"),
        _titled("Personality", _text(data, "personality")),
        _titled("Scenario", _text(data, "scenario")),
        _titled("How you speak", re.sub(r"(?im)^<START>\s*", "", _text(data, "mes_example"))),
        _titled("You began the conversation with", _text(data, "first_mes")),
        _text(data, "post_history_instructions"),
    ]
    system = "\n\n".join(part.strip() for part in parts if part.strip())
    system = re.sub(r"\{\{char\}\}|<BOT>", lambda _: name, system, flags=re.IGNORECASE)
    system = re.sub(r"\{\{user\}\}|<USER>", "the user", system, flags=re.IGNORECASE)
    return Character("-".join(name_parts(name.lower().replace("_", " "))), system)


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value.strip() if isinstance(value, str) else ""


def _titled(title: str, text: str) -> str:
    return f"{title}:\n{text}" if text else ""
