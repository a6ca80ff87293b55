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
        self._kept: Sequence[int] = ()  # what was counted since a frame was finished, and in how long
        self._kept_s = 0.0

    def look(self, delta: Sequence[int], elapsed_s: float, engine: str) -> str | None:
        """The sentence to say, once, when the engine has been behind for long enough.

        Args:
            delta: What the words (see `Word`) counted in the interval.
            elapsed_s: Its length.
            engine: The engine's name.
        """
        if self._kept:
            delta, elapsed_s = [a + b for a, b in zip(delta, self._kept, strict=True)], elapsed_s + self._kept_s
        if not delta[Word.DEVELOPED]:  # a frame that takes longer than the interval is counted as busy at its end
            self._kept, self._kept_s = delta, elapsed_s
            return None
        self._kept, self._kept_s = (), 0.0
        lost = delta[Word.SUPERSEDED] + delta[Word.NO_FREE_BUFFER]
        camera = delta[Word.SEEN] + delta[Word.CAMERA_GAP] + delta[Word.NO_FREE_BUFFER]
        busy = delta[Word.DEVELOP_BUSY_NS] * 1e-9 / elapsed_s > _BUSY
        self._behind = self._behind + 1 if busy and lost > _LEAST_PART * camera else 0
        if self._silent or self._behind < _INTERVALS:
            return None
        self._silent = True
        advice = _SMALLER.get(engine, "choose a smaller --engine such as lwisp-xs or classic, ")
        return (
            f"the engine {engine} develops {_rate(delta[Word.DEVELOPED] / elapsed_s)} frames a second and the camera "
            f"sends {_rate(camera / elapsed_s)}: the rest is lost; lower --fps, {advice}or take --policy latest if "
            "only the newest frames matter"
        )


def _rate(fps: float) -> str:
    return f"{fps:.0f}" if fps >= 10 else f"{fps:.2g}"
