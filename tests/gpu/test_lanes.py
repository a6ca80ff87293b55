"""Lanes on a real GPU: copies beside computing, and nothing that waits in the calling thread."""

from __future__ import annotations

import os
import select

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.cuda.pipeline import LANES, Pipeline
from ispeed.engines.white_balance import CoreInputs

pytestmark = pytest.mark.gpu

torch = pytest.importorskip("torch")

FORMAT = RawFormat(1280, 1024, "BayerRG12p")


@pytest.fixture
def gpu_device():
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    from ispeed.engines.cuda.torch_device import TorchDevice

    device = TorchDevice()
    yield device
    device.close()


class Slow:
    """Computes for tens of milliseconds, then writes the first byte of the raw frame everywhere."""

    def __init__(self, stream, raw, params, srgb) -> None:
        self._stream, self._raw, self._srgb = stream.stream, raw.tensor, srgb.tensor
        # fixed places, because a graph keeps no memory that was there before it
        self._factor, self._product = (torch.zeros(4096, 4096, device="cuda") for _ in range(2))

    def run(self, count: int) -> None:
        with torch.cuda.stream(self._stream):
            for _ in range(40):
                torch.mm(self._factor, self._factor, out=self._product)
            self._srgb.copy_(self._raw[:1].expand_as(self._srgb))

    def close(self) -> None:
        del self._factor, self._product


def test_the_next_frame_is_copied_in_before_this_one_is_computed(gpu_device, rings):
    raw, _ = rings(FORMAT, 2)
    from ispeed.engines.cuda.memory import RegisteredRing

    ring = RegisteredRing(gpu_device, raw, FORMAT.payload_size)
    buffers = [gpu_device.buffer(FORMAT.payload_size) for _ in range(2)]
    streams = [gpu_device.stream() for _ in range(2)]
    slow = Slow(streams[0], buffers[0], None, buffers[0])
    slow.run(1)
    streams[0].synchronize()
    copied, computed = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    streams[0].upload(buffers[0], 0, ring.frame(0))
    slow.run(1)
    computed.record(streams[0].stream)
    streams[1].upload(buffers[1], 0, ring.frame(1))
    copied.record(streams[1].stream)
    for stream in streams:
        stream.synchronize()
    assert copied.elapsed_time(computed) > 0
    ring.close()


def test_batches_are_taken_while_others_compute_and_are_done_in_order(gpu_device, rings):
    raw, srgb = rings(FORMAT, LANES)
    for slot in range(LANES):
        raw.slot(slot)[0] = 10 + slot
    pipeline = Pipeline(gpu_device, "slow", FORMAT, 1, (raw, srgb), CoreInputs(()), 0, Slow)
    try:
        params = np.zeros((1, 0), np.float32)
        tickets = [pipeline.develop([slot], [slot], params) for slot in range(LANES)]
        assert not tickets[-1].done
        seen = 0
        while seen < LANES:
            assert select.select([pipeline.completion_fd], [], [], 20)[0]
            os.eventfd_read(pipeline.completion_fd)
            # asked from the last to the first: one that is done has all those before it done
            done = [ticket.done for ticket in reversed(tickets)][::-1]
            assert done == sorted(done, reverse=True)
            seen = sum(done)
        for slot in range(LANES):
            tickets[slot].wait()
            assert np.all(srgb.slot(slot) == 10 + slot)
        assert pipeline.captured
        assert pipeline.host_copies == 0
    finally:
        pipeline.close()


def test_a_failure_on_the_gpu_is_raised_by_the_ticket(gpu_device, rings):
    raw, srgb = rings(FORMAT, 2)

    class Fails:
        def __init__(self, stream, raw, params, srgb) -> None:
            self.broken, self._stream, self._srgb = False, stream.stream, srgb.tensor
            made.append(self)

        def run(self, count: int) -> None:
            if self.broken:
                raise RuntimeError("the network does not run")
            with torch.cuda.stream(self._stream):  # something, because torch warns of an empty graph
                self._srgb.zero_()

        def close(self) -> None:
            pass

    made: list[Fails] = []
    pipeline = Pipeline(gpu_device, "fails", FORMAT, 1, (raw, srgb), CoreInputs(()), 0, Fails)
    try:
        for lane in pipeline._lanes:
            lane._graphs = [None]
        for program in made:
            program.broken = True
        ticket = pipeline.develop([0], [0], np.zeros((1, 0), np.float32))
        with pytest.raises(RuntimeError, match="does not run"):
            ticket.wait()
        with pytest.raises(RuntimeError, match="failed before"):
            pipeline.develop([1], [1], np.zeros((1, 0), np.float32))
    finally:
        pipeline.close()
