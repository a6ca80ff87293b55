"""Photographs in a folder, as samples."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader

from ispeed.engines.errors import UserError
from ispeed.train.data.photos import Photos, find_photos, read_photo
from ispeed.train.data.splits import hold_out, manifest_hash, read_split
from ispeed.train.data.unprocess import make_unprocessing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs: a PNG, a JPEG in a folder of its own, and a grey PNG."""
    rng = np.random.default_rng(2)
    (tmp_path / "more").mkdir()
    save(tmp_path / "a.png", rng.integers(0, 256, (40, 60, 3)))
    save(tmp_path / "more" / "b.JPG", rng.integers(0, 256, (96, 80, 3)))
    save(tmp_path / "c.png", rng.integers(0, 256, (50, 50)))
    (tmp_path / "notes.txt").write_text("none of them")
    return tmp_path


def save(path: Path, values: np.ndarray) -> None:
    PIL.Image.fromarray(values.astype(np.uint8)).save(path)


def test_photographs_are_found_in_folders_too(folder: Path):
    assert [photo.name for photo in find_photos(folder)] == ["a.png", "c.png", "more/b.JPG"]
    data = Photos(folder)
    assert data.name(2) == "more/b.JPG"
    assert len(manifest_hash(data.files, contents=True)) == 64


def test_photographs_are_held_out_or_listed_like_pairs(folder: Path):
    photos = find_photos(folder)
    trained, held = hold_out(photos, 0.4)
    assert (len(trained), len(held)) == (2, 1)
    assert sorted(trained + held, key=photos.index) == photos
    (folder / "list.txt").write_text("more/b.JPG\na.png\n")
    assert read_split(folder / "list.txt", photos) == [photos[2], photos[0]]


def test_a_sample(folder: Path):
    data = Photos(folder, crop=16, repeats=4, seed=1)
    assert len(data) == 12
    sample = data[0]
    assert sample["planes"].shape == (4, 8, 8)
    assert sample["gains"].shape == (3,)
    assert sample["target"].shape == (3, 16, 16)
    assert {values.dtype for values in sample.values()} == {torch.float32}
    assert not torch.equal(data[0]["target"], data[3]["target"]), "two pieces of one photograph"
    with pytest.raises(IndexError):
        data[12]


def test_without_noise_a_whole_photograph_is_its_own_target(folder: Path):
    data = Photos(folder, make_unprocessing("none"), multiple=16)
    stored = np.asarray(PIL.Image.open(folder / "a.png"))
    cut = stored[4:36, 6:54]
    assert torch.equal(data[0]["target"], torch.from_numpy(cut.copy()).permute(2, 0, 1).float() / 255)
    assert data[1]["target"].shape == (3, 48, 48)


def test_pieces_are_of_the_photograph_in_all_eight_ways(folder: Path):
    edge = 50  # of the grey photograph: a piece is all of it
    data = Photos(folder, make_unprocessing("none"), [find_photos(folder)[1]], crop=edge, repeats=100)
    stored = np.asarray(PIL.Image.open(folder / "c.png"))
    ways = {np.rot90(one, k).tobytes() for one in (stored, stored[:, ::-1]) for k in range(4)}
    seen = {(data[i]["target"][0] * 255).round().to(torch.uint8).numpy().tobytes() for i in range(100)}
    assert seen == ways
    straight = Photos(folder, make_unprocessing("none"), [find_photos(folder)[1]], crop=edge, augment=False)
    assert (straight[0]["target"][0] * 255).round().to(torch.uint8).numpy().tobytes() == stored.tobytes()


def test_every_place_can_be_drawn(folder: Path):
    data = Photos(folder, make_unprocessing("none"), [find_photos(folder)[1]], crop=46, repeats=300, augment=False)
    corners = {tuple(data[i]["target"][0, 0, :3].tolist()) for i in range(300)}
    stored = np.asarray(PIL.Image.open(folder / "c.png"), np.float32) / np.float32(255)
    assert corners == {tuple(stored[y, x : x + 3].tolist()) for y in range(5) for x in range(5)}


