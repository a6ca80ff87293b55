"""Temporal flicker: of changes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.train.metrics import Flicker, FlickerMeter


def measured(frames: list[np.ndarray]) -> Flicker:
    meter = FlickerMeter()
    for frame in frames:
        meter.add(frame)
    return meter.result()


def still(height: int = 48, width: int = 64) -> np.ndarray:
    """Grey with a bright bar."""
    picture = np.full((height, width, 3), 0.3)
    picture[:, 20:30] = 0.7
    return picture


def test_a_still_scene_does_not_flicker():
    result = measured([still()] * 5)
    assert (result.colour, result.edges, result.pixels) == pytest.approx((0, 0, 0), abs=1e-9)
    assert result.frames == 5


def test_pulsing_brightness_is_colour_and_no_edge():
    offsets = [0.02, -0.01, 0.04, 0.0]
    result = measured([still() + offset for offset in offsets])
    expected = 255 * np.std(offsets, ddof=1)
    assert result.colour == pytest.approx(expected)
    assert result.pixels == pytest.approx(expected)
    assert result.edges == pytest.approx(0, abs=1e-9)


def test_pulsing_contrast_is_seen_at_edges():
    gains = [1.0, 1.1, 0.9]
    result = measured([0.5 + gain * (still() - 0.5) for gain in gains])
    assert result.edges == pytest.approx(255 * 0.4 * np.std(gains, ddof=1)), "not thinned by the flat places"


def test_a_scene_without_edges():
    assert measured([np.full((8, 8, 3), value) for value in (0.2, 0.3)]).edges == 0


def test_white_noise():
    rng, sigma = np.random.default_rng(1), 5.0
    result = measured([still() + rng.normal(0, sigma / 255, (48, 64, 3)) for _ in range(100)])
    luma = sigma * np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert result.pixels == pytest.approx(sigma, rel=0.01)
    assert result.edges == pytest.approx(luma * np.sqrt(2), rel=0.05), "a step is a difference of two values"
    assert result.colour == pytest.approx(sigma / np.sqrt(48 * 64), rel=0.2)


def test_frames_of_codes():
    frames = [(255 * still()).astype(np.uint8), (255 * still()).astype(np.uint8) + np.uint8(2)]
    assert measured(frames).colour == pytest.approx(np.sqrt(2))


def test_wrong_frames():
    meter = FlickerMeter()
    with pytest.raises(ValueError, match="two frames and more"):
        meter.result()
    with pytest.raises(ValueError, match="colour frames"):
        meter.add(still()[..., 0])
    meter.add(still())
    with pytest.raises(ValueError, match="two frames and more"):
        meter.result()
    with pytest.raises(ValueError, match="give one size"):
        meter.add(still()[1:])
