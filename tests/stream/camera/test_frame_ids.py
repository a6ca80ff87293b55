from __future__ import annotations

import pytest

from ispeed.stream.camera.frame_ids import LATE_WINDOW, FrameIds


def feed(raws):
    ids = FrameIds()
    return [ids.feed(raw) for raw in raws]


def test_consecutive_ids_have_no_gaps_and_the_first_may_be_any():
    assert feed([7, 8, 9]) == [(7, 0), (8, 0), (9, 0)]
    assert feed([0, 1]) == [(0, 0), (1, 0)]


def test_gap_is_the_number_of_ids_left_out():
    assert feed([1, 5, 6]) == [(1, 0), (5, 3), (6, 0)]


def test_16_bit_ids_skip_zero():
    assert feed([65534, 65535, 1, 2]) == [(65534, 0), (65535, 0), (65536, 0), (65537, 0)]
    assert feed([65534, 2]) == [(65534, 0), (65537, 2)]


def test_16_bit_ids_that_use_zero():
    assert feed([65535, 0, 1]) == [(65535, 0), (65536, 0), (65537, 0)]
    assert feed([0, 65535 - (1 << 16) + (1 << 16), 0]) == [(0, 0), (65535, 65534), (65536, 0)]


def test_32_bit_ids_wrap_to_zero():
    top = (1 << 32) - 1
    assert feed([top - 1, top, 0, 1]) == [(top - 1, 0), (top, 0), (top + 1, 0), (top + 2, 0)]


def test_64_bit_ids_pass_both_smaller_ranges_without_a_wrap():
    assert feed([65535, 65536, 65537])[-1] == (65537, 0)
    assert feed([(1 << 32) - 1, 1 << 32])[-1] == (1 << 32, 0)


def test_several_wraps_add_up():
    ids = FrameIds()
    raw, expected = 60000, 60000
    for _ in range(200_000):
        assert ids.feed(raw) == (expected, 0)
        raw, expected = (raw + 1 if raw < 65535 else 1), expected + 1


def test_use_of_zero_is_learnt_when_it_is_seen():
    ids = FrameIds()
    assert [ids.feed(raw) for raw in (65534, 65535, 0, 1)] == [(65534, 0), (65535, 0), (65536, 0), (65537, 0)]
    ids.feed(50_000)
    ids.feed(65_535)
    assert ids.feed(1) == (131_073, 1)  # now 0 is known to be missing


@pytest.mark.parametrize("back", [1, 2, LATE_WINDOW])
def test_an_id_that_was_missed_is_late_and_disturbs_nothing(back):
    expected = [(100, 0), (140, 39), (140 - back, -1), (141, 0)]
    assert feed([100, 140, 140 - back, 141]) == expected


def test_an_id_that_was_missed_before_a_wrap_is_late_after_it():
    assert feed([65534, 1, 65535, 2]) == [(65534, 0), (65536, 1), (65535, -1), (65537, 0)]
    top = (1 << 32) - 1
    assert feed([top - 1, 1, top, 2]) == [(top - 1, 0), (top + 2, 2), (top, -1), (top + 3, 0)]


def test_a_camera_that_counts_anew_goes_on_without_a_gap():
    assert feed([500_000, 1, 2, 3]) == [(500_000, 0), (500_001, 0), (500_002, 0), (500_003, 0)]


@pytest.mark.parametrize("constant", [0, 7, 65_535, (1 << 32) - 1, (1 << 64) - 1])
def test_ids_that_stand_still_are_replaced_by_a_count_and_told_once(constant):
    told = []
    ids = FrameIds(lambda: told.append(1))
    results = [ids.feed(constant) for _ in range(1000)]
    assert [gap for _, gap in results] == [0] * 1000
    numbers = [number for number, _ in results]
    assert numbers == list(range(numbers[0], numbers[0] + 1000))
    assert numbers[-1] < 1 << 64
    assert told == [1]


@pytest.mark.parametrize("period", [2, 20, LATE_WINDOW])
def test_ids_that_begin_anew_after_a_few_are_replaced_by_a_count(period):
    told = []
    ids = FrameIds(lambda: told.append(1))
    assert [ids.feed(number % period) for number in range(1000)] == [(number, 0) for number in range(1000)]
    assert told == [1]


def test_the_same_late_frame_twice_makes_ids_unusable():
    told = []
    ids = FrameIds(lambda: told.append(1))
    assert [ids.feed(raw) for raw in (1, 4, 2, 2)] == [(1, 0), (4, 2), (2, -1), (5, 0)]
    assert told == [1]
    assert ids.feed(700) == (6, 0)


def test_the_id_of_an_incomplete_frame_is_believed_only_where_it_goes_on():
    ids = FrameIds()
    assert ids.feed_incomplete(5) is None  # nothing to compare it with
    ids.feed(999)
    ids.feed(1000)
    for raw in (0, 1, 999, 1000, 1001 + LATE_WINDOW, (1 << 64) - 1):
        assert ids.feed_incomplete(raw) is None
    assert ids.feed_incomplete(1003) == (1003, 2)
    assert ids.feed_incomplete(1002) == (1002, -1)
    assert ids.feed(1004) == (1004, 0)


def test_an_incomplete_frame_behind_a_wrap_is_believed_unless_its_id_is_0():
    ids = FrameIds()
    ids.feed(65_535)
    assert ids.feed_incomplete(0) is None
    assert ids.feed_incomplete(1) == (65_536, 0)
    assert ids.feed(2) == (65_537, 0)


def test_incomplete_frames_count_where_ids_are_unusable():
    ids = FrameIds()
    ids.feed(3)
    assert ids.feed(3) == (4, 0)
    assert ids.feed_incomplete(3) == (5, 0)
    assert ids.feed(3) == (6, 0)
