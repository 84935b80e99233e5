"""``pjlocal eval vote``: a person chooses between two answers without seeing their systems.  Votes are verdicts, like a
judge's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from ..errors import UsageError
from ..prompting.preferences import without_strength
from ..screen.tables import plain_table
from ..visible import shown, shown_line
from .browser import check_names, place_boxes
from .question import QUALITY
from .records import PERSON, AnswerRecord, Folder, Verdict, key_of
from .side_by_side import SideBySide
from .suite import Suite


@dataclass(frozen=True)
class Question:
    """Two answers to one prompt in the order in which they are shown, and the aspect in which to compare them."""

    first: AnswerRecord
    second: AnswerRecord
    aspect: str


def questions(
    rows: Iterable[SideBySide], pairs: Iterable[tuple[str, str]], aspects: Sequence[str], seed: int
) -> list[Question]:
    """The questions about each pair of systems in each row, in a random order that the seed determines.

    All questions about the same two answers follow each other, so that a person reads the answers once.  Identical
    answers are not compared.

    Args:
        aspects: the aspects to ask about; if empty, each preference of the row, then quality.
    """
    draws = random.Random(seed)
    groups = []
    for row in rows:
        wanted = aspects or [*(without_strength(wish) for wish in row.prefer), QUALITY]
        for one, other in pairs:
            both = [row.answers.get(one), row.answers.get(other)]
            draws.shuffle(both)
            first, second = both
            if first and second and first.text.strip() != second.text.strip():
                groups.append([Question(first, second, a) for a in wanted])
    draws.shuffle(groups)
    return [question for group in groups for question in group]


def all_pairs(rows: Iterable[SideBySide], suite: Suite, systems: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The pairs of systems to vote on: two or more named ones, or each system with its baseline, where the named one is
    either of them.

    Raises:
        UsageError: there is no pair.
    """
    answered = dict.fromkeys(system for row in rows for system in row.answers)
    check_names("system", systems, [*answered])
    if len(named := dict.fromkeys(systems)) >= 2:
        return [*combinations(named, 2)]
    pairs = [
        (name, other)
        for name, other in suite.baselines.items()
        if name in answered and other in answered and (not systems or {name, other} & {*systems})
    ]
    if not pairs:
        raise UsageError(
            f"there are fewer than two systems to choose between: {', '.join(answered) or 'none'} answered"
        )
    return pairs


@dataclass
class Voting:
    """The questions of a vote, and its votes, which are saved immediately.

    questions: all questions.
    by: the name under which votes are saved (see `records.voter`).
    """

    questions: Sequence[Question]
    folder: Folder
    by: str = PERSON
    _cast: list[tuple[Question, Verdict]] = field(default_factory=list)  # of this run, for `undo`
    notice: str = ""

    def __post_init__(self) -> None:
        done = {_place(v.first, v.second, v.aspect) for v in self.votes()}
        self._open = [q for q in self.questions if _place(q.first.key, q.second.key, q.aspect) not in done]

    @property
    def question(self) -> Question | None:
        """The next question; None when all are answered."""
        return self._open[0] if self._open else None

    @property
    def n_done(self) -> int:
        return len(self.questions) - len(self._open)

    def vote(self, choice: int) -> None:
        """Save a vote, if a question is open: 1 for the first answer, 2 for the second, 0 for neither.

        Raises:
            OutputError: the vote cannot be saved; the question stays open.
        """
        if not self._open:
            return
        about = {"first": self._open[0].first.key, "second": self._open[0].second.key}
        about |= {"aspect": self._open[0].aspect, "by": self.by}
        p_first, p_second, p_tie = (float(choice == chosen) for chosen in (1, 2, 0))
        verdict = Verdict(key_of(**about), **about, p_first=p_first, p_second=p_second, p_tie=p_tie)
        self.folder.append(verdict)
        self._cast.append((self._open.pop(0), verdict))
        self.notice = ""

    def undo(self) -> None:
        """Take back the last vote of this run."""
        if not self._cast:
            self.notice = "no vote to undo"
            return
        question, verdict = self._cast.pop()
        if self.folder.take_back(verdict):
            self.notice = "the vote is undone"
        else:
            self.notice = "the vote stays until you vote again: another program has written since"
        self._open.insert(0, question)

    def votes(self) -> list[Verdict]:
        """This person's votes in the folder on the questions."""
        places = {_place(q.first.key, q.second.key, q.aspect) for q in self.questions}
        known = self.folder.read(Verdict).values()
        return [v for v in known if v.by == self.by and _place(v.first, v.second, v.aspect) in places]


def _place(one: str, other: str, aspect: str) -> tuple[frozenset[str], str]:
    return frozenset((one, other)), aspect


def outcome(voting: Voting, suite: Suite) -> Table:
    """A table of the votes, which shows the systems' names; a system comes before its baseline."""
    answers = {answer.key: answer for q in voting.questions for answer in (q.first, q.second)}
    counts: dict[tuple[str, str, str], Counter[float]] = {}
    for vote in voting.votes():
        first, second = answers[vote.first].system, answers[vote.second].system
        ahead = vote.p_first - vote.p_second
        if suite.leads(second, first):
            first, second, ahead = second, first, -ahead
        counts.setdefault((first, second, vote.aspect), Counter())[ahead] += 1
    table = plain_table("system", "against", "aspect", "won", "tied", "lost", right=(3, 4, 5))
    for names, count in sorted(counts.items()):
        table.add_row(*(Text(shown_line(name)) for name in names), *(str(count[ahead]) for ahead in (1, 0, -1)))
    return table


def render_question(voting: Voting, width: int) -> RenderableType:
    """Render the question, without the names of the systems."""
    question = voting.question
    if question is None:
        return Text("All questions are answered: q quits, u undoes the last vote.")
    boxes = [
        Panel(Text(shown(answer.text)), title=Text(str(number), "bold"))
        for number, answer in enumerate((question.first, question.second), 1)
    ]
    asks = "Which answer is better?" if question.aspect == QUALITY else f"Which answer is more: {question.aspect}?"
    return Group(
        Text(shown(question.first.prompt), "bold"),
        Text(),
        place_boxes(boxes, width),
        Text(shown_line(asks), "bold"),
    )


def run_vote(voting: Voting, console: Console) -> None:
    """Ask one question at a time, until the person quits."""
    actions = {str(choice): partial(voting.vote, choice) for choice in (1, 2, 0)} | {"u": voting.undo}
    while True:
        console.print(render_question(voting, console.width))
        state = " · ".join(filter(None, [voting.notice, f"{voting.n_done}/{len(voting.questions)}"]))
        asks = f"{state} · 1 or 2 is better, 0 neither, u undo, q quit"
        try:
            key = Prompt.ask(asks, console=console, choices=[*actions, "q"], show_choices=False)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if key == "q":
            return
        actions[key]()
