"""Which frames of several cameras belong together."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ispeed.stream.frame import FrameHeader
from ispeed.stream.pairing import IdKeys, Pairing, StampKeys
from ispeed.stream.reader import Frame


class Made(Frame):
    """A frame without pixels."""

    def __init__(self, **header: Any) -> None:
        super().__init__(FrameHeader(**header), np.empty((0, 0, 3), np.uint8))
        self.gone = False

    @property
    def overwritten(self) -> bool:
        return self.gone


class Run:
    """Feeds frames of cameras and keeps what comes out; checks the balance after each."""

    def __init__(
        self, cameras: int = 2, depth: int = 64, tolerance: int = 0, *, ids: bool = False, one_host: bool = True
    ) -> None:
        self.pairing = Pairing(cameras, depth)
        self.keys = IdKeys(cameras, depth, lambda: one_host) if ids else StampKeys(cameras)
        self.pairing.tolerance = tolerance
        self.received = [0] * cameras
        self.sets: list[tuple[Any, ...]] = []

    def feed(self, camera: int, *frames: Made) -> Run:
        for frame in frames:
            self.received[camera] += 1
            for owner, key, ready in self.keys.feed(camera, frame):
                self.pairing.add(owner, key, ready)
            while found := self.pairing.next():
                self.sets.append(found)
            self.balance()
        return self

    def stamps(self, camera: int, *stamps: int) -> Run:
        return self.feed(camera, *(Made(device_timestamp=stamp) for stamp in stamps))

    def balance(self) -> None:
        p = self.pairing
        waiting = map(sum, zip(p.waiting, self.keys.waiting, strict=True))
        parts = zip(self.received, p.unpaired, p.overwritten, waiting, strict=True)
        for received, unpaired, overwritten, waits in parts:
            assert received == p.paired + unpaired + overwritten + waits

    @property
    def paired_stamps(self) -> list[tuple[int, ...]]:
        return [tuple(frame.device_timestamp for frame in found) for found in self.sets]

    @property
    def paired_ids(self) -> list[tuple[int, ...]]:
        return [tuple(frame.frame_id for frame in found) for found in self.sets]


def test_frames_within_the_tolerance_belong_together():
    run = Run(tolerance=4).stamps(0, 100, 110, 120).stamps(1, 103, 107, 124)
    assert run.paired_stamps == [(100, 103), (110, 107), (120, 124)]
    assert run.pairing.unpaired == [0, 0]


def test_frames_beyond_it_are_given_up_once_a_newer_one_shows_that_none_comes():
    run = Run(tolerance=4).stamps(0, 100, 110, 120)
    assert run.pairing.waiting == [3, 0]
    run.stamps(1, 115)
    assert (run.paired_stamps, run.pairing.unpaired, run.pairing.waiting) == ([], [2, 1], [1, 0])
    run.stamps(1, 121)
    assert (run.paired_stamps, run.pairing.unpaired) == ([(120, 121)], [2, 1])


def test_a_frame_that_one_camera_lost_leaves_its_partner_alone():
    run = Run(tolerance=4).stamps(0, 10, 20, 30, 40).stamps(1, 11, 31, 41)
    assert run.paired_stamps == [(10, 11), (30, 31), (40, 41)]
    assert run.pairing.unpaired == [1, 0]


def test_three_cameras_need_all_three():
    run = Run(3, tolerance=4).stamps(0, 10, 20).stamps(2, 12, 22).stamps(1, 20)
    assert run.paired_stamps == [(20, 20, 22)]
    assert run.pairing.unpaired == [1, 0, 1]


def test_the_oldest_is_given_up_when_too_many_wait():
    run = Run(depth=3, tolerance=4).stamps(0, 10, 20, 30, 40, 50).stamps(1, 30)
    assert run.paired_stamps == [(30, 30)]
    assert run.pairing.unpaired == [2, 0]
    assert run.pairing.waiting == [2, 0]


def test_what_is_overwritten_while_it_waits_is_no_part_of_a_set():
    frames = [Made(device_timestamp=stamp) for stamp in (10, 20)]
    run = Run(tolerance=4).feed(0, *frames)
    frames[0].gone = True
    run.stamps(1, 10, 20)
    assert run.paired_stamps == [(20, 20)]
    assert (run.pairing.overwritten, run.pairing.unpaired) == ([1, 0], [0, 1])


def test_a_clock_that_begins_anew_leaves_nothing_of_before():
    run = Run(tolerance=4).stamps(0, 1000, 1010, 5).stamps(1, 6)
    assert run.paired_stamps == [(5, 6)]
    assert run.pairing.unpaired == [2, 0]


@pytest.mark.parametrize("seed", range(20))
def test_the_account_balances_whatever_comes(seed):
    rng = random.Random(seed)
    run, behind = Run(3, depth=rng.randint(2, 8), tolerance=rng.randint(3, 20)), [0, 0, 0]
    for tick in range(100, 300):
        for camera in range(3):
            behind[camera] += 500 * (rng.random() < 0.002)  # its clock begins anew
            frame = Made(device_timestamp=10 * tick + rng.randint(0, 3) - behind[camera])
            frame.gone = rng.random() < 0.1
            for _ in range(rng.random() < 0.9):  # some never come
                run.feed(camera, frame)  # balances after each
    stamps = run.paired_stamps
    assert stamps
    assert all(max(found) - min(found) <= run.pairing.tolerance for found in stamps)


# ---- frame ids --------------------------------------------------------------------------------------------------


def frames(ids: range, segment: int = 1, arrive_at: int = 0, stream_id: int = 7, up_ns: int = 0) -> list[Made]:
    """Frames that arrive 2 ms apart, each up to 0.8 ms late, at a host that began `up_ns` before all time."""
    rng = random.Random(ids.start + segment)
    return [
        Made(
            frame_id=number,
            segment=segment,
            stream_id=stream_id,
            grabbed_ns=(arrive_at + place) * 2_000_000 + rng.randrange(800_000) + up_ns,
            realtime_offset_ns=-up_ns,
        )
        for place, number in enumerate(ids)
    ]


def alternately(run: Run, first: list[Made], second: list[Made]) -> None:
    """In the order of their arrival."""
    both = [(frame.time_ns, 0, frame) for frame in first] + [(frame.time_ns, 1, frame) for frame in second]
    for _, camera, frame in sorted(both, key=lambda entry: entry[0]):
        run.feed(camera, frame)


def test_equal_ids_belong_together():
    run = Run(ids=True).feed(0, *frames(range(1, 6))).feed(1, *frames(range(3, 8)))
    assert run.paired_ids == [(3, 3), (4, 4), (5, 5)]
    assert run.pairing.unpaired == [2, 0]


def test_a_camera_that_comes_back_counts_anew_and_is_paired_again():
    run = Run(ids=True)
    alternately(run, frames(range(1, 200)), frames(range(1, 60)))
    assert run.paired_ids[-1] == (59, 59)
    back = frames(range(1, 100), segment=2, arrive_at=299)  # with the frame of id 300 of the other
    alternately(run, frames(range(200, 400), arrive_at=199), back)
    assert run.paired_ids[59:] == [(number + 299, number) for number in range(1, 100)]
    assert run.pairing.unpaired[1] == 0


def test_cameras_that_all_came_back_count_alike_again():
    run = Run(ids=True)
    alternately(run, frames(range(100, 150)), frames(range(100, 150)))
    both = [frames(range(1, 30), stream_id=8, arrive_at=2000) for _ in range(2)]
    alternately(run, *both)
    assert run.paired_ids[50:] == [(number, number) for number in range(1, 30)]
    assert run.pairing.unpaired == [0, 0]


def test_a_camera_that_was_back_before_we_looked_is_paired_by_arrival():
    run = Run(ids=True)
    alternately(run, frames(range(500, 600), arrive_at=0), frames(range(11, 111), segment=3, arrive_at=0))
    assert run.paired_ids == [(number + 489, number) for number in range(11, 111)]


def test_an_acquisition_of_a_few_frames_is_accounted_for():
    run = Run(ids=True)
    alternately(run, frames(range(1, 100)), frames(range(1, 20)))
    short = frames(range(1, 4), segment=2, arrive_at=120)
    again = frames(range(1, 60), segment=3, arrive_at=200)
    alternately(run, frames(range(100, 300), arrive_at=99), [*short, *again])
    assert run.paired_ids[-59:] == [(number + 200, number) for number in range(1, 60)]
    assert sum(run.keys.waiting) == 0


@pytest.mark.parametrize("burst", [1, 8, 9, 16, 40])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_it_is_all_one_how_many_of_each_are_read_at_a_time(burst, order):
    run = Run(ids=True)
    alternately(run, frames(range(1, 60)), frames(range(1, 60)))
    run.feed(0, *frames(range(60, 300), arrive_at=59))
    sides = frames(range(300, 700), arrive_at=299), frames(range(1, 401), segment=2, arrive_at=299)
    for start in range(0, 400, burst):
        for camera in order:
            run.feed(camera, *sides[camera][start : start + burst])
    assert run.paired_ids[59:] == [(number + 299, number) for number in range(1, 401)]
    assert sum(run.keys.waiting) == 0


def test_it_waits_until_the_others_were_read_as_far_and_then_for_nothing_more():
    run = Run(ids=True)
    alternately(run, frames(range(1, 60)), frames(range(1, 60)))
    run.feed(1, *frames(range(1, 15), segment=2, arrive_at=299))
    assert run.keys.waiting == [0, 14]
    run.feed(0, *frames(range(60, 309), arrive_at=59))
    assert run.keys.waiting == [0, 14]  # the ninth may belong to the frame after
    run.feed(0, *frames(range(309, 310), arrive_at=308))
    assert run.keys.waiting == [0, 0]
    assert run.paired_ids[59:] == [(number + 299, number) for number in range(1, 11)]


def test_frames_that_came_while_the_others_lost_theirs_say_nothing():
    run = Run(ids=True)
    alternately(run, frames(range(1, 300)), frames(range(1, 60)))
    others = [*frames(range(300, 310), arrive_at=299), *frames(range(350, 450), arrive_at=349)]
    alternately(run, others, frames(range(1, 101), segment=2, arrive_at=319))
    assert run.paired_ids[59:] == [(number + 319, number) for number in range(31, 101)]


def test_few_frames_wait_for_their_keys():
    run = Run(ids=True, depth=30)
    alternately(run, frames(range(1, 60)), frames(range(1, 60)))
    run.feed(1, *frames(range(1, 101), segment=2, arrive_at=299))  # of the other none comes
    assert (run.keys.waiting, run.pairing.unpaired) == ([0, 30], [0, 70])
    run.feed(0, *frames(range(350, 400), arrive_at=349))
    assert run.paired_ids[59:] == [(number + 299, number) for number in range(71, 101)]


def test_a_lone_frame_of_an_acquisition_is_given_up():
    run = Run(ids=True)
    alternately(run, frames(range(1, 60)), frames(range(1, 20)))
    lone, back = frames(range(1, 2), segment=2, arrive_at=65), frames(range(1, 60), segment=3, arrive_at=70)
    alternately(run, frames(range(60, 200), arrive_at=59), [*lone, *back])
    assert run.paired_ids[19:] == [(number + 70, number) for number in range(1, 60)]
    assert run.pairing.unpaired[1] == 1


def test_of_three_cameras_one_that_counts_on_is_enough():
    run = Run(3, ids=True)
    for place in range(1, 60):
        for camera in range(3):
            run.feed(camera, *frames(range(place, place + 1), arrive_at=place))
    for camera in (2, 1):  # both are back, and read ahead
        run.feed(camera, *frames(range(1, 41), segment=2, arrive_at=100))
    run.feed(0, *frames(range(60, 160), arrive_at=60))
    assert run.paired_ids[59:] == [(number + 99, number, number) for number in range(1, 41)]


def test_between_two_hosts_arrivals_are_compared_by_real_time():
    run = Run(ids=True, one_host=False)
    day_ns = 86_400_000_000_000
    alternately(run, frames(range(1, 200)), frames(range(1, 60), up_ns=day_ns))
    back = frames(range(1, 100), segment=2, arrive_at=299, up_ns=day_ns)
    alternately(run, frames(range(200, 400), arrive_at=199), back)
    assert run.paired_ids[59:] == [(number + 299, number) for number in range(1, 100)]
