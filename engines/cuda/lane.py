"""A lane of a GPU: everything that one batch in flight needs.

Each lane has one stream of its own, on which its copies in, its network and its copies out follow each other. So a lane
needs no event between copying and computing, and three lanes keep the copy engine of each direction and the processors
busy at once: while one lane computes, the next copies in and the last one out. Streams for each direction, shared by
all lanes, would reach the same engines by way of two more events per batch, and a copy out that waits for its network
would hold up those behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .device import Buffer, Bytes, Device, Graph, Stream
from .memory import RegisteredRing


class Program(Protocol):
    """What turns the bytes in a lane's buffers into sRGB in another."""

    def run(self, count: int) -> None:
        """Put the work for `count` frames on the lane's stream, without waiting for it. Raises what went wrong."""
        ...

    def close(self) -> None:
        """Free what belongs to it. Nothing of it is running."""
        ...


class ProgramFactory(Protocol):
    """Makes the program of a lane, for its stream and buffers (None: the network takes no params)."""

    def __call__(self, stream: Stream, raw: Buffer, params: Buffer | None, srgb: Buffer) -> Program: ...


class Lane:
    """Buffers, stream, program and graphs of one batch in flight.

    Attributes:
        params: float32 [batch, K], page-locked; filled before `enqueue`.
        gains: float32 [batch, 3], white balance of the frames; filled before `enqueue`.
        captured: Whether a graph could be captured for every batch size.
        host_copies: Frames that were copied by way of a buffer on the host so far, each direction counted.
    """

    def __init__(
        self,
        device: Device,
        rings: tuple[RegisteredRing, RegisteredRing],
        sizes: tuple[int, int],
        batch: int,
        columns: int,
        make_program: ProgramFactory,
    ) -> None:
        """Allocate and capture everything.

        Args:
            device: Where.
            rings: Raw and sRGB.
            sizes: Bytes of a raw and of an sRGB frame.
            batch: Most frames at once.
            columns: K of `params`, 0 if the network takes none.
            make_program: See there.

        Raises:
            OutOfDeviceMemory: The GPU has no room for it.
        """
        self._raw_ring, self._srgb_ring = rings
        self._raw_size, self._srgb_size = sizes
        self.gains = np.ones((batch, 3), np.float32)
        self.host_copies = 0
        self._staged: tuple[int, Sequence[int]] = 0, ()
        self._program: Program | None = None
        self._graphs: list[Graph | None] = []
        self._buffers: list[Buffer] = []
        self._stream, self._event = device.stream(), device.event()
        try:
            self._raw, self._srgb = (self._allocate(device, size * batch) for size in sizes)
            self._params = self._allocate(device, 4 * columns * batch) if columns else None
            host = device.host_buffer(4 * columns * batch) if columns else np.empty(0, np.uint8)
            self._params_bytes, self._params_size = host, 4 * columns
            self.params = host.view(np.float32).reshape(batch, columns)
            self._raw_stage = [] if rings[0].locked else _stages(device, sizes[0], batch)
            self._srgb_stage = [] if rings[1].locked else _stages(device, sizes[1], batch)
            self._program = make_program(self._stream, self._raw, self._params, self._srgb)
            self._capture(self._program, batch)
        except BaseException:
            self.close()
            raise

    @property
    def captured(self) -> bool:
        return all(graph is not None for graph in self._graphs)

    def enqueue(self, raw_slots: Sequence[int], srgb_slots: Sequence[int]) -> None:
        """Put a batch on the stream, without waiting for it. Raises what went wrong with that."""
        stream, count = self._stream, len(raw_slots)
        for index, slot in enumerate(raw_slots):
            source = self._raw_ring.frame(slot)
            if self._raw_stage:
                np.copyto(self._raw_stage[index], source)
                source = self._raw_stage[index]
                self.host_copies += 1
            stream.upload(self._raw, index * self._raw_size, source)
        if self._params is not None:
            stream.upload(self._params, 0, self._params_bytes[: self._params_size * count])
        graph = self._graphs[count - 1]
        if graph is not None:
            graph.launch()
        elif self._program is not None:
            self._program.run(count)
        for index, slot in enumerate(srgb_slots):
            target = self._srgb_stage[index] if self._srgb_stage else self._srgb_ring.frame(slot)
            stream.download(self._srgb, index * self._srgb_size, target)
        self._staged = count, srgb_slots
        stream.record(self._event)

    def finish(self) -> None:
        """Wait until the batch lies in its slots. Raises what went wrong with it."""
        self._event.synchronize()
        if self._srgb_stage:
            count, slots = self._staged
            for index in range(count):
                np.copyto(self._srgb_ring.frame(slots[index]), self._srgb_stage[index])
            self.host_copies += count

    def drain(self) -> None:
        """After a failure: wait until nothing here touches a ring any more. Raises what went wrong."""
        self._stream.synchronize()

    def close(self) -> None:
        """Free everything. Nothing may be in flight."""
        for graph in self._graphs:
            if graph is not None:
                graph.free()
        if self._program is not None:
            self._program.close()
        for buffer in self._buffers:
            buffer.free()
        self._graphs, self._program, self._buffers, self._params = [], None, [], None
        self.params = np.empty((0, 0), np.float32)
        self._params_bytes, self._raw_stage, self._srgb_stage = np.empty(0, np.uint8), [], []

    def _allocate(self, device: Device, size: int) -> Buffer:
        self._buffers.append(device.buffer(size))
        return self._buffers[-1]

    def _capture(self, program: Program, batch: int) -> None:
        """One graph for each batch size, after a run that makes what is made only once, which no graph may hold."""
        for count in range(1, batch + 1):
            program.run(count)
            self._stream.synchronize()
            tried = None not in self._graphs  # what cannot be captured once cannot be in another size either
            self._graphs.append(self._stream.capture(lambda count=count: program.run(count)) if tried else None)


def _stages(device: Device, size: int, batch: int) -> list[Bytes]:
    return [device.host_buffer(size) for _ in range(batch)]
