"""Dense flow between a noisy frame and another camera's picture, against the truth."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ispeed.engines.errors import UserError
from ispeed.train.alignment import flow as module
from ispeed.train.alignment.flow import RAFT_LEAST, RAFT_MOST, RAFT_MULTIPLE, DisFlow, make_flow
from ispeed.train.alignment.look import matched
from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.data.misaligned import MARGIN, Misaligned, Misalignment, misalign
from ispeed.train.data.photos import find_photos, read_photo
from ispeed.train.evaluation.frames import middle
from ispeed.train.models import make_lwisp

Array = np.ndarray[Any, Any]
Take = Callable[..., Misaligned]
Errors = Callable[..., Array]
Pixels = Callable[..., Array]

TARGET = 0.5
"""Median of the error in pixels that alignment must stay below."""


@pytest.fixture
def errors(pixels: Callable[..., Array], shown: Callable[..., Array]) -> Callable[..., Array]:
    """How far a flow is off at each place, in pixels."""

    def measure(pair: Misaligned, flow: Any) -> Array:
        reference = pixels(pair.reference)
        found = flow(reference, matched(shown(pair), reference))
        assert found.shape == pair.flow.shape
        assert found.dtype == np.float32
        return np.hypot(*(found - pair.flow.numpy()).transpose(2, 0, 1))

    return measure


@pytest.mark.parametrize("seed", [0, 2, 6])  # scenes that have something to hold on to nearly everywhere
def test_scenes_in_the_noise_of_a_high_speed_camera(seed: int, take: Take, errors: Errors):
    pair = take(256, seed, (4.0, 8.0))
    assert pair.flow.norm(dim=-1).median() > 2 * TARGET, "there is something to find"
    assert np.median(errors(pair, make_flow())) < TARGET


def test_photographs_in_that_noise(data_dir: Path, errors: Errors):
    for number, photo in enumerate(find_photos(data_dir / "photos" / "val")[:2]):
        piece = middle(read_photo(photo.path), 320 + 2 * MARGIN, str(photo.path))
        pair = misalign(torch.from_numpy(piece.transpose(2, 0, 1).copy()), Misalignment((8.0, 8.0)), number)
        off = errors(pair, make_flow())
        assert np.median(off) < TARGET


def test_it_is_the_same_every_time_and_for_all_kinds_of_numbers(
    take: Take, pixels: Pixels, shown: Callable[..., Array]
):
    pair = take(96, 1)
    moving, fixed = pixels(pair.reference), shown(pair)
    flow = make_flow()
    first = flow(moving, fixed)
    np.testing.assert_array_equal(flow(moving, fixed), first)
    floats = flow(moving.astype(np.float32) / 255, fixed.astype(np.float32) / 255)
    assert np.abs(floats - first).max() < 0.05


def test_the_two_directions_undo_each_other(take: Take, pixels: Pixels):
    pair = take(192, 3, (4.0, 4.0))
    moving, fixed, flow = pixels(pair.reference), pixels(pair.truth), make_flow()
    there, back = flow(moving, fixed), flow(fixed, moving)
    inner = np.s_[24:-24, 24:-24]
    assert np.abs(np.median((there + back)[inner], axis=(0, 1))).max() < 0.1, "they end where they began, on the whole"
    assert np.median(np.abs(there[inner])) > 0.5


def test_refinement_on_features(take: Take, errors: Errors, tmp_path: Path):
    """A network with random weights sees enough; what a trained one is worth is not told here."""
    torch.manual_seed(4)
    network = make_lwisp("lwisp-s", form="clean")
    save_checkpoint(
        tmp_path / "clean.pt", Checkpoint(network, "lwisp-s", {"form": "clean"}, run="a", data="b", licence="c")
    )
    flow = make_flow(features=tmp_path / "clean.pt")
    assert flow.facts()["features"] == "CleanEncoder"
    pair = take(128, 3, (4.0, 4.0))
    with_features, without = errors(pair, flow), errors(pair, make_flow())
    assert np.abs(with_features - without).max() > 1e-3, "they are looked at"
    assert np.median(with_features) < np.median(pair.flow.norm(dim=-1).numpy()) / 2


def test_facts_are_json():
    facts = make_flow("dis").facts()
    assert facts["flow"] == "dis"
    assert facts["features"] is None
    assert isinstance(facts["opencv"], str)
    assert isinstance(make_flow("dis"), DisFlow)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "farneback"}, "there is no flow 'farneback': choose one of dis, raft"),
        ({"name": "raft"}, "flow by raft needs weights: give the state dict"),
        ({"name": "dis", "weights": Path("a.pth")}, "the flow dis has no weights"),
        ({"name": "dis", "features": Path("/nowhere.pt")}, "cannot read the network for features /nowhere.pt"),
    ],
)
def test_what_cannot_be_made(arguments: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        make_flow(**arguments)


def test_raft_without_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match=r"needs the package torchvision.*pip install --no-deps torchvision"):
        make_flow("raft", Path("raft.pth"))


@pytest.mark.parametrize("size", [(40, 60), (256, 320), (1080, 1920), (3000, 4000)])
def test_sizes_for_raft(size: tuple[int, int]):
    width, height = module._raft_size(*size)
    assert width % RAFT_MULTIPLE == height % RAFT_MULTIPLE == 0
    assert min(width, height) >= RAFT_LEAST
    assert width * height < 1.05 * RAFT_MOST
    if min(size) > RAFT_LEAST:
        assert width / height == pytest.approx(size[1] / size[0], rel=0.02)


@pytest.fixture
def raft_weights(tmp_path: Path) -> Path:
    """Random weights of the small network."""
    try:
        from torchvision.models.optical_flow import raft_small
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs torchvision in a build that goes with this torch: {error}")
    torch.manual_seed(1)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    return tmp_path / "raft.pth"


def test_raft(raft_weights: Path, take: Take, errors: Errors):
    flow = make_flow("raft", raft_weights)
    assert flow.facts()["network"] == "raft_small"
    assert flow.facts()["weights"] == "raft.pth"
    pair = take(136, 2)
    assert np.isfinite(errors(pair, flow)).all()
    torch.save({"a": torch.zeros(1)}, raft_weights)
    with pytest.raises(UserError, match="does not hold the weights of RAFT"):
        make_flow("raft", raft_weights)
