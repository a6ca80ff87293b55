"""Slots without a pipeline, and frames to develop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ispeed.engines import RawFormat, pack


class Slots:
    """A ring's slots in ordinary memory, with a guard byte after each."""

    def __init__(self, slots: int, size: int) -> None:
        self.slots = slots
        self.memory = np.full((slots, -(-size // 4096) * 4096 + 4096), 0xA5, np.uint8)
        self._size = size

    def slot(self, index: int) -> npt.NDArray[np.uint8]:
        return self.memory[index, : self._size]

    def untouched(self) -> bool:
        """Whether nothing was written behind the slots."""
        return bool(np.all(self.memory[:, self._size :] == 0xA5))


@pytest.fixture
def rings() -> Callable[[RawFormat, list[npt.NDArray[np.integer]]], tuple[Slots, Slots]]:
    """Makes a raw ring that holds the given samples [H, W], and an sRGB ring of as many slots."""

    def make(fmt: RawFormat, frames: list[npt.NDArray[np.integer]]) -> tuple[Slots, Slots]:
        raw = Slots(len(frames), fmt.payload_size)
        for index, samples in enumerate(frames):
            raw.slot(index)[:] = pack(samples, fmt)
        return raw, Slots(len(frames), fmt.width * fmt.height * 3)

    return make
