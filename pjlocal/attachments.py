"""Text files that are put before a question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import UsageError, plural
from .textfile import MOST_BYTES, decode_utf8, user_path
from .visible import one_line

_PER_TOKEN = 4  # characters, an estimate to use without a tokenizer

#: Patterns of the first bytes of files that are not text, with the names of their kinds.  A text may begin with the
#: word GIF89a or GGUF.
_KINDS = {
    rb"%PDF-": "a PDF",
    rb"PK\x03\x04": "an archive or an office document",
    rb"\xd0\xcf\x11\xe0": "an office document",
    rb"{\\rtf": "an office document",
    rb"\x89PNG": "a picture",
    rb"\xff\xd8\xff": "a picture",
    rb"GIF8[79]a.{0,6}\0": "a picture",
    rb"\x1f\x8b": "a compressed file",
    rb"GGUF[\0-\x08]": "a model",
}
_BLOCK = re.compile(r'<file name="([^"\n]*)">\n(.*?)\n</file>\s*', re.DOTALL)
#: Lines of a file that look like the end of the block get one more backslash.
_BEFORE_END = re.compile(r"^(?=\\*</file>)", re.MULTILINE)
_ADDED = re.compile(r"^\\(?=\\*</file>)", re.MULTILINE)


@dataclass(frozen=True)
class Attachment:
    """A file's text, and its name without its folder."""

    name: str
    text: str

    def __str__(self) -> str:
        text = _BEFORE_END.sub(r"\\", self.text)
        return f'<file name="{self.name}">\n{text}\n</file>'

    def size(self, n_tokens: int | None) -> str:
        """A text with the name and the number of tokens, which is estimated if it is None."""
        about, n = ("about ", max(1, len(self.text) // _PER_TOKEN)) if n_tokens is None else ("", n_tokens)
        return f"{self.name}: {about}{n:,} {plural(n, 'token')}"


def read_attachment(name: str) -> Attachment:
    """Read a text file.

    Raises:
        UsageError: the file cannot be read, is empty, too large, or not UTF-8 text.
    """
    path = user_path(name)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror or error}") from None
    return parse_attachment(name, path.name, data)


def parse_attachment(path: str, name: str, data: bytes, most: int = MOST_BYTES) -> Attachment:
    """The attachment of a file with this content, called ``path`` in errors.

    Raises:
        UsageError: the content is empty, has more than ``most`` bytes, or is not UTF-8 text.
    """
    kind = next((kind for head, kind in _KINDS.items() if re.match(head, data, re.DOTALL)), None)
    if kind:
        raise UsageError(f"{path} is {kind}, and only text can be read: save its text to a file first")
    if len(data) > most:
        raise UsageError(f"{path} is larger than {most >> 20} MiB, more than fits in any context")
    text = decode_utf8(data, path)
    if "\0" in text:
        raise UsageError(f"{path} is not text: it contains a NUL (byte {data.index(0)})")
    text = text.replace("\r\n", "\n").strip("\n")
    if not text.strip():
        raise UsageError(f"{path} is empty")
    return Attachment(one_line(name).replace('"', "'"), text)


def with_attachments(attachments: Iterable[Attachment], question: str) -> str:
    """Put the texts of files before a question."""
    return "\n\n".join([*map(str, attachments), question])


def split_attachments(question: str) -> tuple[list[Attachment], str]:
    """The files before a question, and the question without them."""
    attachments, at = [], 0
    while block := _BLOCK.match(question, at):
        attachments.append(Attachment(block[1], _ADDED.sub("", block[2])))
        at = block.end()
    return attachments, question[at:]


def without_texts(question: str) -> str:
    """The question with the names of its files instead of their texts, for display."""
    attachments, words = split_attachments(question)
    return " ".join([*(f"[{attachment.name}]" for attachment in attachments), words]).strip()
