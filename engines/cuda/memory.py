"""Rings as the GPU reads and writes them: page-locked in place where the system lets us."""

from __future__ import annotations

import ctypes
import logging

import numpy as np

from ..engine import SlotArray
from .device import Bytes, Device
from .driver import CudaError, driver

_log = logging.getLogger(__name__)
_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: locked for every context of the process


class RegisteredRing:
    """The slots of a ring, page-locked in place, so that the GPU copies straight from and to them.

    The memory is locked as one piece, from the first slot to the last. While it is locked the ring must stay mapped:
    the views held here keep the mapping alive even if its owner lets go, and `close` unlocks before it drops them.

    Attributes:
        locked: Whether the memory could be locked. If not, a lane copies each frame by way of a buffer of its own.
    """

    def __init__(self, device: Device, ring: SlotArray, size: int) -> None:
        """Lock the ring.

        Args:
            device: The GPU that shall reach it.
            ring: The slots.
            size: Bytes of a frame, of which each slot begins with one.
        """
        slots = [ring.slot(index) for index in range(ring.slots)]
        if any(slot.size < size or slot.dtype != np.uint8 for slot in slots):
            raise ValueError(f"every slot needs {size} bytes")
        self._device = device
        self._frames: list[Bytes] = [slot[:size] for slot in slots]
        self._memory = _span(slots)
        self.locked = device.lock(self._memory)

    def frame(self, slot: int) -> Bytes:
        """The frame in a slot: uint8 [size], the slot's own memory."""
        return self._frames[slot]

    def close(self) -> None:
        """Unlock the memory and let go of it. Nothing may be copying; harmless when called twice."""
        if self.locked:
            self.locked = False
            self._device.unlock(self._memory)
        self._frames = []
        self._memory = np.empty(0, np.uint8)


def _span(slots: list[Bytes]) -> Bytes:
    """The memory from the first slot's beginning to the last one's end: uint8 [N], a view that does not own it."""
    first = min(slot.ctypes.data for slot in slots)
    end = max(slot.ctypes.data + slot.size for slot in slots)
    if end - first > 2 * sum(slot.size + 4096 for slot in slots):
        raise ValueError("the slots of a ring must lie together in memory")
    return np.ctypeslib.as_array((ctypes.c_uint8 * (end - first)).from_address(first))


def lock_pages(memory: Bytes) -> bool:
    """Page-lock host memory for the current CUDA context; False, with a line in the log, where that is refused."""
    try:
        driver().call(
            "cuMemHostRegister_v2",
            ctypes.c_void_p(memory.ctypes.data),
            ctypes.c_size_t(memory.size),
            ctypes.c_uint(_PORTABLE),
        )
    except CudaError as error:
        _log.warning(
            "a ring of %d MiB cannot be page-locked (%s): every frame is copied once more", memory.size >> 20, error
        )
        return False
    return True


def unlock_pages(memory: Bytes) -> None:
    """End what `lock_pages` began. Raises CudaError."""
    driver().call("cuMemHostUnregister", ctypes.c_void_p(memory.ctypes.data))
