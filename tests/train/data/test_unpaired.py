"""Photographs beside frames that they do not belong to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.train.data.photos import find_photos
from ispeed.train.data.sampling import SeededSamples
from ispeed.train.data.splits import manifest_hash
from ispeed.train.data.unpaired import Unpaired, coloured, colours_of, open_photographs
from ispeed.train.metrics import mean_histogram


class Numbered(SeededSamples):
    """Frames that tell which they are."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"planes": torch.full((4, 16, 16), float(self._checked(index)) + 100 * int(self._epoch))}


def write_photos(folder: Path, count: int, *, edge: int = 40) -> Path:
    """Each of one colour, red 10 + its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = np.broadcast_to(np.array([10 + number, 200, 40], np.uint8), (edge, edge, 3))
        PIL.Image.fromarray(picture).save(folder / f"{number:03d}.png")
    return folder


def numbers(samples: Any) -> list[int]:
    """Which photograph lies beside each of the frames."""
    return [round(float(samples[index]["photo"][0, 0, 0]) * 255) - 10 for index in range(len(samples))]


def unpaired(folder: Path, frames: int, seed: int = 3) -> Unpaired:
    return Unpaired(Numbered(frames, seed), open_photographs(folder, 32, frames, None, seed).pictures, seed)


def test_a_photograph_lies_beside_each_frame(tmp_path: Path):
    samples = unpaired(write_photos(tmp_path, 12), 12)
    assert len(samples) == 12
    sample = samples[5]
    assert sample["photo"].shape == (3, 32, 32)
    assert sample["photo"].dtype == torch.float32
    assert float(sample["photo"].max()) == pytest.approx(200 / 255)
    assert (sample["planes"] == 5).all()
    assert sorted(numbers(samples)) == list(range(12)), "each once in an epoch"
    assert numbers(samples) != list(range(12))
    with pytest.raises(IndexError):
        samples[12]


def test_they_follow_from_seed_epoch_and_index(tmp_path: Path):
    folder = write_photos(tmp_path, 12)
    samples, same, other = unpaired(folder, 12), unpaired(folder, 12), unpaired(folder, 12, seed=4)
    first = numbers(samples)
    assert numbers(same) == first
    assert numbers(other) != first
    samples.set_epoch(1)
    assert numbers(samples) != first
    assert (samples[0]["planes"] == 100).all(), "frames see the epoch, too"
    samples.set_epoch(0)
    assert numbers(samples) == first


def test_neither_side_tells_of_the_other(tmp_path: Path):
    """Over many epochs each frame has each photograph equally often, in whatever order the photographs are named: the
    statistic is chi squared of 36 cells of a table with fixed margins, 25 degrees of freedom."""
    counts = []
    for names in ("plain", "shuffled"):
        folder = write_photos(tmp_path / names, 6)
        if names == "shuffled":
            for place, number in enumerate([3, 0, 5, 1, 4, 2]):
                (folder / f"{number:03d}.png").rename(folder / f"new-{place}.png")
        samples, table = unpaired(folder, 6), np.zeros((6, 6))
        for epoch in range(600):
            samples.set_epoch(epoch)
            for frame, photo in enumerate(numbers(samples)):
                table[frame, photo] += 1
        counts.append(table)
    for table in counts:
        assert (table.sum(0) == 600).all()
        assert ((table - 100) ** 2 / 100).sum() < 55, "which chance exceeds once in a thousand times"
    assert (counts[0] != counts[1]).any()


def test_few_photographs_are_taken_more_often(tmp_path: Path):
    samples = unpaired(write_photos(tmp_path, 3), 8)
    assert set(numbers(samples)) == {0, 1, 2}


def test_grey_ones_are_left_out_and_other_modes_are_right(tmp_path: Path):
    write_photos(tmp_path, 2)
    picture = PIL.Image.open(tmp_path / "000.png")
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("L").convert("RGB").save(tmp_path / "grey-in-colour.jpg")
    picture.convert("CMYK").resize((80, 80)).save(tmp_path / "print.jpg")
    opened = open_photographs(tmp_path, 32, 3, None, 1)
    assert opened.about == f"3 photographs of {tmp_path.name} (2 grey ones left out)"
    shown = [opened.pictures[index]["target"].mean((1, 2)) * 255 for index in range(3)]
    for each in shown:
        assert (each - torch.tensor([10.0, 200.0, 40.0])).abs().max() < 12


def test_a_photograph_is_looked_at_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = find_photos(write_photos(tmp_path, 2))
    assert coloured(files) == (files, [])
    opened = PIL.Image.open
    with monkeypatch.context() as patch:
        patch.setattr(PIL.Image, "open", lambda path: pytest.fail(f"{path} is opened again"))
        assert coloured(files) == (files, [])
    opened(files[0].path).convert("L").save(files[0].path)
    os.utime(files[0].path, ns=(0, 1))
    assert coloured(files) == (files[1:], files[:1])


def test_colours_of_photographs_are_the_mean_of_those_with_colours(tmp_path: Path):
    write_photos(tmp_path, 2)
    pictures = [np.asarray(PIL.Image.open(tmp_path / f"{number:03d}.png")) for number in range(2)]
    PIL.Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "grey.png")
    found = colours_of(tmp_path)
    np.testing.assert_allclose(found.mean, mean_histogram(pictures))
    assert found.about == f"2 photographs of {tmp_path.name} (1 grey ones left out)"
    assert found.manifest == manifest_hash(find_photos(tmp_path)[:2])


def test_scenes_are_rendered_where_there_is_no_folder():
    opened = open_photographs(None, 32, 4, None, 1)
    assert opened.pictures[0]["target"].shape == (3, 32, 32)
    assert len(opened.pictures) == 4
    assert opened.about == "rendered scenes"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda folder: None, "holds no photographs"),
        (lambda folder: (folder / "a.png").write_bytes(b"nothing"), r"a\.png cannot be read: .*; copy it again"),
        (lambda folder: PIL.Image.new("L", (40, 40)).save(folder / "a.png"), "all 1 photographs of .* are grey"),
    ],
)
def test_folders_that_will_not_do(write: Any, says: str, tmp_path: Path):
    write(tmp_path)
    with pytest.raises(UserError, match=says) as error:
        open_photographs(tmp_path, 32, 4, None, 1)
    assert "\n" not in str(error.value)
