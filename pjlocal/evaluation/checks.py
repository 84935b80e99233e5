"""Scores from an answer's text alone, which are the same on every machine.

A word is what stands between white space, with a letter or digit in it; of scripts that put no space between words,
every character is one.  Where there is nothing to tell a number from, there is none: an empty answer has no script, no
readability and no share of distinct words, and ``words`` and ``finished`` say that it is empty.  It meets no check.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from ..errors import UsageError
from ..prompting.preferences import PRESETS, resolve, split_strength
from ..unspaced import UNSPACED
from .extra import extra
from .patterns import compiled
from .records import AnswerRecord, Score, key_of
from .suite import Check, Objectives

_MEANING = 1  # of the metrics below: one more where one of them changes, so that none is taken for what it was

#: What a preset promises that can be told from the text.  ``concise`` is held against the plain answer, since a fixed
#: number of words would ask less of a model that says little.  Of SmolLM2's plain answers to 25 questions (two seeds,
#: at most 160 tokens, where 92 % were cut) 6 % had at most 0.8 of the other seed's words, by luck, and 40 % of those
#: that were told to be concise; 0.9 is met by luck in 14 %, and by no more of the concise ones.  ``simple`` has no
#: margin: luck meets it in 50 %, and those that were told to be simple did in 68 %.
PROMISES = {
    "concise": Check("concise", of="concise", shorter_than=0.8),
    "simple": Check("simple", of="simple", simpler_than_plain=True),
}


def checks_of(objectives: Objectives) -> tuple[Check, ...]:
    """The checks that are written down, and what its presets promise besides."""
    written = {name for check in objectives.checks for name in (check.name, check.of)}
    asked = (split_strength(spec)[0].strip().lower() for spec in objectives.prefer)
    promised = dict.fromkeys(name for name in asked if name in PROMISES and name not in written)
    return (*objectives.checks, *(PROMISES[name] for name in promised if resolve(name) == PRESETS[name]))


def scores(answer: AnswerRecord, objectives: Objectives, plain: AnswerRecord | None = None) -> list[Score]:
    """Return the scores that need no model; the cache key contains all inputs.

    Args:
        plain: the answer of no preference to the same prompt, from the same seed; where there is none, the checks
            that compare with it are left out, and so is ``check:all``.

    Raises:
        UsageError: a regular expression that takes too long, or a package of the extra ``eval`` is missing.
    """
    checks = checks_of(objectives)
    kept: dict[str, tuple[float | bool | None, Any]] = {name: (value, None) for name, value in _told_of(answer)}
    results = [met(check, answer, plain) for check in checks]
    for check, result in zip(checks, results, strict=True):
        kept[f"check:{check.name}"] = result, _defined(check, plain)
    if checks:
        kept["check:all"] = _all(results), [_defined(check, plain) for check in checks]
    return [
        Score(key_of(answer=answer.key, metric=name, of=of, meaning=_MEANING), answer.key, name, float(value))
        for name, (value, of) in kept.items()
        if value is not None
    ]


def met(check: Check, answer: AnswerRecord, plain: AnswerRecord | None = None) -> bool | None:
    """True if an answer meets a check; None if the comparison that it needs is impossible.

    An empty answer meets nothing; one of marks alone (``?!``, emoji) meets no limit of words, sentences or capitals.
    """
    if not answer.text.strip() or (_is_about_words(check) and not words(answer.text)):
        return False
    return _all([*_told_alone(check, answer), *_told_beside(check, answer, plain)])


def _all(results: Sequence[bool | None]) -> bool | None:
    """False if a check is not met, else None if one is unknown, else True."""
    if False in results:
        return False
    return None if None in results else True


def _is_about_words(check: Check) -> bool:
    limits = (check.max_words, check.min_words, check.max_sentences, check.shorter_than)
    return check.lowercase or check.simpler_than_plain or any(limit is not None for limit in limits)


def _told_alone(check: Check, answer: AnswerRecord) -> Iterator[bool]:
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


def _told_beside(check: Check, answer: AnswerRecord, plain: AnswerRecord | None) -> Iterator[bool | None]:
    """The scores relative to the plain answer; an answer without a word cannot be compared."""
    if check.shorter_than is not None:
        most = check.shorter_than * len(words(plain.text)) if plain else 0
        yield len(words(answer.text)) <= most if most else None
    if check.simpler_than_plain:
        mine, other = readability(answer.text), readability(plain.text) if plain else None
        yield mine > other if mine is not None and other is not None else None


def _defined(check: Check, plain: AnswerRecord | None) -> Any:
    """All that a check's result depends on besides the answer."""
    compares = check.shorter_than is not None or check.simpler_than_plain
    return [asdict(check), plain.key if plain and compares else None]


