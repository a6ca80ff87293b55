"""Batches in flight, finished in the order in which they were handed in.

A thread sleeps on the completion of one batch after the other: nothing polls.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Lane(Protocol):
    """What one batch in flight needs. One thread enqueues, another finishes."""

    @property
    def params(self) -> npt.NDArray[np.float32]:
        """Run-time inputs of the batch: float32 [at least B, K], filled before `enqueue`."""
        ...

    @property
    def gains(self) -> npt.NDArray[np.float32]:
        """White balance of the batch: float32 [at least B, 3], filled before `enqueue`."""
        ...

    def enqueue(self, raw_slots: Sequence[int], srgb_slots: Sequence[int]) -> None:
        """Begin a batch, without waiting for it. Raises what went wrong with that."""
        ...

    def finish(self) -> None:
        """Wait until the batch lies in its slots. Raises what went wrong with it."""
        ...

    def drain(self) -> None:
        """After a failure: wait until nothing of it touches a ring any more. Raises what went wrong."""
        ...


class Surroundings(Protocol):
    """What a thread needs around it to wait for lanes."""

    def enter(self) -> None:
        """Begin, in the calling thread."""
        ...

    def leave(self) -> None:
        """End what `enter` began."""
        ...


class LaneTicket:
    """A batch under way."""

    def __init__(self, lane: Lane, count: int) -> None:
        self._gains = lane.gains[:count]
        self._finished = threading.Event()
        self._error: Exception | None = None

    @property
    def done(self) -> bool:
        """See `Ticket.done`."""
        return self._finished.is_set()

    @property
    def white_balance(self) -> npt.NDArray[np.float32]:
        """See `Ticket.white_balance`."""
        return self._gains

    def wait(self) -> None:
        """See `Ticket.wait`."""
        self._finished.wait()
        if self._error is not None:
            raise self._error

    def finish(self, error: Exception | None) -> None:
        """Let those who wait go on."""
        self._error = error
        self._finished.set()


class Lanes:
    """A ring of lanes, and the thread that waits for their batches.

    The first failure ends it: that batch and all behind it fail with the same exception, once nothing touches their
    slots any more, and no more are taken.

    Attributes:
        completion_fd: An eventfd that becomes readable when a ticket is done.
    """

    def __init__(self, lanes: Sequence[Lane], surroundings: Surroundings | None = None) -> None:
        """Start the thread. The lanes stay the caller's to close, after `close`."""
        self._lanes, self._surroundings = lanes, surroundings
        self._tickets: list[LaneTicket | None] = [None] * len(lanes)
        self._next = 0
        self._failure: Exception | None = None
        self._flights: queue.SimpleQueue[tuple[Lane, LaneTicket, Exception | None] | None] = queue.SimpleQueue()
        self.completion_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A daemon, so that a lane that never finishes does not keep the process alive.
        self._thread: threading.Thread | None = threading.Thread(target=self._wait, name="lanes", daemon=True)
        self._thread.start()

    def free_lane(self) -> Lane:
        """The lane for the next batch.

        Raises:
            RuntimeError: As many batches are in flight as there are lanes, or a batch has failed.
        """
        if self._failure is not None:
            raise RuntimeError(f"the engine failed before ({self._failure}); open a new one") from self._failure
        ticket = self._tickets[self._next]
        if ticket is not None and not ticket.done:
            raise RuntimeError(f"more than {len(self._lanes)} batches in flight: wait for the oldest first")
        return self._lanes[self._next]

    def submit(self, raw_slots: Sequence[int], srgb_slots: Sequence[int]) -> LaneTicket:
        """Hand in a batch, on the lane that `free_lane` gave. What goes wrong is raised by the ticket's `wait`."""
        lane = self.free_lane()
        ticket = LaneTicket(lane, len(raw_slots))
        error: Exception | None = None
        try:
            lane.enqueue(raw_slots, srgb_slots)
        except Exception as failure:  # told where the batch's turn is, so that those before it are finished
            error = failure
        self._tickets[self._next] = ticket
        self._next = (self._next + 1) % len(self._lanes)
        self._flights.put((lane, ticket, error))
        return ticket

    def close(self) -> None:
        """Wait for what is in flight and end the thread. Harmless when called twice."""
        if self._thread is None:
            return
        self._flights.put(None)
        self._thread.join()
        self._thread = None
        os.close(self.completion_fd)

    def _wait(self) -> None:
        """The thread: finishes one batch after the other."""
        surroundings = self._surroundings
        try:
            if surroundings is not None:
                surroundings.enter()
        except Exception as error:
            self._failure, surroundings = error, None
        while (flight := self._flights.get()) is not None:
            lane, ticket, error = flight
            ticket.finish(self._finish(lane, error))
            os.eventfd_write(self.completion_fd, 1)
        if surroundings is not None:
            surroundings.leave()

    def _finish(self, lane: Lane, error: Exception | None) -> Exception | None:
        """Wait for a batch. Returns what went wrong with it, or with one before it."""
        if error is None and self._failure is None:
            try:
                lane.finish()
                return None
            except Exception as failure:
                error = failure
        self._failure = self._failure or error
        with suppress(Exception):  # where every call fails by now, nothing is copied either
            lane.drain()
        return self._failure
