"""Several batches in flight: the real Developer on real rings and queues, in this process.

The engine is a stand-in, because only one can finish its batches in whatever order a test wants, and fail when told to.
"""

from __future__ import annotations

import os
import random
import threading
import time

import numpy as np
import pytest

from ispeed.engines import EngineInfo, RawFormat, UserError
from ispeed.stream.custody import Custody
from ispeed.stream.develop import Developer
from ispeed.stream.frame import FrameHeader, FrameRecord
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Ring, Word

FORMAT = RawFormat(16, 8, "BayerRG8")
SLOTS = 8


class Batch:
    """A ticket that is done when the test says so."""

    def __init__(self, engine, raw_slots, srgb_slots, params):
        self.engine, self.raw_slots, self.srgb_slots, self.params = engine, raw_slots, srgb_slots, params
        self.done, self.error = False, None
        self.white_balance = np.ones((len(raw_slots), 3), np.float32)

    def finish(self, error=None):
        if error is None:
            for raw, srgb in zip(self.raw_slots, self.srgb_slots, strict=True):
                self.engine.srgb.slot(srgb)[:] = self.engine.raw.slot(raw)[0]
        self.error, self.done = error, True
        os.eventfd_write(self.engine.completion_fd, 1)

    def wait(self):
        assert self.done, "it was waited for although it was not done"
        if self.error:
            raise self.error


class LanesEngine:
    """Learns its lanes and batch size only in `prepare`, as an engine may."""

    def __init__(self, lanes, batch):
        self._after = EngineInfo("lanes", "stand-in", "fp32", ("exposure_us", "wb_r"), max_batch=batch, lanes=lanes)
        self.info = EngineInfo("lanes", "stand-in", "fp32", ("exposure_us", "wb_r"))
        self.completion_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.batches = []
        self.refuses = None
        self.most = 0

    def prepare(self, raw_format, batch, raw_ring, srgb_ring):
        self.raw, self.srgb, self.info = raw_ring, srgb_ring, self._after

    def develop(self, raw_slots, srgb_slots, params):
        if self.refuses:
            raise self.refuses
        self.batches.append(Batch(self, raw_slots, srgb_slots, params))
        self.most = max(self.most, sum(not batch.done for batch in self.batches))
        return self.batches[-1]

    def resume(self, white_balance):
        pass

    def close(self):
        os.close(self.completion_fd)


class Rig:
    """Rings, a Developer that runs in a thread, and the test in the place of grab and publisher."""

    def __init__(self, lanes=3, batch=1):
        self.raw = Ring.create("raw", SLOTS, FORMAT.payload_size, 1)
        self.srgb = Ring.create("srgb", SLOTS, FORMAT.width * FORMAT.height * 3, 1)
        self.events = [os.eventfd(0) for _ in range(3)]
        self.grants, self.returns = GrantQueue(self.raw), ReturnQueue(self.raw)
        self.custody = Custody(self.raw)
        self.engine = LanesEngine(lanes, batch)
        settings = {
            "epoch": 1,
            "geometry": {"camera": 0, "offset_x": 0, "offset_y": 0},
            "format": FORMAT.to_json(),
            "stream_id": 1,
            "white_balance": None,
            "engine": "lanes",
        }
        fds = [os.dup(fd) for fd in (self.raw.fd, self.srgb.fd, *self.events)]
        self.developer = Developer(self.engine, settings, fds)
        self.error = None
        self.cpu_s = 0.0
        self.granted = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.developer.run()
        except Exception as error:
            self.error = error
        self.cpu_s = time.thread_time()

    def grant(self, count=1):
        for _ in range(count):
            n = self.granted
            self.raw.slot(n % SLOTS)[:] = n % 251
            self.grants.put(FrameRecord(n % SLOTS, 0, 100 + n, 0, 1, 1, FORMAT.payload_size, float(n), 0.0, n))
            self.granted += 1
        os.eventfd_write(self.events[0], 1)

    def until(self, reached):
        deadline = time.monotonic() + 10
        while not reached():
            assert time.monotonic() < deadline, self.counts()
            assert self.error is None, self.error
            time.sleep(0.001)

    def counts(self):
        words = {word.name: self.raw.words[word] for word in Word if self.raw.words[word]}
        return words | {"handed in": len(self.engine.batches)}

    def count(self, word):
        return self.raw.words[word]

    def header(self, sequence):
        return FrameHeader.unpack(self.srgb.memory, self.srgb.header_offset(sequence % SLOTS))

    def require_frame(self, sequence):
        header = self.header(sequence)
        assert (header.sequence, header.frame_id, header.generation) == (sequence, 100 + sequence, 2 * sequence + 2)
        assert self.srgb.holds(sequence % SLOTS, 2 * sequence + 2)
        assert set(self.srgb.slot(sequence % SLOTS)) == {sequence % 251}

    def end(self):
        self.developer.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def close(self):
        for batch in self.engine.batches:
            if not batch.done:
                batch.finish()
        self.end()
        self.developer.close()
        del self.grants, self.returns
        for ring in (self.raw, self.srgb):
            ring.close()
        for fd in self.events:
            os.close(fd)


