"""The page in a browser, where one is installed: a conversation, and what stands in its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Chromium
from exported_chats import HOSTILE, accepted, resampled
from on_the_page import ENDLESS, SETTINGS, TOKENS, WRITTEN, ask, click, says
from saved_chats import a_turn, saved
from served import VIEWS, Served, serving

from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store
from pjlocal.visible import visible

OPTIONS = (*VIEWS, "--max-tokens", "40", "--seed", "3")
HOSTILE_MARKDOWN = [
    "[x](javascript:document.title='pwned') ![x](https://evil.example/x.png) <https://evil.example/y.js>",
    "# <img src=x onerror=\"document.title='pwned'\">\n\n> - `<script>document.title='pwned'</script>`",
    "[x](data:text/html,<script>document.title='pwned'</script>) [x](//evil.example) [x]( https://evil.example)",
    "| <b>a</b> | b |\n|---|---|\n| <style>*{display:none}</style> | [x](vbscript:1) |",
    "~~~html\n<iframe src=https://evil.example>",
]


def test_a_conversation_shows_who_wrote_what_and_is_saved(page: Callable[..., Chromium], store: Store) -> None:
    chromium = page()
    first = chromium.eval("[...document.querySelectorAll('#views fieldset textarea')].map((field) => field.value)")
    assert first == ["vivid", "", "concise", ""], "what the server was started with"
    chromium.eval("document.querySelector('[data-view=b] textarea').select()")
    chromium.type("Answer as a sailor would")
    chromium.eval("document.getElementById('mode').value = 'judge'")  # in which every token is of one view
    ask(chromium, "Why do cats purr?")
    chromium.wait_for(WRITTEN)
    (turn,) = store.load(store.latest()).turns
    assert chromium.eval("location.hash") == f"#{store.latest()}"
    assert turn.settings["preferences"] == {"a": ["vivid"], "b": ["Answer as a sailor would"]}

    chromium.eval("document.getElementById('formatted').click()")
    shown = chromium.eval("[...document.querySelectorAll('.answer .t')].map((t) => [t.className, t.textContent])")
    told = [event for event in turn.events if event.text]
    marked = {"resampled": " resampled", "bonus": " bonus"}
    assert [name for name, _ in shown] == [f"t {event.writer}{marked.get(event.kind, '')}" for event in told]
    colors = chromium.eval("['a', 'b'].map((v) => getComputedStyle(document.querySelector(`.t.${v}`)).color)")
    assert colors[0] != colors[1]
    line = chromium.eval("getComputedStyle(document.querySelector('.t.resampled')).textDecorationLine")
    assert line == "underline"
    facts = chromium.eval("document.querySelector('article .facts').textContent")
    assert facts.startswith(f"{turn.statistics['acceptance_rate']:.0%}".replace("%", " %") + " accepted · wrote: a ")
    assert chromium.eval("document.querySelector('.strip').getAttribute('aria-label')") in facts
    assert chromium.eval("document.querySelectorAll('.strip .draft').length") == turn.statistics["rounds"]

    ask(chromium, "And dogs?")
    chromium.wait_for(f"document.querySelectorAll('article').length === 2 && {WRITTEN}")
    assert [one.question for one in store.load(store.latest()).turns] == ["Why do cats purr?", "And dogs?"]
    buttons = "[...document.querySelectorAll('article:{}-child .actions button')].map((one) => one.textContent)"
    assert chromium.eval(buttons.format("first")) == ["New chat from here"]
    assert chromium.eval(buttons.format("last"))[:2] == ["Continue", "Regenerate"]
    said = chromium.eval("document.getElementById('said').textContent")
    assert said == f"Answer: {store.load(store.latest()).turns[1].answer}", "told once, and whole"


def test_a_tokens_numbers_show_where_one_points_and_where_the_keyboard_is(opened) -> None:
    of = [accepted("Cats"), resampled(" purr", instead=" bark", position=1), accepted(" often", 2)]
    chromium, _ = opened("numbers", Turn("Why?", of, SETTINGS, "stop"))
    chromium.wait_for(TOKENS)
    assert chromium.eval("document.getElementById('token').hidden")
    chromium.hover(".t.resampled")
    panel = chromium.eval("document.getElementById('token').innerText")
    for part in (
        "resampled, drafted by a, judged by b",
        "␣bark",
        "0.3125",
        "0.0313",
        "in place of",
        "0.8750",
        "0.0714",
    ):
        assert part in panel, panel
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.eval("document.getElementById('token').hidden")
    chromium.eval("document.querySelector('.answer').focus()")
    chromium.press("ArrowRight")
    assert "accepted, drafted by a, judged by b" in chromium.eval("document.getElementById('said').textContent")
    chromium.press("ArrowRight", modifiers=8)
    assert "in place of" in chromium.eval("document.getElementById('said').textContent")
    assert chromium.eval("document.querySelector('.now').classList.contains('resampled')")
    box = chromium.eval("(({x, y, right, bottom}) => [x, y, right, bottom])(token.getBoundingClientRect())")
    assert box[0] >= 0 and box[1] >= 0 and box[2] <= 1200 and box[3] <= 800
    chromium.press("Escape")
    assert chromium.eval("document.getElementById('token').hidden")


SHOWN = "[...document.querySelectorAll('article')].map((one) => one.innerText).join('')"


def test_thinking_is_folded_counted_and_opened_on_demand(opened, store: Store) -> None:
    chromium, session = opened("Thinks", settings=says("<think>\nLet me *see*.\n</think>\n\nIt *purrs*."))
    ask(chromium, "Why?")
    chromium.wait_for(WRITTEN)
    (turn,) = store.load(session.id).turns
    for _ in range(2):
        assert turn.thinking == "Let me *see*." and turn.answer == "It *purrs*."
        n_thoughts = turn.statistics["usage"]["thinking_tokens"]
        assert (
            chromium.eval("document.querySelector('.thoughts summary').innerText") == f"Thinking · {n_thoughts} tokens"
        )
        assert chromium.eval("document.querySelector('.answer').innerText") == "It purrs."
        assert chromium.eval("document.querySelectorAll('.thoughts .t').length") > 5
        assert "Let me" not in chromium.eval(SHOWN)
        chromium.eval("getSelection().selectAllChildren(document.querySelector('article'))")
        assert "Let me" not in chromium.eval("getSelection().toString()"), "what is copied is the answer alone"
        chromium.eval("document.querySelector('.thoughts summary').click()")
        assert "Let me *see*." in chromium.eval(SHOWN), "as it was written"
        chromium.hover(".thoughts .t:nth-child(9)")
        assert "by" in chromium.eval("document.getElementById('token').innerText")
        chromium("Page.reload")
        chromium.wait_for(f"document.readyState === 'complete' && {WRITTEN}")
    said = chromium.eval("document.getElementById('said').textContent")
    assert said == "" or said == "Answer: It *purrs*."


@pytest.mark.slow
def test_opened_thinking_stays_open_while_it_is_written(page, store: Store) -> None:
    text = " ".join(f"thought{n}" for n in range(150))
    session = saved(
        store, "Thinks long", settings=says(f"<think>{text}</think>Done.") | {"generation": {"max_tokens": 3000}}
    )
    chromium = page(f"#{session.id}")
    ask(chromium, "Why?")
    chromium.wait_for(f"{TOKENS} > 30")
    assert chromium.eval("document.querySelector('.thoughts summary').innerText").startswith("Thinking · ")
    assert not chromium.eval("document.querySelector('.thoughts').open || document.querySelector('.answer').innerText")
    chromium.eval("document.querySelector('.thoughts summary').click()")
    before = chromium.eval(TOKENS)
    chromium.wait_for(f"{TOKENS} > {before} + 30")
    assert chromium.eval("document.querySelector('.thoughts').open && document.querySelector('[aria-busy]') !== null")
    chromium.wait_for(WRITTEN)
    assert chromium.eval("document.querySelector('.thoughts').open")
    assert chromium.eval("document.getElementById('said').textContent") == "Answer: Done."


@pytest.mark.slow
def test_an_answer_cut_off_while_thinking_says_so(opened) -> None:
    chromium, _ = opened("Cut", settings=says("<think>Let me see") | {"generation": {"max_tokens": 14}})
    ask(chromium, "Why?")
    chromium.wait_for(WRITTEN)
    cut = "cut at the length limit while thinking, without an answer"
    assert cut in chromium.eval("document.querySelector('article .facts').textContent")
    assert cut in chromium.eval("document.getElementById('said').textContent")


@pytest.mark.slow
def test_an_answer_can_be_stopped_repeated_and_repeated_with_other_settings(opened, store: Store) -> None:
    chromium, session = opened("endless", settings=ENDLESS)
    ask(chromium, "Go on")
    chromium.wait_for(f"{TOKENS} > 30")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    (stopped,) = store.load(session.id).turns
    assert stopped.finish_reason == "interrupted" and len(stopped.events) > 30
    assert "stopped" in chromium.eval("document.querySelector('article .facts').textContent")

    click(chromium, "Regenerate")
    chromium.wait_for(f"{TOKENS} > 5 && document.querySelectorAll('article').length === 1")
    chromium.press("Escape")
    chromium.wait_for(WRITTEN)
    assert chromium.eval("document.activeElement.className") == "answer", "where the button was that is gone"
    (again,) = store.load(session.id).turns
    assert again.question == "Go on" and again.id != stopped.id

    click(chromium, "Edit question")
    assert chromium.eval("document.activeElement.value") == "Go on"
    chromium.eval("document.activeElement.select()")
    chromium.type("Go back")
    chromium.press("Enter")
    chromium.wait_for(f"document.querySelector('article h3').textContent === 'Go back' && {TOKENS} > 5")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    assert [turn.question for turn in store.load(session.id).turns] == ["Go back"]
    assert len(store.load(session.id, with_undone=True).turns) == 3


@pytest.mark.slow
def test_a_page_reloaded_during_an_answer_continues_to_show_it(opened, store: Store) -> None:
    chromium, session = opened("endless", a_turn("Hello", "Hi you"), settings=ENDLESS)
    ask(chromium, "Go on")
    chromium.wait_for(f"{TOKENS} > 30")
    chromium("Page.reload")
    chromium.wait_for(f"document.readyState === 'complete' && {TOKENS} > 30")
    before = chromium.eval(TOKENS)
    chromium.wait_for(f"{TOKENS} > {before} + 30 && !document.getElementById('stop').hidden")
    assert chromium.eval("document.querySelectorAll('article .actions button').length") == 0, "it is being written"
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    turn = store.load(session.id).turns[-1]
    assert (turn.question, turn.finish_reason) == ("Go on", "interrupted")
    chromium.eval("document.getElementById('formatted').click()")  # off: a token is an element, then
    assert chromium.eval(TOKENS) == sum(bool(event.text) for event in turn.events)
    answers = chromium.eval("[...document.querySelectorAll('.answer')].map((answer) => answer.innerText.length)")
    assert answers[0] == len("Hi you") and answers[1] > 30
    ask(chromium, "More")
    chromium.wait_for(f"document.querySelectorAll('article').length === 3 && {TOKENS} > 5")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    assert len(store.load(session.id).turns) == 3


def test_control_characters_have_the_marks_that_they_have_in_a_terminal(page: Callable[..., Chromium]) -> None:
    codes = [*range(0x1000), *range(0x2000, 0x2100), 0xFEFF]
    find = "import('/token.js').then(({visible}) => %s.map((code) => visible(String.fromCharCode(code))))"
    chromium = page()
    chromium.eval(f"window.marks = null; {find % codes}.then((found) => (window.marks = found)); 0")
    chromium.wait_for("window.marks")
    assert chromium.eval("window.marks") == [visible(chr(code)) for code in codes]


def test_nothing_planted_runs_and_nothing_is_fetched_from_elsewhere(opened, served: Served) -> None:
    texts = [*HOSTILE, *HOSTILE_MARKDOWN]
    turns = [Turn(text, [accepted(text)], {"mode": text, "preferences": {"a": [text]}}, "stop") for text in texts]
    chromium, _ = opened(" ".join(HOSTILE[:-1]), *turns, settings={"preferences": {"a": texts[:3], "b": []}})
    chromium.wait_for(f"document.querySelectorAll('article').length === {len(texts)}")
    for number in range(1, len(texts) + 1):
        chromium.hover(f"article:nth-of-type({number}) .t")
    assert chromium.eval("document.title") == "pjlocal"
    made = "document.querySelectorAll('main :is(script, img, iframe, style, link, object), main b:not(.legend b)')"
    assert chromium.eval(f"{made}.length") == 0
    links = chromium.eval("[...document.querySelectorAll('.answer a')].map((link) => [link.protocol, link.rel])")
    assert links and all(protocol == "https:" and "noopener" in rel for protocol, rel in links)
    loaded = chromium.eval("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(loaded) > 10 and all(name.startswith(served.url) for name in loaded), loaded

    policy = served.http.get("/").headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy and "unsafe" not in policy and "http" not in policy
    chromium.eval("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    chromium.eval("fetch('http://localhost:1/').catch((error) => (document.title = 'refused'))")
    chromium.wait_for("document.title === 'refused'")


CAT = "https://x.example/Cat_(animal)"
LINK = '<a href="{0}" title="{0}" target="_blank" rel="noopener noreferrer nofollow"><span>{1}</span></a>'
CODE = '<div class="code"><button class="copy" type="button">Copy code</button><pre><code>{}</code></pre></div>'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a *b* **c** ~~d~~ `e*` f_g_h \\*i\\*",
         "<p>a <em>b</em> <strong>c</strong> <s>d</s> <code>e*</code> f_g_h *i*</p>"),
        ("**a *b* c** 2 * 3 * 4 **", "<p><strong>a <em>b</em> c</strong> 2 * 3 * 4 **</p>"),
        ("**`**kwargs`**: a **Using `*args` and `**kwargs`** *a \\* b* **a\\` b** `c",
         "<p><strong><code>**kwargs</code></strong>: a <strong>Using <code>*args</code> and "
         "<code>**kwargs</code></strong> <em>a * b</em> <strong>a` b</strong> `c</p>"),
        ("# A\nb\nc\n\n---\n> d\n> e", "<h4>A</h4><p>b\nc</p><hr><blockquote><p>d\ne</p></blockquote>"),
        ("- a\n- b\n  - c\n\n3. d\n4. e",
         '<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol start="3"><li>d</li><li>e</li></ol>'),
        ("1. a\n\t- b\n\t\t- c\n\n\td", "<ol><li>a<ul><li>b<ul><li>c</li></ul></li></ul><p>d</p></li></ol>"),
        ("```py\nx = 1\n\n  <b>\n```\nend", CODE.format("x = 1\n\n  &lt;b&gt;") + "<p>end</p>"),
        ("```\nopen", CODE.format("open")),
        ("| a | b |\n|---|:-:|\n| 1 | *2* |\nend",
         '<div class="wide"><table><thead><tr><th>a</th><th class="center">b</th></tr></thead>'
         '<tbody><tr><td>1</td><td class="center"><em>2</em></td></tr></tbody></table></div><p>end</p>'),
        ("<b>&amp;</b> &eacute;&#233; &lt;i&gt; &nothing; & `&amp;`",
         "<p>&lt;b&gt;&amp;&lt;/b&gt; éé &lt;i&gt; &amp;nothing; &amp; <code>&amp;amp;</code></p>"),
        ("- [ ] a\n- [x] *b*", '<ul><li class="task">☐ a</li><li class="task">☑ <em>b</em></li></ul>'),
        ("$x^2 \\le \\frac{a+b}{2}$ \\(\\sqrt{\\pi}\\)",
         '<p><span class="math">x<sup>2</sup> ≤ (a+b)/2</span> <span class="math">√π</span></p>'),
        ("From $5 to $10, or $5/$6", "<p>From $5 to $10, or $5/$6</p>"),
        ("\\[ E = mc^{2} \\] \\(", '<p><span class="math"> E = mc<sup>2</sup> </span> (</p>'),
        ("*the optimum $x^*$ is best* **Dual $V^{**}$ and \\(V^*\\)** *see [a](https://x.example/a*b) now*",
         '<p><em>the optimum <span class="math">x<sup>*</sup></span> is best</em> '
         '<strong>Dual <span class="math">V<sup>**</sup></span> and <span class="math">V<sup>*</sup></span></strong> '
         f"<em>see {LINK.format('https://x.example/a*b', 'a')} now</em></p>"),
        ("![a](https://x.example/i.png) [b](javascript:1)", "<p><span>a</span> <span>b</span></p>"),
        (f"[cat]({CAT}) ({CAT}, https://x.example/a).", f"<p>{LINK.format(CAT, 'cat')} ({LINK.format(CAT, CAT)}, "
         f"{LINK.format('https://x.example/a', 'https://x.example/a')}).</p>"),
        ("[https://a.b](https://a.b) *[**https://a.b**](https://c.d)*",
         f"<p>{LINK.format('https://a.b', 'https://a.b')} "
         f"<em>{LINK.format('https://c.d', '<strong>https://a.b</strong>')}</em></p>"),
        ("", ""), ("\n\n", ""), ("**", "<p>**</p>"), ("[", "<p>[</p>"), ("1.", "<ol><li></li></ol>"),
    ],
)  # fmt: skip
def test_markdown_becomes_elements_and_what_is_none_stays_text(page, source: str, expected: str) -> None:
    chromium = page()
    assert rendered(chromium, source) == expected


@pytest.mark.slow
def test_markdown_is_rendered_in_bounded_time(page) -> None:
    """Chromium is waited for 20 seconds: an expression that tries every way to match would take years."""
    chromium = page()
    for part in (
        "*a ",
        "**a *",
        "[",
        "[a](",
        "[a](b()",
        "`",
        "``a",
        ">",
        "- ",
        "  - a\n",
        "\t",
        "_a_ ",
        "|",
        "|-|\n",
        "http://",
        "http://() ((",
        "~~",
        "\\",
        "$a ",
        "\\(",
        "$a^{",
        "&a",
        "*`a",
        "*`a\\",
        "*$a ",
        "*[a](b",
        "*[a](b) _",
    ):
        rendered(chromium, part * (32_000 // len(part)))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["*a ", "**a ", "~~a _a "])
def test_marks_that_nothing_closes_are_looked_for_once(page, part: str) -> None:
    chromium = page()
    chromium.eval(
        "var n = 0; const { indexOf } = String.prototype;"
        "String.prototype.indexOf = function (...args) { n++; return indexOf.apply(this, args); }"
    )
    rendered(chromium, part * 1000)
    assert chromium.eval("n") < 10_000


def rendered(chromium: Chromium, source: str) -> str:
    chromium.eval(
        "var html; Promise.all([import('/markdown.js'), import('/nodes.js')]).then(([{ blocks }, { draw, node }]) => {"
        f" const source = {json.dumps(source)}, leaf = (from, to, shown = source.slice(from, to)) => [shown];"
        " html = draw(node('div', blocks(source).map((block) => block.make(leaf)))).innerHTML; })"
    )
    chromium.wait_for("html !== undefined")
    return chromium.eval("html")


def test_modes_are_compared_side_by_side_and_kept_as_drafts(opened, store: Store) -> None:
    chromium, session = opened("compare", a_turn("Which?", "That one"))
    click(chromium, "Compare modes")
    chromium.eval("document.querySelector('[name=prompt]').checked = false")
    click(chromium, "Compare")
    chromium.wait_for("document.querySelectorAll('#columns .facts').length === 3")
    chromium.wait_for("!document.querySelector('#columns [aria-busy]')")
    assert chromium.eval("[...document.querySelectorAll('#columns h3')].map((h) => h.textContent)") == [
        "judge", "both", "plain",
    ]  # fmt: skip
    assert chromium.eval("[...document.querySelectorAll('#columns .trouble')].map((p) => p.textContent).join('')") == ""
    assert chromium.eval("[...document.querySelectorAll('#columns .answer')].every((answer) => answer.innerText)")
    (turn,) = store.load(session.id).turns
    assert turn.answer == "That one" and len(turn.drafts) == 4
    chromium.hover("#columns .t")
    chromium.eval("var token = document.getElementById('token'); token.style.pointerEvents = 'auto'")
    chromium.eval("var box = token.getBoundingClientRect()")
    assert chromium.eval("token.contains(document.elementFromPoint(box.x + 9, box.y + 9))"), "nothing lies over it"
    click(chromium, "Close")
    assert not chromium.eval("document.getElementById('comparison').open")


def test_a_chat_of_the_terminal_is_exported(opened) -> None:
    chromium, _ = opened("Lighthouse", a_turn("Where is the keeper?", "He is asleep *upstairs*."))
    chromium.eval(
        "var file; const plain = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then((text) => (file = text)); return plain(blob); }"
    )
    click(chromium, "md")
    chromium.wait_for("file !== undefined")
    assert chromium.eval("file").startswith("# Lighthouse\n")


SECRET = "sessionStorage.getItem('pjlocal-secret')"
ASKED = "document.getElementById('asking').open"
LIST = "document.querySelector('#list li')"


def test_the_token_is_removed_from_the_address_and_kept_for_reloads_of_the_tab(opened, served) -> None:
    chromium, session = opened("Lighthouse", a_turn())
    address = f"{served.url}/#{session.id}"
    assert chromium.eval(f"[location.href, {SECRET}]") == [address, served.token]
    chromium("Page.reload")
    chromium.wait_for(f"document.readyState === 'complete' && {LIST}")
    chromium.wait_for(WRITTEN)
    assert chromium.eval(f"[location.href, {ASKED}]") == [address, False]
    assert not chromium.eval("localStorage.length || document.cookie"), "it is kept for the tab alone"


def test_a_second_tab_has_the_token_of_the_first(page, chromium: Chromium, served: Served) -> None:
    page()
    with chromium.tab() as second:
        second.open(served.url)
        second.wait_for(LIST)
        assert second.eval(f"[{SECRET}, {ASKED}]") == [served.token, False]


@pytest.mark.slow
def test_a_page_without_the_token_says_what_to_do_and_takes_the_address_that_was_printed(
    page, chromium: Chromium, served: Served
) -> None:
    page()
    for pasted in (served.page(), served.token):
        chromium.eval("sessionStorage.clear()")
        chromium.open(f"{served.url}/?token=of-an-earlier-start")
        chromium.wait_for(f"{ASKED} && document.activeElement.id === 'key'")
        said = chromium.eval("document.getElementById('asking').innerText")
        assert "pjlocal serve" in said and "?token=" in said and "did not accept" in said
        assert chromium.eval("location.search") == ""
        chromium.type(pasted)
        chromium.press("Enter")
        chromium.wait_for(LIST)
        assert chromium.eval(f"[{SECRET}, {ASKED}]") == [served.token, False]


@pytest.mark.slow
def test_the_page_takes_the_servers_key_as_well_and_keeps_it_for_the_tab(
    chromium: Chromium, tiny: Callable[[str], Path], server_environment: dict[str, str], database: Path
) -> None:
    environment = server_environment | {"PJLOCAL_API_KEY": "secret", "PJLOCAL_DATABASE": str(database)}
    with serving(tiny("llama"), environment) as served:
        chromium.open(f"{served.url}/")
        for key in ("wrong", "clé", "secret"):
            chromium.wait_for(f"{ASKED} && document.activeElement.id === 'key'")
            chromium.type(key)
            chromium.press("Enter")
            chromium.wait_for(f"{SECRET} === '{key.replace('é', '')}'")
        chromium.wait_for(LIST)
        assert not chromium.eval(f"{ASKED} || localStorage.length || document.cookie")
        chromium.open(served.page())
        chromium.wait_for(LIST)
        assert chromium.eval(f"[{SECRET}, {ASKED}]") == [served.token, False]
        chromium.open("about:blank#")
