"""Records of answers for tests of evaluations."""

from __future__ import annotations

from pjlocal.evaluation.records import AnswerRecord, key_of


def make_answer(text: str, *, system: str = "judge", prompt: str = "Why do cats purr?", **changes) -> AnswerRecord:
    values = {
        "objectives": "o",
        "system": system,
        "prompt_id": prompt,
        "prompt": prompt,
        "seed": 0,
        "text": text,
        "finish_reason": "stop",
        "tokens": len(text.split()),
        "prefill_s": 0.1,
        "decode_s": 0.1,
    } | changes
    return AnswerRecord(key=key_of(**values), **values)
