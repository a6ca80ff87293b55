"""Workers, and what happens to them. `LocalPool` has them on this machine; `ray_pool.RayPool` on a cluster."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..channel import ChannelClosed
from ..stage import StageProcess
from .job import Job

Kind = Literal["ready", "progress", "done", "user_error", "fault", "died"]


@dataclass(frozen=True)
class Event:
    """What happened to a worker.

    Attributes:
        kind: ready (it waits for work), progress (so many frames of its chunk are done), done (its chunk is),
            user_error and fault (a sentence for the user: it cannot go on), died (how, in words).
        worker: Its number.
        count: Frames.
        text: The sentence.
    """

    kind: Kind
    worker: int
    count: int = 0
    text: str = ""


class Pool(ABC):
    """Workers that have one job. A worker that failed or died is never used again.

    Attributes:
        size: How many there should be.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def start(self) -> int:
        """Starts one more. Returns its number; `ready` follows, or what went wrong."""

    @abstractmethod
    def give(self, worker: int, positions: Sequence[int], places: Sequence[int]) -> None:
        """Gives a chunk to one that is ready, or done with its last one."""

    @abstractmethod
    def events(self, timeout_s: float) -> list[Event]:
        """What happened; nothing where nothing did within the time."""

    @abstractmethod
    def close(self) -> None:
        """Ends all, at once. Harmless when called twice."""


class LocalPool(Pool):
    """Processes on this machine, each with a channel. They cannot outlive this one."""

    def __init__(self, size: int, job: Job) -> None:
        super().__init__(size)
        self._job = job.to_json()
        self._workers: dict[int, StageProcess] = {}
        self._poll = select.poll()
        self._numbers: dict[int, int] = {}  # worker of a channel
        self._started = 0

    def start(self) -> int:
        """See `Pool.start`."""
        number, self._started = self._started, self._started + 1
        worker = self._workers[number] = StageProcess("offline.worker")
        self._numbers[worker.channel.fileno()] = number
        self._poll.register(worker.channel.fileno(), select.POLLIN)
        worker.post("open", job=self._job)
        return number

    def give(self, worker: int, positions: Sequence[int], places: Sequence[int]) -> None:
        """See `Pool.give`."""
        self._workers[worker].post("develop", positions=list(positions), places=list(places))

    def events(self, timeout_s: float) -> list[Event]:
        """See `Pool.events`."""
        return [self._event(self._numbers[fd]) for fd, _ in self._poll.poll(timeout_s * 1e3)]

    def close(self) -> None:
        """See `Pool.close`."""
        for worker in self._workers.values():
            worker.kill()
        for number in list(self._workers):
            self._forget(number)

    def pids(self) -> list[int]:
        """Process ids, oldest first."""
        return [worker.pid for worker in self._workers.values()]

    def _event(self, number: int) -> Event:
        worker = self._workers[number]
        try:
            got = worker.channel.receive(0)
        except ChannelClosed:
            how = worker.how_it_ended()
            self._forget(number)
            return Event("died", number, text=how)
        message: dict[str, Any] = got[0] if got else {}
        event = Event(message.get("event", "progress"), number, message.get("count", 0), message.get("text", ""))
        if event.kind in ("user_error", "fault"):
            self._forget(number)
        return event

    def _forget(self, number: int) -> None:
        worker = self._workers.pop(number)
        self._poll.unregister(worker.channel.fileno())
        del self._numbers[worker.channel.fileno()]
        worker.end()
