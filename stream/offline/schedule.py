"""Hands chunks to workers until all are done, and does again what was in the hands of one that died."""

from __future__ import annotations

import time
from collections import Counter, deque

from ...engines.errors import UserError
from .job import RunFailed
from .pool import Event, Pool
from .progress import Progress
from .sinks import Sink

MOST_DEATHS = 3
"""Workers that may die over the same chunk, or before they are ready, until the run ends."""

_WAIT_S = 0.5
_IDLE_S = 30.0  # with nobody at work, until the user is told


class Scheduler:
    """One run over the chunks of a sink.

    Attributes:
        done: Frames that are done.
        died: Workers that died.
    """

    def __init__(self, pool: Pool, sink: Sink, chunks: list[list[int]], progress: Progress) -> None:
        self._pool, self._sink, self._progress = pool, sink, progress
        self._waiting: deque[tuple[int, list[int]]] = deque(enumerate(chunks))
        self._left = len(chunks)
        self._at: dict[int, tuple[int, list[int]]] = {}  # what a worker has
        self._partly: dict[int, int] = {}  # frames of it that are done
        self._idle: list[int] = []
        self._woken: set[int] = set()  # workers that have a chunk after they were idle: they may have died long before
        self._deaths: Counter[int] = Counter()  # by chunk
        self._stillborn = 0  # workers that died before they were ready, one after the other
        self.done = self.died = 0

    def run(self) -> None:
        """Returns when all is done. Raises UserError or RunFailed."""
        for _ in range(min(self._pool.size, self._left)):
            self._pool.start()
        idle_since_s = time.monotonic()
        while self._left:
            for event in self._pool.events(_WAIT_S):
                self._take(event)
            if self._at:
                idle_since_s = time.monotonic()
            elif time.monotonic() - idle_since_s > _IDLE_S:
                idle_since_s = time.monotonic()
                self._progress.say("waiting", "no worker has begun yet: is there room for one?")

    def _take(self, event: Event) -> None:
        worker = event.worker
        if event.kind == "user_error":
            raise UserError(event.text)
        if event.kind == "fault":
            raise RunFailed(event.text)
        if event.kind == "ready":
            self._stillborn = 0
            self._progress.began()
            self._give(worker)
        elif event.kind == "progress":
            self._partly[worker] = event.count
        elif event.kind == "done":
            _, positions = self._at.pop(worker)
            self._partly.pop(worker, None)
            self._woken.discard(worker)
            self._sink.note(positions)
            self.done += len(positions)
            self._left -= 1
            self._give(worker)
        else:
            self._bury(worker, event.text)
        self._progress.show(self.done + sum(self._partly.values()))

    def _give(self, worker: int) -> None:
        if not self._waiting:
            self._idle.append(worker)  # it may yet be of use, when another one dies
            return
        self._at[worker] = self._waiting.popleft()
        positions = self._at[worker][1]
        self._pool.give(worker, positions, self._sink.places(positions))

    def _bury(self, worker: int, how: str) -> None:
        """A worker has died: what it had is done again, and another one takes its place."""
        self.died += 1
        self._partly.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        lost = self._at.pop(worker, None)
        if lost is None:
            self._stillborn += 1
            if self._stillborn >= MOST_DEATHS:
                raise RunFailed(f"{MOST_DEATHS} workers ended {how} before they had begun: try a smaller --workers")
        else:
            chunk, positions = lost
            self._deaths[chunk] += worker not in self._woken
            if self._deaths[chunk] >= MOST_DEATHS:
                index = self._sink.job.index
                raise RunFailed(
                    f"{MOST_DEATHS} workers ended over the frames {index(positions[0])} to {index(positions[-1])}, the "
                    f"last one {how}: leave these out by --first and --last, or try another engine"
                )
            self._waiting.appendleft(lost)
        if self._idle and self._waiting:
            self._woken.add(self._idle[-1])
            self._give(self._idle.pop())
        if self._waiting:
            self._pool.start()
