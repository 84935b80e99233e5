"""Words as the search sees them: in scripts that put no space between words, every character is one.

FTS5's tokenizer unicode61 takes a run of letters for one word, and would find nothing inside a Chinese or Japanese
sentence.  With a mark around each such character it sees them one by one, and a word of them is a phrase.  Its trigram
tokenizer finds no words of one or two characters, which most Chinese words are, and finds Latin ones within others.
"""

from __future__ import annotations

from ..unspaced import UNSPACED

#: Separates words for unicode61: UNIT SEPARATOR.  One byte between two characters: with a ZERO WIDTH SPACE on both
#: sides of each, 10,000 Japanese answers of 1,100 characters were indexed in 7 s instead of 1.5, and a word that is in
#: all of them was found in 1.3 s instead of 0.8.
_MARK = "\x1f"


def apart(text: str) -> str:
    """The text with marks between characters that are words of their own."""
    return UNSPACED.sub(lambda run: f"{_MARK}{_MARK.join(run[0])}{_MARK}", text)


def together(text: str) -> str:
    """A text that `apart` made, as it was (but for marks of its own)."""
    return text.replace(_MARK, "")


def match(query: str) -> str:
    """What FTS5 is to find: every word of a query, the last as how a word may begin; empty where there are none.

    Words are strings of FTS5: in quotes nothing is an operator.  A NUL would end the query in the middle.
    """
    words = ['"' + apart(word).replace('"', '""') + '"' for word in query.replace("\0", " ").split()]
    return " ".join(words) + "*" if words else ""
