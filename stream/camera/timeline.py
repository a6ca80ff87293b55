"""Timeline: which id and stamp each frame of a recording has when it is played, and when it is due.

Frames are counted from 0 over all rounds, as a loop plays them. Ids rise throughout: where the recording's own begin
anew, in another segment of it, they go on from the one before. Gaps between ids stay gaps.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError

DEFAULT_FPS = 100.0  # of frames that tell neither stamps nor a rate
_FULL = 1 << 64
_MOST_ID = 1 << 62
_LATEST_NS = float(1 << 62)  # 146 years: stamps of a damaged file may say anything
_ODD_TICK = 2.0  # a device clock that runs so many times faster or slower than ours does not count nanoseconds
_SURE_NS = 100_000_000  # a shorter recording does not tell how fast the device clock runs


class Timeline:
    """The frames of one recording in time.

    Args:
        records: What is known of each frame, as Footage.frames; at least one.
        told_fps: Rate in Hz that the file tells; None where it does not.
        fps: Rate in Hz to play at; None plays by the device time stamps.
        speed: Factor on that rate; 0 has every frame due at once.

    Attributes:
        count: Frames of one round.
        patient: Whether every frame is due at once.
        rate: Rate in Hz of the frames, the usual one where they follow their stamps.
        known_rate: Whether stamps, the file or the user tell the rate; it is DEFAULT_FPS otherwise.

    Raises:
        UserError: Frame ids beyond what any camera counts.
    """

    def __init__(self, records: npt.NDArray[np.void], told_fps: float | None, fps: float | None, speed: float) -> None:
        self.count = len(records)
        self.patient, self._speed = speed == 0, speed
        stamps = records["device_timestamp"].astype(np.uint64)
        steps = np.diff(stamps.astype(np.int64))
        # From one segment to the next the camera was away, and its clock may have begun anew.
        told = (np.diff(records["segment"].astype(np.int64)) == 0) & (steps > 0)
        tick_ns = _tick_ns(records, steps, told)
        own_fps = told_fps or (1e9 / (float(np.median(steps[told])) * tick_ns) if told.any() else 0.0)
        self.known_rate = bool(fps or own_fps)
        self.rate = fps or own_fps or DEFAULT_FPS
        period_ns = 1e9 / (own_fps or fps or DEFAULT_FPS)
        # When each frame comes after the first, and when the next round begins; pauses of the camera are left out.
        offsets_ns = np.append(0.0, np.cumsum(np.append(np.where(told, steps * tick_ns, period_ns), period_ns)))
        if not stamps.any():
            stamps, tick_ns = offsets_ns[:-1].astype(np.uint64), 1.0
        self._stamps = np.ascontiguousarray(stamps).data
        self._stamp_span = int(stamps.max()) - int(stamps.min()) + max(1, round(period_ns / tick_ns))
        self._ids, self._id_span = _rising_ids(records)
        self._offsets_ns = np.minimum(np.rint(offsets_ns / (speed or 1.0)), _LATEST_NS).astype(np.int64).data
        # First frame, when it is due, and the period of those that follow; 0: by the stamps.
        self._clock = (0, 0, 1e9 / self.fps if fps and speed else 0.0)

    @property
    def fps(self) -> float:
        """Rate in Hz that frames are played at: `rate` times the speed; 0 where all are due at once."""
        return self.rate * self._speed

    def start(self, number: int) -> None:
        """Frame `number` is due now, the others from there on."""
        self._clock = (number, time.monotonic_ns(), self._clock[2])

    def set_rate(self, fps: float, number: int) -> None:
        """Frames come at `fps` Hz times the speed from now on, `number` being the next."""
        self.rate = fps
        self._clock = (number, time.monotonic_ns(), 1e9 / self.fps)

    def due_ns(self, number: int) -> int:
        """CLOCK_MONOTONIC at which a frame is due."""
        if self.patient:
            return 0
        first, start_ns, period_ns = self._clock
        if period_ns:
            return start_ns + round((number - first) * period_ns)
        return start_ns + self._offset_ns(number) - self._offset_ns(first)

    def frame_id(self, number: int) -> int:
        """Id of a frame."""
        rounds, index = divmod(number, self.count)
        return self._ids[index] + rounds * self._id_span

    def stamp(self, number: int) -> int:
        """Device time stamp of a frame: its own in the first round, later by the length of a round in each other."""
        rounds, index = divmod(number, self.count)
        return (self._stamps[index] + rounds * self._stamp_span) % _FULL

    def after(self, frame_id: int) -> int:
        """The number of the first frame with a greater id."""
        rounds, rest = divmod(frame_id - self._ids[0], self._id_span)
        if rounds < 0:
            return 0
        return rounds * self.count + int(np.searchsorted(np.asarray(self._ids), self._ids[0] + rest, side="right"))

    def _offset_ns(self, number: int) -> int:
        rounds, index = divmod(number, self.count)
        return self._offsets_ns[index] + rounds * self._offsets_ns[self.count]


def _tick_ns(records: npt.NDArray[np.void], steps: npt.NDArray[np.int64], told: npt.NDArray[np.bool_]) -> float:
    """Nanoseconds of one tick of the device clock: 1, unless the host's clock clearly says otherwise."""
    host_ns = float(np.diff(records["grabbed_ns"].astype(np.int64))[told].sum())
    ticks = float(steps[told].sum())
    if host_ns < _SURE_NS or 1 / _ODD_TICK < host_ns / ticks < _ODD_TICK:
        return 1.0
    return host_ns / ticks


def _rising_ids(records: npt.NDArray[np.void]) -> tuple[memoryview, int]:
    """(ids that rise, how many ids one round has)."""
    ids = records["frame_id"]
    if int(ids.max()) >= _MOST_ID:
        raise UserError(f"the recording has a frame of id {int(ids.max())}, which no camera counts to: it is damaged")
    steps = np.diff(ids.astype(np.int64))
    anew = (np.diff(records["segment"].astype(np.int64)) != 0) | (steps <= 0)
    rising = int(ids[0]) + np.append(0, np.cumsum(np.where(anew, 1, steps)))
    return rising.astype(np.int64).data, int(rising[-1] - rising[0]) + 1
