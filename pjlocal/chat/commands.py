"""The commands of a chat: a line that begins with a slash.  Each is one small function; the conversation does the work.

@command("/undo", "Take the last turn back.")
def undo(chat: Chat, words: str) -> None: ...
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..config.editor import edit_text
from ..errors import UsageError, did_you_mean
from ..events import VIEW_NAMES, Result
from ..gguf.locate import available_models
from ..prompting.preferences import deal, presets, resolve
from ..screen.display import View
from ..sessions.export import FORMATS, write_export
from ..sessions.session import Session
from ..sessions.store import check_title
from ..settings import Engine, Generation, Mode, Prompting, Sampling, Settings, Think, flag
from . import figures

if TYPE_CHECKING:
    from .chat import Chat

Run = Callable[["Chat", str], None]


@dataclass(frozen=True)
class Command:
    """usage: as the help shows it; its first word is the name."""

    usage: str
    help: str
    run: Run
    #: What may stand behind it, to complete.
    choices: Callable[[Chat], Sequence[str]]

    @property
    def name(self) -> str:
        return self.usage.split()[0]


COMMANDS: dict[str, Command] = {}
_ALIASES = {"/exit": "/quit", "/bye": "/quit", "/q": "/quit", "/?": "/help", "/h": "/help"}


def command(usage: str, help: str, choices: Callable[[Chat], Sequence[str]] = lambda chat: ()) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        made = Command(usage, help, run, choices)
        COMMANDS[made.name] = made
        return run

    return register


def is_command(line: str) -> bool:
    """Whether a line is a command; a path such as /etc/hosts is not, nor is a line that begins with two slashes."""
    return re.match(r"/[\w?-]+(\s|$)", line) is not None


def run(chat: Chat, line: str) -> None:
    """Run a command.

    Raises:
        UsageError: there is no such command (the nearest is named), or it cannot be done.
    """
    name, _, words = line.strip().partition(" ")
    name = name.lower()
    found = COMMANDS.get(_ALIASES.get(name, name))
    if found is None:
        raise UsageError(f"unknown command {name}: {did_you_mean(name, COMMANDS) or '/help lists them'}")
    found.run(chat, words.strip())


def _one_of(what: str, word: str, known: Sequence[str]) -> Any:
    if word not in known:
        raise UsageError(f"{what} is one of {', '.join(known)} (not {word!r})")
    return word


# Preferences and how they are judged.


@command(
    "/prefer [a|b] [set|add|clear] [PREFERENCES]",
    "Show or change the preferences: of one view, or dealt to both in turn. Quote texts of several words.",
    lambda chat: ["a", "b", "add", "clear", "set", *presets()],
)
def prefer(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    view, verb, rest = _view_and_verb(words)
    if words:
        wishes = _wishes(rest)
        if verb == "clear" and wishes:
            raise UsageError("/prefer clear takes a view or nothing behind it, as in /prefer clear b")
        if verb != "clear" and not wishes:
            raise UsageError("say which preference, as in /prefer a vivid, or /prefer clear")
        now = [list(wishes) for wishes in judge.preferences]
        new = deal(wishes) if view is None else [wishes if name == view else [] for name in VIEW_NAMES]
        if verb == "add":
            if view is None:  # the views' turns go on where they stand
                new = deal(wishes) if len(now[0]) <= len(now[1]) else deal(wishes)[::-1]
            new = [[*old, *more] for old, more in zip(now, new, strict=True)]
        elif view is not None:
            new = [made if name == view else old for name, made, old in zip(VIEW_NAMES, new, now, strict=True)]
        judge.prefer(new)
        chat.changed()
    for name, wishes in zip(VIEW_NAMES, judge.preferences, strict=True):
        chat.screen.say(f"{name}: {', '.join(wishes) or 'no preference'}")


def _view_and_verb(words: str) -> tuple[str | None, str, str]:
    """The view and the verb, in either order, and what stands behind them."""
    view, verb = None, ""
    while words:
        word, _, rest = words.partition(" ")
        if word in VIEW_NAMES and view is None:
            view = word
        elif word in ("set", "add", "clear") and not verb:
            verb = word
        else:
            break
        words = rest.strip()
    return view, verb or "set", words


def _wishes(words: str) -> list[str]:
    """Preferences as typed: presets, @files and quoted texts; or all of it as one text, where it is no list of them,
    nor one with a typing error."""
    quoted = re.search("[\"']", words) is not None
    try:
        wishes = shlex.split(words if quoted else words.replace(",", " "))
    except ValueError:  # an apostrophe
        return [words]
    try:
        for wish in wishes:
            resolve(wish)
    except UsageError:
        bare = words.lower().replace(",", " ").split()
        if len(bare) < 2 or all(get_close_matches(word, presets(), cutoff=0.8) for word in bare):
            raise
        return [words.strip("\"'")]
    return wishes


@command("/swap", "Exchange the preferences of the two views.")
def swap(chat: Chat, words: str) -> None:
    chat.conversation.swap()
    chat.changed()
    prefer(chat, "")


@command(
    "/mode [judge|base|prompt|plain]",
    "judge swaps the roles every round, base keeps them; prompt puts all preferences into one prompt, plain uses none.",
    lambda chat: get_args(Mode),
)
def mode(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    if words:
        generation = judge.generation.replace(mode=_one_of("the mode", words, get_args(Mode)))
        judge.mode(generation)
        judge.generation = generation
        chat.changed()
    chat.screen.say(f"mode {judge.mode(judge.generation)}")


@command("/lambda [N]", "Tokens drafted in a round before the roles swap.")
def lam(chat: Chat, words: str) -> None:
    _set(chat, "lambda", words)


@command(
    "/set [NAME [VALUE]]",
    "Show the settings, or change one, as in /set temperature 0.9 ('default' takes it back).",
    lambda chat: _names(Generation, Sampling, Prompting),
)
def set_(chat: Chat, words: str) -> None:
    name, _, value = re.sub(r"\s*=\s*|\s+", " ", words, count=1).partition(" ")
    judge = chat.conversation.judge
    if not name:
        chat.screen.show(figures.settings((judge.generation, judge.sampling, judge.prompting)))
        return
    _set(chat, name.lstrip("-").replace("_", "-"), value.strip())


def _set(chat: Chat, name: str, value: str) -> None:
    """Change a setting, named by one of its flags without the dashes, or show it."""
    judge = chat.conversation.judge
    for attribute in ("generation", "sampling", "prompting"):
        group: Settings = getattr(judge, attribute)
        if (f := _field(type(group), name)) is None:
            continue
        if value:
            changed = group.parse(f.name, value)
            if isinstance(changed, Generation):
                judge.mode(changed)
            if isinstance(changed, Sampling):
                judge.check(changed)
            setattr(judge, attribute, changed)
            chat.changed()
        chat.screen.show(figures.settings((getattr(judge, attribute),), f.name))
        return
    if _field(Engine, name):
        raise UsageError(f"{name} is fixed once the model is loaded: give it to pjlocal chat")
    near = did_you_mean(name, _names(Generation, Sampling, Prompting))
    raise UsageError(f"no setting {name!r}: {near or '/set lists them'}")


def _field(group: type[Settings], name: str) -> dataclasses.Field[Any] | None:
    fields = dataclasses.fields(group)  # type: ignore[arg-type]
    return next((f for f in fields if name in {x.lstrip("-") for x in f.metadata["flags"]}), None)


def _names(*groups: type[Settings]) -> list[str]:
    return [flag(f).removeprefix("--") for g in groups for f in dataclasses.fields(g)]  # type: ignore[arg-type]


@command("/system [TEXT|clear]", "Show or change the system text that both views share.", lambda chat: ["clear"])
def system(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    if words:
        judge.prompting = judge.prompting.replace(system="" if words == "clear" else words)
        chat.changed()
    chat.screen.say(f"system text: {judge.prompting.system or 'none'}")


@command("/think [auto|on|off]", "Whether a reasoning model thinks aloud first.", lambda chat: get_args(Think))
def think(chat: Chat, words: str) -> None:
    judge = chat.conversation.judge
    if words:
        judge.prompting = judge.prompting.replace(think=_one_of("/think", words, get_args(Think)))
        chat.changed()
        if words != "auto" and not judge.template.has_think_switch:
            chat.screen.say("this model's chat template has no switch for it")
    chat.screen.say(f"think {judge.prompting.think}")


# The model and the screen.


@command("/model [NAME]", "Show the model, or go on with another.", lambda chat: list(available_models()))
def model(chat: Chat, words: str) -> None:
    conversation = chat.conversation
    if words:
        with chat.screen.wait("Loading the model"):
            conversation.switch_model(words.strip("\"'"), chat.load)
        chat.changed()
    loaded = conversation.judge.model
    chat.screen.say(f"{loaded.name}: {loaded.description}, context {conversation.judge.context_limit} tokens a view")
    if not words and (others := list(available_models())):
        chat.screen.say(f"to be had by name: {', '.join(others)}")


@command(
    "/view [text|blame|markdown]",
    "How answers are shown; blame colours each token by the view that wrote it.",
    lambda chat: get_args(View),
)
def view(chat: Chat, words: str) -> None:
    if words:
        chat.view = _one_of("the view", words, get_args(View))
    chat.screen.say(f"view {chat.view}")


# The last answer.


@command("/why", "The last answer token by token: who drafted it, p, q, accepted or not.")
def why(chat: Chat, words: str) -> None:
    chat.screen.show(*figures.why(chat.conversation.last, chat.screen.no_color, chat.screen.width))


@command("/compare", "Answer the last question in every mode, side by side.")
def compare(chat: Chat, words: str) -> None:
    results: list[Result] = []
    with chat.screen.wait("Comparing") as spinner:
        for name, answer in chat.conversation.compare():
            for event in answer:
                spinner.say(f"{name}: {event.position + 1} tokens")
            results.append(answer.result)
            if answer.finish_reason == "interrupted":
                break
    chat.screen.show(figures.comparison(results, chat.screen.width))


@command("/regen", "Answer the last question again.")
def regen(chat: Chat, words: str) -> None:
    chat.answer(chat.conversation.regenerate())


@command("/edit", "Open the last question in $EDITOR and ask it anew.")
def edit(chat: Chat, words: str) -> None:
    last = chat.conversation.last
    question = edit_text(last.question)
    if not question or question == last.question.strip():
        chat.screen.say("the question is as it was: nothing is asked")
        return
    chat.answer(chat.conversation.ask(question, replacing=last))


@command("/undo", "Take the last question and its answer back.")
def undo(chat: Chat, words: str) -> None:
    turn = chat.conversation.undo()
    chat.screen.say(f"taken back: {' '.join(turn.question.split())}")


@command("/stats", "Tokens, speeds and acceptance rates of this session.")
def stats(chat: Chat, words: str) -> None:
    chat.screen.show(figures.statistics(chat.conversation.session))


# Sessions.


@command("/new", "Begin another session; this one stays saved.")
def new(chat: Chat, words: str) -> None:
    chat.conversation.open(Session(settings=chat.conversation.settings()))
    chat.screen.say("a new session")


@command("/sessions", "List the saved sessions.")
def sessions(chat: Chat, words: str) -> None:
    chat.screen.show(figures.sessions(chat.store.summaries(), chat.conversation.session.id))


@command("/load ID|TITLE", "Go on with a saved session.", lambda chat: [s.title for s in chat.store.summaries()])
def load(chat: Chat, words: str) -> None:
    if not words:
        raise UsageError("say which session: /sessions lists them")
    chat.open(chat.store.load(chat.store.find(words)))


@command("/title [TEXT]", "Show or change this session's title.")
def title(chat: Chat, words: str) -> None:
    session = chat.conversation.session
    if words:
        check_title(words)
        session.title = words
        chat.conversation.recorder.rename()
    chat.screen.say(f"title: {session.title or 'none yet'}")


@command(
    "/export [FILE|md|json|html]",
    "Write this session to a file: Markdown, JSON, or a web page where a token tells its numbers.",
    lambda chat: list(FORMATS),
)
def export(chat: Chat, words: str) -> None:
    session = chat.conversation.session
    if not session.turns:
        raise UsageError("nothing was said yet")
    if not words or words in FORMATS:
        target = _free_name(_file_name(session.title), words or "md")
    else:
        target = Path(words.strip("\"'")).expanduser()
    write_export(session, target)
    chat.screen.say(f"written to {target}")


def _file_name(title: str) -> str:
    return "-".join(re.findall(r"\w+", title.lower()))[:40].strip("-") or "chat"


def _free_name(stem: str, suffix: str) -> Path:
    path = Path(f"{stem}.{suffix}")
    number = 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.{suffix}")
    return path


@command("/help", "This list.")
def help_(chat: Chat, words: str) -> None:
    chat.screen.show(figures.commands((c.usage, c.help) for c in COMMANDS.values()))
    chat.screen.say(
        'Enter sends; Alt-Enter makes a new line, and so does Enter inside """ """. Ctrl-C stops an answer or clears '
        "the line; Ctrl-D leaves. A line that begins with // is a message that begins with /."
    )


@command("/quit", "Leave; so does Ctrl-D.")
def quit_(chat: Chat, words: str) -> None:
    chat.done = True
