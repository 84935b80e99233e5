"""The question to a judge about two answers: the paper's question in other words."""

from __future__ import annotations

from dataclasses import dataclass

from .records import AnswerRecord, key_of

#: The aspect of a verdict on quality, without a preference.
QUALITY = "quality"
_QUALITY_CRITERION = "Be a good answer: correct, helpful, complete and well written."

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
    key: the key of the verdict.
    """

    first: AnswerRecord
    second: AnswerRecord
    aspect: str
    criterion: str
    key: str

    @property
    def text(self) -> str:
        """The judge's prompt after `SYSTEM`."""
        return _text(self.first, self.second, self.criterion)


def make_question(
    first: AnswerRecord, second: AnswerRecord, aspect: str, preference_text: str, identity: object
) -> Question:
    """Make the question about a preference, or about `QUALITY`, for the judge with this identity."""
    criterion = _QUALITY_CRITERION if aspect == QUALITY else preference_text
    text = _text(first, second, criterion)
    key = key_of(asked=[SYSTEM, text], of=[first.key, second.key], aspect=aspect, by=identity)
    return Question(first, second, aspect, criterion, key)


def _text(first: AnswerRecord, second: AnswerRecord, criterion: str) -> str:
    """The judge's prompt.  The criterion comes last, so that questions about the same answers share a prefix."""
    return _USER.format(
        prompt=first.prompt.strip(), first=first.text.strip(), second=second.text.strip(), criterion=criterion.strip()
    )
