"""A ring without a pipeline, for engines outside of one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Slots:
    """Slots of page-aligned memory, as engines see a ring's."""

    def __init__(self, slots: int, size: int) -> None:
        self.slots = slots
        pitch = -(-size // 4096) * 4096
        memory = np.zeros(slots * pitch + 4096, np.uint8)
        start = -memory.ctypes.data % 4096
        self._views = [memory[start + k * pitch :][:size] for k in range(slots)]

    def slot(self, index: int) -> npt.NDArray[np.uint8]:
        """The payload bytes of a slot: uint8 [size]."""
        return self._views[index]
