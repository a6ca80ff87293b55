"""What begins a recording by itself, in frames of every format and size."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat, pack
from ispeed.engines.bayer import PIXEL_FORMATS
from ispeed.stream import Ring
from ispeed.stream.log import ARRIVAL
from ispeed.stream.record.triggers import BrightnessJump, _sample_places

SLOTS = 4
PERIOD_NS = 1_000_000


class Watched:
    """A ring whose frames a brightness trigger looks at."""

    def __init__(self, fmt: RawFormat, jump: float = 0.3) -> None:
        self.format, self.count = fmt, 0
        self.ring = Ring.create("raw", SLOTS, fmt.payload_size, 7)
        self._condition = BrightnessJump(self.ring, fmt, jump)

    def triggers(self, samples: np.ndarray) -> bool:
        """Whether it triggers at this frame."""
        slot, number = self.count % SLOTS, self.count
        self.ring.begin_write(slot, number)
        self.ring.slot(slot)[:] = pack(samples, self.format)
        self.ring.end_write(slot, number)
        self.count += 1
        record: Any = np.zeros(1, ARRIVAL)
        record["slot"], record["generation"], record["grabbed_ns"] = slot, 2 * number + 2, number * PERIOD_NS
        return len(self._condition.look(record)) == 1

    def close(self) -> None:
        del self._condition
        gc.collect()
        self.ring.close()


@pytest.fixture
def watched() -> Iterator[Callable[[RawFormat], Watched]]:
    made: list[Watched] = []

    def make(fmt: RawFormat) -> Watched:
        made.append(Watched(fmt))
        return made[-1]

    yield make
    for one in made:
        one.close()


def grey(fmt: RawFormat, level: float = 0.1) -> np.ndarray:
    return np.full((fmt.height, fmt.width), round(level * fmt.white_level), np.uint16)


@pytest.mark.parametrize("size", [(1024, 1024), (2048, 1024), (1280, 1024), (640, 480)])
@pytest.mark.parametrize("pixel_format", ["BayerRG8", "BayerRG10p", "BayerRG12", "BayerRG12p"])
def test_a_flash_anywhere_in_the_frame_triggers(
    watched: Callable[[RawFormat], Watched], size: tuple[int, int], pixel_format: str
) -> None:
    """A ninth of the frame becomes nine times as bright: the mean rises by nearly 90 %."""
    fmt = RawFormat(*size, pixel_format)
    watch, (height, width) = watched(fmt), (fmt.height // 3, fmt.width // 3)
    for row in range(3):
        for column in range(3):
            flash = grey(fmt)
            flash[row * height :, column * width :][:height, :width] *= 9
            assert not watch.triggers(grey(fmt))
            assert watch.triggers(flash), (row, column)
    assert not watch.triggers(grey(fmt))


@pytest.mark.parametrize("pixel_format", ["BayerRG8", "BayerGB12p", "BayerRG12p", "BayerGR10p", "BayerBG10p"])
@pytest.mark.parametrize("size", [(1024, 1024), (640, 480)])
def test_a_jump_of_one_colour_triggers(
    watched: Callable[[RawFormat], Watched], size: tuple[int, int], pixel_format: str
) -> None:
    """Each of the four places of the mosaic becomes four times as bright: the mean rises by 75 %."""
    fmt = RawFormat(*size, pixel_format)
    watch = watched(fmt)
    for y in range(2):
        for x in range(2):
            jump = grey(fmt)
            jump[y::2, x::2] *= 4
            assert not watch.triggers(grey(fmt))
            assert watch.triggers(jump), (y, x)


def test_a_flash_of_one_column_in_eight_triggers(watched: Callable[[RawFormat], Watched]) -> None:
    """Lines as far apart as those of the grid are seen, wherever they lie."""
    fmt = RawFormat(1024, 1024, "BayerRG8")
    watch = watched(fmt)
    for first in range(0, 64, 8):
        flash = grey(fmt)
        for x in range(8):
            flash[:, first + x :: 64] *= 9
        assert not watch.triggers(grey(fmt))
        assert watch.triggers(flash), first


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
@pytest.mark.parametrize("size", [(2, 2), (8, 5), (4, 400), (4000, 4), (640, 481)])
def test_samples_are_those_of_whole_cells(size: tuple[int, int], pixel_format: str) -> None:
    """Of frames of any size: inside the frame, none twice, as many of each place of the mosaic."""
    if size[0] == 2 and pixel_format.endswith("10p"):
        size = (4, 2)  # rows of 2 would end inside a byte
    fmt = RawFormat(*size, pixel_format)
    places, shifts = _sample_places(fmt)
    each = 1 if fmt.bits_per_pixel == 8 else 2
    pixels = (places[::each] * 8 + shifts) // fmt.bits_per_pixel
    assert places.max() < fmt.payload_size
    assert len(set(pixels.tolist())) == len(pixels) == min(1024, size[0] // 2 * 2 * (size[1] // 2 * 2))
    y, x = np.divmod(pixels, fmt.width)
    assert np.ptp(np.bincount(y % 2 * 2 + x % 2)) == 0


def test_the_mean_is_that_of_the_samples(watched: Callable[[RawFormat], Watched]) -> None:
    """Whatever the packing, the low bits count too: a jump just below the limit is none."""
    for pixel_format in ("BayerRG8", "BayerRG10", "BayerRG10p", "BayerRG12p", "BayerRG16"):
        fmt = RawFormat(64, 48, pixel_format, 10, 250)
        watch = watched(fmt)
        for level, jumps in ((110, False), (139, False), (110, False), (141, True), (110, False), (79, True)):
            assert watch.triggers(np.full((48, 64), level, np.uint16)) == jumps, (pixel_format, level)
