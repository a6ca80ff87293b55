"""Rings for tests of the recorder: real shared memory, filled by the test in the place of grab and develop.

Frame number n of either kind has the bytes of `raw_frame(n)` and `srgb_frame(n)`. Times are those of a clock that the
test turns, so what happens does not depend on how fast the machine is.
"""

from __future__ import annotations

import functools

import numpy as np

from ispeed.engines import RawFormat, pack
from ispeed.stream import FrameHeader, Ring
from ispeed.stream.log import ArrivalLog
from ispeed.stream.ring import Word

FORMAT = RawFormat(88, 66, "BayerRG12p", 64)  # 8712 bytes: no whole pages
PAYLOAD = FORMAT.payload_size + 24  # with chunk data behind it
PERIOD_NS = 10_000_000
GEOMETRY = {
    "camera": 0,
    "serial": "TEST1",
    "vendor": "ispeed",
    "model": "rings",
    "width": FORMAT.width,
    "height": FORMAT.height,
    "fps": 1e9 / PERIOD_NS,
}


@functools.lru_cache(4096)
def samples(number: int, level: float = 0.3) -> np.ndarray:
    """The samples of a raw frame: noise of its own around a level between black and white."""
    noise = np.random.default_rng(number).integers(-40, 41, (FORMAT.height, FORMAT.width))
    return (FORMAT.black_level + level * 4031 + noise).clip(0, 4095).astype(np.uint16)


@functools.lru_cache(4096)
def raw_frame(number: int, level: float = 0.3) -> np.ndarray:
    """uint8 [payload_size]"""
    return pack(samples(number, level), FORMAT)


@functools.lru_cache(256)
def srgb_frame(number: int) -> np.ndarray:
    """uint8 [height, width, 3]"""
    ramp = np.arange(FORMAT.height * FORMAT.width * 3, dtype=np.uint32)
    return ((ramp // 50 + 7 * number) % 256).astype(np.uint8).reshape(FORMAT.height, FORMAT.width, 3)


class Clock:
    """In the place of the module `time`, where a test turns it."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns + 1_700_000_000_000_000_000

    def monotonic(self) -> float:
        return self.now_ns * 1e-9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(max(seconds, 0.001) * 1e9)


class Rings:
    """Both rings. Frames have ids from 1 and come PERIOD_NS apart, the first at the clock's beginning."""

    def __init__(self, clock: Clock, slots: int = 40) -> None:
        self.clock = clock
        self.raw = Ring.create("raw", slots, PAYLOAD, 7)
        self.srgb = Ring.create("srgb", slots, FORMAT.width * FORMAT.height * 3, 7)
        self._log = ArrivalLog(self.raw)
        self._came: list[tuple[int, int]] = []  # id and time
        self._skipped = 0

    def come(self, count: int = 1, *, level: float = 0.3, flags: int = 0) -> None:
        """So many frames come, are developed and published."""
        for _ in range(count):
            number = len(self._came)
            slot = number % self.raw.slots
            self.raw.begin_write(slot, number)
            view = self.raw.slot(slot)
            view[: FORMAT.payload_size], view[FORMAT.payload_size :] = raw_frame(number, level), 0xEE
            self.raw.end_write(slot, number)
            frame_id, now_ns = number + 1 + self._skipped, self.clock.now_ns
            entry = (slot, flags, frame_id, 5 * frame_id, now_ns, 1, FORMAT.payload_size, 250.0, 6.0)
            self._came.append((frame_id, now_ns))
            self._log.add(entry, 2 * number + 2)
            self.raw.words[Word.SEEN] += 1
            self.clock.now_ns += PERIOD_NS

    def develop(self) -> None:
        """All that has come is developed and published."""
        for number in range(self.raw.words[Word.PUBLISHED], len(self._came)):
            slot = number % self.srgb.slots
            self.srgb.begin_write(slot, number)
            self.srgb.slot(slot)[:] = srgb_frame(number).reshape(-1)
            frame_id, time_ns = self._came[number]
            FrameHeader(
                slot=slot,
                segment=1,
                generation=2 * number + 2,
                sequence=number,
                frame_id=frame_id,
                device_timestamp=5 * frame_id,
                grabbed_ns=time_ns,
                developed_ns=time_ns + 1000,
                published_ns=time_ns + 2000,
                realtime_offset_ns=1_700_000_000_000_000_000,
                width=FORMAT.width,
                height=FORMAT.height,
                stride=FORMAT.width * 3,
                exposure_us=250.0,
                gain_db=6.0,
                wb_r=2.0,
                wb_g=1.0,
                wb_b=1.5,
            ).pack_into(self.srgb.memory, self.srgb.header_offset(slot))
            self.srgb.end_write(slot, number)
            self.raw.words[Word.DEVELOPED] = self.raw.words[Word.PUBLISHED] = number + 1

    @property
    def in_flight(self) -> bool:
        """Whether frames have come that are not published."""
        return self.raw.words[Word.PUBLISHED] < len(self._came)

    def lose(self, count: int) -> None:
        """So many ids never come."""
        self._skipped += count

    def spoil(self, number: int) -> None:
        """The slot of frame `number` is given away early, as of a grab process that died."""
        self.raw.generations[number % self.raw.slots] += 1

    def close(self) -> None:
        del self._log
        self.raw.close()
        self.srgb.close()
