"""The contract of everything that develops raw frames to sRGB. `opening.open_engine` opens one by name.

An engine reads frames from slots of one ring and writes sRGB into slots of another. It knows nothing of processes or
sockets; rings reach it as `SlotArray`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat

WhiteBalance = Literal["auto"] | tuple[float, float, float]
"""Gains of R, G, B, or "auto": the engine estimates them from the frames."""

Mode = Literal["throughput", "latency"]
"""What an engine is set up for: the most frames a second, or each frame as soon as may be."""

MODES: tuple[str, ...] = get_args(Mode)

Precision = Literal["fp32", "bf16"]
"""What a float32 core can be computed in on the processor."""


class SlotArray(Protocol):
    """Frame slots in memory, as a ring has them."""

    @property
    def slots(self) -> int:
        """How many slots there are."""
        ...

    def slot(self, index: int) -> npt.NDArray[np.uint8]:
        """The payload bytes of a slot: uint8 [payload size], always the same memory for the same index."""
        ...


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is.

    Attributes:
        name: What the user would type to get it, or the name in its model card.
        backend: What runs it: "numba", "openvino", "tensorrt" ...
        precision: "fp32", "fp16", "int8" ...
        inputs: Names of the columns of `params` in `Engine.develop`, in order.
        sizes: (width, height) pairs it can develop; empty means any.
        weights_sha256: Hex digest of the weights, None without weights.
        quality: Scores measured when it was built, None if nothing was measured.
        max_batch: Most frames that one `develop` call may hold.
        lanes: Batches that may be in flight at once.
    """

    name: str
    backend: str
    precision: str
    inputs: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    weights_sha256: str | None = None
    quality: dict[str, float] | None = field(default=None, hash=False)
    max_batch: int = 1
    lanes: int = 1

    @property
    def engine_id(self) -> int:
        """Stable 32-bit number of name and weights, for frame headers."""
        return zlib.crc32(f"{self.name}\0{self.weights_sha256 or ''}".encode())


class Ticket(Protocol):
    """A batch under way."""

    @property
    def done(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        ...

    def wait(self) -> None:
        """Return when every frame of the batch lies in its sRGB slot.

        Raises what went wrong, if the batch failed.
        """
        ...

    @property
    def white_balance(self) -> npt.NDArray[np.float32]:
        """Gains that were applied: float32 [B, 3] of R, G, B, green 1. Valid after `wait`, until `info.lanes` more
        batches have been handed in."""
        ...


class Engine(Protocol):
    """Develops raw frames to sRGB. One thread calls it.

    Up to `info.lanes` batches may be in flight: handed to `develop` and not yet waited for. They are waited for in the
    order in which they were handed in.
    """

    @property
    def info(self) -> EngineInfo:
        """What this engine is. `sizes`, `lanes` and `max_batch` may change in `prepare`."""
        ...

    @property
    def completion_fd(self) -> int | None:
        """An eventfd that becomes readable when a batch may be done, to poll beside other things.

        None: every batch is done when `develop` returns.
        """
        ...

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """Allocate, compile and warm up everything, so that the first frame costs what the thousandth does.

        Args:
            raw_format: Format of every frame to come.
            batch: Most frames per `develop` call, 1 to `info.max_batch`.
            raw_ring: Slots of at least `raw_format.payload_size` bytes.
            srgb_ring: Slots of at least `width * height * 3` bytes. Nothing is written before `develop`.

        Raises:
            UserError: The engine cannot develop this format or size.
        """
        ...

    def develop(self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]) -> Ticket:
        """Develop a batch.

        Args:
            raw_slots: Slots to read, B of them.
            srgb_slots: Slots to write, B of them: uint8 RGB interleaved, `width * 3` bytes per row, no padding.
            params: float32 [B, K], columns named in `info.inputs`; what 0 and NaN mean is the engine's to say.
        """
        ...

    def resume(self, white_balance: tuple[float, float, float]) -> None:
        """Go on from the gains (R, G, B) of an earlier engine, so that a restart does not show."""
        ...

    def close(self) -> None:
        """End threads and free memory. Harmless when called twice."""
        ...
