"""A stand-in for a GPU, because the machines that run these tests have none.

What it keeps of a GPU: streams run beside each other, each in its own order; calls that put work on one return at once;
an error shows only when somebody waits. So the order of lanes, tickets and failures is tested here; that CUDA does what
`Device` says is tested in tests/gpu.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ispeed.engines.cuda.device import Bytes, OutOfDeviceMemory


class StandInBuffer:
    def __init__(self, device: StandIn, size: int) -> None:
        self.array, self.address, self._device = np.zeros(size, np.uint8), 4096, device

    def free(self) -> None:
        self._device.buffers.remove(self)


class StandInEvent:
    def __init__(self) -> None:
        self.reached, self.error = threading.Event(), None

    def synchronize(self) -> None:
        assert self.reached.wait(20)
        if self.error is not None:
            raise self.error


class StandInGraph:
    def __init__(self, stream: StandInStream, work: list[Callable[[], None]]) -> None:
        self._stream, self._work = stream, work
        self.freed = False

    def launch(self) -> None:
        assert not self.freed
        for item in self._work:
            self._stream.put(item)

    def free(self) -> None:
        self.freed = True


class StandInStream:
    """A thread that does what is put on it, one thing after the other, until one fails."""

    def __init__(self, device: StandIn, number: int) -> None:
        self.handle, self._device = number, device
        self._work: queue.SimpleQueue[tuple[Callable[[], None], bool] | None] = queue.SimpleQueue()
        self._captured: list[Callable[[], None]] | None = None
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=f"stand-in stream {number}")
        self.thread.start()

    def put(self, work: Callable[[], None]) -> None:
        if self._captured is not None:
            self._captured.append(work)
        else:
            self._work.put((work, False))

    def upload(self, target: StandInBuffer, offset: int, source: Bytes) -> None:
        def copy() -> None:
            self._device.log.append(("upload", self.handle))
            target.array[offset : offset + source.size] = source

        self.put(copy)

    def download(self, source: StandInBuffer, offset: int, target: Bytes) -> None:
        def copy() -> None:
            self._device.log.append(("download", self.handle))
            target[:] = source.array[offset : offset + target.size]

        self.put(copy)

    def record(self, event: StandInEvent) -> None:
        event.reached.clear()
        self._work.put((lambda: self._reach(event), True))

    def synchronize(self) -> None:
        event = StandInEvent()
        self.record(event)
        event.synchronize()

    def capture(self, work: Callable[[], None]) -> StandInGraph | None:
        if not self._device.captures:
            return None
        self._captured = []
        work()
        graph, self._captured = StandInGraph(self, self._captured), None
        self._device.graphs.append(graph)
        return graph

    def end(self) -> None:
        self._work.put(None)
        self.thread.join()

    def _reach(self, event: StandInEvent) -> None:
        event.error = self.error
        event.reached.set()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, even_after_a_failure = item
            try:
                if self.error is None or even_after_a_failure:
                    work()
            except Exception as error:
                self.error = error


class StandIn:
    """See `Device`.

    Attributes:
        room: Bytes that may be allocated.
        locks: Whether memory can be page-locked.
        captures: Whether work can be captured.
        log: What the streams did, in the order in which they did it: (what, stream).
        inside: Threads that have entered and not left.
    """

    def __init__(self) -> None:
        self.room, self.locks, self.captures = 1 << 30, True, True
        self.log: list[tuple[str, int]] = []
        self.streams: list[StandInStream] = []
        self.buffers: list[StandInBuffer] = []
        self.graphs: list[StandInGraph] = []
        self.locked: list[tuple[int, int]] = []
        self.inside: set[int] = set()

    def enter(self) -> None:
        self.inside.add(threading.get_ident())

    def leave(self) -> None:
        self.inside.remove(threading.get_ident())

    def lock(self, memory: Bytes) -> bool:
        if self.locks:
            self.locked.append((memory.ctypes.data, memory.size))
        return self.locks

    def unlock(self, memory: Bytes) -> None:
        self.locked.remove((memory.ctypes.data, memory.size))

    def host_buffer(self, size: int) -> Bytes:
        return np.zeros(size, np.uint8)

    def buffer(self, size: int) -> StandInBuffer:
        if self.room < size:
            raise OutOfDeviceMemory(size)
        self.room -= size
        self.buffers.append(StandInBuffer(self, size))
        return self.buffers[-1]

    def stream(self) -> StandInStream:
        self.streams.append(StandInStream(self, len(self.streams)))
        return self.streams[-1]

    def event(self) -> StandInEvent:
        return StandInEvent()

    def memory(self) -> tuple[int, int]:
        return self.room, 1 << 30

    def close(self) -> None:
        for stream in self.streams:
            stream.end()


@pytest.fixture
def device() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()
    assert not stand_in.inside
    assert not stand_in.buffers
    assert not stand_in.locked
    assert all(graph.freed for graph in stand_in.graphs)
