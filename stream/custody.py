"""Custody: which frames a stage holds, told from counters alone, so that it can be known of a dead one.

Each hand-over bumps one word in the ring, written by one process after the entry that it counts. Frames are developed
strictly in the order of their granting; so differences of those words are all there is to know.
"""

from __future__ import annotations

from .ring import Ring, Word


class Custody:
    """The main process's view of one raw ring's words."""

    def __init__(self, ring: Ring) -> None:
        self._words = ring.words
        self._died_waiting = 0  # frames counted as lost with a grab process

    @property
    def waiting(self) -> int:
        """Frames that grab has seen and neither granted nor given up."""
        w = self._words
        gone = (Word.INCOMPLETE, Word.SUPERSEDED, Word.STOPPED_GRAB, Word.GRANT_HEAD)
        return w[Word.SEEN] - sum(w[word] for word in gone) - self._died_waiting

    @property
    def held(self) -> int:
        """Frames that develop has been granted and neither developed nor failed on."""
        w = self._words
        return w[Word.GRANT_HEAD] - w[Word.DEVELOPED] - w[Word.ENGINE_ERROR] - w[Word.DIED_GRANTED]

    @property
    def busy(self) -> bool:
        """Whether develop has frames, or has not yet given back the last slot."""
        return self._words[Word.GRANT_TAIL] != self._words[Word.GRANT_HEAD]

    @property
    def progress(self) -> int:
        """A number that changes with every frame that develop finishes."""
        return self._words[Word.DEVELOPED] + self._words[Word.ENGINE_ERROR]

    def grab_died(self) -> None:
        """Counts what waited in a grab process that is no more."""
        lost = self.waiting
        self._died_waiting += lost
        self._words[Word.STAGE_DIED] += lost

    def develop_died(self) -> None:
        """Counts what a develop process held that is no more, and leaves its successor nothing of it to develop."""
        lost = self.held
        self._words[Word.DIED_GRANTED] += lost
        self._words[Word.STAGE_DIED] += lost
        self._words[Word.GRANT_TAIL] = self._words[Word.GRANT_HEAD]
