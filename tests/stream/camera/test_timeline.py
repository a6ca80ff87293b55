"""Which id and stamp each frame of a recording has, and when it is due."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.camera.timeline import Timeline
from ispeed.stream.record import RAW_FRAME


def rows(ids: list[int], stamps: list[int], segments: list[int] | None = None, grabbed: list[int] | None = None) -> Any:
    records: npt.NDArray[np.void] = np.zeros(len(ids), RAW_FRAME)
    records["frame_id"], records["device_timestamp"] = ids, stamps
    records["segment"] = segments or 1
    records["grabbed_ns"] = grabbed or stamps
    return records


def dues(timeline: Timeline, count: int, first: int = 0) -> list[int]:
    """When frames are due, ns after the first of them."""
    timeline.start(first)
    times = [timeline.due_ns(number) for number in range(first, first + count)]
    return [time - times[0] for time in times]


def test_ids_and_stamps_are_the_recordings_own_and_go_on_in_the_next_round():
    timeline = Timeline(rows([5, 6, 9], [100, 300, 900]), 5e6, None, 1)
    assert [timeline.frame_id(n) for n in range(7)] == [5, 6, 9, 10, 11, 14, 15]
    # a round of stamps lasts as long as they reach, and a period of 200 ns
    assert [timeline.stamp(n) for n in range(7)] == [100, 300, 900, 1100, 1300, 1900, 2100]


def test_ids_that_begin_anew_go_on_from_those_before():
    records = rows([7, 8, 1, 2, 3, 3], [1, 2, 3, 4, 5, 6], [1, 1, 2, 2, 2, 2])
    timeline = Timeline(records, 100, None, 1)
    assert [timeline.frame_id(n) for n in range(7)] == [7, 8, 9, 10, 11, 12, 13]
    assert timeline.stamp(3) == 4


@pytest.mark.parametrize("ids", [[5, 6, 9], [0, 1, 2], [7, 8, 1, 2]])
def test_after_finds_the_frame_that_follows_an_id(ids):
    segments = [1 + (n > 0 and ids[n] < ids[n - 1]) for n in range(len(ids))]
    timeline = Timeline(rows(ids, list(range(1, len(ids) + 1)), list(np.cumsum(segments))), 100, None, 1)
    for number in range(3 * len(ids)):
        assert timeline.after(timeline.frame_id(number)) == number + 1
        assert timeline.after(timeline.frame_id(number) - 1) == number
    assert timeline.after(0) in (0, 1)


def test_frames_are_due_by_their_stamps_times_the_speed():
    records = rows([1, 2, 3], [10_000, 20_000, 70_000])
    assert dues(Timeline(records, 1e5, None, 1), 5) == [0, 10_000, 60_000, 70_000, 80_000]
    assert dues(Timeline(records, 1e5, None, 4), 5) == [0, 2_500, 15_000, 17_500, 20_000]
    assert dues(Timeline(records, 1e5, None, 1), 3, first=1) == [0, 50_000, 60_000]
    assert Timeline(records, 1e5, None, 4).fps == 4e5


def test_a_given_rate_is_constant_and_can_be_changed():
    timeline = Timeline(rows([1, 2, 3], [10_000, 20_000, 70_000]), 1e5, 1000, 2)
    assert (timeline.rate, timeline.fps) == (1000, 2000)
    assert dues(timeline, 4) == [0, 500_000, 1_000_000, 1_500_000]
    timeline.set_rate(50, number=7)
    assert timeline.due_ns(9) - timeline.due_ns(7) == 20_000_000
    assert timeline.fps == 100


def test_with_speed_0_all_is_due():
    timeline = Timeline(rows([1, 2, 3], [10_000, 20_000, 70_000]), 1e5, None, 0)
    timeline.start(0)
    assert timeline.patient
    assert {timeline.due_ns(n) for n in range(5)} == {0}
    assert timeline.fps == 0


def test_the_time_that_the_camera_was_away_is_left_out():
    records = rows([1, 2, 3, 4], [1000, 2000, 7, 2007], [1, 1, 2, 2])
    assert dues(Timeline(records, 1e6, None, 1), 4) == [0, 1000, 2000, 4000]


def test_a_clock_that_stands_or_falls_back_moves_on_by_a_period():
    assert dues(Timeline(rows([1, 2, 3, 4], [1000, 1000, 500, 2500]), 1e6, None, 1), 4) == [0, 1000, 2000, 4000]


def test_a_clock_of_other_ticks_is_told_by_the_hosts():
    stamps = [5 + 125 * n for n in range(11)]  # 8 ns a tick would be 1 us a frame; it was 20 ms
    grabbed = [20_000_000 * n for n in range(11)]
    timeline = Timeline(rows(list(range(11)), stamps, grabbed=grabbed), None, None, 1)
    assert timeline.fps == pytest.approx(50)
    assert dues(timeline, 3) == pytest.approx([0, 20_000_000, 40_000_000], abs=10)
    # a host that was slow for a moment does not change the clock
    short = Timeline(rows([1, 2], [0, 1_000_000], grabbed=[1, 9_000_000]), None, None, 1)
    assert short.fps == 1000


@pytest.mark.parametrize(("told", "fps", "expected"), [(None, None, 100), (250, None, 250), (None, 50, 50)])
def test_without_stamps_they_are_made_up_from_the_rate(told, fps, expected):
    timeline = Timeline(rows([0, 1, 2], [0, 0, 0]), told, fps, 1)
    assert timeline.fps == expected
    assert timeline.known_rate == (expected != 100)
    assert [timeline.stamp(n) for n in range(4)] == [round(n * 1e9 / expected) for n in range(4)]
    assert dues(timeline, 3) == [round(n * 1e9 / expected) for n in range(3)]


def test_the_usual_rate_is_that_of_most_frames():
    stamps = np.cumsum([0] + [1_000_000] * 8 + [50_000_000]).tolist()
    assert Timeline(rows(list(range(10)), stamps), None, None, 1).fps == 1000


def test_ids_that_no_camera_has_are_refused():
    with pytest.raises(UserError, match="which no camera counts to: it is damaged"):
        Timeline(rows([1, 1 << 63], [1, 2]), 100, None, 1)


def test_stamps_of_any_size_are_taken():
    timeline = Timeline(rows([1, 2], [(1 << 64) - 10, 90], grabbed=[1, 101]), 1e7, None, 1)
    assert dues(timeline, 2) == [0, 100]
    assert [timeline.stamp(n) for n in range(2)] == [(1 << 64) - 10, 90]
    assert all(0 <= timeline.stamp(n) < 1 << 64 for n in range(10))


@pytest.mark.parametrize("speed", [1, 0.001])
def test_stamps_of_a_damaged_file_never_lead_back(speed: float):
    timeline = Timeline(
        rows([1, 2, 3, 4], [1, 1 << 62, 1 << 63, (1 << 63) + 9], grabbed=[1, 2, 3, 4]), None, None, speed
    )
    times = dues(timeline, 8)
    assert times == sorted(times)
