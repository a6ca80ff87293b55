"""The data set of RAW to Tone-mapped HDR Camera ISP, on a small tree in its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.train.data.hdr_pairs import HdrPairs
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.readers import how_to_get, open_data_set

Write = Callable[[Path, Any], None]


@pytest.fixture
def root(tmp_path: Path, rng: np.random.Generator, write_png: Write) -> Path:
    """A ramp with white in its last column; pictures of the training set in JPEG, of the test set in PNG."""
    for split, suffix, count in (("train", "jpg", 3), ("test", "png", 2)):
        for index in range(count):
            ramp = np.tile(np.linspace(0, 1020, 16).round().astype(np.uint16), (16, 1))
            write_png(tmp_path / split / f"raw/{index}.png", ramp)
            write_png(tmp_path / split / f"groundtruth/{index}.{suffix}", np.full((16, 16, 3), 60 * index, np.uint8))
    (tmp_path / "test/full_resolution").mkdir()
    return tmp_path


def test_pairs(root: Path):
    assert open_data_set("hdrisp", root, split="test") == HdrPairs(root, "test")
    for split, count in (("train", 3), ("test", 2)):
        reader = HdrPairs(root, split)
        files = reader.files()
        assert [file.name for file in files] == [str(number) for number in range(count)]
        assert len({file.group for file in files}) == count
        pair = reader.load(files[1])
        assert pair.raw_format == RawFormat(16, 16, "BayerRG10", 0, 1020)
        assert (pair.samples.dtype, pair.samples.max()) == (np.uint16, 1020)
        assert pair.target.shape == (16, 16, 3)
        assert abs(pair.target.mean() - 60) < 2, "JPEG"
        assert pair.gains is None


def test_samples_are_divided_as_published(root: Path):
    reader = HdrPairs(root)
    planes = RawPairs(reader, reader.files(), crop=None)[0]["planes"]
    wanted = torch.linspace(0, 1020, 16).round() / 1020
    torch.testing.assert_close(planes[0, 0], wanted[::2])
    torch.testing.assert_close(planes[1, 0], wanted[1::2])
    assert planes[1].max() == 1


def test_what_is_said_about_other_trees(root: Path, write_png: Write):
    with pytest.raises(UserError, match="no split 'val': choose one of train, test"):
        HdrPairs(root, "val").files()
    with pytest.raises(UserError, match=r"has no folder train/raw: .* train/groundtruth/\*\.jpg"):
        HdrPairs(root / "test").files()
    (root / "train/groundtruth/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 3 files in .*raw have no partner .*groundtruth, the first is 1\.png"):
        HdrPairs(root).files()
    reader = HdrPairs(root, "test")
    write_png(root / "test/groundtruth/0.png", np.zeros((16, 18, 3), np.uint8))
    with pytest.raises(UserError, match=r"0\.png is 16x16, but its picture .* is 18x16"):
        reader.load(reader.files()[0])


def test_it_is_on_request_only():
    text = how_to_get("hdrisp")
    assert "RAW to Tone-mapped HDR Camera ISP" in text
    assert "on request" in text
    assert "No licence" in text
