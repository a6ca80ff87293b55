"""Samples from pairs: every piece is RGGB and lies on its picture, whatever the phase and however it is turned."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ispeed.engines import RawFormat, pack
from ispeed.engines.errors import UserError
from ispeed.engines.graph_reference import planes_reference
from ispeed.engines.quality import grey_world
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.raw_pair import PairFiles, RawPair
from ispeed.train.data.rhid import Rhid

PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")
Array = np.ndarray[Any, Any]
MosaicOf = Callable[[Array, str], Array]


@dataclass
class InMemory:
    """A reader of pairs that are there already, which counts what is decoded."""

    pairs: list[RawPair]
    decoded: Counter[str] = field(default_factory=Counter)

    def files(self) -> list[PairFiles]:
        return [PairFiles(pair.name, Path("none"), Path("none"), pair.name) for pair in self.pairs]

    def load(self, files: PairFiles) -> RawPair:
        self.decoded[files.name] += 1
        return next(pair for pair in self.pairs if pair.name == files.name)


@pytest.fixture
def make(rng: np.random.Generator, mosaic_of: MosaicOf) -> Callable[..., InMemory]:
    """Pairs whose frame is their picture seen through the filters, so that each sample tells where it is from."""

    def make(*phases: str, height: int = 20, width: int = 26, gains: Any = None) -> InMemory:
        pairs = []
        for index, cfa in enumerate(phases):
            picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            fmt = RawFormat(width, height, f"Bayer{cfa[:2]}10", 100, 355)
            pairs.append(RawPair(f"{index}-{cfa}", 100 + mosaic_of(picture, cfa), fmt, picture, gains))
        return InMemory(pairs)

    return make


def assert_on_its_picture(sample: dict[str, torch.Tensor]) -> None:
    planes, target = sample["planes"], sample["target"]
    for plane, (colour, y, x) in zip(planes, ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)), strict=True):
        torch.testing.assert_close(plane, target[colour, y::2, x::2])


@pytest.mark.parametrize("cfa", PHASES)
def test_pieces_are_rggb_and_lie_on_their_picture(cfa: str, make: Callable[..., InMemory]):
    reader = make(cfa)
    data = RawPairs(reader, crop=8, repeats=200)
    assert len(data) == 200
    found, turned = set(), set()
    picture = reader.pairs[0].target.transpose(2, 0, 1)
    for index in range(len(data)):
        sample = data[index]
        assert {name: (tuple(t.shape), t.dtype) for name, t in sample.items()} == {
            "planes": ((4, 4, 4), torch.float32),
            "gains": ((3,), torch.float32),
            "target": ((3, 8, 8), torch.float32),
            "matrix": ((3, 3), torch.float32),
            "camera": ((5,), torch.float32),
        }
        assert_on_its_picture(sample)
        place = _find(picture, np.rint(255 * sample["target"].numpy()).astype(np.uint8))
        found.add(place[:2])
        turned.add(place[2])
    assert len(turned) == 8, "every orientation"
    assert {row for row, _ in found} == set(range(20 - 8 + 1)), "every row, even and odd"
    assert {column for _, column in found} == set(range(26 - 8 + 1))


def _find(picture: Array, piece: Array) -> tuple[int, int, int]:
    """Row, column and orientation, 0 to 7, of a piece of a picture."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (3, 8, 8))[0]
    for turn in range(8):
        plain = np.rot90(piece[:, :, ::-1] if turn >= 4 else piece, turn % 4, (1, 2))
        places = np.argwhere((windows == plain).all((2, 3, 4)))
        if len(places):
            return int(places[0][0]), int(places[0][1]), turn
    raise AssertionError("the piece is not of the picture")


@pytest.mark.parametrize("cfa", PHASES)
@pytest.mark.parametrize(("multiple", "size"), [(2, (18, 24)), (8, (16, 24))])
def test_whole_frames(cfa: str, multiple: int, size: tuple[int, int], make: Callable[..., InMemory]):
    reader = make(cfa, height=19, width=26)
    sample = RawPairs(reader, multiple=multiple)[0]
    height, width = size
    top, left = divmod(cfa.index("R"), 2)
    if multiple == 2 and not left:
        width = 26
    assert sample["target"].shape == (3, height, width)
    assert_on_its_picture(sample)
    expected = reader.pairs[0].target[top : top + height, left : left + width]
    np.testing.assert_array_equal(np.rint(255 * sample["target"].numpy()).transpose(1, 2, 0), expected)


@pytest.mark.parametrize("cfa", PHASES)
def test_planes_are_those_of_the_engines(cfa: str, make: Callable[..., InMemory]):
    pair = make(cfa).pairs[0]
    planes = RawPairs(InMemory([pair]))[0]["planes"]
    top, left = divmod(cfa.index("R"), 2)  # where engines mirror a row or column in front, pieces leave one out
    height, width = planes.shape[1:]
    expected = planes_reference(pack(pair.samples, pair.raw_format), pair.raw_format, 2)
    np.testing.assert_allclose(planes, expected[:, top : top + height, left : left + width], atol=1e-6)


