"""Handover: what passes from one camera's grab process to its develop process, and what becomes of it when one ends.

Whatever ends, and in whatever order: each frame is published or counted as lost, and each slot comes back to grab.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .developing import DevelopSide
from .grabbing import GrabSide
from .hub import Hub, StageDied
from .ring import Word
from .shared import Shared

DRAIN_TIMEOUT_S = 6.0


class Handover:
    """Used by the pipeline of one camera.

    Args:
        publish: Publishes what has been developed.
        granted_fd: eventfd that wakes develop.

    Attributes:
        shared: The rings, once they are made.
        open: Whether develop is ready and grab grants frames to it.
        keep_history: Whether raw frames are recorded, and not given up for frames that wait.
    """

    def __init__(
        self, hub: Hub, grab: GrabSide, develop: DevelopSide, publish: Callable[[], None], granted_fd: int
    ) -> None:
        self._hub, self._grab, self._develop, self._publish = hub, grab, develop, publish
        self._granted_fd = granted_fd
        self.shared: Shared | None = None
        self.open = False
        self.keep_history = False

    def require_shared(self) -> Shared:
        """The rings. Raises StageDied before they are made."""
        if self.shared is None:
            raise StageDied("the rings are not there")
        return self.shared

    def attach(self) -> None:
        """A grab process that has the camera open gets the rings. Raises UserError, StageDied, TimeoutError."""
        self._grab.attach(self.require_shared(), self._develop.depth, keep_history=self.keep_history)
        if self._develop.ready:
            self.go_on()

    def go_on(self) -> None:
        """Frames are granted to the develop process, which is ready."""
        answer = self._grab.tell("consumer", epoch=self._develop.epoch, depth=self._develop.depth)
        self.open = answer is not None
        self.require_shared().liveness.develop_starts()

    def wait_drained(self) -> None:
        """Publishes until develop holds nothing more; one that hangs or died loses what it held. Nothing is granted."""
        os.eventfd_write(self._granted_fd, 1)  # a grab that died between a hand-over and its wake-up
        custody, develop = self.require_shared().custody, self._develop
        deadline, done = time.monotonic() + DRAIN_TIMEOUT_S, custody.progress
        while develop.alive and custody.busy and time.monotonic() < deadline:
            self._hub.pump(0.02, stoppable=False)
            if custody.progress != done:  # a slow engine is none that hangs
                deadline, done = time.monotonic() + DRAIN_TIMEOUT_S, custody.progress
        if custody.busy:
            if develop.alive:
                self._hub.kill_and_wait(develop.require().stage)  # its end is in the inbox then: it is started again
            self._publish()
            custody.develop_died()
        self._publish()

    def end_grab(self, why: str, grace_s: float = 0.0) -> None:
        """Sees grab end, counts what it held, and closes the segment."""
        shared = self.require_shared()
        self._grab.end(grace_s)
        shared.liveness.grab_ended()
        self.wait_drained()
        self.open = False
        shared.custody.grab_died()
        if shared.ledger.segment_open:
            # It ended with its last frame: the silence until that was noticed belongs to the outage.
            shared.ledger.close_segment(shared.words[Word.LAST_SEEN_NS], why)

    def end_develop(self) -> None:
        """Of a develop process that is no more: counts what it held, and takes its slots back."""
        self.open = False
        self._develop.end()
        self._take_back()

    def switch(self) -> None:
        """The second develop process, which is ready, goes on in the place of the first; frames wait meanwhile."""
        shared = self.require_shared()
        self.open = False
        self._grab.tell("pause")
        self.wait_drained()
        grace_s = 2.0 if self._develop.ready else 0.0  # an engine may take a while to let go
        self._develop.require().leave()
        self._take_back()
        old = self._develop.take_over(shared)
        self.go_on()
        self._hub.retire(old, grace_s)

    def _take_back(self) -> None:
        self._grab.tell("consumer_lost")
        self._publish()
        self.require_shared().custody.develop_died()
