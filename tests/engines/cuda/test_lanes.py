"""Order, overlap, failures and counting of lanes, on a stand-in for the GPU (see conftest)."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError
from ispeed.engines.cuda.pipeline import LANES, Pipeline
from ispeed.engines.white_balance import CoreInputs

FORMAT = RawFormat(8, 6, "BayerRG8")
SLOTS, BATCH = 8, 3
INPUTS = ("wb_r", "wb_g", "wb_b", "gain_db")


class Slots:
    def __init__(self, size: int) -> None:
        self.slots = SLOTS
        self.memory = np.zeros((SLOTS, 4096), np.uint8)
        self._size = size

    def slot(self, index: int) -> np.ndarray:
        return self.memory[index, : self._size]


class Program:
    """Writes, in place of a picture, the first byte of each raw frame plus the last of its params, in every byte."""

    def __init__(self, network: Network, stream, raw, params, srgb) -> None:
        self._network, self._stream = network, stream
        self._raw, self._params, self._srgb = raw, params, srgb

    def run(self, count: int) -> None:
        if self._network.refuses:
            raise RuntimeError("refused")
        stream, size = self._stream, 8 * 6
        self._network.runs.append((stream.handle, count))

        def compute() -> None:
            stream._device.log.append(("compute", stream.handle))
            assert self._network.gate.wait(20)
            if self._network.fails:
                raise RuntimeError("the GPU failed")
            params = self._params.array.view(np.float32).reshape(-1, len(INPUTS))
            for index in range(count):
                value = int(self._raw.array[index * size]) + int(params[index, 3])
                self._srgb.array[index * size * 3 :][: size * 3] = value

        stream.put(compute)

    def close(self) -> None:
        self._network.closed += 1


class Network:
    """Makes programs, and says what they do."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fails = self.refuses = False
        self.closed = 0
        self.runs: list[tuple[int, int]] = []

    def __call__(self, stream, raw, params, srgb) -> Program:
        return Program(self, stream, raw, params, srgb)


class Setting:
    def __init__(self, device) -> None:
        self.device, self.network = device, Network()
        self.raw, self.srgb = Slots(FORMAT.payload_size), Slots(FORMAT.payload_size * 3)
        for index in range(SLOTS):
            self.raw.slot(index)[:] = 10 * index
        self.pipeline: Pipeline | None = None

    def open(self) -> Pipeline:
        inputs = CoreInputs(INPUTS, (2.0, 1.0, 1.5))
        self.pipeline = Pipeline(
            self.device, "net", FORMAT, BATCH, (self.raw, self.srgb), inputs, len(INPUTS), self.network
        )
        self.device.log.clear()
        return self.pipeline

    def close(self) -> None:
        self.network.gate.set()
        if self.pipeline is not None:
            self.pipeline.close()


@pytest.fixture
def setting(device) -> Iterator[Setting]:
    found = Setting(device)
    yield found
    found.close()


def params(*gain_db: float) -> np.ndarray:
    rows = np.full((len(gain_db), len(INPUTS)), np.nan, np.float32)
    rows[:, 3] = gain_db
    return rows


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to that")


def readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


@pytest.mark.parametrize("captures", [True, False])
def test_every_batch_size_comes_out_in_its_slots(setting: Setting, captures: bool):
    setting.device.captures = captures
    pipeline = setting.open()
    assert pipeline.captured is captures
    runs = len(setting.network.runs)
    for count in (1, 2, 3, 2, 1):
        raw_slots, srgb_slots = list(range(1, 1 + count)), list(range(7, 7 - count, -1))
        ticket = pipeline.develop(raw_slots, srgb_slots, params(*range(count)))
        ticket.wait()
        for index in range(count):
            assert np.all(setting.srgb.slot(srgb_slots[index]) == 10 * raw_slots[index] + index)
        np.testing.assert_array_equal(ticket.white_balance, [[2.0, 1.0, 1.5]] * count)
    assert np.all(setting.srgb.slot(0) == 0)
    assert pipeline.host_copies == 0
    # a captured network is not enqueued again
    assert len(setting.network.runs) == runs + (0 if captures else 5)


def test_a_batch_is_handed_in_while_the_ones_before_it_compute(setting: Setting):
    pipeline = setting.open()
    setting.network.gate.clear()
    tickets = [pipeline.develop([k], [k], params(0)) for k in range(LANES)]
    until(lambda: setting.device.log.count(("compute", LANES - 1)) == 1)
    assert {what for what, _ in setting.device.log} == {"upload", "compute"}  # all computing, none copied out
    assert [ticket.done for ticket in tickets] == [False] * LANES
    with pytest.raises(RuntimeError, match="more than 3 batches in flight"):
        pipeline.develop([3], [3], params(0))
    setting.network.gate.set()
    for ticket in tickets:
        ticket.wait()
    assert [int(setting.srgb.slot(k)[0]) for k in range(LANES)] == [0, 10, 20]


