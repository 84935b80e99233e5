"""Scores that depend on an answer's text alone and are the same on every machine.

A word is a run of characters between white space that contains a letter or a digit.  In scripts without spaces between
words, every character is a word.  A number that cannot be computed is missing: an empty answer has ``words`` and
``finished``, but no readability or share of distinct words.  It meets no check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..errors import UsageError, extra
from ..prompting.preferences import PRESETS, resolve, without_strength
from ..unspaced import UNSPACED
from .records import AnswerRecord, Score, key_of
from .suite import Check, Objectives, compiled

_MEANING = 4  # version of the metrics below and part of the cache key: increase it when a metric changes

_BULLET = r"^[ \t]*[-*•][ \t]+\S"
_NUMBERED = r"^[ \t*_#]*(?:[Ss]tep[ \t]*)?{}[*_]*[.):][*_]*[ \t]+\S"
# Below U+2600 are digits, arrows and other signs that are emoji only with U+FE0F behind them.
_EMOJI = r"(?![\0-\u25FF])\p{Emoji}|\p{Emoji_Presentation}|\uFE0F"

# How pirates speak, and words of their trade.  A plain answer about ships or the sea does not meet it.
_PIRATE = (
    r"\b(?:[Aa]rr|ARR(?=[,!])|(?i:arrr+|a+r{2,}g?h+|yarr+|ahoy|avast|aye|mateys?|me mate|, mate|me hearty|hearties"
    r"|landlubbers?|cap['’]n|yo[- ]ho|ye|yer|shiver me|davy jones|blackbeard|scurvy|buccaneers?|swashbuckl\w+|booty"
    r"|doubloons?|plunder\w*|loot\w*|treasure (?:chest|ship|map)s?|(?:high|seven) seas))\b"
)

#: Checks that need only the text: of presets, and of preferences of several suites, by the preference in lower case.
#: ``concise`` is compared with the plain answer, because a fixed number of words would be easier for a model that
#: writes short answers.  With SmolLM2, 25 questions, two seeds and at most 160 tokens (92 % of the answers were cut
#: off), 40 % of the answers with ``concise`` had at most 0.8 of the plain answer's words; of plain answers with another
#: seed, 6 % had.  With 0.9 it was 14 % of these, and no more of the concise ones.  ``simple`` has no margin: 68 % of
#: the answers with ``simple`` meet it, and 50 % of plain ones.
PROMISES = {
    str(check.of).lower(): check
    for check in (
        Check("concise", of="concise", shorter_than=0.8),
        Check("simple", of="simple", simpler_than_plain=True),
        Check("step-by-step", of="step-by-step", regex=rf"(?m){_NUMBERED.format('1')}"),
        Check("lists", of="lists", regex=rf"(?ms){_BULLET}.*{_BULLET}"),
        Check("no-lists", of="no-lists", not_regex=rf"(?m){_BULLET}|{_NUMBERED.format('[0-9][0-9]?')}"),
        *(Check("emoji", of=text, regex=_EMOJI) for text in ("emoji", "Use emoji", "Add emoji", "Include emojis")),
        Check("pirate", of="Talk like a pirate", regex=_PIRATE),
        Check("short", of="Answer in one short sentence", max_words=30, max_sentences=1, finished=True),
        Check("lowercase", of="Write everything in lowercase letters", lowercase=True),
    )
}


def checks_of(objectives: Objectives) -> tuple[Check, ...]:
    """The checks of the objectives, and those of their preferences in `PROMISES`."""
    written = {name.lower() for check in objectives.checks for name in (check.name, _preference_of(check))}
    promised = {name: PROMISES[name] for name in map(str.lower, _texts(objectives)) if name in PROMISES}
    unchanged = {name: check for name, check in promised.items() if resolve(name) == PRESETS.get(name, name)}
    return (*objectives.checks, *(of for name, of in unchanged.items() if written.isdisjoint((name, of.name))))


def unchecked(objectives: Objectives) -> list[str]:
    """The preferences that ``check:all`` leaves out, because only others have a check."""
    checked = {_preference_of(check).lower() for check in checks_of(objectives)}
    return [text for text in _texts(objectives) if text.lower() not in checked] if checked else []


def _preference_of(check: Check) -> str:
    """The preference that a check is of, without a strength."""
    return without_strength(check.of) if check.of else check.name


def _texts(objectives: Objectives) -> list[str]:
    """The preferences without their strengths."""
    return [without_strength(spec) for spec in objectives.prefer]


def scores(answer: AnswerRecord, objectives: Objectives, plain: AnswerRecord | None = None) -> list[Score]:
    """The scores that need no model.  Their cache keys contain all inputs.

    Args:
        plain: the answer without preferences to the same prompt with the same seed.  Without it, the checks that
            compare with it are left out, and so is ``check:all``.

    Raises:
        UsageError: a regular expression takes too long, or a package of the extra ``eval`` is missing.
    """
    checks = checks_of(objectives)
    folded = _folded(answer.text)
    metrics = _text_metrics(answer, folded)
    kept: dict[str, tuple[float | bool | None, Any]] = {name: (value, None) for name, value in metrics}
    with suppress(UsageError):  # a preset or a file may be missing by now
        wishes = [resolve(spec) for spec in objectives.prefer]
        kept["preferences copied"] = _copied(wishes, folded), wishes
    results = [met(check, answer, plain) for check in checks]
    for check, result in zip(checks, results, strict=True):
        kept[f"check:{check.name}"] = result, _defined(check, plain)
    if checks:
        kept["check:all"] = _all(results), [_defined(check, plain) for check in checks]
    # An answer that is written again has the same key and may have another text.
    about = {"answer": answer.key, "text": answer.text, "prompt": answer.prompt, "finish": answer.finish_reason}
    return [
        Score(key_of(**about, metric=name, of=of, meaning=_MEANING), answer.key, name, float(value))
        for name, (value, of) in kept.items()
        if value is not None
    ]


def met(check: Check, answer: AnswerRecord, plain: AnswerRecord | None = None) -> bool | None:
    """True if an answer meets a check; None if the comparison that it needs is impossible.

    An empty answer meets no check.  An answer without a word (``?!``, emoji) meets no check of words, sentences or
    capitals.
    """
    if check.needs_plain and not (plain and words(plain.text)):
        return None
    if not answer.text.strip() or (_is_about_words(check) and not words(answer.text)):
        return False
    return _all([*_results(check, answer, plain)])


def _all(results: Sequence[bool | None]) -> bool | None:
    """True if all are met; None if one is unknown, because only failures would be known then."""
    return None if None in results else False not in results


def _is_about_words(check: Check) -> bool:
    limits = (check.max_words, check.min_words, check.max_sentences, check.shorter_than)
    return check.lowercase or check.simpler_than_plain or any(limit is not None for limit in limits)


def _results(check: Check, answer: AnswerRecord, plain: AnswerRecord | None) -> Iterator[bool | None]:
    """The result of each requirement; None if the readability of either answer is not known."""
    text = answer.text
    if check.regex is not None:
        yield _found(check.name, check.regex, text)
    if check.not_regex is not None:
        yield not _found(check.name, check.not_regex, text)
    if check.max_words is not None:
        yield len(words(text)) <= check.max_words
    if check.min_words is not None:
        yield len(words(text)) >= check.min_words
    if check.max_sentences is not None:
        yield len(sentences(text)) <= check.max_sentences
    if check.finished:
        yield answer.finish_reason == "stop"
    if check.lowercase:
        yield not any(letter.isupper() or letter.istitle() for letter in text)
    if plain and check.shorter_than is not None:
        yield len(words(text)) <= check.shorter_than * len(words(plain.text))
    if plain and check.simpler_than_plain:
        mine, other = readability(text), readability(plain.text)
        yield mine > other if mine is not None and other is not None else None


def _defined(check: Check, plain: AnswerRecord | None) -> Any:
    """The inputs of a check's result besides the answer, for the cache key."""
    return [asdict(check), [plain.key, plain.text] if plain and check.needs_plain else None]


