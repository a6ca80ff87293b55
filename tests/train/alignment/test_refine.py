"""Displacements made exact, where they are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.train.alignment import refine as module
from ispeed.train.alignment.refine import noise_of, places, refine
from ispeed.train.alignment.structure import SURROUND, grey, structure, surround

Array = np.ndarray[Any, Any]
EDGE = 96


def waves(x: Array, y: Array) -> Array:
    """Something to hold on to everywhere, known between pixels too: float32."""
    found = np.zeros(np.broadcast(x, y).shape)
    rng = np.random.default_rng(5)
    for _ in range(24):
        length, angle, phase = rng.uniform(6, 30), rng.uniform(0, 6.3), rng.uniform(0, 6.3)
        found += np.sin(6.283 / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return (found / 5).astype(np.float32)


def pictures(flow: Array) -> tuple[Array, Array]:
    """Moving and fixed, for a flow from places of the second to those of the first."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float64)
    return waves(x, y), waves(x + flow[..., 0], y + flow[..., 1])


def turn(degrees: float, shift: tuple[float, float] = (0.0, 0.0), edge: int = EDGE) -> Array:
    """The flow of a rotation about the middle and a shift."""
    y, x = np.mgrid[:edge, :edge].astype(np.float64) - (edge - 1) / 2
    angle = np.deg2rad(degrees)
    return np.stack(
        [x * (np.cos(angle) - 1) - y * np.sin(angle), x * np.sin(angle) + y * (np.cos(angle) - 1)], -1
    ) + np.array(shift)


def error(found: Array, flow: Array, border: int = 6) -> Array:
    inner = np.s_[border:-border, border:-border]
    return np.hypot(*(found - flow)[inner].transpose(2, 0, 1))


@settings(max_examples=8, deadline=None)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(-1, 1))
def test_shifts_and_turns_are_found(x: float, y: float, degrees: float):
    flow = turn(degrees, (x, y))
    moving, fixed = pictures(flow)
    found = refine([[moving]], [[fixed]], np.zeros((EDGE, EDGE, 2), np.float32))
    assert found.dtype == np.float32
    assert error(found, flow).max() < 0.12


def test_a_good_flow_stays():
    flow = turn(2.0, (6.0, -3.0))
    moving, fixed = pictures(flow)
    found = refine([[moving]], [[fixed]], flow.astype(np.float32))
    assert np.median(error(found, flow, 12)) < 0.03


def test_channels_at_half_the_size():
    flow = turn(1.0, (1.4, -1.0))
    y, x = np.mgrid[: EDGE // 2, : EDGE // 2] * 2.0 + 0.5  # middles of 2 x 2 pixels
    half = flow.reshape(EDGE // 2, 2, EDGE // 2, 2, 2).mean((1, 3))
    moving, fixed = waves(x, y), waves(x + half[..., 0], y + half[..., 1])
    second = [np.ascontiguousarray(values[..., ::-1] * 0) for values in (moving, fixed)]  # says nothing, does no harm
    found = refine([[moving, second[0]]], [[fixed, second[1]]], np.zeros((EDGE, EDGE, 2), np.float32), scale=2)
    assert found.shape == flow.shape
    assert np.median(error(found, flow, 10)) < 0.06


@pytest.mark.parametrize("noisy", ["fixed", "moving"])
def test_noise_in_either_picture_does_not_pull(noisy: str):
    """Gradients of noise would make displacements too small; those of the other picture are taken."""
    flow = turn(0.0, (1.0, 0.6))
    moving, fixed = pictures(flow)
    noise = np.random.default_rng(3).normal(0, 1.5, fixed.shape).astype(np.float32)
    moving, fixed = (moving, fixed + noise) if noisy == "fixed" else (moving + noise, fixed)
    assert (noise_of([fixed]) > noise_of([moving])) is (noisy == "fixed")
    found = refine([[moving]], [[fixed]], np.zeros((EDGE, EDGE, 2), np.float32))
    np.testing.assert_allclose(found.mean((0, 1)), [1.0, 0.6], atol=0.15)


def test_flat_places_follow_their_surroundings():
    flow = turn(0.0, (1.5, -1.0))
    moving, fixed = pictures(flow)
    hole = np.s_[30:60, 30:60]
    for picture in (moving, fixed):
        picture[hole] = 0
    found = refine([[moving]], [[fixed]], np.zeros((EDGE, EDGE, 2), np.float32))
    assert np.hypot(*(found - flow)[40:50, 40:50].transpose(2, 0, 1)).max() < 0.6


def test_a_jump_of_depth_is_kept():
    flow = np.where(np.arange(EDGE)[None, :, None] < EDGE // 2, 0.0, 3.0) * np.array([0.0, 1.0]) + np.zeros(
        (EDGE, 1, 1)
    )
    moving, fixed = pictures(flow)
    start = (flow + 0.3).astype(np.float32)
    found = refine([[moving]], [[fixed]], start)
    off = error(found, flow)
    assert np.median(off) < 0.05
    assert np.median(off[:, 20:60]) < 0.5


def test_bending_has_the_slope_of_its_cost():
    rng = np.random.default_rng(2)
    v, way = (rng.normal(size=(7, 9, 2)) for _ in range(2))
    costs = [rng.uniform(0.5, 2, (*bend.shape[:2], 1)) for bend in module._bends(v)]

    def cost(u: Array) -> float:
        return 0.5 * sum(float((c * bend * bend).sum()) for c, bend in zip(costs, module._bends(u), strict=True))

    step = 1e-4
    slope = (cost(v + step * way) - cost(v - step * way)) / (2 * step)
    assert float((module._unbent(v, costs) * way).sum()) == pytest.approx(slope, rel=1e-6)


def test_places():
    to_x, to_y = places(np.full((3, 4, 2), (0.5, -1), np.float32))
    np.testing.assert_array_equal(to_x[1], [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(to_y[:, 2], [-1, 0, 1])


def test_structure_is_without_brightness_and_contrast():
    values = waves(*np.mgrid[:80, :80].astype(float)) * 0.1 + 0.5
    usual = structure(values)
    np.testing.assert_allclose(structure(0.7 * values + 0.2), usual, atol=0.35)
    assert np.corrcoef(structure(0.7 * values + 0.2).ravel(), usual.ravel())[0, 1] > 0.999
    assert np.abs(structure(np.full((40, 40), 0.4, np.float32))).max() < 1e-3
    assert structure(waves(*np.mgrid[:80, :80].astype(float)) * 9).std() == pytest.approx(1, abs=0.25)


def test_the_surroundings_are_those_of_a_bell():
    values = np.zeros((129, 129), np.float32)
    values[64, 64] = 1
    found = surround(values)
    y, x = np.mgrid[-64:65, -64:65]
    bell = np.exp(-(x**2 + y**2) / (2 * SURROUND**2)) / (2 * np.pi * SURROUND**2)
    assert np.abs(found - bell).max() < 0.15 * bell.max()
    assert found.sum() == pytest.approx(1, rel=0.05)


def test_grey_of_codes_and_of_shares():
    codes = np.random.default_rng(1).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    expected = codes / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey(codes), expected, atol=1e-5)
    np.testing.assert_allclose(grey(codes / 255), expected, atol=1e-5)