def test_tickets_are_done_in_the_order_of_handing_in(setting: Setting):
    pipeline = setting.open()
    holds = threading.Event()
    setting.device.streams[0].put(lambda: holds.wait(20) and None)
    first, second = (pipeline.develop([k], [k], params(0)) for k in (1, 2))
    until(lambda: ("download", 1) in setting.device.log)
    assert not second.done  # it is, on the GPU, but not its turn
    assert not readable(pipeline.completion_fd)
    holds.set()
    second.wait()
    assert first.done


def test_completion_fd_tells_of_every_batch_and_sleeps_otherwise(setting: Setting):
    pipeline = setting.open()
    fd = pipeline.completion_fd
    assert not readable(fd)
    for _ in range(2):
        ticket = pipeline.develop([1], [1], params(0))
        assert readable(fd, 20)
        assert ticket.done
        assert os.eventfd_read(fd) == 1
        assert not readable(fd)


def test_a_failure_ends_the_engine_once_its_slots_are_left_alone(setting: Setting):
    pipeline = setting.open()
    good = pipeline.develop([1], [1], params(0))
    good.wait()
    setting.network.gate.clear()
    before = pipeline.develop([2], [2], params(0))
    until(lambda: setting.device.log.count(("compute", 1)) == 1)
    setting.network.fails = True
    behind = pipeline.develop([3], [3], params(0))
    setting.network.gate.set()
    for ticket in (before, behind):
        with pytest.raises(RuntimeError, match="the GPU failed"):
            ticket.wait()
        assert ticket.done
    good.wait()
    with pytest.raises(RuntimeError, match="failed before"):
        pipeline.develop([4], [4], params(0))
    assert np.all(setting.srgb.slot(2) == 0)


def test_a_failure_to_enqueue_is_told_by_the_ticket_after_those_before_it(setting: Setting):
    setting.device.captures = False
    pipeline = setting.open()
    setting.network.gate.clear()
    before = pipeline.develop([1], [1], params(5))
    setting.network.refuses = True
    refused = pipeline.develop([2], [2], params(0))
    setting.network.gate.set()
    with pytest.raises(RuntimeError, match="refused"):
        refused.wait()
    before.wait()
    assert np.all(setting.srgb.slot(1) == 15)


def test_closing_waits_for_what_is_in_flight(setting: Setting):
    pipeline = setting.open()
    setting.network.gate.clear()
    tickets = [pipeline.develop([k], [k], params(0)) for k in (1, 2)]
    threading.Timer(0.05, setting.network.gate.set).start()
    pipeline.close()
    assert all(ticket.done for ticket in tickets)
    assert np.all(setting.srgb.slot(2) == 20)
    assert setting.network.closed == LANES
    assert pipeline.completion_fd is None
    pipeline.close()
    with pytest.raises(RuntimeError, match="not prepared"):
        pipeline.develop([1], [1], params(0))


def test_rings_that_cannot_be_locked_are_copied_and_counted(setting: Setting):
    setting.device.locks = False
    pipeline = setting.open()
    for _ in range(2 * LANES):
        pipeline.develop([1, 2, 3], [4, 5, 6], params(1, 2, 3)).wait()
    assert [int(setting.srgb.slot(k)[0]) for k in (4, 5, 6)] == [11, 22, 33]
    assert pipeline.host_copies == 2 * LANES * 3 * 2
    assert np.all(setting.srgb.slot(3) == 0)


def test_missing_params_become_neutral(setting: Setting):
    pipeline = setting.open()
    pipeline.develop([4], [4], params(np.nan)).wait()
    assert np.all(setting.srgb.slot(4) == 40)


@pytest.mark.parametrize("slots", [([], []), ([1, 2, 3, 4], [1, 2, 3, 4]), ([1, 2], [1])])
def test_batches_that_do_not_fit_are_refused(setting: Setting, slots: tuple[list[int], list[int]]):
    pipeline = setting.open()
    with pytest.raises(ValueError, match="1 to 3 raw slots"):
        pipeline.develop(*slots, params(0, 0, 0, 0))
    pipeline.develop([1], [1], params(0)).wait()


def test_a_ring_that_is_refused_leaves_the_other_one_unlocked(setting: Setting):
    setting.srgb = Slots(FORMAT.payload_size)
    with pytest.raises(ValueError, match="every slot needs 144 bytes"):
        setting.open()
    assert not setting.device.locked


@pytest.mark.parametrize("frames", [0, 1, 13, 30])
def test_too_little_memory_is_one_sentence_and_leaves_nothing(setting: Setting, frames: int):
    setting.device.room = frames * FORMAT.payload_size
    with pytest.raises(UserError, match=r"net needs another 1 MiB of GPU memory, and .* MiB are free") as caught:
        setting.open()
    assert "\n" not in str(caught.value)
    assert not setting.device.buffers
    assert not setting.device.locked
