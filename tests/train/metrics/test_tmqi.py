"""TMQI: against the paper's formulas written out, its distributions, and what is known of pictures beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from scipy.stats import beta, norm

from ispeed.train.metrics.tmqi import LEAST_EDGE, statistical_naturalness, structural_fidelity, tmqi

SIZE = (170, 180)


def scene() -> np.ndarray:
    """Luminance of some ten stops, with structure on every scale and everywhere."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    coarse = 3 * np.sin(x / 60) * np.cos(y / 50) + 0.8 * np.sin(x / 9 + y / 11)
    return 2.0 ** (coarse + 1.2 * np.sin(x / 3.1) * np.sin(y / 2.7))


def mapped(light: np.ndarray, power: float = 1 / 3) -> np.ndarray:
    return (light / light.max()) ** power


def blurred(picture: np.ndarray, edge: int) -> np.ndarray:
    return correlate(picture, np.full((edge, edge), 1 / edge**2), mode="nearest")


def written_out(light: np.ndarray, codes: np.ndarray) -> float:
    """Structural fidelity, formula by formula, with the distributions and filters of SciPy."""
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    x, y = (light - light.min()) / (light.max() - light.min()) * (2**32 - 1), codes
    fidelity = 1.0
    for weight, f in zip((0.0448, 0.2856, 0.3001, 0.2363, 0.1333), (16, 8, 4, 2, 1), strict=True):
        inner = np.s_[5 : x.shape[0] - 5, 5 : x.shape[1] - 5]

        def mean(values: np.ndarray, inner: tuple[slice, slice] = inner) -> np.ndarray:
            return correlate(values, window)[inner]

        sx, sy = (np.sqrt(np.maximum(0, mean(v * v) - mean(v) ** 2)) for v in (x, y))
        sxy = mean(x * y) - mean(x) * mean(y)
        threshold = 128 / (np.sqrt(2) * 100 * 2.6 * (0.0192 + 0.114 * f) * np.exp(-((0.114 * f) ** 1.1)))
        px, py = (norm.cdf(s, threshold, threshold / 3) for s in (sx, sy))
        local = (2 * px * py + 0.01) / (px**2 + py**2 + 0.01) * (sxy + 10) / (sx * sy + 10)
        fidelity *= local.mean() ** weight
        x, y = (correlate(v, np.full((2, 2), 0.25), mode="reflect", origin=-1)[::2, ::2] for v in (x, y))
    return float(fidelity)


@pytest.mark.parametrize("crop", [np.s_[:, :], np.s_[:165, :163]])
def test_fidelity_is_that_of_the_formulas(crop: tuple[slice, slice]):
    light = scene()[crop]
    codes = np.rint(255 * blurred(mapped(light), 3))
    assert structural_fidelity(light, codes) == pytest.approx(written_out(light, codes), rel=1e-6)


def test_naturalness_is_that_of_the_distributions():
    rng = np.random.default_rng(1)
    codes = rng.normal(100, 18, (33, 44))
    contrast = np.mean([codes[y : y + 11, x : x + 11].std(ddof=1) for y in (0, 11, 22) for x in (0, 11, 22, 33)])
    mode = 3.4 / 12.5
    of_contrast = beta.pdf(contrast / 64.29, 4.4, 10.1) / beta.pdf(mode, 4.4, 10.1)
    of_mean = norm.pdf(codes.mean(), 115.94, 27.99) / norm.pdf(115.94, 115.94, 27.99)
    assert statistical_naturalness(codes) == pytest.approx(of_contrast * of_mean, rel=1e-9)


def test_the_most_natural_picture():
    """Every block of the most usual mean and contrast: a chessboard has an odd number of places."""
    board = np.indices((11, 11)).sum(0) % 2 * 2.0 - 1
    board -= board.mean()
    codes = 115.94 + np.tile(board * (64.29 * 3.4 / 12.5) / board.std(ddof=1), (4, 4))
    assert statistical_naturalness(codes) == pytest.approx(1.0, abs=1e-9)


