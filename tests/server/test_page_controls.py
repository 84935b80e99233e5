"""The page in a browser: how it shows an answer while it is written, its controls and its marks."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from browser import Chromium
from exported_chats import accepted, bonus
from on_the_page import EDITED, ENDLESS, SETTINGS, TOKENS, WRITTEN, ask, click, says
from saved_chats import a_turn, saved
from served import VIEWS, serving

from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store
from pjlocal.settings import Mode, Placement

OPTIONS = (*VIEWS, "--max-tokens", "40", "--seed", "3")
COUNT_NODES = """
var created = 0;
const count = (node) => { created++; node.childNodes.forEach(count); };
new MutationObserver((changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach(count)))
  .observe(document.getElementById('turns'), { childList: true, subtree: true });
"""


@pytest.mark.slow
@pytest.mark.parametrize("formatted", [True, False])
def test_a_token_makes_a_few_nodes_however_long_its_answer_is(opened, formatted: bool) -> None:
    text = "- A list\n\nOne *paragraph* of " + " ".join(f"**word{n}**" for n in range(40))
    chromium, _ = opened("Long", settings=says(text))
    if not formatted:
        chromium.eval("document.getElementById('formatted').click()")
    chromium.eval(COUNT_NODES)
    ask(chromium, "Go on")
    chromium.wait_for(WRITTEN)
    n_tokens = chromium.eval(TOKENS)
    assert n_tokens > 200
    assert chromium.eval("created") < 12 * n_tokens, "span, text, its place in the strip and the line of counts"
    assert chromium.eval("document.querySelector('.answer').textContent").count("word") == 40


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_page_reports_a_server_that_stops_during_an_answer(
    chromium: Chromium, model: Path, server_environment: dict[str, str], tmp_path: Path, how: int
) -> None:
    environment = server_environment | {"PJLOCAL_DATABASE": str(tmp_path / "chats.db")}
    with Store(tmp_path / "chats.db") as store, serving(model, environment, "--ctx", "32768") as served:
        session = saved(store, "Endless", settings=ENDLESS)
        chromium.open(served.page(f"#{session.id}"))
        chromium.wait_for("document.querySelector('#list [aria-current]')")
        ask(chromium, "Go on")
        chromium.wait_for(f"{TOKENS} > 10")
        served.process.send_signal(how)
        if how == signal.SIGTERM:
            served.process.send_signal(how)  # at once
        chromium.wait_for("document.getElementById('trouble').textContent")
        said = chromium.eval("document.getElementById('trouble').textContent")
        assert said == "The server stopped. Your answer so far is saved."
        chromium.wait_for("document.querySelector('article .facts').textContent.includes('the server stopped')")
        served.process.wait()
        assert 10 < chromium.eval(TOKENS) <= len(store.load(session.id).turns[-1].events)
        chromium.eval("document.getElementById('question').value = 'More'")
        chromium.eval("document.getElementById('ask').requestSubmit()")
        chromium.wait_for("document.getElementById('trouble').textContent.includes('field')")
        assert chromium.eval("document.getElementById('question').value") == "More"
        chromium.open("about:blank#")


VALUES = "['system', 'temperature', 'max_tokens', 'seed'].map((id) => document.getElementById(id).value)"
MORE = "document.getElementById('more').open"
PREFERENCES = "[...document.querySelectorAll('[data-view] textarea')].map((field) => field.value)"


def fill(chromium: Chromium, **values: str) -> None:
    for name, value in values.items():
        chromium.eval(f"document.getElementById('{name}').value = {value!r}")


def reload(chromium: Chromium) -> None:
    chromium("Page.reload")
    chromium.wait_for("document.readyState === 'complete' && document.querySelector('#list li')")


def test_an_answer_has_the_system_text_temperature_length_and_seed_that_the_page_shows(page, store: Store) -> None:
    chromium = page()
    assert chromium.eval(VALUES) == ["", "", "40", "3"], "as the server was started"
    fill(chromium, system="You are a cook.", temperature="0,5", max_tokens="7", seed="9")
    ask(chromium, "What is for lunch?")
    chromium.wait_for(WRITTEN)
    session = store.load(store.latest())
    settings = session.settings
    assert settings["prompting"]["system"] == "You are a cook." and settings["sampling"]["temperature"] == 0.5
    assert (settings["generation"]["max_tokens"], settings["generation"]["seed"]) == (7, 9)
    assert len(session.turns[0].events) <= 7

    chromium("Page.reload")
    chromium.wait_for(f"document.readyState === 'complete' && {WRITTEN}")
    assert chromium.eval(VALUES) == ["You are a cook.", "0.5", "7", "9"], "as the chat has them"
    assert chromium.eval(MORE)
    fill(chromium, system="", temperature="", max_tokens="5", seed="")
    ask(chromium, "And for dinner?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    settings = store.load(session.id).settings
    assert settings["prompting"]["system"] == "" and settings["generation"]["seed"] is None
    assert "temperature" not in settings["explicit"], "the model's own"
    fill(chromium, temperature="warm")
    chromium.eval("question.value = 'Well?'; document.getElementById('ask').requestSubmit()")
    chromium.wait_for("document.getElementById('trouble').textContent.includes('Temperature must be')")
    assert chromium.eval("question.value") == "Well?"
    chromium.eval("for (const field of document.querySelectorAll('[data-view] textarea')) field.value = ''")
    fill(chromium, temperature="", mode="rewrite")
    chromium.eval("document.getElementById('ask').requestSubmit()")
    chromium.wait_for("document.getElementById('trouble').textContent.endsWith('rewrite needs a preference')")


@pytest.mark.parametrize("is_saved", [False, True])
def test_an_unsent_question_and_changed_settings_survive_a_reload(page, store: Store, is_saved: bool) -> None:
    chromium = page(f"#{saved(store, 'Cats', a_turn()).id}" if is_saved else "")
    assert not chromium.eval(MORE)
    before = chromium.eval(VALUES)
    fill(chromium, question="Why do", system="You are a cook.", max_tokens="7")
    chromium.eval("document.querySelector('[data-view=b] .chip').click()")
    preferences = chromium.eval(PREFERENCES)
    reload(chromium)
    assert chromium.eval(VALUES) == ["You are a cook.", before[1], "7", before[3]]
    assert chromium.eval(MORE), "settings that are in force are seen"
    assert chromium.eval(PREFERENCES) == preferences
    assert chromium.eval("question.value") == "Why do"


@pytest.mark.parametrize("part", ["question", "answer"])
@pytest.mark.parametrize("has_gone_on", [False, True])
def test_an_edit_of_the_last_turn_survives_a_reload(opened, store: Store, part: str, has_gone_on: bool) -> None:
    chromium, session = opened("Cats", a_turn("Hello", "Hello"))
    click(chromium, f"Edit {part}")
    chromium.type(" there")
    if has_gone_on:
        store.add_turn(session.id, a_turn("From the terminal", "Yes"))
    reload(chromium)
    chromium.wait_for(f"(question.value || {EDITED}?.value) === 'Hello there'")
    assert chromium.eval(f"{EDITED}?.ariaLabel ?? null") == (None if has_gone_on else f"The {part}")


def test_the_settings_that_a_new_chat_has_from_the_last_one_survive_a_reload(opened) -> None:
    chromium, _ = opened("Cats", a_turn(), settings=SETTINGS | {"generation": {"max_tokens": 7}})
    chromium.eval("location.hash = ''")
    chromium.wait_for("document.getElementById('title').textContent === 'New chat'")
    before = chromium.eval(VALUES)
    reload(chromium)
    assert chromium.eval(VALUES) == before == ["", "", "7", "3"]


def test_a_question_that_begins_a_chat_survives_a_reload_before_its_first_token(page) -> None:
    chromium = page()
    fill(chromium, temperature="0.3")
    chromium.eval(
        "fetch = () => new Promise(() => {}); question.value = 'Why?'; document.getElementById('send').click()"
    )
    chromium.wait_for("question.value === '' && document.querySelector('#turns article')")
    reload(chromium)
    chromium.wait_for("question.value === 'Why?' && document.getElementById('temperature').value === '0.3'")


@pytest.mark.parametrize(
    ("field", "label", "value"), [("max_tokens", "Length", "1,000"), ("seed", "Seed", "9007199254740993")]
)
def test_a_number_that_the_page_cannot_read_exactly_is_refused(
    page, store: Store, field: str, label: str, value: str
) -> None:
    chromium, n_chats = page(), len(store.summaries())
    fill(chromium, **{field: value})
    chromium.eval("question.value = 'Well?'; document.getElementById('ask').requestSubmit()")
    chromium.wait_for("document.getElementById('trouble').textContent")
    said = chromium.eval("document.getElementById('trouble').textContent")
    assert said.startswith(f"{label} must be a whole number") and value in said
    assert field != "seed" or "at most 9007199254740991" in said
    assert chromium.eval("question.value") == "Well?" and len(store.summaries()) == n_chats


def test_a_chat_with_a_seed_that_browsers_round_keeps_it_until_it_is_changed(opened, store: Store) -> None:
    settings = SETTINGS | {"generation": {"seed": 2**62 + 1, "max_tokens": 5}}
    chromium, session = opened("From the terminal", a_turn(), settings=settings)
    assert chromium.eval("document.getElementById('seed').value").startswith("about 46116860184273")
    ask(chromium, "And now?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    after = store.load(session.id)
    assert after.settings["generation"]["seed"] == after.turns[-1].settings["seed"] == 2**62 + 1
    fill(chromium, seed="9")
    ask(chromium, "Why?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    assert store.load(session.id).turns[-1].settings["seed"] == 9


def test_a_new_chat_has_the_fields_of_the_last_one_without_its_files_and_rounded_seed(
    opened, store: Store, tmp_path: Path
) -> None:
    (style := tmp_path / "style.txt").write_text("Answer in rhyme.")
    settings = {"preferences": {"a": [f"@{style}", "formal"], "b": []}, "generation": {"seed": 2**62, "max_tokens": 5}}
    chromium, _ = opened("From the terminal", a_turn(), settings=settings)
    chromium.eval("document.querySelector('[data-view=a] button[title^=More]').click()")
    chromium.wait_for("document.getElementById('adjusted').textContent")
    assert chromium.eval(PREFERENCES)[:2] == [f"@{style}:2", "formal"]
    chromium.eval("location.hash = ''")
    chromium.wait_for("document.getElementById('title').textContent === 'New chat'")
    assert chromium.eval(f"[...{PREFERENCES}, {VALUES}[3]]") == ["formal", "", "", "3"], "as the server was started"
    ask(chromium, "Why?")
    chromium.wait_for(WRITTEN)
    assert store.load(store.latest()).settings["preferences"] == {"a": ["formal"], "b": []}


def test_a_chat_with_a_removed_mode_says_so_and_has_the_automatic_one(page, store: Store) -> None:
    settings = SETTINGS | {"generation": {"mode": "args", "max_tokens": 5}}
    turn = Turn("Why?", [accepted("So.")], SETTINGS | {"mode": "args"}, "stop")
    session = saved(store, "old", turn, settings=settings)
    chromium = page(f"#{session.id}")
    chromium.wait_for(WRITTEN)
    assert "args mode" in chromium.eval("document.querySelector('article .legend').textContent")
    assert "with mode args, which was removed" in chromium.eval("document.getElementById('trouble').textContent")
    mode = "document.getElementById('mode')"
    assert chromium.eval(f"[{mode}.value, {mode}.selectedIndex]") == ["", 0]
    ask(chromium, "And now?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    assert chromium.eval("document.getElementById('trouble').textContent") == ""
    after = store.load(session.id)
    assert (after.turns[-1].settings["mode"], after.notice) == ("both", "")


def test_the_page_offers_every_mode_and_placement(page) -> None:
    chromium = page()
    values = "[...document.getElementById('{}').options].map((option) => option.value)"
    assert chromium.eval(values.format("mode")) == ["", *get_args(Mode)]
    assert chromium.eval(values.format("placement")) == [*get_args(Placement)]


def test_presets_are_chosen_by_chips_and_preferences_count_more_or_less_by_half_a_step(page) -> None:
    chromium = page()
    press = "document.querySelector('[data-view={}] {}').click()"
    chip = "[...document.querySelectorAll('[data-view=a] .chip')].find((chip) => chip.textContent === 'formal')"
    assert chromium.eval(PREFERENCES) == ["vivid", "", "concise", ""]
    assert "colors" in chromium.eval("document.querySelector('.chip[aria-pressed=true]').title")
    chromium.eval(f"{chip}.click()")
    assert chromium.eval(PREFERENCES) == ["vivid", "formal", "", "concise", ""]
    assert chromium.eval(f"{chip}.getAttribute('aria-pressed')") == "true"
    chromium.eval(f"{chip}.click()")
    assert chromium.eval(PREFERENCES) == ["vivid", "", "concise", ""]

    adjusted = "document.getElementById('adjusted').textContent"
    chromium.eval(press.format("a", "button[title^=More]"))
    chromium.wait_for(f"{adjusted} === 'vivid: strength 2'")
    assert chromium.eval(PREFERENCES)[0] == "vivid:2", "the automatic strength is about 1.5"
    assert "2" in chromium.eval("document.getElementById('said').textContent")
    for _ in range(3):
        chromium.eval(press.format("b", "button[title^=Less]"))
    chromium.wait_for(f"{adjusted} === 'concise: removed'")
    assert chromium.eval(PREFERENCES) == ["vivid:2", "", ""]
    chromium.eval("document.getElementById('mode').value = 'judge'")
    chromium.eval("document.querySelector('[data-view=b] .chip').click()")
    chromium.eval(press.format("b", "button[title^=More]"))
    chromium.wait_for(f"{adjusted} === 'helpful: strength 1.5'")
    assert chromium.eval(PREFERENCES)[2] == "helpful:1.5", "in that mode the strength is 1"
    chromium.eval("document.getElementById('mode').value = 'prompt'")
    chromium.eval(press.format("b", "button[title^=Less]"))
    chromium.wait_for(f"{adjusted} === 'helpful: strength 1'")
    assert chromium.eval(PREFERENCES)[2] == "helpful:1", "vivid follows with its own buttons"
    chromium.eval("document.querySelector('[data-view=b] textarea').value = 'vivd'")
    chromium.eval(press.format("b", "button[title^=More]"))
    chromium.wait_for(f"{adjusted}.includes('vivid')")
    assert chromium.eval(PREFERENCES)[2] == "vivd", "the server knows no such preset, and says so"
    chromium.eval(
        "document.querySelector('[data-view=b] .chip').textContent = 'caf\\u00e9';"
        "const field = document.querySelector('[data-view=b] textarea'); field.value = 'Cafe\\u0301:2';"
        "field.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    assert chromium.eval("document.querySelector('[data-view=b] .chip').getAttribute('aria-pressed')") == "true"


def test_a_preference_has_several_lines_and_enter_goes_to_the_next(page, store: Store) -> None:
    chromium = page()
    chromium.eval("document.querySelector('[data-view=b] textarea').select()")
    height = "document.querySelector('[data-view=b] textarea').clientHeight"
    before = chromium.eval(height)
    chromium.type("Answer as a sailor would, who has seen all seas and tells of them by night, at the fire")
    assert chromium.eval(height) > 2 * before - 20
    chromium.press("Enter")
    assert chromium.eval("document.activeElement.getAttribute('aria-label')") == "Preference 2 of view b"
    assert chromium.eval("document.querySelectorAll('article').length") == 0


def test_the_form_says_what_automatic_chooses_and_what_its_settings_do(page) -> None:
    chromium = page()
    hint = "document.getElementById('meaning{}').textContent"
    assert chromium.eval(hint.format("")).startswith("Automatic is both here: Each word is weighed")
    assert "Automatic follows, token by token" in chromium.eval(hint.format("-strength"))
    assert "after your question" in chromium.eval(hint.format("-placement"))
    assert "automatic is 0.7 here." in chromium.eval(hint.format("-more"))
    assert "automatic is 1024." in chromium.eval(hint.format("-more"))
    for view in "ab":
        chromium.eval(f"document.querySelector('[data-view={view}] .chip[aria-pressed=true]').click()")
    assert chromium.eval(hint.format("")).startswith("Automatic is plain here")
    assert "changes nothing" in chromium.eval(hint.format("-strength"))
    assert "changes nothing" in chromium.eval(hint.format("-placement"))
    marks = chromium.eval("document.getElementById('marks').textContent")
    assert all(
        mark in marks for mark in ("all", "resampled", "bonus", "given", "push", "strip", "without a preference")
    )


def test_strength_and_best_have_no_effect_without_preferences(page, store: Store) -> None:
    chromium = page()
    fill(chromium, strength="2", best="2")
    for view in "ab":
        chromium.eval(f"document.querySelector('[data-view={view}] .chip[aria-pressed=true]').click()")
    ask(chromium, "Why?")
    chromium.wait_for(WRITTEN)
    assert chromium.eval("document.getElementById('trouble').textContent") == ""
    assert store.load(store.latest()).turns[-1].settings["mode"] == "plain"


def test_a_bonus_is_marked_otherwise_than_bold_markdown_and_the_legend_names_all_writers(opened) -> None:
    agreed = replace(accepted(" both", 2), judge=None, kind="resampled")
    turn = Turn("Why?", [bonus("**Bold** and"), accepted(" so", 1), agreed], {"preferences": {"a": ["vivid"]}}, "stop")
    chromium, _ = opened("marks", turn)
    style = "(({fontWeight, textDecorationStyle}) => [fontWeight, textDecorationStyle])(getComputedStyle(%s))"
    plain, bold = "document.querySelector('.answer p > .bonus')", "document.querySelector('.answer strong .bonus')"
    assert chromium.eval(style % plain) == ["400", "dotted"] and chromium.eval(style % bold) == ["700", "dotted"]
    legend = chromium.eval("[...document.querySelectorAll('article .legend li')].map((item) => item.innerText)")
    assert legend == ["a vivid", "all what they agree on"]


def test_an_answer_and_its_code_are_copied(opened) -> None:
    answer = "So:\n\n```py\nprint(1)\n```\n\n- [x] *done*"
    chromium, _ = opened("code", Turn("Why?", [accepted(answer)], SETTINGS, "stop"))
    chromium.eval("var copied; navigator.clipboard.writeText = async (text) => (copied = text)")
    click(chromium, "Copy")
    assert chromium.eval("copied") == answer, "as Markdown"
    chromium.wait_for("document.querySelector('.under .copy').textContent === 'Copied'")
    click(chromium, "Copy code")
    chromium.wait_for("copied === 'print(1)'")
    chromium.eval("var byHand = 0; document.execCommand = () => (byHand += getSelection().toString() === 'print(1)')")
    chromium.eval("navigator.clipboard.writeText = async () => { throw new Error('no') }")
    chromium.eval("document.querySelector('.code .copy').click()")
    chromium.wait_for("byHand === 1")


def test_a_key_of_an_input_method_sends_nothing(opened) -> None:
    chromium, _ = opened("Cats", a_turn())
    click(chromium, "Rename")
    press = (
        "document.getElementById('{}').dispatchEvent(new KeyboardEvent('keydown',"
        " {{key: 'Enter', keyCode: {}, isComposing: {}, bubbles: true, cancelable: true}}))"
    )
    chromium.eval("question.value = 'あ'")
    for field in ("question", "new-title", "words", "system"):
        for code, composes in ((229, "false"), (229, "true"), (13, "true")):
            assert chromium.eval(press.format(field, code, composes)) is False, "nothing else comes of it"
    assert chromium.eval("document.getElementById('rename-dialog').open && question.value === 'あ'")
    assert chromium.eval("document.querySelectorAll('article').length") == 1


def test_a_search_opens_a_chat_at_the_turn_that_it_found_and_marks_the_words(page, store: Store) -> None:
    tall = "\n\nLong." * 20  # and read in seconds, however slow the machine
    turns = [a_turn(f"Question {n}", f"Answer {n}.{tall}") for n in range(8)]
    turns[2] = a_turn("Where is the keeper?", f"He is *asleep upstairs*.{tall}")
    session = saved(store, "Lighthouse keeping", *turns, settings=SETTINGS)
    saved(store, "Another", a_turn("Who?", "Nobody."), settings=SETTINGS)
    chromium = page()
    chromium.eval("document.getElementById('words').focus()")
    chromium.type("upstairs")
    chromium.wait_for("document.querySelectorAll('#list a').length === 1")
    chromium.eval("document.querySelector('#list a').click()")
    chromium.wait_for("document.querySelector('.hit')")
    assert chromium.eval("document.querySelector('.hit h3').textContent") == "Where is the keeper?"
    assert chromium.eval("document.getElementById('title').textContent") == "Lighthouse keeping"
    assert chromium.eval("location.hash") == f"#{session.id}"
    assert chromium.eval("[...CSS.highlights.get('hit')].map(String)") == ["upstairs"]
    top = chromium.eval("[...CSS.highlights.get('hit')][0].getBoundingClientRect().top")
    assert 0 < top < 800
    ask(chromium, "And now?")
    chromium.wait_for(WRITTEN)
    assert len(store.load(session.id).turns) == 9
    chromium.eval("location.hash = ''")
    chromium.wait_for("!document.querySelector('.hit') && !CSS.highlights.has('hit')")


def test_a_hit_is_marked_without_regard_to_accents_case_and_punctuation(page, store: Store) -> None:
    turn = a_turn("Where?", "𝄞 At the CAFÉ. Dans l’*été*, caf\u00e9s.")
    session = saved(store, "Accents", turn, settings=SETTINGS)
    chromium = page()
    chromium.eval("document.getElementById('words').focus()")
    chromium.type("l'ete cafe")
    chromium.wait_for("document.querySelector('#list a')?.hash.includes('-')")  # a turn
    chromium.eval("document.querySelector('#list a').click()")
    chromium.wait_for("document.querySelector('.hit')")
    assert chromium.eval("location.hash") == f"#{session.id}"
    assert chromium.eval("[...CSS.highlights.get('hit')].map(String)") == ["l’été", "CAFÉ", "café"]


@pytest.mark.parametrize(
    ("words", "text", "marked"),
    [
        ("C++", "Nice code in C, and in C++.", ["C++"]),
        ("cod+", "Decode\n\n- nice\n- code", ["cod"]),  # the search found it by its letters
        ("e.g.", "The great one, e.g. this, and e. g. that.", ["e.g."]),
        ("it's", "A bit so. It’s here.", ["It’s"]),
        ("猫", "白猫とcat猫。", ["猫", "猫"]),
        ("cat", "白猫とcat、concat.", ["cat"]),
    ],
)
def test_a_hit_is_marked_from_the_beginning_of_a_word(
    page, store: Store, words: str, text: str, marked: list[str]
) -> None:
    session = saved(store, "Words", a_turn("?", text), settings=SETTINGS)
    chromium = page()
    chromium.eval(f"document.getElementById('words').value = {words!r}")
    chromium.eval(f"location.hash = '{session.id}-{session.turns[0].id}'")
    chromium.wait_for("document.querySelector('.hit')")
    assert chromium.eval("[...CSS.highlights.get('hit')].map(String)") == marked


def test_the_question_has_the_focus_and_a_new_chat_is_in_reach_in_long_chats_and_on_a_phone(opened) -> None:
    turns = [a_turn(f"Question {n}", "Long. " * 200) for n in range(8)]
    chromium, _ = opened("Long", *turns)
    chromium.wait_for("document.activeElement.id === 'question'")
    for width in (1200, 360):
        chromium.size(width, 700)
        chromium.eval("scrollTo(0, document.body.scrollHeight)")
        chromium.eval("var box = document.getElementById('new').getBoundingClientRect()")
        box = chromium.eval("[box.x, box.y, box.right, box.bottom]")
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= 100, (width, box)
    chromium.eval("document.getElementById('new').click()")
    chromium.wait_for("document.getElementById('title').textContent === 'New chat'")
    assert chromium.eval("document.activeElement.id") == "question"


def test_a_touch_device_shows_a_hint_to_tap(page, chromium: Chromium) -> None:
    page()
    hint = "document.getElementById('begin').innerText"
    assert "Point at a word" in chromium.eval(hint) and "Tap a word" not in chromium.eval(hint)
    chromium("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        assert "Tap a word" in chromium.eval(hint) and "arrow keys" not in chromium.eval(hint)
    finally:
        chromium("Emulation.setTouchEmulationEnabled", enabled=False)


@pytest.mark.slow
def test_waiting_columns_say_so(opened) -> None:
    settings = ENDLESS | {"generation": {"max_tokens": 2000, "ignore_end": True}}
    chromium, _ = opened("compare", a_turn("Which?", "That one"), settings=settings)
    click(chromium, "Compare modes")
    click(chromium, "Compare")
    facts = "[...document.querySelectorAll('#columns .facts')].map((line) => line.textContent)"
    chromium.wait_for(f"{facts}.includes('Waiting for its turn') && document.querySelector('#columns .t')")
    click(chromium, "Close")
