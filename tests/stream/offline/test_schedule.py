"""What the scheduler makes of workers that die."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ispeed.stream.offline.pool import Event, Pool
from ispeed.stream.offline.progress import Progress
from ispeed.stream.offline.schedule import RunFailed, Scheduler


class LostNode(Pool):
    """Workers of which the first ones die together, as with the node that they are on: whoever has work dies at once,
    and those that are idle when they get some. Which needs a cluster, and the moment."""

    def __init__(self, size: int, doomed: int) -> None:
        super().__init__(size)
        self._doomed, self._started, self._events = doomed, 0, deque[Event]()
        self.lost = False

    def start(self) -> int:
        self._started += 1
        self._events.append(Event("ready", self._started))
        return self._started

    def give(self, worker: int, positions: Sequence[int], places: Sequence[int]) -> None:
        last = 9 in positions
        self.lost |= last
        dies = self.lost and worker <= self._doomed
        self._events.append(Event("died", worker, text="by the loss of its node") if dies else Event("done", worker))

    def events(self, timeout_s: float) -> list[Event]:
        return [self._events.popleft()]

    def close(self) -> None:
        pass


def run(pool: LostNode) -> tuple[Scheduler, list[int]]:
    noted: list[int] = []
    sink: Any = SimpleNamespace(note=noted.extend, places=lambda positions: (), job=SimpleNamespace(index=int))
    scheduler = Scheduler(pool, sink, [[number] for number in range(10)], Progress(io.StringIO(), "quiet", 10, 0))
    scheduler.run()
    return scheduler, sorted(noted)


def test_workers_that_die_at_rest_are_not_laid_to_the_next_chunk() -> None:
    scheduler, noted = run(LostNode(5, 5))
    assert noted == list(range(10))
    assert scheduler.died == 5


def test_a_chunk_that_kills_every_worker_ends_the_run() -> None:
    with pytest.raises(RunFailed, match="3 workers ended over the frames 9 to 9"):
        run(LostNode(2, 1000))
