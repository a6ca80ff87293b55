"""Threads of our own for kernels that release the GIL.

Numba's threading layers do not serve a pipeline: OpenMP spins and loses milliseconds beside a busy neighbour, and
`workqueue` aborts the process when two threads use it. Here the caller works too, and whoever is free takes the next
piece, so that a thread held up by a neighbour holds up one piece only.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable


class StripePool:
    """A fixed set of threads that share the pieces of one job with their caller."""

    def __init__(self, threads: int) -> None:
        """Start `threads` - 1 threads; the caller of `run` is the last one."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[int, int], None], itertools.count[int], int] | None] = (
            queue.SimpleQueue()
        )
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"isp-stripes-{index}", daemon=True)
            for index in range(1, threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, piece: Callable[[int, int], None], pieces: int) -> None:
        """Call `piece(number, thread)` for numbers 0 to `pieces` - 1, each once, and return when all are done.

        `thread` counts from 0 (the caller) and is never used twice at a time. Raises what a piece raised.
        """
        numbers = itertools.count()  # next() is atomic under the GIL
        helpers = min(len(self._threads), pieces - 1)
        for _ in range(helpers):
            self._jobs.put((piece, numbers, pieces))
        failure: BaseException | None = None
        try:
            while (number := next(numbers)) < pieces:
                piece(number, 0)
        except BaseException as error:  # the others still work on the caller's memory: wait for them first
            failure = error
        for _ in range(helpers):
            failure = self._done.get() or failure
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the threads. Harmless when called twice."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self, index: int) -> None:
        while (job := self._jobs.get()) is not None:
            piece, numbers, pieces = job
            failure: BaseException | None = None
            try:
                while (number := next(numbers)) < pieces:
                    piece(number, index)
            except BaseException as error:  # handed to the caller, who raises it
                failure = error
            self._done.put(failure)
