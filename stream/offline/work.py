"""What a worker does: reads frames, develops them, and puts the pictures where they belong."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from ...engines.bayer import RawFormat
from ...engines.engine import Ticket
from ...engines.slots import Slots
from .job import Job, told_of
from .sinks import Picture, make_writer


class FrameDeveloper:
    """Develops frames of one job. A context manager; one thread uses it."""

    def __init__(self, job: Job) -> None:
        """Opens footage and engine. Raises UserError: one of them cannot be opened, or is another one here."""
        self._job = job
        fmt = RawFormat.from_json(job.raw_format)
        with ExitStack() as stack:
            self._footage = footage = stack.enter_context(job.open_footage())
            self._engine = engine = job.open_engine()
            stack.callback(engine.close)
            self._batch = engine.info.max_batch
            slots = self._batch * max(4, job.threads or 1)
            self._raw, self._srgb = Slots(slots, fmt.payload_size), Slots(slots, fmt.width * fmt.height * 3)
            engine.prepare(fmt, self._batch, self._raw, self._srgb)
            self._lanes = max(1, min(engine.info.lanes, slots // self._batch))
            self._told = told_of(job, footage.frames, engine.info.inputs)
            self._writer = make_writer(job)
            self._opened = stack.pop_all()
        self._shape = (fmt.height, fmt.width, 3)

    def develop(self, positions: Sequence[int], places: Sequence[int], tell: Callable[[int], None]) -> None:
        """Develops frames, and returns when what is made of them is where it belongs.

        Args:
            positions: Of the frames, in order.
            places: What the sink's `places` says of them.
            tell: Called with how many are done, now and then.

        Raises:
            UserError: A frame cannot be read.
            OSError: A picture cannot be written.
        """
        flights: deque[tuple[Ticket, Sequence[int], range]] = deque()
        params = np.full((self._lanes, self._batch, self._told.shape[1]), np.nan, np.float32)
        self._writer.begin(positions, places)
        done = 0
        for number, start in enumerate(range(0, len(positions), self._batch)):
            if len(flights) == self._lanes:
                done += self._finish(*flights.popleft())
                tell(done)
            part, lane = positions[start : start + self._batch], number % self._lanes
            slots = range(lane * self._batch, lane * self._batch + len(part))
            for slot, position in zip(slots, part, strict=True):
                self._footage.read(self._job.index(position), self._raw.slot(slot))
            told = params[lane, : len(part)]
            told[:] = self._told[[self._job.index(position) for position in part]]
            flights.append((self._engine.develop(slots, slots, told), part, slots))
        while flights:
            done += self._finish(*flights.popleft())
            tell(done)
        self._writer.end()

    def close(self) -> None:
        """Closes footage and engine. Harmless when called twice."""
        self._opened.close()

    def __enter__(self) -> FrameDeveloper:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _finish(self, ticket: Ticket, positions: Sequence[int], slots: range) -> int:
        ticket.wait()
        for position, slot in zip(positions, slots, strict=True):
            picture: Picture = self._srgb.slot(slot).reshape(self._shape)
            self._writer.put(position, picture)
        return len(positions)
