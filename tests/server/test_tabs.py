"""The page in two tabs, and a chat's title and its end, which both tabs and the terminal may want at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from browser import Chromium, Page
from on_the_page import EDITED, ENDLESS, SETTINGS, TOKENS, WRITTEN, ask, click
from saved_chats import a_turn, saved, texts
from served import VIEWS, Served
from waiting import when

from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "40", "--parallel", "2")
QUESTIONS = "[...document.querySelectorAll('.question')].map((one) => one.textContent)"
ANSWERS = "[...document.querySelectorAll('.answer')].map((one) => one.textContent)"
WHOLE = "![...document.querySelectorAll('.facts')].some((one) => one.textContent.includes('unfinished'))"
LISTED = "[...document.querySelectorAll('#list bdi')].map((one) => one.textContent)"
LEGEND = "[...document.querySelectorAll('article:last-child .legend li')].map((one) => one.textContent).join(', ')"
TROUBLE = "document.getElementById('trouble').textContent"
TITLE = "document.getElementById('title').textContent"
NL = "\n\n"
FOCUS = "document.activeElement.id || document.activeElement.textContent"


@pytest.fixture
def open_tabs(
    page: Callable[..., Chromium], chromium: Chromium, served: Served
) -> Iterator[Callable[[str], tuple[Page, Page]]]:
    """Opens the page at an address in two tabs; the second is in front."""
    with chromium.tab() as second:

        def load(address: str = "") -> tuple[Page, Page]:
            second.open(served.page(address))
            second.wait_for("document.querySelector('#list li')")
            return page(address), second

        yield load


@pytest.mark.slow
def test_two_tabs_that_talk_at_once_get_each_its_own_answer_and_list_both(open_tabs, store: Store) -> None:
    tabs = open_tabs()
    sessions = [saved(store, name, settings=ENDLESS) for name in ("cats", "dogs")]
    for tab, session in zip(tabs, sessions, strict=True):
        tab.eval(f"location.hash = {session.id}")
        tab.wait_for(f"{TITLE} === '{session.title}'")
        tab.front()
        ask(tab, f"Of {session.title}?")
    for tab in tabs:
        tab.wait_for(f"{TOKENS} > 20")
    for tab in tabs:
        click(tab, "Stop")
        tab.wait_for(WRITTEN)
    for tab, session in zip(tabs, sessions, strict=True):
        (turn,) = store.load(session.id).turns
        assert tab.eval(QUESTIONS) == [turn.question] == [f"Of {session.title}?"]
        tab.eval("document.getElementById('formatted').click()")  # off: a token is an element, then
        assert tab.eval("document.querySelectorAll('.t').length") == sum(bool(event.text) for event in turn.events)
        tab.wait_for(f"['cats', 'dogs'].every((title) => {LISTED}.slice(0, 2).includes(title))")
        assert tab.eval("document.querySelector('#list [aria-current] bdi').textContent") == session.title


@pytest.mark.slow
def test_a_chat_that_one_tab_begins_names_or_deletes_is_so_listed_in_the_other(open_tabs, store: Store) -> None:
    first, second = open_tabs()
    ask(second, "Why do cats purr?")
    second.wait_for(WRITTEN)
    first.wait_for(f"{LISTED}[0] === 'Why do cats purr?'")
    click(second, "Rename")
    second.eval("document.activeElement.select()")
    second.type("Cats")
    second.press("Enter")
    first.wait_for(f"{LISTED}[0] === 'Cats'")
    click(second, "Delete")
    click(second, "Delete for good")
    first.wait_for(f"!{LISTED}.includes('Cats')")


@pytest.mark.slow
def test_a_tab_counts_the_answers_that_the_other_tab_compared(open_tabs, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    first, second = open_tabs(f"#{session.id}")
    click(second, "Compare modes")
    click(second, "Compare")
    second.wait_for("document.querySelectorAll('#columns .actions button').length === 4")
    click(second, "Close")
    first.wait_for("document.querySelector('article .count')?.textContent === '1 of 5'")


@pytest.mark.slow
def test_two_tabs_continue_one_chat_and_both_show_all_of_it(open_tabs, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    first, second = open_tabs(f"#{session.id}")
    ask(second, "From the second")
    second.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    first.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    first.front()
    ask(first, "From the first")
    first.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    for tab in (first, second):
        tab.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN} && {WHOLE}")
        assert tab.eval(QUESTIONS) == ["Hello", "From the second", "From the first"]
        assert tab.eval(f"{TROUBLE}") == ""
    assert first.eval(ANSWERS) == second.eval(ANSWERS)
    assert [question for question, _ in texts(store, session)] == first.eval(QUESTIONS)


@pytest.mark.slow
def test_a_second_tab_follows_an_answer_under_way_and_can_stop_it(open_tabs, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=ENDLESS)
    first, second = open_tabs(f"#{session.id}")
    first.front()
    ask(first, "Go on")
    first.wait_for(f"{TOKENS} > 10")
    second.front()
    second.wait_for(f"document.querySelectorAll('article').length === 2 && {TOKENS} > 30")
    assert second.eval("document.querySelectorAll('article .actions button').length") == 0
    for tab in (first, second):
        tab.wait_for(f"{LEGEND} === 'both mode, a vivid, b concise, all what they agree on'")
    click(second, "Stop")
    for tab in (first, second):
        tab.wait_for(
            f"{WRITTEN} && document.querySelector('article:last-child .facts').textContent.includes('stopped')"
        )
    assert first.eval(ANSWERS) == second.eval(ANSWERS)
    assert store.load(session.id).turns[-1].finish_reason == "interrupted"


HOLD = """
var fetched = fetch, asked = 0, over = false, release;
const held = new Promise((resolve) => (release = resolve));
fetch = async (path, options) => {
  const reply = await fetched(path, options), wanted = options.method === "%s" && /chats.\\d+$/.test(path);
  if (wanted && ++asked === 1) held.then(() => setTimeout(() => (over = true), 50)), await held;
  return reply;
};
"""


@pytest.mark.parametrize("opening", [True, False])
def test_the_newer_of_two_replies_is_shown_whichever_arrives_first(page, store: Store, opening: bool) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    changed = f"new BroadcastChannel('pjlocal').postMessage({session.id})"
    chromium = page("" if opening else f"#{session.id}")
    if not opening:
        chromium.wait_for(WRITTEN)
    chromium.eval(HOLD % "GET")
    chromium.eval(f"location.hash = {session.id}" if opening else changed)
    chromium.wait_for("asked === 1")
    store.add_turn(session.id, a_turn("From the terminal", "Yes"))
    chromium.eval(changed)
    chromium.wait_for("document.querySelectorAll('article').length === 2")
    chromium.eval("release()")
    chromium.wait_for("over")
    assert chromium.eval(QUESTIONS) == ["Hello", "From the terminal"]


def test_a_question_that_is_asked_while_a_chat_is_loaded_is_asked_there(page, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    chromium = page()
    chromium.eval(HOLD % "GET")
    chromium.eval(f"location.hash = {session.id}")
    chromium.wait_for("asked === 1")
    chromium.eval("question.value = 'And now?'; document.getElementById('ask').requestSubmit(); release()")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    assert chromium.eval(QUESTIONS) == ["Hello", "And now?"]
    assert [question for question, _ in texts(store, session)] == ["Hello", "And now?"]


def test_a_chat_stays_open_if_another_cannot_be_opened(page, store: Store) -> None:
    first, second = (saved(store, name, a_turn(name), settings=SETTINGS) for name in ("first", "second"))
    chromium = page(f"#{first.id}")
    chromium.wait_for(WRITTEN)
    chromium.eval("var fetched = fetch; fetch = async () => { throw new TypeError('as if the server were down'); }")
    chromium.eval("document.getElementById('temperature').value = '0.3'")
    chromium.eval(f"location.hash = {second.id}")
    chromium.wait_for(TROUBLE)
    assert chromium.eval(f"[{TITLE}, location.hash, {QUESTIONS}]") == ["first", f"#{first.id}", ["first"]]
    assert chromium.eval("document.querySelector('#list [aria-current] bdi').textContent") == "first"
    chromium.eval("fetch = fetched")
    ask(chromium, "And now?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    assert [question for question, _ in texts(store, first)] == ["first", "And now?"]
    chromium.eval(f"location.hash = {second.id}")
    chromium.wait_for(f"{TITLE} === 'second'")


@pytest.mark.parametrize(("method", "button"), [("PATCH", "Save the title"), ("DELETE", "Delete for good")])
def test_a_slow_change_to_one_chat_does_not_touch_the_chat_opened_since(
    page, store: Store, method: str, button: str
) -> None:
    first, second = (saved(store, name, a_turn(name), settings=SETTINGS) for name in ("first", "second"))
    chromium = page(f"#{first.id}")
    chromium.wait_for(WRITTEN)
    click(chromium, {"PATCH": "Rename", "DELETE": "Delete"}[method])
    chromium.eval(HOLD % method)
    click(chromium, button)
    chromium.wait_for("asked === 1")
    chromium.eval(f"location.hash = {second.id}")
    chromium.wait_for(f"{TITLE} === 'second'")
    chromium.eval("release()")
    chromium.wait_for("over")
    assert chromium.eval(f"[{TITLE}, location.hash, {QUESTIONS}]") == ["second", f"#{second.id}", ["second"]]


@pytest.mark.slow
def test_two_tabs_that_ask_in_one_chat_at_once_lose_nothing(open_tabs, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    tabs = open_tabs(f"#{session.id}")
    for name, tab in zip(("one", "two"), tabs, strict=True):  # none of them has heard of the other
        tab.eval(f"question.value = '{name}'; document.getElementById('ask').requestSubmit()")
    for tab in tabs:
        tab.wait_for(f"document.querySelector('#send').disabled === false && {WRITTEN}")
    asked = [question for question, _ in texts(store, session)]
    kept = [*asked[1:], *(tab.eval("question.value") for tab in tabs if tab.eval("question.value"))]
    assert {*kept} == {"one", "two"}, "saved, or still in its field with a line that says why"
    for tab in tabs:
        tab.wait_for(f"document.querySelectorAll('article').length === {len(asked)}")
        assert tab.eval(QUESTIONS) == asked
        assert bool(tab.eval(TROUBLE)) == bool(tab.eval("question.value"))


@contextmanager
def busy(served: Served) -> Iterator[None]:
    """A server that writes two endless answers for others, so that further questions wait."""
    endless = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 30_000, "stream": True}
    endless |= {"pjlocal": {"ignore_end": True}}
    with ExitStack() as others:
        held = [
            others.enter_context(served.http.stream("POST", "/v1/chat/completions", json=endless)).iter_lines()
            for _ in range(2)
        ]
        assert all(map(next, held))
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "put_back"), [("And now?", "And now?"), ("Regenerate", ""), ("Edit question", "Hello there")]
)
def test_a_question_that_is_left_before_its_answer_is_neither_lost_nor_answered(
    opened, store: Store, served: Served, asked: str, put_back: str
) -> None:
    other = saved(store, "other", a_turn(), settings=SETTINGS)
    chromium, session = opened("shared", a_turn("Hello", "Hi you"))
    with busy(served):
        if asked == "And now?":
            ask(chromium, asked)
        else:
            click(chromium, asked)
        if asked == "Edit question":
            chromium.type(" there")
            chromium.press("Enter")
        when(lambda: served.metric("pjlocal_answers_now") == 3)
        chromium.eval(f"location.hash = {other.id}")
        chromium.wait_for(f"{TITLE} === 'other' && question.value === '{put_back}'")
        if not put_back:
            when(lambda: served.metric("pjlocal_answers_now") == 2)
    when(lambda: served.metric("pjlocal_answers_now") == 0)
    assert chromium.eval("question.value") == put_back
    assert texts(store, session) == [("Hello", "Hi you")] and len(store.load(session.id).turns[0].drafts) == 1


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["Regenerate", "Edit question"])
def test_an_answer_that_is_stopped_after_a_reload_leaves_the_turn_that_it_would_have_replaced(
    opened, served: Served, asked: str
) -> None:
    chromium, _ = opened("shared", a_turn("Hello", "Hi you"))
    with busy(served):
        click(chromium, asked)
        if asked == "Edit question":
            chromium.type(" there")
            chromium.press("Enter")
        when(lambda: served.metric("pjlocal_answers_now") == 3)
        chromium("Page.reload")
        chromium.wait_for("document.readyState === 'complete' && document.querySelector('#stop:not([hidden])')")
        click(chromium, "Stop")
        chromium.wait_for("document.getElementById('stop').hidden")
    edited = "Hello there" if asked == "Edit question" else None
    assert chromium.eval(f"[{QUESTIONS}, {EDITED}?.value ?? null, question.value]") == [["Hello"], edited, ""]


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["", " Or later?"])
def test_a_question_that_is_left_is_back_at_once_and_goes_again_if_it_was_answered_nevertheless(
    opened, store: Store, served: Served, typed: str
) -> None:
    other = saved(store, "other", a_turn(), settings=SETTINGS)
    chromium, session = opened("shared", a_turn("Hello", "Hi you"))
    chromium.eval(
        "var fetched = fetch; fetch = async (path, options) =>"  # an answer is stopped too late
        " /stop$/.test(path) ? new Response(null, { status: 204 }) : fetched(path, options)"
    )
    with busy(served):
        ask(chromium, "And now?")
        chromium.type("Too")
        chromium.eval("import('/files.js').then(({ put }) => put([{ name: 'notes.txt', head: 'Notes' }])), null")
        chromium.wait_for("document.querySelector('#files li')")
        when(lambda: served.metric("pjlocal_answers_now") == 3)
        chromium.eval(f"location.hash = {other.id}")
        chromium.wait_for(f"{TITLE} === 'other'")
        assert chromium.eval("question.value") == f"And now?{NL}Too"
        chromium.type(typed)
    link = f"document.querySelector('#list a[href=\"#{session.id}\"]')"
    chromium.wait_for(f"{link}.textContent.includes('2 turns')")
    assert chromium.eval("question.value") == (f"And now?{NL}Too{typed}" if typed else "Too")
    assert chromium.eval("document.querySelector('#files li').textContent").startswith("notes.txt")
    assert [question for question, _ in texts(store, session)] == ["Hello", "And now?"]


@pytest.mark.slow
def test_a_tab_does_not_continue_a_chat_in_which_another_tab_awaits_an_answer(
    open_tabs, store: Store, served: Served
) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    first, second = open_tabs(f"#{session.id}")
    with busy(served):
        first.eval("question.value = 'one'; document.getElementById('ask').requestSubmit()")
        when(lambda: served.metric("pjlocal_answers_now") == 3)
        second.eval("question.value = 'two'; document.getElementById('ask').requestSubmit()")
        second.wait_for(TROUBLE)
        assert "new turn from elsewhere" in second.eval(TROUBLE) and second.eval("question.value") == "two"
    second.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN} && {WHOLE}")
    assert first.eval(QUESTIONS) == second.eval(QUESTIONS) == ["Hello", "one"]
    second.eval("document.getElementById('ask').requestSubmit()")
    second.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    assert [question for question, _ in texts(store, session)] == ["Hello", "one", "two"]


def test_turns_added_elsewhere_are_shown_before_the_question_is_asked(opened, store: Store) -> None:
    chromium, session = opened("shared", a_turn("Hello", "Hi you"))
    store.add_turn(session.id, a_turn("From the terminal", "Yes"))
    chromium.eval("question.value = 'And now?'; document.getElementById('ask').requestSubmit()")
    chromium.wait_for(TROUBLE)
    assert "new turn from elsewhere" in chromium.eval(TROUBLE)
    assert chromium.eval(QUESTIONS) == ["Hello", "From the terminal"] and chromium.eval("question.value") == "And now?"
    chromium.eval("document.getElementById('ask').requestSubmit()")
    chromium.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    assert chromium.eval(TROUBLE) == "" and len(store.load(session.id).turns) == 3


def test_the_question_that_is_edited_is_the_one_that_was_chosen(opened, store: Store) -> None:
    chromium, session = opened("shared", a_turn("Hello", "Hi you"))
    click(chromium, "Edit question")
    chromium.type(" there")
    store.add_turn(session.id, a_turn("From the terminal", "Yes"))
    chromium.press("Enter")
    chromium.wait_for(TROUBLE)
    assert chromium.eval("question.value") == "Hello there" and "new turn from elsewhere" in chromium.eval(TROUBLE)
    assert texts(store, session) == [("Hello", "Hi you"), ("From the terminal", "Yes")]


def test_a_question_that_is_edited_and_refused_is_edited_again_in_its_place(opened, store: Store) -> None:
    chromium, session = opened("mine", a_turn("Hello", "Hi you"))
    chromium.eval("question.focus()")
    chromium.type("Another, not asked yet")
    click(chromium, "Edit question")
    assert chromium.eval(f"[{EDITED}.value, document.activeElement === {EDITED}]") == ["Hello", True]
    chromium.type(" there")
    chromium.eval("document.querySelector('#temperature').value = 'warm'")
    chromium.press("Enter")
    chromium.wait_for(f"{TROUBLE} && {EDITED}")
    assert chromium.eval(f"[{EDITED}.value, document.activeElement === {EDITED}]") == ["Hello there", True]
    chromium.eval("document.querySelector('#temperature').value = ''")
    chromium.press("Enter")
    chromium.wait_for(f"document.querySelector('article h3').textContent === 'Hello there' && {WRITTEN}")
    assert [asked for asked, _ in texts(store, session)] == ["Hello there"]
    assert chromium.eval("question.value") == "Another, not asked yet" and not chromium.eval(EDITED)


def test_a_question_is_edited_by_the_keys_of_the_form_and_escape_leaves_it(opened, store: Store) -> None:
    chromium, session = opened("mine", a_turn("Hello", "Hi you"))
    chromium.eval("question.focus()")
    chromium.type("And now?")
    click(chromium, "Edit question")
    chromium.type(" there")
    chromium.press("Escape")
    assert chromium.eval(f"[{QUESTIONS}, {FOCUS}, question.value]") == [["Hello"], "Edit question", "And now?"]
    click(chromium, "Edit question")
    chromium.press("Enter", modifiers=8)  # Shift
    chromium.type("there")
    chromium.press("Enter")
    chromium.wait_for(f"{QUESTIONS}[0] !== 'Hello' && {WRITTEN}")
    assert [asked for asked, _ in texts(store, session)] == ["Hello\nthere"]
    assert chromium.eval("question.value") == "And now?"


@pytest.mark.parametrize("gone", ["other chat", "new turn"])
def test_an_edited_question_stays_to_be_copied_when_its_turn_is_gone(opened, store: Store, gone: str) -> None:
    chromium, session = opened("mine", a_turn("Hello", "Hi you"))
    chromium.eval("question.focus()")
    chromium.type("And now?")
    click(chromium, "Edit question")
    chromium.type(" there")
    if gone == "new turn":
        store.add_turn(session.id, a_turn("Hello", "Yes"))
        chromium.eval(f"new BroadcastChannel('pjlocal').postMessage({session.id})")
    else:
        other = saved(store, "other", a_turn("Hello", "Yes"), settings=SETTINGS)
        chromium.eval(f"location.hash = {other.id}")
    chromium.wait_for("document.querySelector('.rewriting .trouble').textContent.includes('copy your text')")
    chromium.press("Enter")
    assert chromium.eval(f"[{EDITED}.value.trim(), question.value]") == ["Hello there", "And now?"]
    click(chromium, "Cancel")
    chromium.wait_for(f"!{EDITED} && {WRITTEN}")
    assert len(store.load(session.id).turns) == (2 if gone == "new turn" else 1), "it was not asked"
    assert chromium.eval("document.querySelectorAll('article').length") == len(store.load(session.id).turns)


@pytest.mark.slow
def test_an_edited_answer_stays_when_another_tab_replaces_it(open_tabs, store: Store) -> None:
    session = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SETTINGS)
    first, second = open_tabs(f"#{session.id}")
    click(second, "Edit answer")
    second.type(" all")
    first.front()
    click(first, "Regenerate")
    first.wait_for(f"document.querySelector('article .count')?.textContent === '2 of 2' && {WRITTEN}")
    second.front()
    second.wait_for("document.querySelectorAll('article').length === 2")
    form = "document.querySelector('article:last-child .rewriting')"
    assert second.eval(f"{form}.querySelector('textarea').value") == "Hi you all"
    assert "copy your text" in second.eval(f"{form}.innerText")
    second.eval(f"{form}.addEventListener('submit', () => (sent = true)); var sent = false")
    second.press("Enter", modifiers=2)  # Ctrl
    assert not second.eval("sent"), "as its button, which is hidden"
    click(second, "Cancel")
    second.wait_for(f"document.querySelectorAll('article').length === 1 && {WRITTEN}")
    assert second.eval(ANSWERS) == first.eval(ANSWERS) and second.eval(FOCUS) == "question"


def test_the_focus_stays_when_a_button_hides_itself(opened) -> None:
    chromium, _ = opened("mine", a_turn("Hello", "Hi you"), settings=ENDLESS)
    for button in ("Edit question", "Edit answer"):
        click(chromium, button)
        click(chromium, "Cancel")
        assert chromium.eval(FOCUS) == button
    ask(chromium, "Go on")
    chromium.wait_for(f"{TOKENS} > 5")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    assert chromium.eval("document.activeElement.className") == "answer"


def test_a_chat_is_renamed_by_keyboard_and_a_title_that_names_nothing_is_refused_in_a_line(
    opened, store: Store
) -> None:
    chromium, session = opened("Old", a_turn())
    click(chromium, "Rename")
    assert chromium.eval("document.activeElement.value") == "Old"
    refused = "document.querySelector('#rename-dialog .trouble').textContent"
    for title, why in (("a" * 201, "at most 200 characters (not 201)"), ("12", "a number cannot be a title")):
        chromium.eval("document.activeElement.select()")
        chromium.type(title)
        chromium.press("Enter")
        chromium.wait_for(f"{refused}.includes('{why}')")
    assert chromium.eval("document.getElementById('said').textContent") == chromium.eval(refused)
    chromium.eval("document.activeElement.select()")
    chromium.type("A <b>new</b> title")
    chromium.press("Enter")
    chromium.wait_for("!document.querySelector('dialog[open]')")
    assert chromium.eval(TITLE) == "A <b>new</b> title" == store.load(session.id).title
    assert chromium.eval(FOCUS) == "rename"
    chromium.wait_for(f"{LISTED}[0] === 'A <b>new</b> title'")


def test_deleting_a_chat_asks_first(opened, store: Store) -> None:
    chromium, session = opened("doomed", a_turn())
    click(chromium, "Delete")
    assert chromium.eval(FOCUS) == "Cancel" and "doomed" in chromium.eval(
        "document.querySelector('dialog[open]').innerText"
    )
    chromium.press("Enter")
    chromium.wait_for("!document.querySelector('dialog[open]')")
    assert chromium.eval(FOCUS) == "delete" and store.load(session.id)
    click(chromium, "Delete")
    chromium.press("Escape")
    chromium.wait_for("!document.querySelector('dialog[open]')")
    click(chromium, "Delete")
    click(chromium, "Delete for good")
    chromium.wait_for(f"{TITLE} === 'New chat'")
    assert chromium.eval(f"[location.hash, {QUESTIONS}.length, {FOCUS}]") == ["", 0, "question"]
    chromium.wait_for(f"!{LISTED}.includes('doomed')")
    assert session.id not in [summary.id for summary in store.summaries()]


@pytest.mark.parametrize("wanted", ["ask", "rename", "delete"])
def test_a_removed_chat_is_reported_and_a_new_one_begins(opened, store: Store, wanted: str) -> None:
    chromium, session = opened("gone", a_turn())
    store.remove(session.id)
    if wanted == "ask":
        chromium.eval("question.value = 'And now?'; document.getElementById('ask').requestSubmit()")
    else:
        click(chromium, wanted.capitalize())
        click(chromium, {"rename": "Save the title", "delete": "Delete for good"}[wanted])
    chromium.wait_for(f"{TITLE} === 'New chat' && {TROUBLE}")
    assert "deleted elsewhere" in chromium.eval(TROUBLE) and not chromium.eval("document.querySelector('dialog[open]')")
    assert chromium.eval(f"[location.hash, {QUESTIONS}.length]") == ["", 0]
    if wanted == "ask":
        assert chromium.eval("question.value") == "And now?"
        chromium.eval("document.getElementById('ask').requestSubmit()")
        chromium.wait_for(WRITTEN)
        assert texts(store, store.load(store.latest()))[0][0] == "And now?"


@pytest.mark.slow
def test_a_chat_that_is_deleted_in_the_other_tab_while_it_is_answered_ends_here(open_tabs, store: Store) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    first, second = open_tabs(f"#{session.id}")
    second.front()
    ask(second, "Go on")
    second.wait_for(f"{TOKENS} > 5")
    first.front()
    click(first, "Delete")
    click(first, "Delete for good")
    second.wait_for(f"{TITLE} === 'New chat' && {TROUBLE}")
    assert "deleted elsewhere" in second.eval(TROUBLE)
    assert session.id not in [summary.id for summary in store.summaries()]