def test_a_monotone_curve_keeps_the_structure_whatever_the_scale_of_the_light():
    light = scene()
    found = tmqi(light, mapped(light))
    assert found.fidelity > 0.95
    assert tmqi(1000 * light, mapped(light)).quality == pytest.approx(found.quality, rel=1e-6)


def test_what_is_lost_costs():
    light = scene()
    picture = mapped(light)
    whole = tmqi(light, picture)
    clipped = np.clip(2 * picture, 0, 1)
    upside_down = picture.max() + picture.min() - picture
    dull = 0.5 + 0.02 * (picture - picture.mean())
    losses = [blurred(picture, 9), blurred(picture, 15), clipped, upside_down, dull]
    found = [tmqi(light, lost).fidelity for lost in losses]
    assert max(found) < whole.fidelity - 0.02
    assert found[1] < found[0], "blurred more"
    assert found[3] < 0.1, "structure turned round"
    shuffled = np.random.default_rng(2).permutation(picture.ravel()).reshape(picture.shape)
    assert tmqi(light, shuffled).fidelity < 0.2
    assert tmqi(light, 0.2 * picture).naturalness < whole.naturalness


def test_colours_are_weighed():
    """Light by its luminance, pictures by their codes."""
    light, weights = scene(), np.array([0.2126, 0.7152, 0.0722])
    picture = np.rint(255 * mapped(light)).astype(np.uint8)
    grey = tmqi(light, picture)
    assert tmqi(light[..., None].repeat(3, 2), picture[..., None].repeat(3, 2)).quality == pytest.approx(grey.quality)
    tinted = picture[..., None] * np.array([1.0, 0.8, 0.6]) / 255
    expected = tmqi(light, mapped(light) * 0 + picture / 255 * float(weights @ [1.0, 0.8, 0.6]))
    assert tmqi(light, tinted).quality == pytest.approx(expected.quality, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_and_flat_light_have_finite_values(value: float):
    light = scene()
    flat = np.full(SIZE, value)
    for found in (tmqi(light, flat), tmqi(0 * light, flat), tmqi(0 * light + 7, mapped(light))):
        assert all(0 <= v <= 1 for v in (found.quality, found.fidelity, found.naturalness))
    assert tmqi(light, flat).fidelity < 0.1
    assert tmqi(light, flat).naturalness == 0


def test_what_is_clipped_in_the_light_is_flat_and_not_rounding():
    """Equal values of light, 2^32 of them high, have no structure that a flat picture would have to show."""
    light = np.clip(scene(), 0, 1.0)
    light[:, 90:] = 1.0
    codes = np.rint(255 * mapped(light))
    assert structural_fidelity(light, codes) > 0.9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_all_is_between_0_and_1(seed: int):
    rng = np.random.default_rng(seed)
    light = rng.lognormal(0, rng.uniform(0, 4), (LEAST_EDGE, LEAST_EDGE))
    found = tmqi(light, rng.integers(0, 256, (LEAST_EDGE, LEAST_EDGE, 3), np.uint8))
    assert all(0 <= v <= 1 for v in (found.quality, found.fidelity, found.naturalness))


@pytest.mark.parametrize(
    ("light", "picture", "says"),
    [
        (np.ones((160, 200)), np.ones((160, 200, 3)), "at least 161 x 161"),
        (np.ones((200, 200)), np.ones((200, 201)), "of one size"),
        (np.ones((200, 200, 4)), np.ones((200, 200)), "light is"),
        (-np.ones((200, 200)), np.ones((200, 200)), "0 or more"),
        (np.full((200, 200), np.inf), np.ones((200, 200)), "finite"),
    ],
)
def test_wrong_input(light: np.ndarray, picture: np.ndarray, says: str):
    with pytest.raises(ValueError, match=says):
        tmqi(light, picture)
