"""The develop stage as a real process; the test plays grab and the publisher."""

import os
import select
import subprocess
import sys
import time

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.bayer import pack
from ispeed.engines.reference import classic_reference
from ispeed.stream.channel import Channel
from ispeed.stream.frame import FLAG_WHITE_BALANCE_GIVEN, FrameHeader, FrameRecord
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Ring, Word

FORMAT = RawFormat(64, 48, "BayerRG12", 64.0)
SLOTS = 8
STREAM_ID = 0x1234_5678_9ABC_DEF0


class Bench:
    """Rings, events and one develop process at a time."""

    def __init__(self, white_balance=(1.5, 1.0, 2.0)):
        self.raw = Ring.create("raw", SLOTS, FORMAT.payload_size, STREAM_ID)
        self.srgb = Ring.create("srgb", SLOTS, FORMAT.width * FORMAT.height * 3, STREAM_ID)
        self.events = [os.eventfd(0) for _ in range(3)]
        self.grants, self.returns = GrantQueue(self.raw), ReturnQueue(self.raw)
        self.white_balance = white_balance
        self.process = None
        self.epoch = 0

    def start(self, engine="classic", run=True):
        self.channel, theirs = Channel.pair()
        command = [sys.executable, "-m", "ispeed.stream.develop", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        theirs.close()
        self.epoch += 1
        config = {
            "engine": engine,
            "engine_mode": "throughput",
            "engine_precision": "auto",
            "threads": 1,
            "white_balance": self.white_balance,
            "colour_matrix": None,
            "defects": [],
            "flat_field": None,
        }
        self.channel.call("open", 60, config=config)
        answer = self.channel.call(
            "prepare",
            60,
            fds=(self.raw.fd, self.srgb.fd, *self.events),
            geometry={"camera": 3, "offset_x": 2, "offset_y": 4},
            format=FORMAT.to_json(),
            stream_id=STREAM_ID,
            epoch=self.epoch,
        )
        if run:
            self.run()
        return answer

    def run(self):
        self.channel.send({"cmd": "run", "call": 0})

    def grant(self, samples, slot, frame_id, **fields):
        self.raw.slot(slot)[:] = pack(samples, FORMAT)
        values = {"flags": 0, "device_timestamp": 5, "grabbed_ns": 6, "segment": 1, "exposure_us": 50.0, "gain_db": 3.0}
        self.grants.put(
            FrameRecord(slot=slot, frame_id=frame_id, size=FORMAT.payload_size, grant=frame_id, **{**values, **fields})
        )
        os.eventfd_write(self.events[0], 1)

    def wait_developed(self, count):
        while self.raw.words[Word.DEVELOPED] < count:
            assert select.select([self.events[2]], [], [], 20)[0], "nothing was developed"
            os.eventfd_read(self.events[2])

    def wait_returned(self):
        """Until every slot is given back, which comes after the frame is announced."""
        deadline = time.monotonic() + 20
        while len(self.grants):
            assert time.monotonic() < deadline, "slots were not given back"
            time.sleep(0.001)

    def header(self, sequence):
        return FrameHeader.unpack(self.srgb.memory, self.srgb.header_offset(sequence % SLOTS))

    def picture(self, sequence):
        return self.srgb.slot(sequence % SLOTS).reshape(FORMAT.height, FORMAT.width, 3).copy()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
            self.process.stderr.close()
            self.channel.close()
        del self.grants, self.returns  # their views would keep the mapping
        for ring in (self.raw, self.srgb):
            ring.close()
        for fd in self.events:
            os.close(fd)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


def frame(seed):
    rows, columns = np.mgrid[0 : FORMAT.height, 0 : FORMAT.width]
    smooth = 800 + 600 * np.sin(columns / 9 + seed) + 500 * np.cos(rows / 7 - seed)
    return np.clip(smooth, 64, 4095).astype(np.uint16)


def test_it_takes_nothing_before_it_is_told_to_run(bench):
    """Another process of the same camera may still read the queue, which has one reader."""
    bench.start(run=False)
    bench.grant(frame(0), 0, 0)
    time.sleep(0.5)
    assert (len(bench.grants), bench.raw.words[Word.DEVELOPED]) == (1, 0)
    bench.run()
    bench.wait_developed(1)
    bench.wait_returned()


def test_one_that_is_never_told_to_run_ends_with_its_channel(bench):
    bench.start(run=False)
    bench.channel.close()
    assert bench.process.wait(20) == 0
    assert bench.process.stderr.read() == ""


def test_frames_are_developed_in_order_with_their_own_headers(bench):
    answer = bench.start()
    assert answer["engine"]["name"] == "classic"
    assert answer["depth"] >= 2
    for n in range(5):
        bench.grant(frame(n), slot=(n * 3) % SLOTS, frame_id=100 + n, exposure_us=10.0 * n)
    bench.wait_developed(5)
    for n in range(5):
        header = bench.header(n)
        assert (header.sequence, header.frame_id, header.generation) == (n, 100 + n, 2 * n + 2)
        assert (header.stream_id, header.camera, header.offset_x, header.offset_y) == (STREAM_ID, 3, 2, 4)
        assert (header.exposure_us, header.gain_db, header.black_level) == (10.0 * n, 3.0, 64.0)
        assert header.flags & FLAG_WHITE_BALANCE_GIVEN
        assert header.grabbed_ns <= header.develop_start_ns <= header.developed_ns
        expected = classic_reference(pack(frame(n), FORMAT), FORMAT, (1.5, 1.0, 2.0))
        assert np.abs(bench.picture(n).astype(int) - expected).max() <= 2
    bench.wait_returned()
    assert bench.returns.take_all() == [((n * 3) % SLOTS, 1) for n in range(5)]
    assert len(bench.grants) == 0


def test_it_waits_for_a_publisher_that_is_a_whole_ring_behind(bench):
    bench.start()
    for n in range(SLOTS):
        bench.grant(frame(n), slot=n, frame_id=n)
    bench.wait_developed(SLOTS - 1)
    time.sleep(0.3)
    assert bench.raw.words[Word.DEVELOPED] == SLOTS - 1
    bench.raw.words[Word.PUBLISHED] = 1
    bench.wait_developed(SLOTS)


def test_a_failing_engine_counts_its_frame_gives_the_slot_back_and_ends_the_process(bench):
    bench.start()
    bench.grant(frame(0), slot=0, frame_id=1)
    bench.wait_developed(1)
    bench.grants.put(FrameRecord(99999, 0, 2, 0, 0, 1, 0, 0.0, 0.0, 1))  # a slot that does not exist
    os.eventfd_write(bench.events[0], 1)
    assert bench.process.wait(20) == 1
    line = bench.process.stderr.read()
    assert line.startswith("isp-stream: the develop stage failed")
    assert line.count("\n") == 1
    assert bench.raw.words[Word.ENGINE_ERROR] == 1
    assert bench.returns.take_all() == [(0, 1), (99999, 1)]
    assert bench.raw.words[Word.GRANT_HEAD] == bench.raw.words[Word.DEVELOPED] + bench.raw.words[Word.ENGINE_ERROR]


def test_a_restarted_process_goes_on_with_sequence_and_white_balance():
    bench = Bench(white_balance=None)
    try:
        bench.start()
        tinted = frame(0)
        tinted[0::2, 0::2] //= 2  # red sites: grey world must lift them
        for n in range(3):
            bench.grant(tinted, slot=n, frame_id=n)
        bench.wait_developed(3)
        gains = bench.header(2).wb_r
        assert gains > 1.2
        bench.process.kill()
        bench.process.wait()
        bench.process.stderr.close()
        bench.channel.close()
        bench.start()
        bench.grant(frame(0), slot=3, frame_id=9)
        bench.wait_developed(4)
        assert bench.header(3).sequence == 3
        assert abs(bench.header(3).wb_r - gains) < 0.3 * (gains - 1)  # smoothed from the old gains, not started anew
    finally:
        bench.close()


def test_the_end_of_the_main_process_is_a_clean_end(bench):
    bench.start()
    bench.channel.close()
    assert bench.process.wait(20) == 0
    assert bench.process.stderr.read() == ""
