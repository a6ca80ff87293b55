"""Where a reference can be relied on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ispeed.train.alignment.look import matched
from ispeed.train.alignment.mask import ALWAYS, MISS, RELATIVE, agreement, alike, consistent, inside, warp
from ispeed.train.alignment.refine import places
from ispeed.train.data.misaligned import Look
from ispeed.train.evaluation.frames import rendered

Array = np.ndarray[Any, Any]


def steady(x: float, y: float) -> Array:
    return np.full((20, 30, 2), (x, y), np.float32)


@pytest.mark.parametrize("off", [0.0, 0.5, 0.7, 0.72, 2.9, 3.1])
def test_the_way_there_and_back(off: float):
    inner = np.s_[6:-6, 6:-6]
    there, back = steady(2.0, -1.0), steady(-2.0 + off, 1.0)
    limit = RELATIVE * (5 + (off - 2) ** 2 + 1) + ALWAYS
    assert consistent(there, back)[inner].all() == (off**2 < limit)
    assert consistent(there, back, "absolute")[inner].all() == (off < MISS)
    assert consistent(there, back, "absolute", 0.6)[inner].all() == (off < 0.6)


def test_what_only_one_camera_sees_is_not_consistent():
    there = np.where(np.arange(60)[None, :, None] < 30, 0.0, 8.0) * np.array([1, 0]) + np.zeros((40, 1, 1))
    back = -np.where(np.arange(60)[None, :, None] < 38, 0.0, 8.0) * np.array([1, 0]) + np.zeros((40, 1, 1))
    counts = consistent(there.astype(np.float32), back.astype(np.float32))
    assert counts[:, :28].all()
    assert counts[:, 32:50].all()
    back[:, 38:46] = 0  # of what is covered here, nothing comes back
    assert not consistent(there.astype(np.float32), back.astype(np.float32))[:, 32:36].any()


def test_inside():
    x, y = np.array([-0.1, 0, 9, 9.1, 3], np.float32), np.array([2, 0, 4, 4, 4.5], np.float32)
    np.testing.assert_array_equal(inside(x, y, 5, 10), [False, True, True, False, False])


def test_whole_steps_are_copies_and_half_ones_lie_between():
    picture = rendered(64, 2)
    moved = warp(picture, *places(np.full((64, 64, 2), (3, -2), np.float32)))
    np.testing.assert_array_equal(moved[2:, :-3], picture[:-2, 3:])
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(20, axis=0)
    half = warp(ramp, *places(np.full((20, 60, 2), (0.5, 0), np.float32)))
    np.testing.assert_allclose(half[:, 2:-3, 0], np.broadcast_to(np.arange(0, 240, 4)[2:-3] + 2, (20, 55)), atol=1)


def test_what_is_another_thing_does_not_count():
    picture, other = rendered(192, 2), rendered(192, 6)
    replaced = picture.copy()
    replaced[60:130, 60:130] = other[60:130, 60:130]
    shown = (picture / 255).astype(np.float32)
    counts = alike(shown, replaced)
    assert counts[:40].mean() > 0.95
    assert counts[70:120, 70:120].mean() < 0.2
    assert alike(shown, picture).all()


def test_agreement_is_that_of_structure():
    picture, other = rendered(160, 2), rendered(160, 6)
    everywhere = np.ones((160, 160), bool)
    shown = (picture / 255).astype(np.float32)
    assert agreement(shown, picture, everywhere) == pytest.approx(1, abs=1e-3)
    assert agreement(0.6 * shown + 0.2, picture, everywhere) > 0.95
    assert abs(agreement(shown, other, everywhere)) < 0.3
    assert agreement(shown, picture, ~everywhere) == 0


def test_looks_are_matched():
    """Another camera's exposure, colours and tone, as drawn for pairs, are nearly taken out."""
    picture = np.concatenate([rendered(160, seed) for seed in (0, 2)], axis=1)
    for seed in range(3):
        look = Look.drawn(np.random.default_rng(seed), 1.0)
        tensor = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
        wanted = (look.of(tensor) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        before = np.abs(picture.astype(float) - wanted).mean() / 255
        found = matched(picture, wanted)
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert np.abs(found - wanted / 255).mean() < before / 2
        assert np.abs(matched((picture / 255).astype(np.float32), wanted) - found).mean() < 0.002


def test_looks_are_matched_across_a_displacement():
    picture = rendered(256, 0)
    moved = np.roll(picture, (4, -5), axis=(0, 1))
    assert np.abs(matched(picture, moved) - picture / 255).mean() < 0.02
