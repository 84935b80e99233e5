"""Every command does and shows what /help says, and wrong use is told in one line."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import tiny_models
from talking import Talk, talk
from terminal import database

from pjlocal.chat.commands.table import COMMANDS
from pjlocal.sessions.store import Store

# Commands.

#: Every command at least once, and what it must show; in this order, after the question "What is rain?".
DRIVEN = (
    ("/help", r"/prefer \[a\|b\].*Show or change the preferences.*/quit .*Ctrl-C stops an answer"),
    ("/help UNDO", r"^command +what it does\n/undo +Take the last question and its answer back\.$"),
    ("/udno", r"^unknown command /udno: did you mean /undo\?$"),
    ("/drafst", r"^unknown command /drafst: did you mean /drafts\?$"),
    ("/why", r"a: vivid.*# +token +kind +written by +p +q +accept +push a +push b +in place of\n0 .*\n *5 "),
    ("/compare", r"─ judge ─.*─ base ─.*─ both ─.*─ prompt ─.*─ plain ─.*6 tokens.*/drafts MODE puts one"),
    ("/drafts", r"draft +mode +preferences +tokens +answer\n\* +1 +both +vivid, creative +6 .*\n +\d +plain "),
    ("/drafts plain", r"^draft \d is in force\n> What is rain"),
    ("/drafts 1", r"^draft 1 is in force\n> What is rain"),
    ("/fork", r"^What is rain\? \(fork\): 1 turn\n\n> What is rain"),
    ("/load 1", r"^What is rain\?: 1 turn"),
    ("/regen", r"cut off after 6 tokens"),
    ("/edit", r"cut off after 6 tokens"),  # $EDITOR writes a question of its own
    ("/undo 2", r"^/undo takes no words \(not '2'\)$"),
    ("/undo", r"^taken back: What is snow\?$"),
    ("/undo", r"^this chat has no questions yet$"),
    ("Hello", r"cut off after 6 tokens"),
    ("/continue 2", r"cut off after 2 tokens: /continue goes on"),
    ("/thoughts", r"^this answer has no thoughts$"),
    ("/read", r"^no file is sent with the next question$"),
    ("/stats", r"turn +mode +prompt +tokens +tokens/s +accepted +first token +push\n1 +both +\d+( \+ \d+){3} +2"),
    ("/prefer", r"^a: vivid\nb: creative$"),
    ("/prefer b add concise", r"^a: vivid\nb: creative, concise$"),
    ("/prefer a Talk like a pirate, please", r"^a: Talk like a pirate, please\nb: creative, concise$"),
    ("/swap", r"^a: creative, concise\nb: Talk like a pirate, please$"),
    ("/prefer clear a", r"^a: no preference\nb: Talk like a pirate, please$"),
    ("/more concise", r"^a: concise · b: Talk like a pirate, please$"),
    ("/more concise", r"^a: concise:2 · b: Talk like a pirate, please$"),
    ("/less formal", r"^a: concise:2 · b: Talk like a pirate, please · avoid: formal:0.5$"),
    ("/more formal", r"^a: concise:2 · b: Talk like a pirate, please$"),
    ("/more", r"^name a preference, as in /more vivid or /less formal$"),
    ("/prefer clear a", r"^a: no preference\nb: Talk like a pirate, please$"),
    ("/mode base", r"^mode base$"),
    ("/mode both", r"^mode both$"),
    ("/strength 2.5", r"strength +2.5 "),
    ("/strength", r"strength +2.5 "),
    ("/avoid 'Use long words' formal:2", r"^avoid: Use long words, formal:2$"),
    ("/avoid", r"^avoid: Use long words, formal:2$"),
    ("/regen", r"cut off after 6 tokens"),
    ("/why", r"all: what they agree on.*0 +r .*\n +b [+-]\d\.\d\d avoid 1 [+-]"),
    ("/stats", r"push\n1 +both .* b [+-]\d\.\d\d avoid 1 [+-]\d\.\d\d avoid"),
    ("/avoid clear", r"^avoid: nothing$"),
    ("/strength default", r"strength +auto \(automatic\) "),
    ("/persona", r"^no personas yet: pjlocal prefs save NAME saves one$"),
    ("/mode base", r"^mode base$"),
    ("/lambda 6", r"lambda +6 "),
    ("/set", r"avoid +none .*temperature +0.7 .*top-k +20 .*system +none "),
    ("/set temperature 0.5", r"temperature +0.5 "),
    ("/system Be brief.", r"^system text: Be brief.$"),
    ("/think off", r"^this model's chat template has no switch for thinking\nthink off$"),
    ("/model", r"^toy.gguf: .*context 8192 tokens per view\navailable: smollm2, other.gguf, toy.gguf$"),
    ("/model other", r"^other.gguf: .*context 512 tokens per view$"),
    ("/think on", r"^think on$"),
    ("Hello again", r"cut off after 6 tokens"),
    ("/view blame", r"^view blame$"),
    ("/title Of rain and snow", r"^title: Of rain and snow$"),
    ("/sessions", r"\* +1  20\d\d-\d\d-\d\d \d\d:\d\d +2  Of rain and snow"),
    ("/export", r"^written to of-rain-and-snow.md$"),
    ("/export html", r"^written to of-rain-and-snow.html$"),
    ("/export sub.json", r"^written to sub.json$"),
    ("/export md", r"^written to of-rain-and-snow-2.md$"),
    ("/export sub.json", r"^sub.json exists already: choose another name$"),
    ("/new", r"^a new chat$"),
    ("/load of RAIN", r"^Of rain and snow: 2 turns\n\n> Hello again\n."),
    ("/etc/hosts is a path", r"cut off after 6 tokens"),
    ("//help", r"cut off after 6 tokens"),
)


@pytest.mark.slow
def test_every_command(start, toy, says, environment, tmp_path, sessions) -> None:
    template = (
        tiny_models.CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    tiny_models.write_llama(tmp_path / "models" / "other.gguf", chat_template=template)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\ngrep -q 'What is rain?' \"$1\" && echo 'What is snow?' > \"$1\"\n")
    editor.chmod(0o700)
    driven = {line.split()[0] for line, _ in DRIVEN if line.startswith("/")} | {"/quit"}
    assert driven >= COMMANDS.keys(), "a command is not driven here"

    args = (*toy, *says("rain and snow"), "-n", "6")
    chat = start(*args, columns=100, lines=200, VISUAL="", EDITOR=str(editor))
    chat.say("What is rain?")
    for line, expected in DRIVEN:
        shown = chat.say(line)
        assert re.search(expected, shown, re.DOTALL), f"{line} showed\n{shown}"
    chat.type("/quit\r")
    assert chat.end() == 0

    session = sessions()[0]
    assert [turn.question for turn in session.turns] == ["Hello", "Hello again", "/etc/hosts is a path", "/help"]
    first, last = session.turns[0].settings, session.turns[-1].settings
    assert (first["model"], first["mode"], first["lambda"]) == ("toy.gguf", "both", 4)
    assert (last["model"], last["mode"], last["lambda"]) == ("other.gguf", "base", 6)
    assert last["preferences"] == {"a": [], "b": ["Talk like a pirate, please"]}
    assert (last["sampling"]["temperature"], last["prompting"]["system"]) == (0.5, "Be brief.")
    with Store(database(environment)) as store:
        undone = [turn.question for turn in store.load(1, with_undone=True).turns]
    in_order = [question for question, _ in itertools.groupby(undone)]  # with the drafts of each
    assert in_order == ["What is rain?", "What is snow?", *(turn.question for turn in session.turns)]
    assert json.loads((tmp_path / "sub.json").read_text())["title"] == "Of rain and snow"
    assert "Hello again" in (tmp_path / "of-rain-and-snow.md").read_text()
    assert "<!doctype html>" in (tmp_path / "of-rain-and-snow.html").read_text()
    assert chat.raw.decode().count("(stopped)") == 0


def test_wrong_use_of_commands_is_reported_in_one_line(chat: Talk) -> None:
    for line, expected in (
        ("/why", "this chat has no questions yet"),
        ("/compare", "this chat has no questions yet"),
        ("/regen", "this chat has no questions yet"),
        ("/drafts", "this chat has no questions yet"),
        ("/fork", "this chat has no questions yet"),
        ("/edit", "this chat has no questions yet"),
        ("/export", "this chat has no questions yet"),
        ("/load", "name a chat: /sessions lists them"),
        ("/set grammar nowhere.gbnf", "cannot read grammar file nowhere.gbnf: No such file or directory"),
        ("/view loud", "the view must be one of text, blame, push, markdown (not 'loud')"),
    ):
        assert chat.say(line) == [expected]


def test_any_white_space_ends_a_commands_name(lasting_chat: Talk) -> None:
    lasting_chat.say("/mode\tjudge")
    assert lasting_chat.judge.request.generation.mode == "judge"
    lasting_chat.say("/mode\nboth")
    assert lasting_chat.judge.request.generation.mode == "both"


def test_apostrophes_within_words_are_no_quotation_marks(lasting_chat: Talk, tmp_path: Path) -> None:
    lasting_chat.say("/prefer a don't say can't")
    assert lasting_chat.judge.request.views[0] == ("don't say can't",)
    assert lasting_chat.say("/prefer a 'Be brief") == [
        'a quotation mark is not closed: write texts of several words as in "Be brief"'
    ]
    lasting_chat.say("/prefer a 'Be brief' vivid")
    assert lasting_chat.judge.request.views[0] == ("Be brief", "vivid")
    (tmp_path / "a wish.md").write_text("Be odd")
    lasting_chat.say(f"/prefer a @{tmp_path}/a\\ wish.md")
    assert lasting_chat.judge.request.views[0] == (f"@{tmp_path}/a wish.md",)
    (tmp_path / "a\u202fb c.txt").write_text("Be odd")
    lasting_chat.say(f'/prefer a "@{tmp_path}/a\u202fb c.txt"')
    assert lasting_chat.judge.request.views[0] == (f"@{tmp_path}/a\u202fb c.txt",)
    lasting_chat.say("/prefer vivid, creative")
    assert lasting_chat.judge.request.views == (("vivid",), ("creative",))
    lasting_chat.say('/prefer "Be brief" "Be kind"')


def test_a_question_cannot_be_taken_back_in_a_chat_that_went_on_elsewhere(chat: Talk, store: Store) -> None:
    chat.say("Why?")
    with talk(chat.judge.model.path, store=store, session=store.load(1)) as elsewhere:
        elsewhere.say("And how?")
        assert "new turns" in chat.say("/undo")[0]
        assert [turn.question for turn in store.load(1).turns] == ["Why?", "And how?"]
        elsewhere.say("/undo")
        elsewhere.say("/undo")
    assert "new turns" in chat.say("Where?")[0], "the question that this chat shows is gone"


def test_an_edited_question_that_cannot_be_asked_is_kept_for_the_prompt(chat: Talk, edited) -> None:
    chat.say("Why?")
    edited("How? " * 3000)
    assert "too long" in chat.say("/edit")[0]
    assert chat.chat.unsent == "How? " * 3000
    edited("So. " * 3000)
    assert "the answer is too long" in chat.say("/edit answer")[0]
    assert chat.chat.unsent == "So. " * 3000


def test_a_port_is_no_strength_and_a_strength_behind_an_address_is_one(lasting_chat: Talk) -> None:
    lasting_chat.say('/prefer a "Link to http://localhost:8080"')
    assert lasting_chat.judge.roles(lasting_chat.judge.request).prefixes[0] == "Link to http://localhost:8080"
    lasting_chat.say('/prefer a "Link to https://example.org often:2"')
    roles = lasting_chat.judge.roles(lasting_chat.judge.request)
    assert (roles.prefixes[0], roles.weights["a"].strength) == ("Link to https://example.org often", 2.0)
    lasting_chat.say('/prefer "Be brief" "Be kind"')
