"""Pace: whether the camera is faster than the engine, and what to do about it, said once."""

from __future__ import annotations

from collections.abc import Sequence

from .ring import Word

_INTERVALS = 2  # in a row: a hiccup at the start is no pace
_LEAST_PART = 0.02  # of the camera's frames that must be lost
_BUSY = 0.85
_SMALLER = {"classic": "", "lwisp-xs": "choose --engine classic, "}  # what else there is for those that are small


class Pace:
    """Looks at each interval of the counters.

    Args:
        policy: The queue policy; with "latest", superseding is what the user asked for.
    """

    def __init__(self, policy: str) -> None:
        self._silent = policy == "latest"
        self._behind = 0

    def look(self, delta: Sequence[int], elapsed_s: float, engine: str) -> str | None:
        """The sentence to say, once, when the engine has been behind for long enough.

        Args:
            delta: What the words (see `Word`) counted in the interval.
            elapsed_s: Its length.
            engine: The engine's name.
        """
        lost = delta[Word.SUPERSEDED] + delta[Word.NO_FREE_BUFFER]
        camera = delta[Word.SEEN] + delta[Word.CAMERA_GAP] + delta[Word.NO_FREE_BUFFER]
        busy = delta[Word.DEVELOP_BUSY_NS] * 1e-9 / elapsed_s > _BUSY
        self._behind = self._behind + 1 if busy and lost > _LEAST_PART * camera else 0
        if self._silent or self._behind < _INTERVALS:
            return None
        self._silent = True
        advice = _SMALLER.get(engine, "choose a smaller --engine such as lwisp-xs or classic, ")
        return (
            f"the engine {engine} develops {delta[Word.DEVELOPED] / elapsed_s:.0f} frames a second and the camera "
            f"sends {camera / elapsed_s:.0f}: the rest is lost; lower --fps, {advice}or take --policy latest if only "
            "the newest frames matter"
        )
