"""Rendered scenes, the sensor that sees them, and the classic engine's picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from ispeed.engines import RawFormat, pack
from ispeed.engines.reference import classic_reference
from ispeed.stream.camera import simcam
from ispeed.train.data import CAMERA_FROM_SRGB, COLOUR_MATRIX, ClassicTarget, expose, render_scene
from ispeed.train.metrics import psnr


def test_sensor_is_the_simulated_cameras():
    np.testing.assert_array_equal(CAMERA_FROM_SRGB, np.float32(simcam.CAMERA_FROM_SRGB))
    config = yaml.safe_load((Path(__file__).parents[2] / "configs/stream/simulated.yaml").read_text())
    np.testing.assert_allclose(COLOUR_MATRIX, config["colour_matrix"], atol=5e-5)
    np.testing.assert_allclose(COLOUR_MATRIX.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (33, 120)])
def test_scenes_are_light_and_never_the_same(size: tuple[int, int]):
    rng = np.random.default_rng(1)
    scenes = [render_scene(rng, *size) for _ in range(20)]
    for scene in scenes:
        assert scene.shape == (*size, 3)
        assert scene.dtype == np.float32
        assert np.isfinite(scene).all()
        assert scene.min() >= 0
    assert len({scene.tobytes() for scene in scenes}) == 20
    assert np.array_equal(render_scene(np.random.default_rng(1), *size), scenes[0])
    assert max(scene.max() for scene in scenes) > 1, "some highlight in twenty scenes"


def test_a_frame_of_a_scene():
    rng = np.random.default_rng(4)
    scene = np.full((64, 48, 3), 0.3, np.float32)
    for _ in range(30):
        frame = expose(rng, scene)
        assert frame.planes.shape == (4, 32, 24)
        assert frame.clean.shape == (4, 32, 24)
        assert frame.gains[1] == 1
        assert frame.gains.min() >= 0.25
        assert frame.gains.max() <= 8
        np.testing.assert_allclose(frame.planes.mean((1, 2)), frame.clean.mean((1, 2)), atol=0.01)
        assert all(plane.std() == pytest.approx(0, abs=1e-6) for plane in frame.clean)


def test_noise_is_that_of_electrons():
    rng = np.random.default_rng(4)
    scene = np.full((128, 128, 3), 0.3, np.float32)
    noise, expected = [], []
    for _ in range(40):
        frame = expose(rng, scene)
        noise.append(frame.planes[1].std())
        expected.append(np.sqrt(frame.planes[1].mean() / 10_000))
    # never below shot noise at 0 dB; up to 18 dB of gain and conversion to 8 bits come on top
    ratios = np.array(noise) / expected
    assert ratios.min() > 0.9
    assert ratios.max() > 1.5
    assert ratios.max() < 10


def test_highlights_are_cut_off_and_shadows_are_not():
    rng = np.random.default_rng(0)
    bright, black = np.full((32, 32, 3), 8, np.float32), np.zeros((32, 32, 3), np.float32)
    frames = [expose(rng, bright) for _ in range(8)]
    assert max(frame.planes.max() for frame in frames) == 1
    assert any((frame.clean == 1).all() for frame in frames)
    assert min(expose(rng, black).planes.min() for _ in range(8)) < 0, "noise below the black level"


def test_target_is_the_classic_engines():
    rng = np.random.default_rng(7)
    frame = expose(rng, render_scene(rng, 64, 96))
    shown = ClassicTarget(64, 96).develop(frame.clean, frame.gains)
    fmt = RawFormat(96, 64, "BayerRG12", 256)
    samples = np.empty((64, 96), np.uint16)
    for plane, (y, x) in zip(frame.clean, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        samples[y::2, x::2] = np.rint(256 + plane * (4095 - 256))
    expected = classic_reference(pack(samples, fmt), fmt, tuple(map(float, frame.gains)), COLOUR_MATRIX)
    assert psnr(shown, expected, full=255) > 40, "12 bits instead of 16"


def test_psnr():
    picture = np.zeros((4, 4))
    assert psnr(picture, picture) == float("inf")
    assert psnr(picture + 0.1, picture) == pytest.approx(20)
    assert psnr(picture + 25.5, picture, full=255) == pytest.approx(20)
    codes = np.array([250, 3], np.uint8)
    assert psnr(codes, codes[::-1], full=255) == pytest.approx(20 * np.log10(255 / 247)), "codes do not wrap around"