def test_samples_follow_from_seed_epoch_and_index(folder: Path):
    first, again, other = (Photos(folder, crop=16, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert not torch.equal(first[1]["planes"], other[1]["planes"])
    before = first[1]["planes"]
    first.set_epoch(1)
    assert not torch.equal(first[1]["planes"], before)
    again.set_epoch(1)
    assert torch.equal(first[1]["planes"], again[1]["planes"])


def test_validation_is_the_same_in_every_epoch(folder: Path):
    data = Photos(folder)
    before = data[0]["planes"]
    data.set_epoch(7)
    assert torch.equal(data[0]["planes"], before)


def test_workers_change_nothing(folder: Path):
    data = Photos(folder, crop=16, repeats=2, seed=3)
    alone = [batch["planes"] for batch in DataLoader(data, 2)]
    loader = DataLoader(data, 2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    shared = [batch["planes"] for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    data.set_epoch(1)
    assert not torch.equal(next(iter(loader))["planes"], alone[0]), "workers that live on see the next epoch"
    del loader


def test_the_scene_is_the_same_in_every_phase(folder: Path):
    data = Photos(folder, make_unprocessing("rhid"), crop=16)
    frames = {cfa: data.frame(1, cfa) for cfa in ("RGGB", "BGGR")}
    assert torch.equal(frames["RGGB"].target, frames["BGGR"].target)
    assert torch.equal(frames["RGGB"].gains, frames["BGGR"].gains)
    assert frames["BGGR"].samples()["planes"].shape == (1, 4, 7, 7)


def test_photographs_are_kept_up_to_a_budget(folder: Path):
    data = Photos(folder, crop=16, cache_bytes=40 * 60 * 3)
    before = [data[i]["planes"] for i in range(3)]
    (folder / "a.png").unlink()
    assert torch.equal(data[0]["planes"], before[0]), "kept"
    (folder / "c.png").unlink()
    with pytest.raises(UserError, match=r"c\.png"):
        data[1]


# ---- reading -----------------------------------------------------------------------------------------------


def test_downscaling_is_in_linear_light(tmp_path: Path):
    """Black and white lines are seen from afar as light of one half, which is shown as 188, not 128."""
    lines = np.zeros((64, 64, 3))
    lines[::2] = 255
    save(tmp_path / "lines.png", lines)
    small = read_photo(tmp_path / "lines.png", 4)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[2:-2].astype(int) - 188).max() <= 2
    assert read_photo(tmp_path / "lines.png").shape == (64, 64, 3)


def test_jpegs_are_halved_unless_said_otherwise(folder: Path):
    assert read_photo(folder / "more" / "b.JPG").shape == (48, 40, 3)
    assert read_photo(folder / "more" / "b.JPG", 1).shape == (96, 80, 3)
    assert read_photo(folder / "more" / "b.JPG", 1.5).shape == (64, 53, 3)


def test_downscaling_hides_noise(tmp_path: Path):
    rng = np.random.default_rng(0)
    save(tmp_path / "noisy.png", 128 + rng.normal(0, 20, (128, 128, 3)))
    assert read_photo(tmp_path / "noisy.png", 2).std() < 0.6 * 20


def test_orientation_is_followed(tmp_path: Path):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :15] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned to the left: to be shown turned to the right
    PIL.Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture = read_photo(tmp_path / "turned.jpg", 1)
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).mean() < 5


def test_other_modes_become_rgb(tmp_path: Path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    PIL.Image.fromarray(np.dstack([grey] * 4)).save(tmp_path / "transparent.png")
    for name in ("grey.png", "transparent.png"):
        np.testing.assert_array_equal(read_photo(tmp_path / name), np.dstack([grey] * 3))


# ---- what is wrong -----------------------------------------------------------------------------------------


def test_wrong_folders_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="no folder"):
        Photos(tmp_path / "none")
    with pytest.raises(UserError, match="holds no photographs"):
        Photos(tmp_path)
    with pytest.raises(UserError, match="no photographs to train on"):
        Photos(tmp_path, files=[])


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_truncated_photographs_are_named(tmp_path: Path, ending: str):
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    PIL.Image.fromarray(noise).save(whole, "PNG" if ending == "png" else "JPEG")
    path = tmp_path / f"half.{ending}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(UserError, match=f"half.{ending} cannot be read"):
        Photos(tmp_path, crop=16)[0]
    path.write_text("no picture")
    with pytest.raises(UserError, match=f"half.{ending} cannot be read"):
        Photos(tmp_path, crop=16)[0]


def test_sixteen_bits_are_refused(tmp_path: Path):
    PIL.Image.fromarray(np.full((16, 16), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        read_photo(tmp_path / "deep.png")


@pytest.mark.parametrize(
    ("options", "word"),
    [({"crop": 15}, "crop"), ({"crop": 6}, "crop"), ({"multiple": 3}, "multiple"), ({"repeats": 0}, "repeats")],
)
def test_bad_options_are_named(folder: Path, options: dict[str, int], word: str):
    with pytest.raises(UserError, match=f"{word} is"):
        Photos(folder, **options)  # pyright: ignore[reportArgumentType]


def test_photographs_that_are_too_small_are_named(folder: Path):
    with pytest.raises(UserError, match=r"a\.png is 60x40"):
        Photos(folder, crop=48)[0]
    with pytest.raises(UserError, match=r"a\.png is 60x40"):
        Photos(folder, multiple=64)[0]
    with pytest.raises(UserError, match=r"downscale is 0\.5"):
        Photos(folder, downscale=0.5)[0]
