"""Distances of colours: of two pictures, and of two sets of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ispeed.train.losses import Histogram
from ispeed.train.metrics import histogram_distance, histograms_apart, mean_histogram


def drawn(seed: int, cast: tuple[float, float, float] = (1, 1, 1), size: tuple[int, int] = (20, 24)) -> np.ndarray:
    """Greys that a light colours, with some colour noise: uint8."""
    chance = np.random.default_rng(seed)
    grey = chance.uniform(0.1, 0.8, (*size, 1)) + chance.normal(0, 0.03, (*size, 3))
    return (255 * np.clip(grey * cast, 0, 1)).round().astype(np.uint8)


def test_it_is_the_loss_in_float64():
    shown, wanted = drawn(1, (1, 0.8, 0.6)), drawn(2)
    a, b = (torch.from_numpy(x / 255.0).permute(2, 0, 1)[None] for x in (shown, wanted))
    assert histogram_distance(shown, wanted) == pytest.approx(float(Histogram()(a, b)), rel=1e-12)
    assert histogram_distance(shown, wanted / 255.0) == histogram_distance(shown, wanted)
    assert histogram_distance(shown, shown) == 0
    assert histogram_distance(shown, wanted) == histogram_distance(wanted, shown)
    assert histogram_distance(shown, wanted, edge=8) != histogram_distance(shown, wanted)


def test_sizes_may_differ():
    large = drawn(1, size=(40, 30))
    half = large.reshape(20, 2, 30, 3)[:, 0]
    assert histogram_distance(np.concatenate([large, large]), large) == pytest.approx(0, abs=1e-9)
    assert 0 < histogram_distance(half, large) < 0.2


def test_sets_are_apart_by_their_colours_and_not_by_what_they_show():
    own, others = ([drawn(seed) for seed in seeds] for seeds in (range(4), range(4, 9)))
    warm = [drawn(seed, (1, 0.85, 0.6)) for seed in range(4)]
    ours = mean_histogram(own)
    assert ours.shape == (3, 64, 64)
    assert ours.dtype == np.float64
    assert ours.sum() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(ours, np.mean([mean_histogram([picture]) for picture in own], 0), rtol=1e-12)
    near, far = (histograms_apart(mean_histogram(x), ours) for x in (iter(others), warm))
    assert near < 0.5 * far
    assert 0 < near < far <= 1


def test_pictures_of_one_colour():
    black, white, red = (np.full((9, 7, 3), colour, np.uint8) for colour in (0, 255, (255, 0, 0)))
    assert histogram_distance(black, white) < 1e-5, "brightness is no colour"
    assert 0.5 < histogram_distance(red, white) <= 1


def test_wrong_input():
    picture = drawn(1)
    for wrong in (picture[..., 0], picture[..., :2], picture.astype(np.int64)):
        with pytest.raises(ValueError, match=r"pictures? .*not"):
            histogram_distance(picture, wrong)
    with pytest.raises(ValueError, match="give one at least"):
        mean_histogram([])
    with pytest.raises(ValueError, match="edge is 0"):
        mean_histogram([picture], edge=0)
    with pytest.raises(ValueError, match=r"of one shape are compared, not \[3, 64, 64\] and \[3, 4, 4\]"):
        histograms_apart(mean_histogram([picture]), np.zeros((3, 4, 4)))