@pytest.fixture
def rigs():
    made = []

    def make(**options):
        made.append(Rig(**options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def test_each_frame_goes_to_a_free_lane_while_others_are_developed(rigs):
    rig = rigs(lanes=3)
    for n in range(3):
        rig.grant()
        rig.until(lambda n=n: len(rig.engine.batches) == n + 1)
    rig.grant()
    time.sleep(0.05)
    assert len(rig.engine.batches) == 3  # the fourth waits for a lane
    assert rig.count(Word.DEVELOPED) == 0
    rig.engine.batches[0].finish()
    rig.until(lambda: len(rig.engine.batches) == 4)
    assert rig.count(Word.DEVELOPED) == 1
    assert [batch.raw_slots for batch in rig.engine.batches] == [[0], [1], [2], [3]]
    assert [batch.srgb_slots for batch in rig.engine.batches] == [[0], [1], [2], [3]]


def test_batches_that_are_done_out_of_order_are_finished_in_order(rigs):
    rig = rigs(lanes=3)
    rig.grant(3)
    rig.until(lambda: len(rig.engine.batches) == 3)
    rig.engine.batches[2].finish()
    rig.engine.batches[1].finish()
    time.sleep(0.05)
    assert rig.count(Word.DEVELOPED) == 0
    assert rig.returns.take_all() == []  # a slot is kept as long as its frame is in flight
    assert rig.custody.held == 3
    rig.engine.batches[0].finish()
    rig.until(lambda: not rig.custody.busy)
    for sequence in range(3):
        rig.require_frame(sequence)
    assert rig.returns.take_all() == [(0, 1), (1, 1), (2, 1)]


def test_any_order_of_completions_gives_every_frame_once(rigs):
    rig, order = rigs(lanes=3, batch=2), random.Random(4)
    finished = 0
    while rig.count(Word.DEVELOPED) < 300:
        published, finished = finished, rig.count(Word.DEVELOPED)
        for sequence in range(published, finished):
            rig.require_frame(sequence)
        rig.raw.words[Word.PUBLISHED] = finished
        rig.returns.take_all()
        if rig.granted < 300 and rig.granted - finished < SLOTS - 2:
            rig.grant(min(order.randint(1, 2), 300 - rig.granted))
        waiting = [batch for batch in rig.engine.batches if not batch.done]
        if waiting:
            order.choice(waiting).finish()
        assert rig.error is None
    assert rig.engine.most == 3
    assert {len(batch.raw_slots) for batch in rig.engine.batches} == {1, 2}
    assert rig.custody.held == 0


def test_parameters_of_a_batch_in_flight_are_not_overwritten(rigs):
    rig = rigs(lanes=3, batch=2)
    rig.grant(1)
    rig.until(lambda: len(rig.engine.batches) == 1)
    rig.grant(4)
    rig.until(lambda: len(rig.engine.batches) == 3)
    exposures = [batch.params[:, 0].tolist() for batch in rig.engine.batches]
    assert exposures == [[0.0], [1.0, 2.0], [3.0, 4.0]]
    assert all(np.isnan(batch.params[:, 1]).all() for batch in rig.engine.batches)  # nobody gave a white balance


def test_a_batch_that_fails_takes_those_behind_it_along_and_none_before(rigs):
    rig = rigs(lanes=3)
    rig.grant(4)
    rig.until(lambda: len(rig.engine.batches) == 3)
    rig.engine.batches[2].finish()
    rig.engine.batches[1].finish(RuntimeError("the device is lost"))
    rig.engine.batches[0].finish()
    rig.thread.join(10)
    assert str(rig.error) == "the device is lost"
    rig.require_frame(0)
    assert rig.count(Word.DEVELOPED) == 1
    failed = rig.count(Word.ENGINE_ERROR)
    assert failed in (2, 3)  # the fourth frame was handed in meanwhile, or not
    assert rig.returns.take_all() == [(slot, 1) for slot in range(1 + failed)]
    assert rig.custody.held == 3 - failed  # what was never handed in waits for the next process
    assert rig.count(Word.GRANT_TAIL) == 1 + failed


def test_an_engine_that_refuses_a_batch_fails_what_is_in_flight(rigs):
    rig = rigs(lanes=3)
    rig.grant(2)
    rig.until(lambda: len(rig.engine.batches) == 2)
    rig.engine.refuses = RuntimeError("no")
    rig.grant()
    rig.thread.join(10)
    assert str(rig.error) == "no"
    assert rig.count(Word.ENGINE_ERROR) == 3
    assert rig.returns.take_all() == [(0, 1), (1, 1), (2, 1)]
    assert not rig.custody.busy


def test_stopping_finishes_what_is_in_flight_and_begins_nothing(rigs):
    rig = rigs(lanes=2)
    rig.grant(3)
    rig.until(lambda: len(rig.engine.batches) == 2)
    rig.developer.stop()
    time.sleep(0.02)
    assert rig.thread.is_alive()
    rig.engine.batches[1].finish()
    rig.engine.batches[0].finish()
    rig.thread.join(10)
    assert not rig.thread.is_alive()
    assert len(rig.engine.batches) == 2
    assert rig.count(Word.DEVELOPED) == 2


def test_frames_in_flight_never_lap_one_that_is_not_published(rigs):
    rig = rigs(lanes=SLOTS + 4)
    rig.grant(SLOTS)
    rig.until(lambda: len(rig.engine.batches) == SLOTS - 1)
    time.sleep(0.05)
    assert len(rig.engine.batches) == SLOTS - 1
    rig.engine.batches[0].finish()
    rig.until(lambda: rig.count(Word.DEVELOPED) == 1)
    time.sleep(0.05)
    assert len(rig.engine.batches) == SLOTS - 1  # developed, but not published
    rig.raw.words[Word.PUBLISHED] = 1
    rig.until(lambda: len(rig.engine.batches) == SLOTS)


def test_busy_time_is_that_in_which_any_lane_was_busy(rigs):
    rig = rigs(lanes=3)
    rig.grant(3)
    rig.until(lambda: len(rig.engine.batches) == 3)
    for n, batch in enumerate(rig.engine.batches[:3]):
        time.sleep(0.02)
        batch.finish()
        rig.until(lambda n=n: rig.count(Word.DEVELOPED) == n + 1)
    first = [rig.header(n) for n in range(3)]
    time.sleep(0.05)  # nothing is in flight: this counts as idle
    rig.grant()
    rig.until(lambda: len(rig.engine.batches) == 4)
    rig.engine.batches[3].finish()
    rig.until(lambda: rig.count(Word.DEVELOPED) == 4)
    rig.until(lambda: not rig.custody.busy)
    last = rig.header(3)
    together = first[2].developed_ns - first[0].develop_start_ns
    assert rig.count(Word.DEVELOP_BUSY_NS) == together + last.developed_ns - last.develop_start_ns


def test_waiting_for_a_lane_costs_no_processor(rigs):
    rig = rigs(lanes=2)
    for granted in (1, 1, 1):  # a lane free, then both taken, then a frame that waits
        rig.grant(granted)
        time.sleep(0.2)
    for batch in rig.engine.batches:
        batch.finish()
    rig.end()
    assert rig.cpu_s < 0.1


class RefusingEngine(LanesEngine):
    """Is opened, and cannot be made ready."""

    def prepare(self, raw_format, batch, raw_ring, srgb_ring):
        raise UserError("the GPU is full")


@pytest.mark.parametrize("asked", ["auto", "x.plan"])
def test_auto_falls_back_to_classic_where_its_plan_cannot_be_made_ready(asked: str, caplog: pytest.LogCaptureFixture):
    raw = Ring.create("raw", SLOTS, FORMAT.payload_size, 1)
    srgb = Ring.create("srgb", SLOTS, FORMAT.width * FORMAT.height * 3, 1)
    events = [os.eventfd(0) for _ in range(3)]
    settings = {
        "epoch": 1,
        "geometry": {"camera": 0, "offset_x": 0, "offset_y": 0},
        "format": FORMAT.to_json(),
        "stream_id": 1,
        "white_balance": None,
        "engine": asked,
        "engine_mode": "throughput",
        "engine_precision": "auto",
        "threads": None,
        "colour_matrix": None,
        "defects": [],
        "flat_field": None,
    }
    fds = [os.dup(fd) for fd in (raw.fd, srgb.fd, *events)]
    try:
        if asked == "auto":
            developer = Developer(RefusingEngine(1, 1), settings, fds)
            assert developer.info.name == "classic"
            assert "the GPU is full" in caplog.text
            developer.close()
        else:
            with pytest.raises(UserError, match="the GPU is full"):
                Developer(RefusingEngine(1, 1), settings, fds)
    finally:
        for fd in events:
            os.close(fd)
        raw.close()
        srgb.close()
