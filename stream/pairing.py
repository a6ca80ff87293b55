"""Pairing: which frames of several cameras belong together, by one number of each, its key.

The key is the device time stamp, where the cameras have a clock in common, else the frame id. Nothing here waits or
knows of sockets. Every frame that is put in comes out in a set, or is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .frame import FrameHeader
from .reader import Frame

VOTES = 9
"""Frames of a camera that is back, by which is found which ids of the others they belong to."""

Keyed = tuple[int, int | None, Frame]
"""Camera, key, and frame; without a key it will never have one."""

_HISTORY = 64  # frames of the others that are remembered for that, at least
_APART_NS = 1_000_000_000  # frames that arrived so far apart say nothing of each other


class Pairing:
    """Frames that wait for their partners, oldest first.

    Args:
        cameras: How many.
        depth: Frames of each that may wait.

    Attributes:
        tolerance: How far apart the keys of a set may be.
        paired: Sets that came out.
        unpaired: By camera, frames given up: no frame of another camera belongs to them, or none came in time.
        overwritten: By camera, frames whose slot was overwritten while they waited.
    """

    def __init__(self, cameras: int, depth: int) -> None:
        self._queues: list[deque[tuple[int, Frame]]] = [deque() for _ in range(cameras)]
        self._depth = depth
        self.tolerance = 0
        self.paired = 0
        self.unpaired, self.overwritten = [0] * cameras, [0] * cameras

    @property
    def waiting(self) -> list[int]:
        """By camera, frames that wait."""
        return [len(queue) for queue in self._queues]

    def add(self, camera: int, key: int | None, frame: Frame) -> None:
        """Takes in the next frame of a camera. Keys rise; where one does not, its clock has begun anew.

        A frame without a key is given up.
        """
        queue = self._queues[camera]
        if key is None:
            self.unpaired[camera] += 1
            return
        if queue and key <= queue[-1][0]:
            self.unpaired[camera] += len(queue)
            queue.clear()
        queue.append((key, frame))
        if len(queue) > self._depth:
            self._give_up(camera)

    def next(self) -> tuple[Frame, ...] | None:
        """The oldest frames that belong together, one of each camera; None while some are still to come."""
        queues = self._queues
        while all(queues):
            newest = max(queue[0][0] for queue in queues)
            # Keys only rise: what is older than the newest of the oldest will never have a partner.
            behind = [camera for camera, queue in enumerate(queues) if newest - queue[0][0] > self.tolerance]
            gone = [camera for camera, queue in enumerate(queues) if queue[0][1].overwritten]
            if not behind and not gone:
                self.paired += 1
                return tuple(queue.popleft()[1] for queue in queues)
            for camera in behind:
                self._give_up(camera)
            for camera in set(gone) - set(behind):
                queues[camera].popleft()
                self.overwritten[camera] += 1
        return None

    def _give_up(self, camera: int) -> None:
        self._queues[camera].popleft()
        self.unpaired[camera] += 1


class Keys(Protocol):
    """Gives each frame its key."""

    @property
    def waiting(self) -> list[int]:
        """By camera, frames that have no key yet."""
        ...

    def feed(self, camera: int, frame: Frame) -> Sequence[Keyed]:
        """Takes in the next frame of a camera. Frames of any camera that have a key now, oldest first."""
        ...


class StampKeys:
    """The device time stamp."""

    def __init__(self, cameras: int) -> None:
        self.waiting = [0] * cameras

    def feed(self, camera: int, frame: Frame) -> Sequence[Keyed]:
        return ((camera, frame.header.device_timestamp, frame),)


class IdKeys:
    """The frame id, as the camera counted at first.

    The ids of a camera that was lost begin anew when it is back, while the others count on. Which of theirs its first
    ones belong to is told by when they arrived: most of nine frames say it. In which order the cameras are read says
    nothing, so they wait until another camera's frames reach past them. Where all cameras have begun anew, the ids of
    the first are the keys.

    Args:
        cameras: How many.
        depth: Frames of each that may wait for a key; no fewer than are needed to find it.
        one_host: Tells whether one host captures all cameras. Arrivals are of its monotonic clock then, else of the
            hosts' real time, which they must have in common to less than half a frame period.
    """

    def __init__(self, cameras: int, depth: int, one_host: Callable[[], bool]) -> None:
        self._depth = max(depth, 2 * VOTES)
        self._one_host = one_host
        self._offsets = [0] * cameras
        self._acquisitions: list[tuple[int, int] | None] = [None] * cameras  # stream id and segment
        self._fresh: list[deque[Frame] | None] = [None] * cameras  # of a camera that is back, until its offset is known
        # Frames that have a key, with it; none of a camera that is back.
        self._came: list[deque[tuple[FrameHeader, int]]] = [deque(maxlen=max(depth, _HISTORY)) for _ in range(cameras)]

    @property
    def waiting(self) -> list[int]:
        """See Keys."""
        return [len(fresh or ()) for fresh in self._fresh]

    def feed(self, camera: int, frame: Frame) -> Sequence[Keyed]:
        """See Keys."""
        acquisition = frame.header.stream_id, frame.header.segment
        before, self._acquisitions[camera] = self._acquisitions[camera], acquisition
        ready: list[Keyed] = []
        if before != acquisition and (before or frame.header.segment > 1):
            ready += self._give_up(camera)
            self._fresh[camera] = deque()
            self._came[camera].clear()
        fresh = self._fresh[camera]
        if fresh is None:
            ready.append(self._keyed(camera, frame))
        else:
            fresh.append(frame)
            if len(fresh) > self._depth:
                ready.append((camera, None, fresh.popleft()))
        return [*ready, *self._settle()]

    def _settle(self) -> list[Keyed]:
        """Frames of cameras that are back and whose offset can be found now, with their keys."""
        ready: list[Keyed] = []
        if all(fresh is not None for fresh in self._fresh):  # nobody counts on, so one's ids are as good as another's
            ready += self._begin(0, 0)
        for camera, fresh in enumerate(self._fresh):
            if fresh is not None and (offset := self._find(fresh, VOTES)) is not None:
                ready += self._begin(camera, offset)
        return ready

    def _give_up(self, camera: int) -> list[Keyed]:
        """Frames of an acquisition that was short: with their keys, where the few of them tell."""
        fresh = self._fresh[camera] or ()
        offset = self._find(fresh, 1)
        return [(camera, None, frame) for frame in fresh] if offset is None else self._begin(camera, offset)

    def _begin(self, camera: int, offset: int) -> list[Keyed]:
        """Sets the offset of a camera that is back. Its frames with their keys."""
        fresh, self._fresh[camera] = self._fresh[camera] or (), None
        self._offsets[camera] = offset
        return [self._keyed(camera, frame) for frame in fresh]

    def _find(self, fresh: Sequence[Frame], least: int) -> int | None:
        """What to add to the ids of these frames; None while fewer than `least` of them tell, or none two the same."""
        votes = [vote for frame in fresh if (vote := self._votes(frame.header))]
        if len(votes) < least:
            return None
        offset, count = Counter(one for vote in votes for one in vote).most_common(1)[0]
        return offset if count > 1 else None  # all different: of frames that came one after the other

    def _votes(self, header: FrameHeader) -> list[int]:
        """What to add to the id of a frame for the key of the one that arrived next to it, by each camera that tells.

        One tells whose frames were read up to that time: before, the one next to it may still be to come.
        """
        arrived, votes = self._arrived(header), []
        for came in self._came:
            place = bisect_left(came, arrived, key=lambda entry: self._arrived(entry[0]))
            if place == len(came) or (place == 0 and self._arrived(came[0][0]) > arrived):
                continue
            apart, key = min(
                (abs(self._arrived(at) - arrived), key) for at, key in (came[max(0, place - 1)], came[place])
            )
            if apart < _APART_NS:
                votes.append(key - header.frame_id)
        return votes

    def _arrived(self, header: FrameHeader) -> int:
        return header.grabbed_ns + (0 if self._one_host() else header.realtime_offset_ns)

    def _keyed(self, camera: int, frame: Frame) -> Keyed:
        key = frame.header.frame_id + self._offsets[camera]
        self._came[camera].append((frame.header, key))
        return camera, key, frame
