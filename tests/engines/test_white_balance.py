"""Gains from the user, from the camera, and from a grey world."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.engines import PIXEL_FORMATS, RawFormat, UserError
from ispeed.engines.inputs import CCM, iso_of
from ispeed.engines.white_balance import (
    CoreInputs,
    GreyWorld,
    WhiteBalancer,
    camera_gains,
    checked_gains,
    samples_of,
)


def sums(red: float, green: float, blue: float, quads: int = 100, black: float = 0.0) -> np.ndarray:
    means = np.array([red + black, 2 * (green + black), blue + black, 1.0])
    return means * quads


def test_user_gains_are_scaled_to_green():
    assert checked_gains((3.0, 2.0, 4.0)).tolist() == [1.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((2.0, 1.0, 1.5), (2.0, 1.0, 1.5)),
        ((4.0, 2.0, 1.0), (2.0, 1.0, 0.5)),
        ((2.0, 0.0, 1.5), (2.0, 1.0, 1.5)),
        ((2.0, math.nan, 1.5), (2.0, 1.0, 1.5)),
        ((20.0, 1.0, 0.01), (8.0, 1.0, 0.25)),
    ],
)
def test_camera_gains(given: tuple[float, ...], expected: tuple[float, ...]):
    out = np.zeros(3, np.float32)
    assert camera_gains(np.array(given, np.float32), out)
    assert out.tolist() == list(expected)


@pytest.mark.parametrize("given", [(0, 1, 1.5), (2, 1, 0), (math.nan, 1, 1), (2, 1, -1), (math.inf, 1, 1), ()])
def test_camera_without_gains(given: tuple[float, ...]):
    out = np.full(3, 7, np.float32)
    assert not camera_gains(np.array(given, np.float32), out)
    assert out.tolist() == [7, 7, 7]


def test_first_frame_sets_the_gains_at_once():
    world = GreyWorld(100)
    world.update(sums(50, 100, 25, black=16), 16, 1)
    np.testing.assert_allclose(world.gains, [2, 1, 4])


def test_later_frames_are_followed_with_the_time_constant():
    world = GreyWorld(50)
    world.update(sums(100, 100, 100), 0, 1)
    for _ in range(50):
        world.update(sums(50, 100, 100), 0, 1)
    assert world.gains[0] == pytest.approx(1 + (1 - math.exp(-1)), abs=1e-3)
    assert world.gains[2] == pytest.approx(1)


def test_resumed_gains_are_not_thrown_away_by_the_next_frame():
    world = GreyWorld(100)
    world.resume(np.array([2, 1, 3], np.float32))
    world.update(sums(100, 100, 100), 0, 1)
    np.testing.assert_allclose(world.gains, [2 - (1 - math.exp(-0.01)), 1, 3 - 2 * (1 - math.exp(-0.01))], rtol=1e-5)


@pytest.mark.parametrize("frame", [sums(50, 100, 50, quads=15), sums(0, 0, 0), sums(50, 100, 0.05), sums(-1, 5, 5)])
def test_frames_that_say_nothing_change_nothing(frame: np.ndarray):
    world = GreyWorld(100)
    world.update(frame, 0, 16)
    assert world.gains.tolist() == [1, 1, 1]
    world.update(sums(50, 100, 25), 0, 16)  # and the next good one still counts as the first
    np.testing.assert_allclose(world.gains, [2, 1, 4])


def test_gains_are_limited():
    world = GreyWorld(100)
    world.update(sums(1, 100, 100), 0, 1)
    assert world.gains.tolist() == [8, 1, 1]


NOTHING = np.full(3, np.nan, np.float32)


@pytest.mark.parametrize("name", [name for name in PIXEL_FORMATS if name != "Mono8"])
def test_balancer_sees_the_grey_world_in_every_format(rings, name: str):
    fmt = RawFormat(24, 16, name, black_level=10)
    colours = {"R": 40, "G": 70, "B": 25}  # over black: 30, 60, 15
    place = np.array([colours[colour] for colour in fmt.cfa]).reshape(2, 2)
    raw, _ = rings(fmt, [np.tile(place, (8, 12))])
    balancer, gains = WhiteBalancer(), np.zeros(3, np.float32)
    balancer.prepare(fmt, raw)
    balancer.settle(0, NOTHING, gains)
    np.testing.assert_allclose(gains, [2, 1, 4], rtol=1e-5)


def test_balancer_takes_the_users_gains_before_the_cameras_before_its_own(rings):
    fmt = RawFormat(8, 8, "BayerRG8")
    raw, _ = rings(fmt, [np.full((8, 8), 100)])
    given, gains = np.array([2, 1, 3], np.float32), np.zeros(3, np.float32)
    for white_balance, came, expected in [
        ((4.0, 2.0, 1.0), given, [2, 1, 0.5]),
        ("auto", given, [2, 1, 3]),
        ("auto", NOTHING, [1, 1, 1]),
    ]:
        balancer = WhiteBalancer(white_balance)
        balancer.prepare(fmt, raw)
        balancer.settle(0, came, gains)
        assert gains.tolist() == expected


def test_mono_frames_have_no_gains(rings):
    fmt = RawFormat(8, 8, "Mono8")
    raw, _ = rings(fmt, [np.full((8, 8), 100)])
    balancer, gains = WhiteBalancer((2, 1, 3)), np.zeros(3, np.float32)
    balancer.prepare(fmt, raw)
    balancer.settle(0, NOTHING, gains)
    assert gains.tolist() == [1, 1, 1]


def test_balancer_reads_read_only_slots(rings):
    fmt = RawFormat(8, 8, "BayerGR12")
    raw, _ = rings(fmt, [np.full((8, 8), 100)])
    raw.memory.flags.writeable = False
    balancer, gains = WhiteBalancer(), np.zeros(3, np.float32)
    balancer.prepare(fmt, raw)
    balancer.settle(0, NOTHING, gains)
    assert gains.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("size", "offset"), [(190, 0), (193, 1)])
def test_slots_too_small_or_at_an_odd_address_are_refused(size: int, offset: int):
    memory = np.zeros(256, np.uint16).view(np.uint8)
    with pytest.raises(ValueError, match="needs 192 bytes at an even address"):
        samples_of(memory[offset : offset + size], RawFormat(12, 8, "BayerRG12"))


def test_core_inputs_put_every_frame_of_a_batch_where_the_core_wants_it(rings):
    fmt = RawFormat(8, 8, "BayerRG8")
    raw, _ = rings(fmt, [np.full((8, 8), 100)] * 2)
    inputs = CoreInputs(("exposure_us", "wb_b", "wb_r", "gain_db", "wb_g"))
    inputs.prepare(fmt, raw)
    given = np.array([[250, 3, 2, np.nan, 1], [np.nan, np.nan, np.nan, 6, np.nan]], np.float32)
    params, gains = np.full((3, 5), 9, np.float32), np.full((3, 3), 9, np.float32)
    inputs.fill([1, 0], given, params, gains)
    assert params.tolist() == [[250, 3, 2, 0, 1], [0, 1, 1, 6, 1], [9] * 5]
    assert gains.tolist() == [[2, 1, 3], [1, 1, 1], [9] * 3]


NOT_KNOWN = ("exposure_us", "iso", "f_number", "focal_length_mm")


@given(st.lists(st.floats(width=32), min_size=5, max_size=5))
def test_what_is_not_known_of_the_camera_is_0(values: list[float]):
    inputs, row = CoreInputs(("gain_db", *NOT_KNOWN)), np.empty((1, 5), np.float32)
    inputs.fill([0], np.array([values], np.float32), row, np.empty((1, 3), np.float32))
    wanted = [value if np.isfinite(value) and (value > 0 or k == 0) else 0 for k, value in enumerate(values)]
    assert row.tolist() == [wanted]


def test_gain_in_decibels_becomes_iso():
    assert iso_of(0, 100) == 100
    assert iso_of(20, 250) == 2500
    assert iso_of(-6, 200) == pytest.approx(100.24, abs=0.01)
    assert all(math.isnan(iso_of(gain, 100)) for gain in (math.nan, math.inf, -math.inf, 1e6))


def test_a_core_that_is_told_the_colour_matrix_gets_the_engines():
    names = ("ccm_rg", "iso", "ccm_rr", "ccm_rb", "ccm_gr", "ccm_gg", "ccm_gb", "ccm_br", "ccm_bg", "ccm_bb")
    matrix = [[1.5, -0.25, -0.125], [0, 2, -1], [0.5, -0.5, 1]]
    for option, wanted in (
        (matrix, [-0.25, 400, 1.5, -0.125, 0, 2, -1, 0.5, -0.5, 1]),
        (None, [0, 400, 1, 0, 0, 1, 0, 0, 0, 1]),
    ):
        inputs, row = CoreInputs(names, colour_matrix=option), np.empty((2, 10), np.float32)
        given_row = np.full((2, 10), 7, np.float32)  # the columns of the matrix are not the frame's to say
        given_row[:, 1] = 400
        inputs.fill([0, 1], given_row, row, np.empty((2, 3), np.float32))
        assert row.tolist() == [wanted] * 2


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 1, 1]] * 3, "the colour matrix cannot be inverted, which this model has to do; give"),
        (np.diag([1, 1, 1e-7]), "cannot be inverted"),
        (np.zeros((3, 3)), "cannot be inverted"),
        (np.eye(3) * 0.005, "cannot be inverted"),
        ([[1, 0, 0], [0, np.nan, 0], [0, 0, 1]], "not usable; give nine finite numbers"),
    ],
)
def test_a_colour_matrix_that_cannot_be_inverted_is_for_no_core_that_is_told_it(matrix, message: str):
    with pytest.raises(UserError, match=message) as caught:
        CoreInputs(CCM, colour_matrix=matrix)
    assert "\n" not in str(caught.value)
    CoreInputs(("wb_r", "wb_g", "wb_b"), colour_matrix=matrix)  # which has no use for it


def test_a_core_without_gains_takes_none():
    inputs = CoreInputs(("gain_db",))
    params, gains = np.zeros((1, 1), np.float32), np.zeros((1, 3), np.float32)
    inputs.fill([0], np.array([[3]], np.float32), params, gains)
    assert (params.tolist(), gains.tolist()) == ([[3]], [[1, 1, 1]])
    with pytest.raises(UserError, match="takes no white-balance gains"):
        CoreInputs(("gain_db",), (2, 1, 2))
