"""Shared: what the processes of one camera's pipeline share, and the account that is kept in it."""

from __future__ import annotations

import os
from typing import Any

from ..engines import RawFormat
from .config import StreamConfig
from .custody import Custody
from .ledger import FrameLedger
from .liveness import Liveness
from .record.plan import Plan
from .ring import Ring

RESERVE = 4  # slots that the queue policy keeps queued at the producer
SLACK_S = 0.1  # default length of a ring


class Shared:
    """The rings of one camera, the eventfds of their queues, and the views of them that the main process has.

    Args:
        config: Of the camera.
        geometry: Of its frames, as grab tells it.
        events: eventfds: granted, returned, developed.
        plan: What is recorded, for which frames are kept.

    Attributes:
        history: Raw frames that stay readable when they are done with.
        reserve: Slots that stay queued at the producer.

    Raises:
        UserError: There is not enough memory, or the name of the ring is in use.
    """

    def __init__(
        self, config: StreamConfig, geometry: dict[str, Any], events: list[int], plan: Plan | None = None
    ) -> None:
        self.geometry, self.events = geometry, events
        self.stream_id = int.from_bytes(os.urandom(8), "little")
        g = geometry
        self.raw_format = RawFormat(g["width"], g["height"], g["pixel_format"], g["black_level"], g["white_level"])
        # With a trigger the camera tells no rate: at the most as many frames come as the user says.
        fps = g["fps"] or config.fps or 0.0
        slots = config.slots or min(512, max(16, round(SLACK_S * fps)))
        picture = self.raw_format.width * self.raw_format.height * 3
        kept = plan.history(fps) if plan else 0
        self.history = max(config.history, kept)
        # Of a camera that is recorded no frame may be lost for want of a buffer, however far behind the engine is.
        self.reserve = RESERVE + (slots if plan else 0)
        raw_slots = max(slots, g["min_buffers"]) + self.reserve - RESERVE + self.history
        self.free_slots = raw_slots - self.history - self.reserve
        if plan:
            slots += kept if "srgb" in plan.kinds else 0
            plan.require_memory(raw_slots * g["payload"] + slots * picture, kept)
        self.raw = Ring.create("raw", raw_slots, g["payload"], self.stream_id)
        self.srgb = Ring.create("srgb", slots, picture, self.stream_id, config.shm_name)
        self.ledger, self.custody = FrameLedger(self.raw.words), Custody(self.raw)
        self.liveness = Liveness(self.raw, self.custody, config.stage_timeout_ms)

    @property
    def sure_history(self) -> int:
        """A raw frame stays readable until at least so many have come after it: the history, but for those in it that
        came before it and were in develop for longer."""
        return max(0, self.history - max(1, self.free_slots))

    @property
    def words(self) -> memoryview:
        """The shared counters."""
        return self.raw.words

    def release(self) -> None:
        """Gives the rings' names back, after the last look at the ledger."""
        self.raw.unlink()
        self.srgb.unlink()
