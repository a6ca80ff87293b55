"""Gains from the user, from the camera, and from a grey world."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ispeed.engines.white_balance import GreyWorld, camera_gains, checked_gains


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
