"""Pairing: which frames of several cameras belong together, by one number of each, its key.

The key is the device time stamp, where the cameras have a clock in common, else the frame id. Nothing here waits or
knows of sockets. Every frame that is put in comes out in a set, or is counted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

from .reader import Frame

_VOTES = 9  # frames of a camera that is back, by which is found which ids of the others they belong to
_HISTORY = 64  # frames of the others that are remembered for that
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

    def add(self, camera: int, key: int, frame: Frame) -> None:
        """Takes in the next frame of a camera. Keys rise; where one does not, its clock has begun anew."""
        queue = self._queues[camera]
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

    def feed(self, camera: int, frame: Frame) -> Sequence[tuple[int, Frame]]:
        """Takes in the next frame of a camera; those that have a key now, oldest first."""
        ...


class StampKeys:
    """The device time stamp."""

    def __init__(self, cameras: int) -> None:
        self.waiting = [0] * cameras

    def feed(self, camera: int, frame: Frame) -> Sequence[tuple[int, Frame]]:
        return ((frame.header.device_timestamp, frame),)


class IdKeys:
    """The frame id, as the camera counted at first.

    The ids of a camera that was lost begin anew when it is back, while the others count on. Which of theirs its first
    ones belong to is told by when they arrived: most of nine frames say it. Where no other camera delivered meanwhile,
    all have begun anew, and ids are equal again.
    """

    def __init__(self, cameras: int) -> None:
        self._offsets = [0] * cameras
        self._acquisitions: list[tuple[int, int] | None] = [None] * cameras  # stream id and segment
        self._fresh: list[list[Frame] | None] = [None] * cameras  # of a camera that is back, until its offset is known
        self._came: list[deque[tuple[int, int]]] = [deque(maxlen=_HISTORY) for _ in range(cameras)]  # arrival, key

    @property
    def waiting(self) -> list[int]:
        """See Keys."""
        return [len(fresh or ()) for fresh in self._fresh]

    def feed(self, camera: int, frame: Frame) -> Sequence[tuple[int, Frame]]:
        """See Keys."""
        acquisition = frame.header.stream_id, frame.header.segment
        before, self._acquisitions[camera] = self._acquisitions[camera], acquisition
        ready: list[tuple[int, Frame]] = []
        if before != acquisition and (before or frame.header.segment > 1):
            ready = self._settle(camera)  # of an acquisition that was short
            self._fresh[camera] = []
        fresh = self._fresh[camera]
        if fresh is None:
            return [*ready, self._keyed(camera, frame)]
        fresh.append(frame)
        return ready if len(fresh) < _VOTES else [*ready, *self._settle(camera)]

    def _settle(self, camera: int) -> list[tuple[int, Frame]]:
        """Finds the offset of a camera that is back. Its frames with their keys."""
        fresh, self._fresh[camera] = self._fresh[camera], None
        if not fresh:
            return []
        self._came[camera].clear()
        votes = Counter(vote for frame in fresh if (vote := self._vote(frame)) is not None)
        offset, count = votes.most_common(1)[0] if votes else (0, 0)
        self._offsets[camera] = offset if count > 1 else 0  # all different: of frames that came one after the other
        return [self._keyed(camera, frame) for frame in fresh]

    def _vote(self, frame: Frame) -> int | None:
        """What to add to the id of a frame for the key of the one that arrived next to it; None where none did."""
        arrivals = [entry for came in self._came for entry in came]
        if not arrivals:
            return None
        arrived = frame.header.grabbed_ns
        nearest = min(arrivals, key=lambda entry: abs(entry[0] - arrived))
        return nearest[1] - frame.header.frame_id if abs(nearest[0] - arrived) < _APART_NS else None

    def _keyed(self, camera: int, frame: Frame) -> tuple[int, Frame]:
        key = frame.header.frame_id + self._offsets[camera]
        self._came[camera].append((frame.header.grabbed_ns, key))
        return key, frame
