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


@pytest.mark.parametrize("back", [0, 1, LATE_WINDOW])
def test_an_id_that_falls_a_little_is_late_and_disturbs_nothing(back):
    assert feed([100, 102, 102 - back, 103]) == [(100, 0), (102, 1), (102 - back, -1), (103, 0)]


def test_a_late_id_just_after_a_wrap_is_late():
    ids = FrameIds()
    ids.feed(65534)
    assert ids.feed(1) == (65536, 1)
    assert ids.feed(2) == (65537, 0)


def test_a_camera_that_counts_anew_goes_on_without_a_gap():
    assert feed([500_000, 1, 2, 3]) == [(500_000, 0), (500_001, 0), (500_002, 0), (500_003, 0)]


def test_ids_that_stay_low_are_not_taken_for_late_ones_for_ever():
    ids = FrameIds()
    ids.feed(20)
    results = [ids.feed(raw) for raw in [1] * (LATE_WINDOW + 1)]
    assert [gap for _, gap in results] == [-1] * LATE_WINDOW + [0]