def _told_of(answer: AnswerRecord) -> Iterator[tuple[str, float | bool | None]]:
    text = answer.text
    said = [word.casefold().strip(_MARKS) for word in words(text)]
    yield "words", len(said)
    yield "distinct1", _distinct(said, 1)
    yield "distinct2", _distinct(said, 2)
    yield "repetition", 1 - (_distinct(said, 3) or 1)
    yield "finished", answer.finish_reason == "stop"
    yield "script", script(text, answer.prompt)
    yield "readability", readability(text)


_MARKS = "!\"'()*,-./:;?[]_`{}~“”‘’„«»‹›¡¿。、，！？；：「」『』（）"
_BETWEEN_WORDS = re.compile(r"[\s—…]+")


def words(text: str) -> list[str]:
    """The words, with the marks that touch them."""
    apart = UNSPACED.sub(lambda run: f" {' '.join(run[0])} ", text)
    return [word for word in _BETWEEN_WORDS.split(apart) if any(map(str.isalnum, word))]


_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?…؟।])[\"'”’»)\]*_]*\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text: parts with a letter that end in a full stop (also an abbreviation's), another mark, or
    a line end."""
    return [one for one in _BETWEEN_SENTENCES.split(text) if any(map(str.isalpha, one))]


def _distinct(said: Sequence[str], n: int) -> float | None:
    """The share of runs of ``n`` words that are unlike each other; None where there is no such run."""
    runs = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def script(text: str, prompt: str) -> float | None:
    """The share of a text's letters that are of the prompt's most frequent script; None where either has no letter.

    Ideographs and kana count as one script.
    """
    mine, asked = _scripts(text), _scripts(prompt)
    if not mine or not asked:
        return None
    return mine[max(asked, key=lambda name: (asked[name], name))] / sum(mine.values())


def _scripts(text: str) -> Counter[str]:
    """The number of letters of each script; full-width and ornamental letters count as their plain forms."""
    count: Counter[str] = Counter()
    for letter, times in Counter(unicodedata.normalize("NFKC", text)).items():
        if letter.isalpha() and unicodedata.category(letter) != "Lm":  # marks that only modify others
            count[_script(letter)] += times
    return count


@cache
def _script(letter: str) -> str:
    """The first word of a letter's name, which is its script's: LATIN SMALL LETTER A."""
    name = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC") else name


def readability(text: str) -> float | None:
    """The readability 100 - LIX (words per sentence, plus the percentage of words of more than six letters).

    Above 70 is easy as a children's book, 60 fiction, 50 a newspaper, below 45 an expert's report.  LIX was made for
    several languages and needs no dictionary: textstat fetches one from the net for Flesch's formula.  None for a text
    without words, or where most are of a script that puts no space between them.
    """
    if sum(map(len, UNSPACED.findall(text))) * 2 > sum(map(str.isalnum, text)) or not words(text):
        return None
    with extra():
        import textstat
    return 100.0 - float(textstat.lix(". ".join(line.strip(" .") for line in text.splitlines() if words(line))))


_PATIENCE_S = 1.0  # with one expression on one answer: 0.1 ms is usual, and (a|aa)+$ takes for ever on 60 letters


def _found(check: str, pattern: str, text: str) -> bool:
    try:
        return compiled(pattern).search(text, timeout=_PATIENCE_S) is not None
    except TimeoutError:
        raise UsageError(
            f"the check {check!r}: {pattern!r} takes longer than {_PATIENCE_S:g} s on one answer: avoid nested "
            "repetitions, and alternatives with the same beginning"
        ) from None
