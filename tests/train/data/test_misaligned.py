"""Pairs of which the displacement is known: it is what it says, and so are the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from ispeed.engines.errors import UserError
from ispeed.train.data.folder import PairFolder
from ispeed.train.data.misaligned import (
    MARGIN,
    Displacement,
    Look,
    Misaligned,
    Misalignment,
    encode_misaligned,
    misalign,
)
from ispeed.train.data.unprocess import make_unprocessing
from ispeed.train.evaluation.frames import rendered
from ispeed.train.metrics import psnr

CLEAN = make_unprocessing("none", exposure=(1.0, 1.0), keep_brightness=True)


def smooth(edge: int = 160) -> torch.Tensor:
    """A photograph [3, H, W] without anything finer than some pixels, which any interpolation gives back."""
    size = edge + 2 * MARGIN
    y, x = torch.meshgrid(torch.arange(size) / 9, torch.arange(size) / 7, indexing="ij")
    return torch.stack([0.5 + 0.3 * torch.sin(x + k) * torch.cos(y - k) for k in range(3)])


def at(picture: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """What lies at displaced places, by torch's interpolation."""
    height, width = picture.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = (torch.stack([x, y], -1) + flow) / torch.tensor([width - 1, height - 1]) * 2 - 1
    return grid_sample(picture[None], places[None], mode="bicubic", padding_mode="border", align_corners=True)[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_reference_moved_along_the_flow_is_the_truth(seed: int):
    pair = misalign(smooth(), Misalignment((8.0, 8.0)), seed)
    inner = np.s_[:, 10:-10, 10:-10]
    assert psnr(at(pair.reference, pair.flow)[inner].numpy(), pair.truth[inner].numpy()) > 48
    assert psnr(pair.reference[inner].numpy(), pair.truth[inner].numpy()) < 35


def test_without_displacement_and_look_all_are_the_photograph():
    photo = smooth()
    pair = misalign(photo, Misalignment((0.0, 0.0), look=0.0, camera=CLEAN), 3)
    inner = photo[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert not pair.flow.any()
    for picture in (pair.reference, pair.truth):
        torch.testing.assert_close(picture, inner, atol=0.6 / 255, rtol=0)


def test_displacements_are_as_long_as_asked():
    y, x = np.mgrid[:100, :140].astype(np.float64)
    for seed, largest in ((1, 0.5), (2, 8.0), (3, 8.0)):
        flow = Displacement(np.random.default_rng(seed), 100, 140, largest).of(y, x)
        assert np.hypot(flow[..., 0], flow[..., 1]).max() == pytest.approx(largest, rel=0.005)
    lengths = [float(misalign(smooth(96), Misalignment(), seed).flow.norm(dim=-1).max()) for seed in range(8)]
    assert max(lengths) <= 8.01
    assert max(lengths) - min(lengths) > 3


def test_displacements_are_smooth_and_can_be_undone():
    field = Displacement(np.random.default_rng(4), 120, 160, 8.0)
    y, x = np.mgrid[:120, :160].astype(np.float64)
    flow = field.of(y, x).astype(np.float64)
    assert np.abs(np.diff(flow, 2, axis=0)).max() < 0.1
    assert np.abs(np.diff(flow, 2, axis=1)).max() < 0.1
    back = field.origin(y + flow[..., 1], x + flow[..., 0])
    assert np.hypot(back[..., 0] - x, back[..., 1] - y).max() < 1e-3


def test_it_follows_from_the_seed():
    photo = torch.from_numpy(rendered(128, 5).transpose(2, 0, 1).copy())
    first, same, other = (misalign(photo, Misalignment(), 7, seed) for seed in (1, 1, 2))
    for a, b in ((first.reference, same.reference), (first.planes, same.planes), (first.flow, same.flow)):
        assert torch.equal(a, b)
    assert not torch.equal(first.reference, other.reference)
    assert not torch.equal(first.flow, other.flow)


def test_the_look_goes_as_far_as_asked():
    photo = smooth()[:, :32, :32]
    none, usual = (Look.drawn(np.random.default_rng(1), strength) for strength in (0.0, 1.0))
    torch.testing.assert_close(none.of(photo), photo, atol=1e-5, rtol=0)
    assert (usual.of(photo) - photo).abs().mean() > 0.02
    assert usual.of(photo).min() >= 0
    assert usual.of(photo).max() <= 1


def test_a_camera_may_have_one_look():
    look = Look(exposure=0.5, gains=(1.2, 1.0, 0.9))
    for seed in (1, 2):
        pair = misalign(smooth(), Misalignment(), seed, look=look)
        wanted = look.of(smooth()[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
        torch.testing.assert_close(pair.truth, wanted, atol=0.6 / 255, rtol=0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="a range within 0 to 14 pixels"):
        Misalignment((2.0, 15.0))
    with pytest.raises(ValueError, match="128 pixels and more"):
        misalign(torch.zeros(3, 100, 200), Misalignment(), 1)
    with pytest.raises(UserError, match="filter array"):
        misalign(smooth(), Misalignment(), 1, cfa="RGB")


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_written_pairs_are_read(cfa: str, tmp_path: Path):
    pair: Misaligned = misalign(smooth(), Misalignment(), 2, cfa=cfa)
    for name, content in encode_misaligned("a", pair).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    reader = PairFolder(tmp_path)
    read = reader.load(reader.files()[0])
    samples, fmt = pair.mosaic()
    np.testing.assert_array_equal(read.samples, samples)
    assert read.raw_format == fmt
    light = (samples - fmt.black_level) / (fmt.white_level - fmt.black_level)
    np.testing.assert_allclose(light, pair.frame.mosaic[0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(read.target, np.rint(pair.reference.permute(1, 2, 0).numpy() * 255))
    np.testing.assert_array_equal(np.load(tmp_path / "flow" / "a.npy"), pair.flow.numpy())
    assert (tmp_path / "truth" / "a.png").is_file()
