"""Scripts without spaces between words.  Counting and search treat each of their characters as a word."""

from __future__ import annotations

import re

#: A run of such characters: Thai, Lao, Myanmar, Khmer; kana, Bopomofo, ideographs with their iteration marks, Yi;
#: half-width kana; rarer ones.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]+"
)
