"""Text files before a question, of `pjlocal run -f` and of a chat: read with their names; others are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import one_line
from talking import talk

from pjlocal.attachments import Attachment, read_attachment, split_attachments, with_attachments, without_texts
from pjlocal.errors import UsageError
from pjlocal.sessions.session import title_of


def test_a_file_stands_before_the_question_with_its_name(tmp_path: Path) -> None:
    notes = tmp_path / "my notes.txt"
    notes.write_bytes(b"\xef\xbb\xbfRain\r\nis wet.\n\n")
    question = with_attachments([read_attachment(str(notes))] * 2, "Why?")
    block = '<file name="my notes.txt">\nRain\nis wet.\n</file>'
    assert question == f"{block}\n\n{block}\n\nWhy?"
    assert without_texts(question) == "[my notes.txt] [my notes.txt] Why?" == title_of(question)
    assert split_attachments(question) == ([Attachment("my notes.txt", "Rain\nis wet.")] * 2, "Why?")


@pytest.mark.parametrize(
    "text", ["<file>\nx\n</file>\nREST", "</file>", "a\n\\</file>\n\\\\</file> b", "a </file>\n </file>\n\\<file>"]
)
def test_a_file_may_contain_the_mark_of_its_end(text: str) -> None:
    attachments = [Attachment("a.xml", text), Attachment("b.xml", text)]
    assert split_attachments(with_attachments(attachments, "Why?")) == (attachments, "Why?")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"%PDF-1.7\n...", "is a PDF, and only text can be read: save its text to a file first"),
        (b"PK\x03\x04...", "is an archive or an office document, and only"),
        (b"\x89PNG\r\n", "is a picture, and only"),
        (b"GGUF\x03", "is a model, and only"),
        (b"GIF89a\x40\x01\xf0\x00\xf7\x00\x00...", "is a picture, and only"),
        ("naïve".encode("utf-16"), "is not UTF-8 text (byte 0): save it as UTF-8"),
        (b"\x7fELF\0\xd0", "is not text: it contains a NUL (byte 4)"),
        (b"one\0two", "is not text: it contains a NUL (byte 3)"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read_attachment(str(path))
    assert str(raised.value).startswith(f"{path} {says}") and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["GGUF is a format of models.", "GIF89a and GIF87a are formats.", "%PDF is a mark."])
def test_a_text_may_begin_with_the_name_of_a_format(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    assert read_attachment(str(path)).text == text


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    for name, says in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"cannot read {name}: {says}"):
            read_attachment(str(name))
    huge = tmp_path / "huge"
    os.truncate(os.open(huge, os.O_CREAT | os.O_WRONLY), 1 << 27)
    with pytest.raises(UsageError, match="larger than 64 MiB"):
        read_attachment(str(huge))


@pytest.mark.slow
def test_run_sends_files_and_shows_their_size_on_a_terminal(pjlocal, tiny: Callable[[str], Path], tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("the cat sees the sun")
    options = ("-m", str(tiny("llama")), "-n", "4", "--seed", "1", "--json")
    alone, with_file = (pjlocal("run", *options, *more, "Why?") for more in ((), ("-f", "notes.txt")))
    n_alone, n_with = (json.loads(out.stdout)["usage"]["prompt_tokens"][0] for out in (alone, with_file))
    assert n_with > n_alone + 5 and "notes.txt" not in with_file.stderr
    refused = pjlocal("run", *options, "-f", "nothing.txt", "Why?")
    assert refused.returncode == 2
    assert one_line(refused.stderr) == "pjlocal: cannot read nothing.txt: No such file or directory"
    (tmp_path / "long.txt").write_text("the cat " * 9000)
    refused = pjlocal("run", *options, "-f", "long.txt", "Why?")
    assert refused.returncode == 2 and "the prompt is too long: " in one_line(refused.stderr)


def test_a_chat_reads_files_for_the_next_question(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("the cat sees")
    with talk(tiny("llama")) as chat:
        assert chat.say("/read") == ["no file is sent with the next question"]
        n = len(chat.judge.model.tokenize("the cat sees", special=False))
        assert chat.say(f"/read {path}") == [f"notes.txt: {n} tokens", "the next question sends this"]
        (said,) = chat.say(f"/read {tmp_path / 'none'}")
        assert said.startswith("cannot read")
        chat.say("Why?")
        chat.say("And?")
        assert [turn.question for turn in chat.turns] == [
            '<file name="notes.txt">\nthe cat sees\n</file>\n\nWhy?',
            "And?",
        ]
        assert chat.conversation.session.title == "[notes.txt] Why?"
        chat.say(f"/read {path}")
        assert chat.say("/read clear") == ["no file is sent with the next question"]


def test_files_stay_attached_if_the_question_is_not_asked(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("the cat " * 3000)
    with talk(tiny("llama")) as chat:
        chat.say(f"/read {path}")
        (said,) = chat.say("Why?")
        assert "too long" in said and chat.turns == [] and len(chat.chat.attachments) == 1
