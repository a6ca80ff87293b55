"""What of a ring is page-locked. That the driver can do it is tested in tests/gpu."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from ispeed.engines.cuda.memory import RegisteredRing

PAGE, SLOTS, SIZE = 4096, 5, 6000


class Mapped:
    """Slots two pages apart in a mapping, behind one page of something else."""

    def __init__(self) -> None:
        self.slots, self.map = SLOTS, mmap.mmap(-1, PAGE * (1 + 2 * SLOTS))
        self.array = np.frombuffer(self.map, np.uint8)

    def slot(self, index: int) -> np.ndarray:
        return self.array[PAGE * (1 + 2 * index) :][:SIZE]


def test_the_slots_and_nothing_in_front_of_them_are_locked_as_one_piece(device):
    slots = Mapped()
    ring = RegisteredRing(device, slots, SIZE - 10)
    assert ring.locked
    assert device.locked == [(slots.array.ctypes.data + PAGE, PAGE * 2 * (SLOTS - 1) + SIZE)]
    assert ring.frame(3).ctypes.data == slots.slot(3).ctypes.data
    assert ring.frame(3).size == SIZE - 10
    ring.close()
    assert device.locked == []
    ring.close()


def test_the_mapping_lives_until_it_is_unlocked(device):
    slots = Mapped()
    ring = RegisteredRing(device, slots, SIZE)
    mapping = slots.map
    del slots
    with pytest.raises(BufferError):
        mapping.close()
    ring.close()
    mapping.close()


def test_a_ring_that_cannot_be_locked_says_so(device):
    device.locks = False
    ring = RegisteredRing(device, Mapped(), SIZE)
    assert not ring.locked
    ring.close()


def test_slots_that_are_too_small_or_far_apart_are_refused(device):
    with pytest.raises(ValueError, match="6001 bytes"):
        RegisteredRing(device, Mapped(), SIZE + 1)

    class Scattered(Mapped):
        def slot(self, index: int) -> np.ndarray:
            return np.frombuffer(self.map, np.uint8)[:SIZE] if index else FAR[-SIZE:]

    with pytest.raises(ValueError, match="together in memory"):
        RegisteredRing(device, Scattered(), SIZE)


FAR = np.zeros(1 << 24, np.uint8)
