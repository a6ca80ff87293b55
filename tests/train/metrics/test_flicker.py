"""Temporal flicker: of changes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.train.metrics import ChangingLightMeter, Flicker, FlickerMeter, changing_light


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


# ---- changing light --------------------------------------------------------------------------------------------

LIGHTS = changing_light(96, 48, 3.0)


def measured_lit(frames: list[np.ndarray], lights: list[float] = LIGHTS) -> Flicker:
    meter = ChangingLightMeter()
    for frame, light in zip(frames, lights, strict=True):
        meter.add(frame, light)
    return meter.result()


def lit(light: float) -> np.ndarray:
    """The still scene as a camera with the curve of a display shows it."""
    return np.clip(still(24, 40) ** 2.2 * 2.0 ** (light - 1), 0, 1) ** (1 / 2.2)


def test_the_light_comes_back():
    assert len(LIGHTS) == 96
    assert max(LIGHTS) == -min(LIGHTS) == pytest.approx(1.5, rel=0.01)
    assert all(LIGHTS.count(light) == 4 for light in LIGHTS), "twice in each of two cycles, exactly"
    wave = 1.5 * np.sin(2 * np.pi * (np.arange(96) + 0.5) / 48)
    assert pytest.approx(wave, abs=1e-12) == LIGHTS
    assert changing_light(30, 8, 1.0)[:8] == changing_light(8, 8, 1.0)
    for period in (4, 10, 9):
        with pytest.raises(ValueError, match="give a multiple of 4"):
            changing_light(20, period, 1.0)


def test_a_picture_that_follows_the_light_does_not_flicker():
    frames = [lit(light) for light in LIGHTS]
    result = measured_lit(frames)
    assert (result.colour, result.edges, result.pixels) == (0, 0, 0)
    assert result.jump is not None
    assert result.jump < 0.05, "of a smooth curve hardly any"
    assert result.frames == 96
    assert measured(frames).colour > 20, "as flicker of a still scene it would count"
    assert measured(frames).jump is None


def test_noise_is_measured_as_under_steady_light():
    rng, sigma = np.random.default_rng(1), 5.0
    lights = changing_light(192, 48, 3.0)
    noise = [rng.normal(0, sigma / 255, (24, 40, 3)) for _ in lights]
    result = measured_lit([lit(light) + n for light, n in zip(lights, noise, strict=True)], lights)
    steady = measured([lit(0) + n for n in noise])
    assert result.pixels == pytest.approx(steady.pixels, rel=0.02)
    assert result.colour == pytest.approx(steady.colour, rel=0.25)
    assert result.edges == pytest.approx(steady.edges, rel=0.1)


def test_a_gain_that_pumps_flickers():
    """By chance, every other frame, or late: brighter as the light rises than as it falls."""
    rng, size = np.random.default_rng(2), 0.03
    chance = [1 + size * rng.standard_normal() for _ in LIGHTS]
    every_other = [1 + size * (-1) ** (k // 24 + k) for k in range(len(LIGHTS))]
    late = [1 + size * np.sign(after - before) for before, after in zip(LIGHTS, [*LIGHTS[1:], LIGHTS[0]], strict=True)]
    level = float(np.mean([lit(light).mean() for light in LIGHTS]))
    for gains in (chance, every_other, late):
        result = measured_lit([gain * lit(light) for gain, light in zip(gains, LIGHTS, strict=True)])
        assert result.colour == pytest.approx(255 * size * level, rel=0.6)


@pytest.mark.parametrize("height", [2.0, 10.0])
def test_a_jump_at_some_brightness(height: float):
    """It is the same every time, and so no difference among frames of equal light."""
    smooth = measured_lit([lit(light) for light in LIGHTS])
    result = measured_lit([lit(light) + (height / 255 if light > 0.4 else 0) for light in LIGHTS])
    assert result.colour == 0
    assert result.jump == pytest.approx(height, rel=0.3)
    assert result.jump > 10 * (smooth.jump or 0)


def test_codes_and_wrong_frames_of_changing_light():
    meter = ChangingLightMeter()
    meter.add(np.full((4, 4, 3), 100, np.uint8), 0.5)
    with pytest.raises(ValueError, match="light that comes back"):
        meter.result()
    with pytest.raises(ValueError, match="give one size"):
        meter.add(np.zeros((4, 5, 3)), 0.5)
    with pytest.raises(ValueError, match="finite number"):
        meter.add(np.zeros((4, 4, 3)), float("nan"))
    meter.add(np.full((4, 4, 3), 102, np.uint8), 0.5)
    assert meter.result().colour == pytest.approx(np.sqrt(2))
    assert meter.result().jump == 0, "of one light"
