"""Parse the JSON export of a chat: the inverse of `export.as_json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..decoding.judge import Kind
from ..errors import UsageError
from ..events import RejectedToken, TokenEvent
from ..prompting.thinking import find_thoughts
from ..request import Request, name_judge
from .export import as_json
from .session import Session, Turn

if TYPE_CHECKING:
    from .remote import RemoteStore
    from .store import Store

_HOW = "pjlocal sessions export NAME FILE.json writes one"
_NUMBER, _NULL = (int, float), type(None)

#: The types of the values that must be there.
_SESSION = {"title": str, "turns": list, "created": str}
_TURN = {"question": str, "answer": str, "tokens": list, "settings": dict, "statistics": dict, "created": str}
_TOKEN = {
    "position": int, "id": int, "text": str, "kind": str, "round": int, "draft": (str, _NULL), "p": _NUMBER,
    "q": (*_NUMBER, _NULL), "accept_probability": (*_NUMBER, _NULL), "rejected": (dict, _NULL),
}  # fmt: skip
_REJECTED = {"id": int, "text": str, "p": _NUMBER, "q": _NUMBER}
_USAGE = {"prompt_tokens": list, "completion_tokens": int}
#: The types of the values that may be there.
_SETTINGS = {"generation": dict, "sampling": dict, "prompting": dict, "explicit": list, "seed": (int, _NULL)}
_GENERATION = {"avoid": list, "max_tokens": int, "think_tokens": (int, _NULL)}
_STATISTICS = {"usage": dict, "timings": dict, "acceptance_rate": (*_NUMBER, _NULL)}
_TIMINGS = {"prefill_s": _NUMBER, "tokens_per_second": (*_NUMBER, _NULL)}
_OPTIONAL = {"settings": dict, "drafts": list, "judge": (str, _NULL), "pushes": dict, "thought": bool}
_KINDS = (*get_args(Kind), "given")
_ENDS = ("stop", "length", "interrupted", None)


def parse_export(text: str, name: str) -> Session:
    """The session of an export, without ids.

    Args:
        name: of the file, for messages.

    Raises:
        UsageError: the text is something else, or broken.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not a chat that pjlocal exported as JSON ({error}): {_HOW}") from None
    if isinstance(whole, dict) and whole.keys() & {"spec", "first_mes"}:
        raise UsageError(f"{name} is a character card: pjlocal prefs import saves it as a persona")
    if not isinstance(whole, dict) or not whole.keys() >= {"pjlocal", "turns"}:
        raise UsageError(f"{name} is not a chat that pjlocal exported as JSON: {_HOW}")
    try:
        _check(whole, _SESSION, "the chat")
        turns = [_turn_with_drafts(turn, f"turn {number}") for number, turn in enumerate(whole["turns"], 1)]
        settings = whole.get("settings", turns[-1].settings if turns else {})
        for draft in (draft for turn in turns for draft in turn.drafts):
            named = name_judge(draft.settings)
            if named != draft.settings:  # an earlier version exported it
                draft.settings, settings = named, name_judge(settings)
        try:
            Request().restore(settings)
            Path(settings.get("model") or "")
        except (AttributeError, TypeError, ValueError):
            raise UsageError("the settings of the chat cannot be read") from None
        return Session(whole["title"], turns, settings, _seconds(whole["created"], "the chat"))
    except UsageError as error:
        raise UsageError(f"{name} is a broken export: {error}") from None


def find_same(store: Store | RemoteStore, session: Session) -> int | None:
    """The id of a saved session with the same title and turns; None without one."""
    exported = as_json(session)
    for summary in store.summaries():
        if (summary.title, summary.n_turns) == (session.title, len(session.turns)):
            saved = replace(store.load(summary.id), settings=session.settings)  # opening a chat may change them
            if as_json(saved) == exported:
                return summary.id
    return None


def _turn_with_drafts(values: Any, where: str) -> Turn:
    turn = _turn(values, where)
    others = values.get("drafts", [])
    drafts = [_turn(other, f"{where}, draft {n}") for n, other in enumerate(others, 1)]
    numbers = [other.get("number") for other in others]
    drafts.insert(next(n for n in range(len(drafts) + 1) if n + 1 not in numbers), turn)
    for draft in drafts[1:]:
        draft.join(drafts[0])
    turn.put_in_force()
    return turn


def _turn(values: Any, where: str) -> Turn:
    _check(values, _TURN, where)
    if values.get("finish_reason") not in _ENDS:
        raise UsageError(f"{where} has no valid finish_reason")
    _check_settings(values["settings"], where)
    _check_statistics(values["statistics"], where)
    turn = Turn(
        values["question"],
        [_event(token, f"{where}, token {position}", position) for position, token in enumerate(values["tokens"])],
        values["settings"],
        values.get("finish_reason"),
        values["statistics"],
        _seconds(values["created"], where),
    )
    if any("thought" not in token for token in values["tokens"]):
        thoughts = find_thoughts([event.text for event in turn.events])
        turn.events = [replace(event, thought=thought) for event, thought in zip(turn.events, thoughts, strict=True)]
    if turn.answer != values["answer"]:
        raise UsageError(f"the answer of {where} differs from the text of its tokens")
    return turn


def _check_settings(settings: Mapping[str, Any], where: str) -> None:
    _check_given(settings, _SETTINGS, where)
    _check_given(settings.get("generation", {}), _GENERATION, where)
    preferences = settings.get("preferences", {})
    views = preferences.values() if isinstance(preferences, dict) else [None]
    if not all(isinstance(view, list) and all(isinstance(text, str) for text in view) for view in views):
        raise UsageError(f"{where} has no valid preferences")
    if not all(isinstance(name, str) for name in settings.get("explicit", ())):
        raise UsageError(f"{where} has no valid explicit")


def _check_statistics(statistics: Mapping[str, Any], where: str) -> None:
    _check_given(statistics, _STATISTICS, where)
    _check_given(statistics.get("timings", {}), _TIMINGS, where)
    _check_pushes(statistics, where)
    if usage := statistics.get("usage"):
        _check(usage, _USAGE, where)
        if not all(type(n) is int for n in usage["prompt_tokens"]):
            raise UsageError(f"{where} has no valid prompt_tokens")


def _check_pushes(values: Mapping[str, Any], where: str) -> None:
    _check(pushes := values.get("pushes", {}), dict.fromkeys(pushes, _NUMBER), where)


def _event(values: Any, where: str, position: int) -> TokenEvent:
    _check(values, _TOKEN, where)
    if values["rejected"] is not None:
        _check(values["rejected"], _REJECTED, where)
    _check_pushes(values, where)
    if values["position"] != position or values["kind"] not in _KINDS:
        raise UsageError(f"{where} has no valid {'kind' if values['position'] == position else 'position'}")
    rejected = values["rejected"] and {name: values["rejected"][name] for name in RejectedToken.__slots__}
    return TokenEvent.from_dict(values | {"rejected": rejected})


def _check_given(values: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    """Raises UsageError: a value that is there is of another type."""
    _check(values, {name: types[name] for name in types.keys() & values.keys()}, where)


def _check(values: Any, types: Mapping[str, Any], where: str) -> None:
    """Raises UsageError: a value is missing, or of another type."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not an object")
    for name, kind in ({**types} | {name: _OPTIONAL[name] for name in _OPTIONAL.keys() & values.keys()}).items():
        value = values.get(name, ...)
        is_odd_number = (type(value) is int and abs(value) >= 2**63) or value != value
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or is_odd_number:
            raise UsageError(f"{where} has no valid {name}")


def _seconds(time: str, where: str) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{where} has no valid created") from None
