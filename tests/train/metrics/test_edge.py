"""Sharpness: of edges whose modulation is known."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.engines.reference import srgb_curve
from ispeed.train.metrics import mtf, mtf50, slanted_edge

OF_SIGMA_1 = np.sqrt(np.log(2) / 2) / np.pi
"""MTF50 of a Gaussian: exp(-2 (pi sigma f)**2) is a half there."""


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.2])
@pytest.mark.parametrize("degrees", [3, 5, 10, 20])
def test_gaussian_edges(sigma: float, degrees: float):
    assert mtf50(slanted_edge(80, 64, degrees=degrees, sigma=sigma)) == pytest.approx(OF_SIGMA_1 / sigma, rel=0.02)


def test_the_whole_curve():
    frequencies, modulation = mtf(slanted_edge(120, 96, sigma=0.6))
    np.testing.assert_allclose(modulation, np.exp(-2 * (np.pi * 0.6 * frequencies) ** 2), atol=0.02)
    assert modulation[0] == 1
    assert frequencies[0] == 0
    assert 0.97 < frequencies[-1] <= 1


def test_every_direction_and_polarity():
    edge = slanted_edge(70, 64, sigma=0.7)
    expected = mtf50(edge)
    turned = [edge[::-1], edge[:, ::-1], edge.T, edge.T[::-1], 0.7 - edge]
    assert [mtf50(view) for view in turned] == pytest.approx([expected] * 5, rel=0.01)
    assert expected == pytest.approx(OF_SIGMA_1 / 0.7, rel=0.02)


def test_developed_pictures_are_measured_in_linear_light():
    shown = srgb_curve(slanted_edge(80, 64, sigma=0.8)) * 255
    picture = np.repeat(np.rint(shown)[..., None], 3, axis=2).astype(np.uint8)
    assert mtf50(picture) == pytest.approx(OF_SIGMA_1 / 0.8, rel=0.02)
    assert mtf50(picture[..., 0]) != pytest.approx(OF_SIGMA_1 / 0.8, rel=0.02), "display values are no light"


def test_a_little_noise():
    noisy = slanted_edge(120, 80, sigma=0.8) + np.random.default_rng(1).normal(0, 0.005, (120, 80))
    assert mtf50(noisy) == pytest.approx(OF_SIGMA_1 / 0.8, rel=0.05)


def test_a_blurred_edge_is_less_sharp():
    assert mtf50(slanted_edge(80, 64, sigma=1.0)) < 0.7 * mtf50(slanted_edge(80, 64, sigma=0.6))


def test_wrong_pictures():
    edge = slanted_edge(64, 64)
    for wrong, problem in [
        (edge[:15], "16 x 16 pixels and up"),
        (np.full((64, 64), 0.5), "there is no edge"),
        (slanted_edge(64, 64, dark=0.5, bright=0.51), "there is no edge"),
        (slanted_edge(64, 64, degrees=0), r"slanted by 0\.0 degrees"),
        (slanted_edge(64, 64, degrees=40), "slanted by 4"),
        (slanted_edge(20, 64, degrees=2), "rows enough"),
        (edge[:, 26:], "too close to its side|leaves the picture"),
        (edge[None], r"is \[H, W, 3\]"),
        ((255 * edge).astype(np.int64), "uint8, or floating point"),
    ]:
        with pytest.raises(ValueError, match=problem):
            mtf50(wrong)
    with pytest.raises(ValueError, match="sigma is 0"):
        slanted_edge(64, 64, sigma=0)
