"""Remembered: the features that were set during a run, to be set again on a camera that was away and comes back."""

from __future__ import annotations

from typing import Any

_SELECTOR = "Selector"  # how the names of features end that say which of several another feature means (SFNC)


class Remembered:
    """The last value of each feature, in the order in which they were set; with a selector, of each that it chose."""

    def __init__(self) -> None:
        self._selectors: dict[str, Any] = {}
        self._values: dict[tuple[str, tuple[tuple[str, Any], ...]], Any] = {}

    def add(self, feature: str, value: Any) -> None:
        """A feature was set to `value`."""
        if feature.endswith(_SELECTOR):
            self._selectors[feature] = value
            return
        key = (feature, tuple(self._selectors.items()))
        self._values.pop(key, None)
        self._values[key] = value

    def steps(self) -> list[tuple[str, Any]]:
        """(feature, value) of everything that is to be set again, in order."""
        steps: list[tuple[str, Any]] = []
        for (feature, selectors), value in self._values.items():
            steps += [*selectors, (feature, value)]
        return [*steps, *self._selectors.items()]
