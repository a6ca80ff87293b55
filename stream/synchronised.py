"""Synchronised: frames of several cameras that were taken at the same time. Loads only numpy and zmq.

from ispeed.stream import Subscriber

with Subscriber(cameras=[0, 1], synchronised=True) as pairs:
    for pair in pairs:
        with pair as (left, right):  # uint8 [height, width, 3], live views of shared memory
            print(pair.skew_us, abs(left.astype(int) - right).mean())
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import zmq

from ..engines.errors import UserError
from .pairing import VOTES, IdKeys, Keys, Pairing, StampKeys
from .reader import Frame, StreamInfo, StreamTimeout
from .sockets import Receiver, make_poller, readable
from .subscribe import Mode, Pixels, Subscriber

By = Literal["auto", "timestamp", "frame_id"]

_LOOK_MS = 250  # a subscriber may have something to renew, though nothing comes
_TRIGGERED_US = 1000.0  # tolerance where no stream tells a rate


class FrameSet(tuple[Frame, ...]):
    """One frame of each camera, in the order that the Subscriber was told. `with frames as images:` gives live views.

    Attributes:
        skew_us: Time from the first to the last of them, in microseconds: by their device time stamps where the
            cameras have a clock in common, else by their arrival at the capturing host. Between two hosts that is by
            their real time, and as good as their clocks agree.
    """

    skew_us: float

    def __new__(cls, frames: Sequence[Frame], skew_us: float) -> FrameSet:
        made = super().__new__(cls, frames)
        made.skew_us = skew_us
        return made

    def check(self) -> None:
        """Raises FrameOverwritten when what was read of any of them so far may not be that frame."""
        for frame in self:
            frame.check()

    def copy(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """Private, writable copies, uint8 [height, width, 3] each. Raises FrameOverwritten."""
        return tuple(frame.copy() for frame in self)

    def __enter__(self) -> tuple[npt.NDArray[np.uint8], ...]:
        return tuple(frame.array for frame in self)

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:  # an error of the user's own says more than that its frames are gone by now
            self.check()

    def __repr__(self) -> str:
        return f"<FrameSet {', '.join(str(frame.frame_id) for frame in self)}, skew {self.skew_us:.1f} us>"


class Synchronised(Receiver[FrameSet]):
    """An iterator over sets of frames of several cameras. A context manager; used by one thread.

    `Subscriber(..., synchronised=True)` makes one. A frame that has no partner is counted and not given out.

    Args:
        endpoint: Where the cameras are published: one for all, or one for each; None is the default endpoint of each.
        cameras: Index of each camera; None takes whichever comes first at each endpoint of a list.
        by: What tells that frames belong together: "timestamp" (the cameras' own, which need a clock in common),
            "frame_id" (they are triggered together, and count alike), or "auto": time stamps where all cameras have a
            clock in common (PTP, or that of the host), else frame ids.
        tolerance_us: Most time between the time stamps of a set, in microseconds, less than a frame period; None is
            half the shortest frame period, and 1000 where no camera has a rate of its own.
        mode: "newest" skips to the newest set at each look; "every" takes them in order, as far as they last.
        timeout_ms, pixels, keys: See Subscriber.
        depth: Frames of each camera that may wait for their partners.

    Attributes:
        by: As given; for "auto" what it came to, once every stream has told of its clock.
        skipped: Sets passed over in mode "newest".

    Raises:
        UserError: An endpoint, a folder of keys or an option that cannot be.
    """

    def __init__(
        self,
        endpoint: str | Sequence[str] | None = None,
        *,
        cameras: Sequence[int | None] | None = None,
        by: By = "auto",
        tolerance_us: float | None = None,
        mode: Mode = "newest",
        timeout_ms: float | None = None,
        pixels: Pixels = "auto",
        keys: Path | str | None = None,
        depth: int = 64,
    ) -> None:
        endpoints, cameras = _places(endpoint, cameras)
        if by not in ("auto", "timestamp", "frame_id"):
            raise UserError(f"frames cannot be paired by {by!r}: use auto, timestamp or frame_id")
        if mode not in ("newest", "every"):
            raise UserError(f"mode {mode!r} is unknown: use newest or every")
        if tolerance_us is not None and not 0 <= tolerance_us < 1e12:
            raise UserError(f"tolerance_us {tolerance_us} cannot be: give microseconds, less than a frame period")
        if depth < 1:
            raise UserError(f"depth {depth} cannot be: at least one frame of each camera must wait for its partners")
        self.by: By = by
        self.mode, self.timeout_ms = mode, timeout_ms
        self.skipped = 0
        self._given_us = tolerance_us
        self._depth = depth
        self._pairing = Pairing(len(endpoints), depth)
        self._keys: Keys | None = None  # until it is known what frames are paired by
        self._subscribers: list[Subscriber] = []
        try:
            for place, camera in zip(endpoints, cameras, strict=True):
                self._subscribers.append(Subscriber(place, camera=camera, mode="every", pixels=pixels, keys=keys))
        except BaseException:
            self.close()
            raise

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """The Subscriber of each camera, for its counts of frames received, missed and lapped."""
        return tuple(self._subscribers)

    @property
    def paired(self) -> int:
        """Sets found, skipped ones among them."""
        return self._pairing.paired

    @property
    def unpaired(self) -> tuple[int, ...]:
        """Of each camera, frames without a partner. For each: received = paired + unpaired + overwritten + waiting."""
        return tuple(self._pairing.unpaired)

    @property
    def overwritten(self) -> tuple[int, ...]:
        """Of each camera, frames that were overwritten in shared memory while they waited for their partners."""
        return tuple(self._pairing.overwritten)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Of each camera, frames that wait for their partners."""
        without_key = self._keys.waiting if self._keys else [0] * len(self._subscribers)
        return tuple(map(sum, zip(self._pairing.waiting, without_key, strict=True)))

    @property
    def tolerance_us(self) -> float:
        """Most time between the time stamps of a set, in microseconds."""
        if self._given_us is not None:
            return self._given_us
        rates = [subscriber.info.fps for subscriber in self._subscribers if subscriber.info]
        fastest = max(rates, default=0.0)
        return 5e5 / fastest if fastest > 0 else _TRIGGERED_US

    def receive(self, timeout_ms: float | Literal["default"] | None = "default") -> FrameSet:
        """The next set of frames.

        Waits up to `timeout_ms` milliseconds, None for ever; left out, as long as the Subscriber was told.
        Raises StreamTimeout (a TimeoutError) when none came, StreamError for a stream that cannot be read; the next
        call goes on after either.
        """
        deadline = self._deadline(timeout_ms)
        while (found := self._next()) is None:
            make_poller(self._sockets()).poll(self._wait_ms(deadline))
        return found

    async def receive_async(self, timeout_ms: float | Literal["default"] | None = "default") -> FrameSet:
        """The same for asyncio: `async for frames in subscriber`, or one set at a time."""
        deadline = self._deadline(timeout_ms)
        while (found := self._next()) is None:
            await readable(self._sockets(), self._wait_ms(deadline))
        return found

    def close(self) -> None:
        """Ends the subscriptions. Arrays of frames stay readable. Harmless when called twice."""
        for subscriber in self._subscribers:
            subscriber.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _next(self) -> FrameSet | None:
        """The next set that is complete with what has come; in mode `newest` the last."""
        if self._keys is None and not self._settle():
            return None
        self._pairing.tolerance = round(self.tolerance_us * 1e3) if self.by == "timestamp" else 0
        found = None
        while True:
            if frames := self._pairing.next():
                self.skipped += found is not None
                found = frames
                if self.mode == "every":
                    break
            elif not self._take_one():
                break
        return FrameSet(found, self._skew_us(found)) if found else None

    def _settle(self) -> bool:
        """Finds what frames are paired by; whether that is known. For "auto" every stream must have told its clock."""
        if self.by == "auto":
            infos = [info for subscriber in self._subscribers if (info := subscriber.look())]
            if len(infos) < len(self._subscribers):
                return False
            self.by = "timestamp" if _common_clock(infos) else "frame_id"
        cameras = len(self._subscribers)
        self._keys = StampKeys(cameras) if self.by == "timestamp" else IdKeys(cameras, self._depth, self._one_host)
        return True

    def _one_host(self) -> bool:
        """Whether one host captures all cameras, since its last start: what their monotonic times are of."""
        boots = {info.boot_id if (info := subscriber.info) else "" for subscriber in self._subscribers}
        return len(boots) == 1 and "" not in boots

    def _take_one(self) -> bool:
        """Takes in a frame, if one has come of a camera that others wait for, of that one; whether there was any."""
        waiting, without_key = self.waiting, self._keys.waiting if self._keys else ()
        # Of one that is back, and of which enough has come to find its ids, what comes of the others is waited for.
        order = sorted((waits >= VOTES, waiting[camera], camera) for camera, waits in enumerate(without_key))
        for _, _, camera in order:
            frame = self._subscribers[camera].poll()
            if frame is not None:
                for owner, key, ready in self._keys.feed(camera, frame) if self._keys else ():
                    self._pairing.add(owner, key, ready)
                return True
        return False

    def _skew_us(self, frames: Sequence[Frame]) -> float:
        if self.by == "timestamp":
            times = [frame.device_timestamp for frame in frames]
        else:
            times = [frame.grabbed_ns if self._one_host() else frame.time_ns for frame in frames]
        return (max(times) - min(times)) / 1e3

    def _sockets(self) -> list[zmq.Socket]:
        """What to wait for: the streams' infos alone before it is known what frames are paired by."""
        return [
            socket
            for subscriber in self._subscribers
            for socket in (subscriber.sockets if self._keys else subscriber.info_sockets)
        ]

    def _wait_ms(self, deadline: float | None) -> int:
        """Milliseconds to wait now. Raises StreamTimeout when the deadline is over."""
        if deadline is None:
            return _LOOK_MS
        rest_ms = math.ceil((deadline - time.monotonic()) * 1e3)
        if rest_ms <= 0:
            silent = [s.endpoint for s, waiting in zip(self._subscribers, self.waiting, strict=True) if not waiting]
            what = f"nothing waits from {', '.join(silent)}" if silent else "those that came do not belong together"
            raise StreamTimeout(f"no set of frames came in time: {what}")
        return min(_LOOK_MS, rest_ms)


def _common_clock(infos: Sequence[StreamInfo]) -> bool:
    """Whether the device time stamps of all streams are of one clock."""
    clocks = {info.clock for info in infos}
    return clocks == {"ptp"} or (clocks == {"host"} and len({info.boot_id for info in infos}) == 1)


def _places(
    endpoint: str | Sequence[str] | None, cameras: Sequence[int | None] | None
) -> tuple[list[str | None], list[int | None]]:
    """Endpoint and index of each camera. Raises UserError where they are not those of two cameras or more."""
    several = None if endpoint is None or isinstance(endpoint, str) else list(endpoint)
    if cameras is None and several is None:
        raise UserError("which cameras are to be synchronised? Give cameras=[0, 1], or a list of endpoints")
    chosen: list[int | None] = list(cameras) if cameras is not None else [None] * len(several or ())
    places: list[str | None] = list(several) if several is not None else [endpoint] * len(chosen)  # type: ignore[list-item]
    if len(places) != len(chosen) or len(chosen) < 2:
        raise UserError(f"{len(chosen)} cameras at {len(places)} endpoints cannot be synchronised: give two or more")
    if len(set(zip(places, chosen, strict=True))) < len(chosen):
        raise UserError("a camera is named twice: name each camera once")
    return places, chosen
