"""Noise in flat areas: of noise that is known."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.train.metrics import flat_blocks, flat_noise


def scene(height: int = 256, width: int = 320) -> np.ndarray:
    """Ramps on the left, texture on the right."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    picture = np.stack([0.3 + x / 1600, 0.4 + y / 1400, 0.7 - x / 1500], -1)
    texture = 0.15 * np.sin(x * 1.3) * np.sin(y * 0.9)
    return picture + (texture * (x >= 160))[..., None]


def test_it_looks_where_it_is_flat():
    corners = flat_blocks(scene(), share=0.4)
    assert len(corners) == round(0.4 * 16 * 20)
    assert (corners[:, 1] < 160).all()
    assert len(flat_blocks(scene(), share=0.001)) == 1


def test_ramps_are_no_noise():
    noise = flat_noise(scene(), flat_blocks(scene(), share=0.4))
    assert noise.luma < 1e-9
    assert noise.chroma < 1e-9


def test_known_noise():
    """Of sigma in each channel: luma has sigma sqrt(sum of its squared weights), chroma likewise."""
    rng, sigma = np.random.default_rng(2), 4.0
    noisy = scene() + rng.normal(0, sigma / 255, (256, 320, 3))
    noise = flat_noise(noisy, flat_blocks(scene(), share=0.4))
    luma = np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    blue, red = np.sqrt(0.168736**2 + 0.331264**2 + 0.25), np.sqrt(0.25 + 0.418688**2 + 0.081312**2)
    assert noise.luma == pytest.approx(sigma * luma, rel=0.02)
    assert noise.chroma == pytest.approx(sigma * np.sqrt((blue**2 + red**2) / 2), rel=0.02)


def test_grey_noise_has_no_chroma():
    grey = scene() + np.random.default_rng(3).normal(0, 0.01, (256, 320, 1))
    noise = flat_noise(grey, flat_blocks(scene(), share=0.4))
    assert noise.luma == pytest.approx(2.55, rel=0.02)
    assert noise.chroma < 1e-4


def test_black_and_white_do_not_count():
    picture = scene()
    picture[:128], picture[128:144] = 0.0, 1.0
    assert (flat_blocks(picture, share=1.0)[:, 0] >= 144).all()
    with pytest.raises(ValueError, match="black or white"):
        flat_blocks(0 * picture)


def test_wrong_input():
    picture = scene()
    with pytest.raises(ValueError, match="cannot be used"):
        flat_blocks(picture, size=3)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="cannot be used"):
            flat_blocks(picture, share=share)
    with pytest.raises(ValueError, match="holds no block"):
        flat_blocks(picture[:10])
    with pytest.raises(ValueError, match="colour pictures"):
        flat_blocks(picture[..., 0])
    corners = flat_blocks(picture)
    for wrong in (corners + 300, corners - 300, corners[:0]):
        with pytest.raises(ValueError, match="do not lie in a picture"):
            flat_noise(picture, wrong)
