"""The phase mask and the masked difference: against NumPy, in closed form, and with pictures that lie wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ispeed.train.features import CleanEncoder, FeatureMaps
from ispeed.train.losses import LOSSES, MaskedL1, PhaseMask, make_loss, phase_similarity
from ispeed.train.losses.phase import DEPTH
from ispeed.train.models import make_lwisp


class Quarter(nn.Module):
    """Features that anyone can compute, as small as conv3_1: means of four by four, and of their squares."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        self.seen.append(len(picture))
        return {DEPTH: torch.cat([avg_pool2d(picture, 4), avg_pool2d(picture.square(), 4)], 1)}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- similarity --------------------------------------------------------------------------------------------------


def by_definition(features: np.ndarray) -> np.ndarray:
    """NumPy's transform, without what rounding leaves beside values that are real."""
    spectrum = np.fft.fft2(features)
    return np.where(np.abs(spectrum.imag) < 1e-12, spectrum.real + 0j, spectrum)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 9)])
def test_similarity_by_numpy(size: tuple[int, int]):
    a, b = (drawn(4, 3, *size, seed=seed, dtype=torch.float64) - 0.4 for seed in (1, 2))
    b = a + 0.5 * b
    for found, x, y in zip(phase_similarity(a, b), a.numpy(), b.numpy(), strict=True):
        p, q = (np.angle(by_definition(z)).ravel() for z in (x, y))
        assert float(found) == pytest.approx(p @ q / (np.linalg.norm(p) * np.linalg.norm(q)), abs=1e-9)


def test_alike_whatever_the_contrast():
    features = drawn(6, 5, 8, 8, seed=3)
    torch.testing.assert_close(phase_similarity(features, 4 * features), torch.ones(6))


def test_unrelated_features_are_near_zero():
    apart = phase_similarity(drawn(50, 8, 16, 16, seed=1), drawn(50, 8, 16, 16, seed=2))
    assert float(apart.abs().max()) < 0.1


def test_shifts_cost_the_more_the_wider():
    smooth = avg_pool2d(drawn(8, 4, 44, 44, seed=4), 9, 1)
    at = [float(phase_similarity(smooth[..., :32, :32], smooth[..., :32, n : n + 32]).mean()) for n in range(4)]
    assert at[0] == pytest.approx(1, abs=1e-6)
    assert at[0] > at[1] > at[2] > at[3] > 0


def test_rounding_does_not_choose_between_pi_and_minus_pi():
    """What is below 0 in the mean has a real transform there, of phase pi."""
    features = -drawn(40, 1, 8, 8, seed=5)
    noise = 1e-6 * drawn(40, 1, 8, 8, seed=6)
    assert float(phase_similarity(features, features + noise).min()) > 0.999
    flat = torch.full((1, 1, 4, 4), -1.0)
    assert float(phase_similarity(flat, 3 * flat)) == pytest.approx(1)


def test_in_few_bits():
    features = drawn(4, 2, 8, 8, seed=5)
    with torch.autocast("cpu", torch.bfloat16):
        found = phase_similarity(features.bfloat16(), features)
    assert found.dtype == torch.float32
    assert float(found.min()) > 0.9


def test_nothing_to_compare():
    black = torch.zeros(1, 2, 8, 8)
    assert float(phase_similarity(black, drawn(1, 2, 8, 8))) == 0
    with pytest.raises(ValueError, match="of one shape"):
        phase_similarity(black, black[:, :1])


# ---- the mask ----------------------------------------------------------------------------------------------------


def test_only_blocks_that_lie_wrong_are_left_out():
    shown = drawn(2, 3, 40, 50)
    reference = 0.2 + 0.5 * shown  # another look
    reference[0, :, 16:32, 32:48] = reference[0, :, 16:32, 32:48].roll(5, 2)
    reference[1, :, :16, :16] = drawn(3, 16, 16, seed=7)
    measure = PhaseMask(Quarter(), block=16, threshold=0.5)
    expected = torch.ones(2, 1, 40, 50)
    expected[:, :, 32:], expected[:, :, :, 48:] = 0, 0  # no whole blocks
    expected[0, :, 16:32, 32:48], expected[1, :, :16, :16] = 0, 0
    mask = measure(shown, reference)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, expected)
    assert torch.equal(
        PhaseMask(Quarter(), block=16, threshold=-1.0)(shown, reference)[:, :, :32, :48], torch.ones(2, 1, 32, 48)
    )


def test_each_block_is_seen_by_itself():
    shown, reference = drawn(2, 3, 33, 40), drawn(2, 3, 33, 40, seed=1)
    reference = 0.5 * (shown + reference)
    features = Quarter()
    measure = PhaseMask(features, block=16, at_once=3)
    similarity = measure.similarity(shown, reference)
    assert similarity.shape == (2, 2, 2)
    assert features.seen == [3, 3, 3, 3, 2, 2], "no more than three at once"
    for index, found in np.ndenumerate(similarity.numpy()):
        n, y, x = index[0], 16 * index[1], 16 * index[2]
        pair = (Quarter()(p[n : n + 1, :, y : y + 16, x : x + 16])[DEPTH] for p in (shown, reference))
        assert found == pytest.approx(float(phase_similarity(*pair)), abs=1e-6)


