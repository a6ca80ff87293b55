"""Pictures without a reference: structure of lightness, and colours of sets."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.train.metrics import (
    LikenessMeter,
    histograms_apart,
    lab_from_linear,
    lightness_ssim,
    mean_histogram,
    ssim,
)


def drawn(seed: int, cast: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """Smooth greys that a light colours: float64 [32, 40, 3]."""
    chance = np.random.default_rng(seed)
    grey = np.kron(chance.uniform(0.1, 0.8, (8, 10)), np.ones((4, 4)))[..., None]
    return grey * np.array(cast)


def lightness_of(picture: np.ndarray) -> np.ndarray:
    linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    return lab_from_linear(linear)[..., 0] / 100


def test_structure_is_that_of_lightness_alone():
    grey = drawn(1)
    shifted = grey + np.array([0.05, -0.02, 0.0])
    expected = ssim(lightness_of(shifted), lightness_of(grey))
    assert lightness_ssim(shifted, grey) == pytest.approx(expected, abs=1e-4)
    assert lightness_ssim(grey, grey) == pytest.approx(1)
    assert lightness_ssim(drawn(2), grey) < 0.5
    assert ssim(shifted, grey) < lightness_ssim(shifted, grey)


def test_a_set_is_measured_as_one():
    """Two pictures that are each of one colour are together as colourful as photographs that are so too."""
    warm, cold = drawn(1, (1, 0.7, 0.4)), drawn(2, (0.4, 0.7, 1))
    photographs = mean_histogram([drawn(3, (1, 0.7, 0.4)), drawn(4, (0.4, 0.7, 1))])
    meter = LikenessMeter(photographs)
    each = [meter.add(picture, picture) for picture in (warm, cold)]
    whole = meter.result()
    assert [one.structure for one in each] == pytest.approx([1, 1])
    assert each[0].colours == pytest.approx(histograms_apart(mean_histogram([warm]), photographs))
    assert whole.colours < 0.5 * min(one.colours for one in each)
    assert whole.colours == pytest.approx(histograms_apart(mean_histogram([warm, cold]), photographs))
    assert whole.score == pytest.approx(whole.structure * (1 - whole.colours))


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="nothing was measured"):
        LikenessMeter(mean_histogram([drawn(1)])).result()
    with pytest.raises(ValueError, match="lightness is that of pictures"):
        lightness_ssim(np.zeros((9, 9)), np.zeros((9, 9)))
    with pytest.raises(ValueError, match="one size"):
        lightness_ssim(drawn(1), drawn(1)[:-1])
