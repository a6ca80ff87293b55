"""Liveness: which stage works, which has nothing to do, which is stuck, and which dies again and again.

All of it is told from words in the raw ring, which the stages write as they work. A stage is stuck only while it has
something to do and does not get on with it; one that has nothing to do is idle, for however long.
"""

from __future__ import annotations

import time
from typing import Any

from .custody import Custody
from .ring import Ring, Word

MOST_DEATHS = 5  # of a stage, without a frame being published in between
WORKING_NS = 1_000_000_000  # a stage that finished something so recently is at work


class Activity:
    """How one stage gets on: to be told often how much it has done, and whether there is more to do.

    Args:
        patience_ns: How long it may have something to do and finish nothing before it counts as stuck.

    Attributes:
        waited_ns: For how long it has had something to do and finished nothing, as far as somebody looked.
    """

    def __init__(self, patience_ns: int) -> None:
        self._patience_ns = patience_ns
        self._most_ns = min(WORKING_NS, patience_ns // 2)  # what a look may count: more, and the watcher was away
        self._done = -1
        self._done_ns = self._looked_ns = self._since_ns = 0
        self._state = ""
        self.waited_ns = 0

    def look(self, done: int, *, more: bool) -> None:
        """`done` changes with each piece of work that the stage finishes; `more` says whether any is left."""
        now_ns = time.monotonic_ns()
        if done != self._done:
            if self._done >= 0:
                self._done_ns = now_ns
            self._done = done
            self.waited_ns = 0
        elif more:
            self.waited_ns += min(now_ns - self._looked_ns, self._most_ns)
        else:
            self.waited_ns = 0
        self._looked_ns = now_ns

    def starts(self) -> None:
        """The stage is a new process: its time starts now."""
        self._done, self._done_ns, self.waited_ns = -1, 0, 0

    def state(self, given: str = "") -> dict[str, Any]:
        """{"state", "for_s"}: "working", "idle" or "stuck", or what is `given` instead, and for how many seconds."""
        now_ns, since_ns = time.monotonic_ns(), 0
        if given:
            state = given
        elif self.waited_ns > self._patience_ns:
            state, since_ns = "stuck", now_ns - self.waited_ns
        else:
            state = "working" if now_ns - self._done_ns < WORKING_NS else "idle"
        if state != self._state:
            self._state, self._since_ns = state, since_ns or now_ns
        return {"state": state, "for_s": round((now_ns - self._since_ns) * 1e-9, 1)}


class Liveness:
    """Watches the words that the stages write as they work.

    Args:
        timeout_ms: Time without a sign of life after which a stage is to be killed; it counts as stuck after half.

    Attributes:
        look_s: How often to look.
    """

    def __init__(self, ring: Ring, custody: Custody, timeout_ms: int) -> None:
        self._words, self._custody, self._timeout_ns = ring.words, custody, timeout_ms * 1_000_000
        self.look_s = min(1.0, timeout_ms / 4000)
        self._grab, self._develop, self._publish = (Activity(self._timeout_ns // 2) for _ in range(3))
        self._deaths: dict[str, tuple[int, int]] = {}  # by stage: how many, and the frames published at the last one

    def develop_starts(self) -> None:
        """A develop process is ready: its time starts now."""
        self._develop.starts()

    def grab_ended(self) -> None:
        """No grab process is there."""
        self._words[Word.GRAB_ALIVE_NS] = 0
        self._grab.starts()

    def look(self) -> None:
        """Takes down how far the stages are; every `look_s` seconds at least."""
        words, custody = self._words, self._custody
        self._develop.look(custody.progress, more=bool(custody.held))
        # Frames come when they come. Whether grab lives, it says itself, many times a second.
        self._grab.look(words[Word.SEEN], more=False)
        self._publish.look(words[Word.PUBLISHED], more=words[Word.DEVELOPED] != words[Word.PUBLISHED])

    def develop_hangs(self) -> bool:
        """Whether develop has held frames for the whole timeout without finishing one."""
        return self._develop.waited_ns > self._timeout_ns

    def grab_hangs(self) -> bool:
        """Whether grab, during an acquisition, has not looked around for the whole timeout."""
        return self._grab_silent_ns() > self._timeout_ns

    def states(self, *, grab: str = "", develop: str = "") -> dict[str, dict[str, Any]]:
        """State of each stage, by name, see Activity.state; `grab` and `develop` are what is known otherwise."""
        silent_ns = self._grab_silent_ns()
        if not grab and not self._words[Word.GRAB_ALIVE_NS]:
            grab = "starting"
        elif not grab and silent_ns > self._timeout_ns // 2:
            grab = "stuck"
        states = {
            "grab": self._grab.state(grab),
            "develop": self._develop.state(develop),
            "publish": self._publish.state(),
        }
        if grab == "stuck":
            states["grab"]["for_s"] = round(silent_ns * 1e-9, 1)
        return states

    def died_too_often(self, stage: str) -> bool:
        """Counts a death; whether it was one too many in a row without a published frame."""
        published = self._words[Word.PUBLISHED]
        deaths, before = self._deaths.get(stage, (0, -1))
        deaths = deaths + 1 if published == before else 1
        self._deaths[stage] = (deaths, published)
        return deaths > MOST_DEATHS

    def _grab_silent_ns(self) -> int:
        alive_ns = self._words[Word.GRAB_ALIVE_NS]
        return time.monotonic_ns() - alive_ns if alive_ns else 0
