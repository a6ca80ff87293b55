"""What lanes need of a GPU. `pycuda_device` and `torch_device` have it; the tests bring a stand-in.

A device is used by the thread that made it, and by others between `enter` and `leave`. Work on a stream runs in the
order in which it was put there, streams run beside each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class OutOfDeviceMemory(Exception):
    """The GPU has no room for what was asked. `needed` is that in bytes, 0 where it is not known."""

    def __init__(self, needed: int = 0) -> None:
        super().__init__(f"out of GPU memory ({needed} bytes asked for)")
        self.needed = needed


class Buffer(Protocol):
    """Memory on the device, aligned to 256 bytes at least."""

    @property
    def address(self) -> int:
        """Where it begins, as the device counts."""
        ...

    def free(self) -> None:
        """Give it back. Nothing may be using it."""
        ...


class Event(Protocol):
    """A mark in a stream."""

    def synchronize(self) -> None:
        """Sleep, without polling, until the work before the mark is done. Raises what went wrong with it."""
        ...


class Graph(Protocol):
    """Captured work."""

    def launch(self) -> None:
        """Put the work on the stream on which it was captured."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class Stream(Protocol):
    """A queue of work."""

    @property
    def handle(self) -> int:
        """The CUstream."""
        ...

    def upload(self, target: Buffer, offset: int, source: Bytes) -> None:
        """Copy `source` [N] into `target` from byte `offset` on; the call does not wait for that."""
        ...

    def download(self, source: Buffer, offset: int, target: Bytes) -> None:
        """Copy from `source`, from byte `offset` on, into `target` [N]; the call does not wait for that."""
        ...

    def record(self, event: Event) -> None:
        """Mark what was put here so far."""
        ...

    def synchronize(self) -> None:
        """Wait for everything that was put here. Raises what went wrong."""
        ...

    def capture(self, work: Callable[[], None]) -> Graph | None:
        """The work that `work` puts on this stream, as a graph; nothing of it runs. None: it cannot be captured."""
        ...


class Device(Protocol):
    """A GPU, or what stands in for one."""

    def enter(self) -> None:
        """Make the device usable in the calling thread."""
        ...

    def leave(self) -> None:
        """End what `enter` began."""
        ...

    def lock(self, memory: Bytes) -> bool:
        """Page-lock host memory in place, so that copies need no detour. False: refused, and nothing was changed."""
        ...

    def unlock(self, memory: Bytes) -> None:
        """End what `lock` began."""
        ...

    def host_buffer(self, size: int) -> Bytes:
        """Fresh page-locked memory: uint8 [size], zeros."""
        ...

    def buffer(self, size: int) -> Buffer:
        """Fresh device memory of `size` bytes, zeros. Raises OutOfDeviceMemory."""
        ...

    def stream(self) -> Stream:
        """A new stream, which does not wait for the default stream."""
        ...

    def event(self) -> Event:
        """A new event."""
        ...

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and that there are."""
        ...

    def close(self) -> None:
        """Let the device go. Everything that came from it is freed before."""
        ...