def _text_metrics(answer: AnswerRecord, folded: Sequence[str]) -> Iterator[tuple[str, float | bool | None]]:
    yield "words", len(folded)
    yield "distinct1", _distinct(folded, 1)
    yield "distinct2", _distinct(folded, 2)
    yield "repetition", 1 - (_distinct(folded, 3) or 1)
    yield "finished", answer.finish_reason == "stop"
    yield "readability", readability(answer.text)
    yield "question copied", _copied([answer.prompt], folded)


def _copied(sources: Sequence[str], folded: Sequence[str]) -> float | None:
    """The share of the sources' runs of three words that are among a text's words; None if they have no such run."""
    runs = {run for source in sources for run in _runs(_folded(source), 3)}
    return len(runs.intersection(_runs(folded, 3))) / len(runs) if runs else None


_MARKS = "!\"'()*,-./:;?[]_`{}~“”‘’„«»‹›¡¿。、，！？；：「」『』（）"
_BETWEEN_WORDS = re.compile(r"[\s—…]+")


def words(text: str) -> list[str]:
    """The words of a text, each with the punctuation that touches it."""
    spaced = UNSPACED.sub(lambda run: f" {' '.join(run[0])} ", text)
    return [word for word in _BETWEEN_WORDS.split(spaced) if any(map(str.isalnum, word))]


def _folded(text: str) -> list[str]:
    """The words of a text without capitals and punctuation."""
    return [word.casefold().strip(_MARKS) for word in words(text)]


_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?…؟।])(?:[^\w\s,;:]|_)*\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text: parts with a letter that end with a full stop (also of an abbreviation), another mark,
    or a line break."""
    return [one for one in _BETWEEN_SENTENCES.split(text) if any(map(str.isalpha, one))]


def _runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _distinct(words: Sequence[str], n: int) -> float | None:
    """The share of runs of ``n`` words that are distinct; None if the text has fewer words."""
    runs = _runs(words, n)
    return len(set(runs)) / len(runs) if runs else None


def readability(text: str) -> float | None:
    """100 - LIX, where LIX is words per sentence plus the percentage of words with more than six letters.

    Children's books are above 70, fiction is at 60, newspapers at 50, experts' reports below 45.  LIX works for several
    languages and needs no dictionary; for Flesch's formula, textstat downloads one.

    Returns:
        The readability; None for a text without words, or mostly in a script without spaces between words.
    """
    if sum(map(len, UNSPACED.findall(text))) * 2 > sum(map(str.isalnum, text)) or not words(text):
        return None
    with extra("eval"):
        import textstat
    return 100.0 - float(textstat.lix(". ".join(line.strip(" .") for line in text.splitlines() if words(line))))


_PATIENCE_S = 1.0  # for an expression on one answer: 0.1 ms is usual, and (a|aa)+$ does not finish on 60 letters


def _found(check: str, pattern: str, text: str) -> bool:
    try:
        return compiled(pattern).search(text, timeout=_PATIENCE_S) is not None
    except TimeoutError:
        raise UsageError(
            f"the check {check!r}: {pattern!r} takes longer than {_PATIENCE_S:g} s on one answer: avoid nested "
            "repetitions, and alternatives with the same beginning"
        ) from None