def test_what_is_drawn_follows_from_seed_epoch_and_index(make: Callable[..., InMemory]):
    reader = make(*PHASES)

    def drawn(data: RawPairs, order: range | list[int], epoch: int) -> dict[int, bytes]:
        data.set_epoch(epoch)
        return {index: data[index]["target"].numpy().tobytes() for index in order}

    data = RawPairs(reader, crop=8, repeats=2, seed=1)
    first, second = drawn(data, range(8), 0), drawn(data, range(8), 1)
    assert all(first[index] != second[index] for index in range(8))
    assert first[0] != first[4], "two pieces of the same frame"
    other = RawPairs(reader, crop=8, repeats=2, seed=1, cache_bytes=0)
    assert drawn(other, [6, 1, 3, 0, 7, 2, 4, 5], 1) == second, "in any order, cached or not"
    assert drawn(RawPairs(reader, crop=8, repeats=2, seed=2), range(8), 0) != first
    assert [data.name(index) for index in (0, 5)] == ["0-RGGB", "1-GRBG"]
    with pytest.raises(IndexError):
        data[8]


def test_workers_draw_the_same_and_see_the_epoch(make: Callable[..., InMemory]):
    data = RawPairs(make(*PHASES), crop=8, seed=5)
    loader = DataLoader(data, batch_size=2, num_workers=2, persistent_workers=True)
    try:
        for epoch in (0, 3):
            data.set_epoch(epoch)
            batches = torch.cat([batch["planes"] for batch in loader])
            torch.testing.assert_close(batches, torch.stack([data[index]["planes"] for index in range(4)]))
    finally:
        del loader


def test_pieces_as_large_as_the_frame(make: Callable[..., InMemory]):
    data = RawPairs(make("RGGB", height=8, width=12), crop=8, repeats=40)
    rows = set()
    for index in range(40):
        assert_on_its_picture(data[index])
        rows.add(data[index]["planes"].numpy().tobytes())
    assert len(rows) > 4, "mirrored and moved where there is room"
    plain = RawPairs(make("GBRG", height=9, width=8), crop=8, augment=False)
    assert_on_its_picture(plain[0])
    for cfa in ("GBRG", "BGGR"):
        with pytest.raises(UserError, match=rf"0-{cfa} is 8x8 and {cfa}, which leaves no room for a piece of 8x8"):
            RawPairs(make(cfa, height=8, width=8), crop=8)[0]
    with pytest.raises(UserError, match="is 26x20, which is smaller than one multiple of 64"):
        RawPairs(make("RGGB"), multiple=64)[0]


def test_white_balance(make: Callable[..., InMemory]):
    known = make("GRBG", gains=np.array([2, 1, 20], np.float32))
    unknown = make("GRBG")
    world = grey_world(known.pairs[0].samples, known.pairs[0].raw_format)
    for reader, white_balance, gains in (
        (known, "camera", [2, 1, 8]),  # limited as in the engines
        (known, "grey_world", world),
        (unknown, "camera", grey_world(unknown.pairs[0].samples, unknown.pairs[0].raw_format)),
        (known, (3.0, 2.0, 1.0), [1.5, 1, 0.5]),
    ):
        sample = RawPairs(reader, white_balance=white_balance)[0]
        np.testing.assert_allclose(sample["gains"], gains, rtol=1e-6)
        assert_on_its_picture(sample)  # the planes are not balanced
    assert not np.allclose(world, 1, atol=1e-3)
    for wrong, words in (("daylight", "one of camera, grey_world, or three gains"), ((1, 1), "three gains")):
        with pytest.raises(UserError, match=words):
            RawPairs(known, white_balance=wrong)


def test_nothing_is_limited():
    samples = np.zeros((4, 4), np.uint16)
    samples[::2, ::2] = 1000
    pair = RawPair("a", samples, RawFormat(4, 4, "BayerRG10", 100, 600), np.zeros((4, 4, 3), np.uint8))
    planes = RawPairs(InMemory([pair]), white_balance=(1, 1, 1))[0]["planes"]
    assert planes[0].unique().tolist() == pytest.approx([1.8])
    assert planes[1:].unique().tolist() == pytest.approx([-0.2])


def test_frames_are_kept_up_to_a_budget(make: Callable[..., InMemory]):
    reader = make(*PHASES)
    size = reader.pairs[0].bytes
    data = RawPairs(reader, crop=8, cache_bytes=2 * size + 1)
    for _ in range(3):
        for index in range(4):
            data[index]
    assert sorted(reader.decoded.values()) == [1, 1, 3, 3]
    copy = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(copy[0]["planes"], data[0]["planes"])
    assert len(pickle.dumps(data)) < len(pickle.dumps(reader)) + size, "frames that were kept are not sent to workers"


def test_bad_arguments(make: Callable[..., InMemory]):
    for options, words in (
        ({"crop": 7}, "crop is 7: it must be even"),
        ({"crop": 0}, "crop is 0: it must be even, and 2 or more"),
        ({"multiple": 3}, "multiple is 3: it must be even"),
        ({"repeats": 0}, "repeats is 0"),
        ({"files": []}, "there are no pairs"),
    ):
        with pytest.raises(UserError, match=words):
            RawPairs(make("RGGB"), **options)


def test_real_pairs(data_dir: Path):
    data = RawPairs(Rhid(data_dir / "paired/rhid"), crop=64)
    sample = data[1]
    assert data.name(1) == "2044_8"
    assert sample["planes"].shape == (4, 32, 32)
    assert 0 <= sample["planes"].min() <= sample["planes"].max() <= 1
    assert 0.25 <= sample["gains"].min() <= sample["gains"].max() <= 4
