"""A chat without a terminal: what it says and answers, what its views are fed, and what a turn costs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny_models
from rich.console import Console

from pjlocal import Engine, Generation, Prompting, Sampling
from pjlocal.chat.chat import Chat
from pjlocal.chat.conversation import Conversation, Writing
from pjlocal.chat.judges import LocalJudge
from pjlocal.chat.loop import handle
from pjlocal.chat.screen import Screen
from pjlocal.events import TokenEvent
from pjlocal.sessions.recorder import Recorder
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

LAYOUTS = ["contexts", "batched"]
KINDS = ["llama", "sliding_window", "recurrent"]

#: Ten questions of a few words, alike in nothing at their ends.
QUESTIONS = [
    "Why do cats purr?",
    "And dogs?",
    "Name a tree",
    "What is rain made of?",
    "Say it in French",
    "Is it old?",
    "Tell me a joke",
    "Who won?",
    "Shorter, please",
    "Thank you!",
]

#: Tiny models write control tokens by chance.  Without any but those that end an answer, and without those too:
TEXT_ONLY = Sampling(logit_bias=("0=-1000", "1=-1000", "3=-1000"))
NO_CONTROL = ("0=-1000", "1=-1000", "3=-1000", "2=-1000", "4=-1000")
ENDLESS = Sampling(logit_bias=NO_CONTROL)


class FakeScreen(Screen):
    """Collects what is said, shown and answered; ``on_event`` is called with each token's number in its answer."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), width=100, markup=False, no_color=True))
        self.said: list[str] = []
        self.answers: list[str] = []
        self.on_event: Callable[[int], None] = lambda n: None

    @property
    def shown(self) -> str:
        return self._console.file.getvalue()

    def say(self, text: str, style: str = "") -> None:
        self.said.append(text)

    def answer(self, writing: Writing, conversation: Conversation, view: str) -> None:
        self.answers.append("")
        for n, event in enumerate(writing):
            self.answers[-1] += event.text
            self.on_event(n)

    def show_turn(self, turn: Turn, view: str) -> None:
        self.show(f"> {turn.question}", turn.answer)

    def compared(self, writing: Writing, view: str) -> None:
        self.show(writing.answer.mode, "".join(event.text for event in writing))


class Talk:
    """A chat under test, with the tokens that its views were fed."""

    def __init__(self, chat: Chat, screen: FakeScreen) -> None:
        self.chat = chat
        self.screen = screen
        self.conversation = chat.conversation

    @property
    def judge(self) -> LocalJudge:
        return self.conversation.judge

    @property
    def turns(self) -> list[Turn]:
        return self.conversation.session.turns

    def say(self, line: str) -> list[str]:
        """Type a line; what the chat said to it, its answers aside."""
        before = len(self.screen.said)
        handle(self.chat, line)
        return self.screen.said[before:]

    def n_fed(self) -> int:
        """Tokens fed so far, over all views."""
        return self.judge.decoder.lanes.n_fed

    def ask(self, question: str, writing: Writing | None = None) -> Cost:
        """Ask a question, or iterate over an answer; what it cost."""
        before = self.n_fed()
        writing = writing or self.conversation.ask(question)
        events = list(writing)
        return Cost(writing.answer.plan.prompts, events, self.n_fed() - before)


class Cost:
    """prompts: each view's; events: the answer's; fed: tokens read by all views together."""

    def __init__(self, prompts: list[list[int]], events: list[TokenEvent], fed: int) -> None:
        self.prompts, self.events, self.fed = prompts, events, fed
        self.ids = [event.id for event in events]

    @property
    def held(self) -> list[list[int]]:
        """What the caches hold afterwards: the answer's last token is not read, nothing follows it."""
        return [[*prompt, *self.ids[:-1]] for prompt in self.prompts]

    def new_to(self, held: list[list[int]]) -> int:
        """The tokens that had to be read where the caches held that: the prompts' ends, and the answer.  A prompt's
        last token is always read: the answer begins with its logits."""
        ends = [len(p) - min(common(h, p), len(p) - 1) for h, p in zip(held, self.prompts, strict=True)]
        return sum(ends) + len(self.prompts) * (len(self.ids) - 1)


def common(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@contextmanager
def talk(
    model: object,
    *,
    prefer: tuple[str, ...] = ("Be brief", "Be kind"),
    store: Store | None = None,
    session: Session | None = None,
    engine: Engine = Engine(n_ctx=2048, n_threads=1),
    prompting: Prompting = Prompting(placement="system"),
    sampling: Sampling = Sampling(),
    **generation: object,
) -> Iterator[Talk]:
    """A chat of short answers.  Its preferences stand where prompts only ever grow: what is read can be counted."""
    settings = Generation(**{"max_tokens": 8, "seed": 1} | generation)
    judge = LocalJudge(model, prefer, engine=engine, prompting=prompting, sampling=sampling, generation=settings)
    screen = FakeScreen()
    session = session or Session()

    def load(name: str | None, finds: bool) -> LocalJudge:
        return LocalJudge(name if name is None else Path(name), engine=engine, interrupt=judge.interrupt)

    conversation = Conversation(judge, session, Recorder(store, session, screen.say), None, screen.say, load)

    try:
        yield Talk(Chat(conversation, screen, "text", store), screen)
    finally:
        conversation.close()


def plain_event(position: int, text: str = "Yes.", thought: bool = False) -> TokenEvent:
    return TokenEvent(position, 10, text, "plain", 0, None, 1.0, None, None, thought=thought)


def model_with(tmp_path: Path, template: str | None) -> Path:
    return tiny_models.write_llama(tmp_path / "model.gguf", chat_template=template, add_bos=False)


def prompt_text(chat: Talk, cost: Cost, view: int = 0) -> str:
    return chat.judge.model.text(cost.prompts[view])
