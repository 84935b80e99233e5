"""The models that a request may ask for: the one in memory, as it is or under preferences."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import did_you_mean
from ..prompting.preferences import presets
from ..request import Overrides

_MOST_NAME = 1000  # characters of a model's name, presets and all


class Names:
    """The names that a request may give as its model: the model itself, a persona, or presets (``vivid+creative``).

    Args:
        model: the name of the model that answers.
        also: other names that it goes by.
    """

    def __init__(self, model: str, also: Collection[str], personas: Mapping[str, Overrides]) -> None:
        self.model = model
        self._names = {name.lower() for name in (model, *also) if name}
        self._personas = personas

    def all(self) -> list[str]:
        return [self.model, *self._personas, *(f"{self.model}:{name}" for name in self._personas)]

    def find(self, name: str | None) -> Overrides | None:
        """The settings that a name stands for; None for an unknown name.  No name and the model's own set nothing."""
        if name and len(name) > _MOST_NAME:
            return None
        if not name or name.lower() in self._names:
            return Overrides()
        before, colon, last = name.rpartition(":")
        if colon and before.lower() not in self._names:
            return None
        chosen = last.strip().lower()
        if chosen in self._personas:
            return self._personas[chosen]
        preferences = chosen.split("+")
        return Overrides(prefer=tuple(preferences)) if all(name in presets() for name in preferences) else None

    def unknown(self, name: str) -> str:
        """An error message for an unknown name."""
        if len(name) > _MOST_NAME:
            return f"a model's name has at most {_MOST_NAME} characters, and this has {len(name):,}"
        near = did_you_mean(name, self.all()) or f"there are {', '.join(self.all())}"
        return f"no model {name!r}: {near}"
