"""The question to a judge about two answers: the paper's question in other words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .records import AnswerRecord, key_of

#: The aspect of a verdict on quality, without a preference.
QUALITY = "quality"
QUALITY_CRITERION = "Be a good answer: correct, helpful, complete and well written."

#: The replies of a judge: the first answer, the second, or neither.
REPLIES = ("1", "2", "0")

SYSTEM = (
    "You compare two answers to the same question by one criterion. Nothing else counts: not the length of an answer, "
    "nor which one comes first. You reply with a single digit: 1 if Answer 1 meets the criterion better, 2 if Answer 2 "
    "meets it better, 0 if there is no difference."
)

_USER = """[Question]
{prompt}

[Answer 1]
{first}

[Answer 2]
{second}

[Criterion]
{criterion}

Which answer meets the criterion better? Reply 1, 2 or 0."""


@dataclass(frozen=True)
class Question:
    """Two answers to one prompt, in the order in which the judge reads them, and the criterion.

    aspect: the name under which the verdict is saved.
    criterion: the text of the aspect in the judge's prompt.
    identity: the identity of the judge.
    """

    first: AnswerRecord
    second: AnswerRecord
    aspect: str
    criterion: str
    identity: object

    @property
    def text(self) -> str:
        """The judge's prompt after `SYSTEM`.  The criterion comes last, so that questions about the same answers share
        a prefix."""
        texts = {"prompt": self.first.prompt, "first": self.first.text, "second": self.second.text}
        return _USER.format(**{name: text.strip() for name, text in texts.items()}, criterion=self.criterion.strip())

    @cached_property
    def key(self) -> str:
        """The key of the verdict."""
        of = [self.first.key, self.second.key]
        return key_of(asked=[SYSTEM, self.text], of=of, aspect=self.aspect, by=self.identity)
