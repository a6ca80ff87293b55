"""From the slots of one ring to those of the other through a GPU: what every engine on one is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..bayer import RawFormat
from ..engine import SlotArray
from ..errors import UserError
from ..lanes import Lanes, LaneTicket
from ..white_balance import CoreInputs
from .device import Device, OutOfDeviceMemory
from .lane import Lane, ProgramFactory
from .memory import RegisteredRing

LANES = 3
"""Batches in flight: one that copies in, one that computes, one that copies out."""


class Pipeline:
    """Two page-locked rings and the lanes between them.

    Attributes:
        captured: Whether the lanes run CUDA graphs.
    """

    def __init__(
        self,
        device: Device,
        name: str,
        fmt: RawFormat,
        batch: int,
        rings: tuple[SlotArray, SlotArray],
        inputs: CoreInputs,
        columns: int,
        make_program: ProgramFactory,
        lanes: int = LANES,
    ) -> None:
        """Lock the rings, allocate the lanes and capture their graphs.

        Args:
            device: Where to run.
            name: Of the model, for messages.
            fmt: Format of the frames.
            batch: Most frames at once.
            rings: Raw and sRGB.
            inputs: Fills what the network takes beside the pixels. Prepared and closed here.
            columns: How many columns that has.
            make_program: Makes a lane's program.
            lanes: Batches in flight.

        Raises:
            UserError: The GPU has too little free memory.
        """
        self._inputs, self._batch = inputs, batch
        self._lanes: list[Lane] = []
        self._queue: Lanes | None = None
        sizes = fmt.payload_size, fmt.width * fmt.height * 3
        self._rings: list[RegisteredRing] = []
        try:
            inputs.prepare(fmt, rings[0])
            # one by one, so that the first is unlocked again if the second is refused
            for ring, size in zip(rings, sizes, strict=True):
                self._rings.append(RegisteredRing(device, ring, size))
            pair = self._rings[0], self._rings[1]
            for _ in range(lanes):
                self._lanes.append(Lane(device, pair, sizes, batch, columns, make_program))
            self._queue = Lanes(self._lanes, device)
        except OutOfDeviceMemory as error:
            sentence = _too_little(device, name, error.needed, len(self._lanes), lanes, batch)
        except BaseException:
            self.close()
            raise
        else:
            sentence = ""
        if sentence:  # raised here, because the traceback of `error` would keep streams beyond their device
            self.close()
            raise UserError(sentence)
        self.captured = all(lane.captured for lane in self._lanes)

    @property
    def completion_fd(self) -> int | None:
        """See `Engine.completion_fd`; None once closed."""
        return None if self._queue is None else self._queue.completion_fd

    @property
    def host_copies(self) -> int:
        """Frames that the host copied so far, because a ring could not be page-locked; each direction counts."""
        return sum(lane.host_copies for lane in self._lanes)

    def develop(
        self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]
    ) -> LaneTicket:
        """See `Engine.develop`."""
        count = len(raw_slots)
        if self._queue is None:
            raise RuntimeError("the engine is not prepared")
        if not 1 <= count <= self._batch or len(srgb_slots) != count:
            raise ValueError(f"a batch holds 1 to {self._batch} raw slots and as many sRGB slots")
        lane = self._queue.free_lane()
        self._inputs.fill(raw_slots, params, lane.params, lane.gains)
        return self._queue.submit(raw_slots, srgb_slots)

    def close(self) -> None:
        """Wait for what is in flight, free everything, unlock the rings. Harmless when called twice."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        for lane in self._lanes:
            lane.close()
        self._lanes = []
        self._inputs.close()
        for ring in self._rings:
            ring.close()
        self._rings = []


def _too_little(device: Device, name: str, needed: int, made: int, lanes: int, batch: int) -> str:
    free, total = device.memory()
    what = f"another {_mebibytes(needed)} " if needed else "more "
    return (
        f"{name} needs {what}of GPU memory, and {_mebibytes(free)} of {_mebibytes(total)} are free "
        f"(with {made} of {lanes} lanes for batches of {batch} set up); end other programs on the GPU, or use a plan "
        "for smaller batches or frames"
    )


def _mebibytes(size: int) -> str:
    return f"{-(-size >> 20)} MiB" if size < 1 << 20 else f"{size >> 20} MiB"
