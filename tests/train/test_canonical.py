"""The steps that are known without learning: forwards and back again, and what they do at their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ispeed.train.data.cfa import PHASES, mosaic, planes, red_part, spread
from ispeed.train.models.canonical import (
    LEAST_DETERMINANT,
    inverse,
    mixed,
    sampled,
    shown,
    to_camera,
    to_linear,
    unshown,
)

TRACK = torch.tensor([[1.62, -0.48, -0.14], [-0.22, 1.46, -0.24], [0.02, -0.52, 1.50]])


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TestIdentity:
    @settings(max_examples=80, deadline=None)
    @given(
        cfa=st.sampled_from(PHASES),
        cells=st.tuples(st.integers(3, 7), st.integers(3, 7)),
        gains=st.tuples(st.floats(0.5, 6), st.floats(0.5, 6)),
        entries=st.lists(st.floats(-1, 1), min_size=9, max_size=9),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 2**31),
    )
    def test_what_is_not_clipped_comes_back(
        self,
        cfa: str,
        cells: tuple[int, int],
        gains: tuple[float, float],
        entries: list[float],
        dtype: torch.dtype,
        seed: int,
    ):
        matrix = torch.eye(3, dtype=dtype) + torch.tensor(entries, dtype=dtype).view(3, 3)
        condition = float(np.linalg.cond(matrix.numpy()))
        assume(condition < 1e3)
        assume(abs(np.linalg.det(matrix.double().numpy())) > 10 * LEAST_DETERMINANT)
        height, width = 2 * cells[0], 2 * cells[1]
        balance = torch.tensor([[gains[0], 1.0, gains[1]]], dtype=dtype)
        bright = random(1, height, width, seed=seed, dtype=dtype) / spread(balance, cfa, height, width)
        frame = bright.clamp(max=1.0)
        seen = planes(frame, cfa)
        colours = to_camera(to_linear(seen, balance, matrix[None]), balance, matrix[None])
        within: Any = {"atol": 50 * torch.finfo(dtype).eps * condition, "rtol": 0}
        assert colours.dtype == dtype
        torch.testing.assert_close(sampled(colours), seen, **within)
        torch.testing.assert_close(mosaic(colours, "RGGB"), red_part(frame, cfa), **within)

    def test_what_is_clipped_comes_back_as_white_or_black(self):
        gains, values = torch.tensor([[2.0, 1.0, 1.6]]).double(), random(1, 4, 4, 6)
        seen = 1.4 * values - 0.2
        back = sampled(to_camera(to_linear(seen, gains, TRACK.double()[None]), gains, TRACK.double()[None]))
        white = 1 / gains[:, [0, 1, 1, 2], None, None]
        assert (seen > white).any()
        assert (seen < 0).any()
        torch.testing.assert_close(back, torch.minimum(seen, white).clamp(min=0.0), atol=1e-12, rtol=0)

    def test_even_light_comes_back_from_the_other_side(self):
        light, gains = torch.tensor([0.5, 0.4, 0.3]).double(), torch.tensor([[1.8, 1.0, 1.5]]).double()
        picture = light.view(1, 3, 1, 1).expand(1, 3, 8, 12)
        matrix = TRACK.double()[None]
        again = to_linear(sampled(to_camera(picture, gains, matrix)), gains, matrix)
        torch.testing.assert_close(again, picture, atol=1e-12, rtol=0)


def test_forwards_by_hand():
    """Of even colours: gains, limits, matrix, in this order."""
    colours, gains = np.array([0.3, 0.25, 0.9]), np.array([1.5, 1.0, 1.4])
    seen = torch.tensor(colours[[0, 1, 1, 2]])[None, :, None, None].expand(1, 4, 3, 4)
    given = to_linear(seen, torch.tensor(gains)[None], TRACK.double()[None])
    wanted = TRACK.double().numpy() @ np.minimum(colours * gains, 1)
    assert given.shape == (1, 3, 6, 8)
    np.testing.assert_allclose(given.numpy(), np.broadcast_to(wanted[:, None, None], (1, 3, 6, 8)), atol=1e-12)
    assert given.max() > 1, "not limited after the matrix"


def test_samples_are_those_of_the_filter_array():
    colours = random(2, 3, 6, 8)
    assert torch.equal(sampled(colours), planes(mosaic(colours, "RGGB"), "RGGB"))


def test_each_frame_has_its_own_matrix():
    matrices, colours = random(2, 3, 3), random(2, 3, 4, 5)
    torch.testing.assert_close(mixed(matrices, colours), torch.einsum("bij,bjhw->bihw", matrices, colours))


def test_nothing_is_calculated_in_few_bits():
    seen, gains = random(1, 4, 4, 4, dtype=torch.float32), torch.tensor([[1.7, 1.0, 1.5]])
    exact = to_linear(seen, gains, TRACK[None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(to_linear(seen, gains, TRACK[None]), exact)
        back = to_camera(exact, gains, TRACK[None])
    assert torch.equal(back, to_camera(exact, gains, TRACK[None]))


class TestInverse:
    def test_of_any_matrices(self):
        matrices = 4 * random(50, 3, 3, seed=4) - 2
        assert (np.linalg.det(matrices.numpy()) < 0).any()
        np.testing.assert_allclose(inverse(matrices).numpy(), np.linalg.inv(matrices.numpy()), rtol=1e-9, atol=1e-9)
        single = inverse(TRACK[None]).numpy()
        assert single.dtype == np.float32
        np.testing.assert_allclose(single[0], np.linalg.inv(TRACK.numpy()), rtol=1e-5)

    @pytest.mark.parametrize(
        "matrix",
        [
            torch.zeros(3, 3),
            torch.ones(3, 3),
            torch.tensor([[1.0, 0, 0], [1, 1e-7, 0], [0, 0, 1]]),
            torch.tensor([[1.0, 0, 0], [1, -1e-30, 0], [0, 0, 1]]),
        ],
    )
    def test_of_bad_ones_it_is_finite(self, matrix: Tensor):
        matrix = matrix.clone().requires_grad_()
        given = inverse(matrix[None])
        given.sum().backward()
        assert torch.isfinite(given).all()
        assert given.abs().max() <= 2 / LEAST_DETERMINANT
        assert matrix.grad is not None
        assert torch.isfinite(matrix.grad).all()


class TestBaseline:
    def test_by_hand(self):
        light = np.linspace(0, 1, 30)
        s = 3 * light**2 - 2 * light**3
        given = shown(torch.tensor(light).view(1, 1, 5, 6)).numpy().ravel()
        np.testing.assert_allclose(given, s ** (1 / 2.2), atol=1e-12)
        picture = light**2.2
        back = unshown(torch.tensor(light).view(1, 1, 5, 6)).numpy().ravel()
        np.testing.assert_allclose(back, 0.5 - np.sin(np.arcsin(1 - 2 * picture) / 3), atol=1e-12)

    def test_there_and_back(self):
        picture = random(1, 3, 4, 5)
        torch.testing.assert_close(shown(unshown(picture)), picture, atol=1e-9, rtol=0)
        outside = shown(torch.tensor([-0.5, 0.0, 1.0, 1.5]))
        torch.testing.assert_close(outside, torch.tensor([0.0, 0.0, 1.0, 1.0]))
