"""Liveness: which stage neither ends nor goes on, and which dies again and again."""

from __future__ import annotations

import time

from .custody import Custody
from .ring import Ring, Word

MOST_DEATHS = 5  # of a stage, without a frame being published in between


class Liveness:
    """Watches the words that the stages write as they work."""

    def __init__(self, ring: Ring, custody: Custody, timeout_ms: int) -> None:
        self._words, self._custody, self._timeout_ns = ring.words, custody, timeout_ms * 1_000_000
        self._progress = -1
        self._progress_ns = 0  # when develop's progress was last seen to change
        self._deaths: dict[str, tuple[int, int]] = {}  # by stage: how many, and the frames published at the last one

    def develop_starts(self) -> None:
        """A develop process is ready: its time starts now."""
        self._progress = -1

    def grab_ended(self) -> None:
        """No grab process is there."""
        self._words[Word.GRAB_ALIVE_NS] = 0

    def develop_hangs(self) -> bool:
        """Whether develop has held frames for the whole timeout without finishing one; to be asked often."""
        now_ns = time.monotonic_ns()
        if self._custody.progress != self._progress or not self._custody.held:
            self._progress, self._progress_ns = self._custody.progress, now_ns
        return now_ns - self._progress_ns > self._timeout_ns

    def grab_hangs(self) -> bool:
        """Whether grab, during an acquisition, has not looked around for the whole timeout."""
        alive_ns = self._words[Word.GRAB_ALIVE_NS]
        return bool(alive_ns) and time.monotonic_ns() - alive_ns > self._timeout_ns

    def died_too_often(self, stage: str) -> bool:
        """Counts a death; whether it was one too many in a row without a published frame."""
        published = self._words[Word.PUBLISHED]
        deaths, before = self._deaths.get(stage, (0, -1))
        deaths = deaths + 1 if published == before else 1
        self._deaths[stage] = (deaths, published)
        return deaths > MOST_DEATHS