def test_seen_by_a_network():
    torch.manual_seed(1)
    network = CleanEncoder(make_lwisp("lwisp-s", form="clean"), "linear", [DEPTH])  # pyright: ignore[reportArgumentType]
    measure = PhaseMask(FeatureMaps(network, [DEPTH]), block=16, threshold=0.6)
    shown = drawn(1, 3, 32, 32)
    reference = shown.clone()
    reference[..., :16, 16:] = drawn(3, 16, 16, seed=3)
    assert torch.equal(measure(shown, reference)[0, 0, ::16, ::16], torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="at least 8 x 8 pixels"):
        PhaseMask(FeatureMaps(network, [DEPTH]), block=6)(shown, reference)


def test_threshold():
    shown, reference = drawn(1, 3, 32, 32), drawn(1, 3, 32, 32, seed=1)
    measure = PhaseMask(Quarter(), block=16)
    assert (measure.block, measure.threshold) == (16, 0.2)
    similarity = measure.similarity(shown, shown + reference)[0]
    exactly = float(similarity.flatten().sort().values[2])
    kept = PhaseMask(Quarter(), block=16, threshold=exactly)(shown, shown + reference)[0, 0, ::16, ::16]
    assert torch.equal(kept, (similarity >= exactly).float())
    assert int(kept.sum()) == 2, "one at the threshold, one above"


def test_wrong_settings():
    for options, problem in (
        ({"block": 0}, "block is 0"),
        ({"block": 32.0}, "block is 32.0"),
        ({"at_once": True}, "at_once is True"),
        ({"threshold": 1.5}, "a cosine lies in"),
    ):
        with pytest.raises(ValueError, match=problem):
            PhaseMask(Quarter(), **options)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        PhaseMask(Quarter())(drawn(1, 3, 31, 64), drawn(1, 3, 31, 64))
    with pytest.raises(ValueError, match="over is 'all'; choose one of pixels, values, picture"):
        MaskedL1("all")  # pyright: ignore[reportArgumentType]


# ---- the difference ----------------------------------------------------------------------------------------------


def test_what_it_is_divided_by():
    shown, wanted = torch.full((2, 3, 4, 5), 0.75), torch.full((2, 3, 4, 5), 0.5)
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, :, :2] = 1  # 10 of 40 pixels
    shown[1] = 1.0  # not kept
    assert float(MaskedL1()(shown, wanted, mask)) == pytest.approx(3 * 0.25, rel=1e-6)
    assert float(MaskedL1("values")(shown, wanted, mask)) == pytest.approx(0.25, rel=1e-6)
    assert float(MaskedL1("picture")(shown, wanted, mask)) == pytest.approx(0.25 / 4, rel=1e-6)
    for over in ("pixels", "values", "picture"):
        assert float(MaskedL1(over)(shown, wanted, 0 * mask)) == 0, "nothing is kept"
    whole = float((shown - wanted).abs().mean())
    assert float(MaskedL1("values")(shown, wanted)) == pytest.approx(whole, rel=1e-6)
    assert float(MaskedL1("pixels")(shown, wanted)) == pytest.approx(3 * whole, rel=1e-6)


def test_slopes():
    shown, wanted = drawn(1, 2, 3, 3, dtype=torch.float64), drawn(1, 2, 3, 3, seed=1, dtype=torch.float64)
    mask = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]]).double()[None, None]
    for over in ("pixels", "values", "picture"):
        loss = MaskedL1(over)
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, wanted, mask), shown.requires_grad_())


def test_masks_of_another_shape():
    shown = drawn(2, 3, 4, 5)
    for shape in (2, 3, 4, 5), (2, 4, 5), (1, 1, 4, 5), (2, 1, 5, 4):
        with pytest.raises(ValueError, match=r"the mask of pictures \[2, 3, 4, 5\] is \[2, 1, 4, 5\]"):
            MaskedL1()(shown, shown, torch.ones(shape))
        with pytest.raises(ValueError, match="the mask of pictures"):
            make_loss({"l1": 1})(shown, shown, torch.ones(shape))


class Listed(nn.Module):
    def forward(self, picture: Tensor) -> list[Tensor]:
        return [picture]


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_of_a_recipe_keeps_to_the_mask(name: str):
    """No slope outside, and nothing that is shown there changes the loss."""
    loss = make_loss({name: 1}, encoder=Listed())
    shown, wanted = drawn(1, 3, 24, 24), drawn(1, 3, 24, 24, seed=1)
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 4:20, 3:17] = 1
    shown.requires_grad_()
    total, parts = loss(shown, wanted, mask)
    total.backward()
    assert shown.grad is not None
    assert float((shown.grad * (1 - mask)).abs().max()) == 0
    assert float((shown.grad * mask).abs().max()) > 0
    elsewhere = torch.where(mask > 0, shown.detach(), torch.ones(()))
    assert float(loss(elsewhere, wanted, mask)[1][name]) == pytest.approx(float(parts[name]), abs=1e-6)
    everywhere = loss(shown.detach(), wanted, torch.ones_like(mask))[0]
    assert float(everywhere) == pytest.approx(float(loss(shown.detach(), wanted)[0]), rel=1e-5)


def test_losses_without_a_mask_of_their_own_are_means_over_whole_pictures():
    shown, wanted = drawn(1, 3, 8, 8), drawn(1, 3, 8, 8, seed=1)
    mask = (drawn(1, 1, 8, 8, seed=2) > 0.5).float()
    _, parts = make_loss({"l1": 1, "phase": {"over": "picture"}, "mse": 2})(shown, wanted, mask)
    assert float(parts["l1"]) == pytest.approx(float(((shown - wanted).abs() * mask).mean()), rel=1e-5)
    assert float(parts["phase"]) == pytest.approx(float(parts["l1"]), rel=1e-5)
    assert float(parts["mse"]) == pytest.approx(float(((shown - wanted).square() * mask).mean()), rel=1e-5)
