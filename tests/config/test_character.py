"""Character cards become personas: from JSON and from pictures; what is no card is refused in a line."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from config_file import call
from config_file import file as file

from pjlocal.cli.config import prefs_app
from pjlocal.config.character import read_character
from pjlocal.config.config import load_config
from pjlocal.errors import UsageError

DATA = {
    "name": "Captain Ada",
    "description": "{{char}} sails a small ship.",
    "personality": "cheerful",
    "scenario": "{{user}} is a new sailor.",
    "first_mes": "Ahoy, {{User}}!",
    "mes_example": "<START>\n{{user}}: Hi\n{{char}}: Ahoy!",
    "system_prompt": "{{original}}Write short answers.",
    "post_history_instructions": "",
}
CARD = {"spec": "chara_card_v2", "spec_version": "2.0", "data": DATA}


def png(*texts: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    chunks = [chunk(b"tEXt", name + b"\0" + text) for name, text in texts]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks) + chunk(b"IEND", b"")


def encoded(card: object) -> bytes:
    return base64.b64encode(json.dumps(card).encode())


def test_a_card_says_who_the_model_is_and_how_it_speaks(tmp_path: Path) -> None:
    (tmp_path / "ada.json").write_text(json.dumps(CARD))
    character = read_character(tmp_path / "ada.json")
    assert character.persona == "captain-ada"
    assert character.system == (
        "Write short answers.\n\nYou are Captain Ada. Stay in this role.\n\nCaptain Ada sails a small ship.\n\n"
        "Personality:\ncheerful\n\nScenario:\nthe user is a new sailor.\n\n"
        "How you speak:\nthe user: Hi\nCaptain Ada: Ahoy!\n\nYou began the conversation with:\nAhoy, the user!"
    )


def test_a_card_of_the_first_version_and_those_in_pictures_are_read(tmp_path: Path) -> None:
    whole = read_character(_file(tmp_path, json.dumps(DATA).encode()))
    assert read_character(_file(tmp_path, png((b"Title", b"x"), (b"chara", encoded(CARD))))) == whole
    newer = {**CARD, "data": {**DATA, "name": "Bo"}}
    both = png((b"chara", encoded(CARD)), (b"ccv3", encoded(newer)))
    assert read_character(_file(tmp_path, both)).persona == "bo"
    assert read_character(_file(tmp_path, json.dumps({"name": "मीरा_ Café"}).encode())).persona == "मीरा-café"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json", "is not a character card: it is not JSON"),
        (b"[]", "its JSON is not an object"),
        (b"{}", "it has no name"),
        (b'{"data": {"name": 3}}', "it has no name"),
        (png(), "a picture without a character card"),
        (png((b"chara", b"***")), "it is not base64"),
        (png((b"chara", encoded(CARD)))[:50], "a picture without a character card"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"\x7fELF\0\xd0", "is not text: it contains a NUL"),
        (b"[" * 100_000, "it is not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_character(_file(tmp_path, content))


def test_the_command_saves_a_persona(tmp_path: Path) -> None:
    card = str(_file(tmp_path, json.dumps(CARD).encode()))
    assert "pjlocal chat -P captain-ada" in call(prefs_app, "import", card)
    assert load_config().persona("captain-ada").prompting["system"].startswith("Write short answers.")
    with pytest.raises(UsageError, match="--force replaces it"):
        call(prefs_app, "import", card)
    call(prefs_app, "import", card, "--name", "ada", "--force")
    assert set(load_config().personas) == {"captain-ada", "ada"}


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "card"
    path.write_bytes(content)
    return path
