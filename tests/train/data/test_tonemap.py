"""Tone mapping: what operators promise whatever the light is, and the local Laplacian filter against its definition."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.engines.errors import UserError
from ispeed.train.curves import linear_from_srgb, srgb_from_linear
from ispeed.train.data.tonemap import OPERATORS, laplacian_filtered, tone_mapped

NAMES = sorted(OPERATORS)
LOCAL = ("mertens", "local_laplacian")


def ramp(height: int = 64, width: int = 96, stops: tuple[float, float] = (-7, 5)) -> np.ndarray[Any, Any]:
    """Grey light that rises by stops from left to right."""
    return np.exp2(np.linspace(*stops, width, dtype=np.float32))[None, :, None].repeat(height, 0).repeat(3, 2)


def chance(seed: int = 3, colours: int = 3) -> np.ndarray[Any, Any]:
    """Light of 14 stops in which neighbours have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return np.exp2(rng.uniform(-8, 6, (40, 48, colours))).astype(np.float32).repeat(3 // colours, 2)


@pytest.mark.parametrize("name", NAMES)
class TestAll:
    def test_pictures_are_srgb_and_always_the_same(self, name: str):
        light = chance()
        before, shown = light.copy(), tone_mapped(light, name)
        assert (shown.shape, shown.dtype) == (light.shape, np.float32)
        assert 0 <= shown.min() < shown.max() <= 1
        np.testing.assert_array_equal(shown, tone_mapped(light, name))
        np.testing.assert_array_equal(light, before)

    def test_grey_stays_grey(self, name: str):
        assert np.ptp(tone_mapped(chance(colours=1), name), axis=2).max() < 1e-5

    def test_more_light_is_brighter(self, name: str):
        row = tone_mapped(ramp(), name)[32, :, 0]
        assert np.diff(row).min() > (-0.01 if name in LOCAL else -1e-6)
        assert row[-1] > row[0] + 0.5

    def test_highlights_keep_differences_unless_nothing_is_mapped(self, name: str):
        row = tone_mapped(ramp(), name)[32, :, 0]
        above = row[ramp()[32, :, 0] > 1.2]
        assert (np.ptp(above) < 1e-6) == (name == "none")

    @pytest.mark.parametrize("value", [0.0, 1e-8, 0.18, 1.0, 1000.0])
    def test_even_light_is_sane(self, name: str, value: float):
        shown = tone_mapped(np.full((16, 20, 3), value, np.float32), name)
        assert np.isfinite(shown).all()
        assert np.ptp(shown) < 1e-3
        assert (shown.max() < 0.05) == (value < 1e-6)

    def test_even_light_is_no_darker_for_more_of_it(self, name: str):
        levels = [tone_mapped(np.full((16, 20, 3), value, np.float32), name).mean() for value in (0, 0.02, 0.2, 1, 9)]
        assert (np.diff(levels) > -1e-3).all()
        assert levels[-1] > 0.6

    def test_a_place_without_light_is_black(self, name: str):
        light = np.full((24, 24, 3), 0.5, np.float32)
        light[:12] = 0
        shown = tone_mapped(light, name)
        assert np.isfinite(shown).all()
        assert shown[2].max() < 0.1 < 0.3 < shown[-2].min()

    @given(size=st.tuples(st.integers(2, 19), st.integers(2, 19)), seed=st.integers(0, 99))
    @settings(max_examples=8, deadline=None)
    def test_any_size_will_do(self, name: str, size: tuple[int, int], seed: int):
        light = np.random.default_rng(seed).random((*size, 3), np.float32) * 20
        shown = tone_mapped(light, name)
        assert shown.shape == light.shape
        assert np.isfinite(shown).all()

    def test_unknown_options_are_named(self, name: str):
        with pytest.raises(UserError, match=f"tone mapping {name} has no option 'glow': its options are"):
            tone_mapped(ramp(), name, glow=1)


def test_operators_of_opencv_do_not_stretch_what_has_little_range(capfd: pytest.CaptureFixture[str]):
    light = ramp(stops=(-2, -1.8))
    for name in ("reinhard", "drago"):
        assert np.ptp(tone_mapped(light, name)) < 0.15
        assert np.ptp(tone_mapped(light / light.max(), name)) < 0.15
    assert cv2.utils.logging.getLogLevel() != cv2.utils.logging.LOG_LEVEL_ERROR, "put back as it was"
    assert capfd.readouterr().err == "", "OpenCV has nothing to tell"


def test_without_tone_mapping_it_is_the_curve_of_srgb():
    light = chance()
    wanted = srgb_from_linear(torch.from_numpy(light)).numpy()
    np.testing.assert_allclose(tone_mapped(light, "none"), wanted, atol=1e-6)


MIDDLES = [
    tone_mapped(np.float32(value * np.array([8, 1, 1 / 8])).repeat(3).reshape(1, 3, 3).repeat(2, 0), "none")[0]
    for value in (0.2, 6.0)
]
"""How three exposures three stops apart show two places."""


def test_fusion_takes_what_each_exposure_shows_best():
    """Places of which one is right, and one burnt out, in the middle exposure."""
    light = np.full((64, 64, 3), 0.2, np.float32)
    light[:, 32:] = 6.0

    def ends(**options: float) -> tuple[float, float]:
        shown = tone_mapped(light, "mertens", exposures=3, **options)
        return float(shown[:, 4].mean()), float(shown[:, 60].mean())

    dark, bright = ends(stops=3)
    assert abs(dark - 0.5) < 0.12
    assert dark + 0.1 < bright < 0.97
    assert ends(stops=0.25)[1] > bright + 0.02, "exposures close to each other show no more"
    averaged = ends(stops=3, exposedness=0.0)
    assert averaged == pytest.approx([np.mean(tones) for tones in MIDDLES], abs=0.01), "the mean of all exposures"
    assert bright < averaged[1] - 0.01


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("fattal", {}, "no tone mapping 'fattal': choose one of mertens, reinhard, drago, local_laplacian, none"),
        ("mertens", {"stops": 0}, "stops of the tone mapping mertens is 0: it is a number from 0.25 to 6"),
        ("mertens", {"exposures": 2.5}, "exposures .* is 2.5: it is a whole number from 2 to 12"),
        ("mertens", {"exposures": True}, "exposures .* is True: it is a whole number"),
        ("drago", {"bias": "much"}, "bias .* is 'much': it is a number"),
        ("reinhard", {"light_adapt": float("nan")}, "light_adapt .* is nan: it is a number"),
        ("none", {"beta": 1}, "has no option 'beta': its options are none"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says) as error:
        tone_mapped(ramp(), name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("light", "says"),
    [
        (np.zeros((8, 8), np.float32), r"the light is \[8, 8\], but to be tone-mapped it is \[H, W, 3\]"),
        (np.zeros((1, 8, 3), np.float32), r"H and W 2 or more"),
        (np.full((8, 8, 3), -1, np.float32), "below 0, infinite or NaN"),
        (np.full((8, 8, 3), np.nan, np.float32), "below 0, infinite or NaN"),
        (np.full((8, 8, 3), np.inf, np.float32), "below 0, infinite or NaN"),
    ],
)
def test_what_is_no_light(light: np.ndarray[Any, Any], says: str):
    with pytest.raises(UserError, match=says):
        tone_mapped(light, "reinhard")


# ---- the local Laplacian filter ----------------------------------------------------------------------------


def steps(high: float = 4.0) -> np.ndarray[Any, Any]:
    """An edge of so many stops with texture of a tenth of one on both of its sides."""
    rng = np.random.default_rng(2)
    values = np.where(np.arange(96) < 48, 0.0, high)[None].repeat(64, 0) + rng.uniform(-0.05, 0.05, (64, 96))
    return values.astype(np.float32)


def inside(values: np.ndarray[Any, Any], part: slice) -> np.ndarray[Any, Any]:
    return values[16:-16, part]


DARK, BRIGHT = slice(8, 32), slice(64, 88)


def test_with_neutral_exponents_values_stay_as_they_are():
    values = np.log2(chance()[..., 0])
    for samples in (2, 9):
        np.testing.assert_allclose(laplacian_filtered(values, 1.0, 1.0, 1.0, samples), values, atol=1e-4)


def test_edges_are_compressed_and_detail_stays():
    values = steps()
    filtered = laplacian_filtered(values, 0.5, 1.0, 0.3, 24)
    before, after = (inside(v, BRIGHT).mean() - inside(v, DARK).mean() for v in (values, filtered))
    assert 0.2 * before < after < 0.5 * before
    for part in (DARK, BRIGHT):
        change = inside(filtered, part) - inside(values, part)
        assert change.std() < 0.4 * inside(values, part).std()


def test_detail_is_made_stronger_and_edges_stay():
    values = steps()
    strong = laplacian_filtered(values, 0.5, 0.4, 1.0, 24)
    assert inside(strong, DARK).std() > 1.5 * inside(values, DARK).std()
    assert inside(strong, BRIGHT).mean() - inside(strong, DARK).mean() == pytest.approx(4.0, abs=0.1)


def test_the_fast_filter_is_the_slow_one():
    """One coefficient of the finest level: that of the pyramid of all values remapped about the one at its place."""
    values = steps(2.0)[:24, 40:64]
    y, x = 12, 9
    sigma, alpha, beta, g = 0.6, 0.7, 0.4, float(values[12, 9])
    away = values - g
    small = np.sign(away) * sigma * (np.abs(away) / sigma) ** alpha
    large = np.sign(away) * (beta * (np.abs(away) - sigma) + sigma)
    remapped = (g + np.where(np.abs(away) <= sigma, small, large)).astype(np.float32)
    slow = (remapped - cv2.pyrUp(cv2.pyrDown(remapped), dstsize=(24, 24)))[y, x]
    fast = laplacian_filtered(values, sigma, alpha, beta, 64)
    pyramid = fast - cv2.pyrUp(cv2.pyrDown(fast), dstsize=(24, 24))
    assert abs(slow) > 0.01, "there is something to see"
    assert pyramid[y, x] == pytest.approx(slow, abs=0.05)


def test_range_follows_beta():
    light = ramp(stops=(-6, 4))

    def stops(beta: float) -> float:
        """By how many stops of light on the display the middle of the ramp is darker than its end."""
        shown = tone_mapped(light, "local_laplacian", beta=beta, sigma=0.2)[32, [48, -4], 0]
        return float(np.diff(np.log2(linear_from_srgb(torch.from_numpy(shown)).numpy()))[0])

    full = float(np.diff(np.log2(light[32, [48, -4], 0]))[0])
    assert stops(1.0) == pytest.approx(full, abs=0.1)
    assert stops(0.5) == pytest.approx(0.5 * full, abs=0.5)
    assert stops(0.2) < stops(0.5) - 0.5
