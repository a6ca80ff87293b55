"""RHID in all its layouts: six sets that share their pictures, frames cut in nine, lists, and the gain of a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydantic
import pytest
import torch

from ispeed.engines import RawFormat, UserError
from ispeed.train.data.noise import SENSORS, gain_db
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.rhid import GAIN_DB, PIECE, SETS, WHOLE, Rhid
from ispeed.train.models.noise_level import NoiseInput, NoiseLevel
from ispeed.train.sources import PairsSource

Write = Callable[..., Path]
SIZE = (16, 24)
NAMES = ("2066_1", "2066_9", "31_4")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes frames in folders of sets, and their pictures; each frame differs from all others."""
    rng = np.random.default_rng(8)

    def write(raw: str, *pictures: str, sets: tuple[str, ...] = tuple(SETS), names: tuple[str, ...] = NAMES) -> Path:
        for folder in (raw if not sets else f"{raw}/{name}" for name in sets or ("",)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                rng.integers(0, 4096, SIZE).astype("<u2").tofile(tmp_path / folder / f"{name}.raw")
        for value, folder in enumerate(pictures):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for number, name in enumerate(names):
                picture = np.full((*SIZE, 3), 100 * value + number, np.uint8)
                PIL.Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
        return tmp_path

    return write


def names_of(reader: Rhid) -> list[str]:
    return [files.name for files in reader.files()]


@pytest.mark.parametrize(
    ("raw", "aligned", "cut_out"),
    [
        ("train/raw_512", "train/DL_rafts_512/DL", "train/DL_512"),
        ("train/raw_1536_512", "train/DL_rafts_1536_512/DL", "train/DL_1536_512"),
    ],
)
def test_six_sets_share_their_pictures(write: Write, raw: str, aligned: str, cut_out: str):
    root = write(raw, aligned, cut_out)
    reader = Rhid(root)
    files = reader.files()
    assert [one.name for one in files] == [f"{number}/{name}" for number in sorted(SETS) for name in NAMES]
    assert {one.group for one in files} == {"2066", "31"}, "all sets and pieces of a scene stay together"
    assert {one.target.parent for one in files} == {root / aligned}
    assert len({one.target for one in files}) == len(NAMES)
    pairs = {one.name: reader.load(one) for one in files}
    for name, pair in pairs.items():
        stored = np.fromfile(root / raw / f"{name}.raw", "<u2").reshape(SIZE)
        np.testing.assert_array_equal(pair.samples, stored)
        assert pair.raw_format == RawFormat(SIZE[1], SIZE[0], "BayerRG12", 0, 4095)
        assert pair.target[0, 0, 0] == NAMES.index(name.partition("/")[2])
    assert [pairs[f"{number}/31_4"].gain_db for number in sorted(SETS)] == [0, 16, 20, 24, 28, 32]
    assert {one.target.parent for one in Rhid(root, aligned=False).files()} == {root / cut_out}
    assert names_of(Rhid(root, sets=("set6", "set2")))[:3] == [f"set6/{name}" for name in NAMES]


def test_sets_that_are_missing(write: Write):
    root = write("val/raw_512", "val/DL_512", sets=("set2", "set4"))
    assert len(names_of(Rhid(root, "val"))) == 6
    with pytest.raises(UserError, match=r"raw_512 has no folder set5: there is set2, set4"):
        Rhid(root, "val", ("set5",)).files()


def test_the_demo_and_a_plain_folder_are_told_apart_by_lists(write: Write):
    root = write("Revealer", "Canon", sets=("set4", "set6"))
    assert names_of(Rhid(root)) == names_of(Rhid(root, "val")) == [f"set{k}/{name}" for k in (4, 6) for name in NAMES]
    (root / "train.txt").write_text("# a scene, in both sets\n2066\n")
    (root / "val.txt").write_text("set4/31_4\n")
    assert names_of(Rhid(root)) == [f"set{k}/2066_{n}" for k in (4, 6) for n in (1, 9)]
    assert names_of(Rhid(root, "val")) == ["set4/31_4"]
    (root / "val.txt").write_text("31_4\n2066_1\n")
    assert names_of(Rhid(root, "val", ("set6",))) == ["set6/2066_1", "set6/31_4"]
    (root / "val.txt").write_text("31_4\n77_1\n")
    with pytest.raises(UserError, match=r"val.txt names 77_1, which is not there: a line is like set4/2066_1"):
        Rhid(root, "val").files()
    (root / "val.txt").write_text("\n")
    with pytest.raises(UserError, match=r"val.txt names nothing"):
        Rhid(root, "val").files()


def test_without_sets_no_gain_is_known(write: Write):
    root = write("raw", "rgb", sets=())
    reader = Rhid(root)
    assert names_of(reader) == list(NAMES)
    assert {reader.load(files).gain_db for files in reader.files()} == {None}
    (root / "train").mkdir()
    assert names_of(reader) == list(NAMES), "a folder of something else"
    (root / "rgb").rename(root / "srgb")
    with pytest.raises(UserError, match=r"has no folder rgb: RHID is expected"):
        reader.files()


# ---- frames that are not cut yet ---------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """One scene of 1536 x 1536 in two sets: each sample tells the piece that it is in, and so does the picture."""
    rows, columns = np.divmod(np.arange(9), 3)
    pieces = np.zeros((WHOLE, WHOLE), np.uint16)
    for piece, (row, column) in enumerate(zip(rows, columns, strict=True)):
        pieces[row * PIECE : (row + 1) * PIECE, column * PIECE : (column + 1) * PIECE] = piece + 1
    for folder, tenth in (("set1", 10), ("set3", 30)):
        (tmp_path / "train/raw_1536" / folder).mkdir(parents=True)
        (pieces * 100 + tenth).astype("<u2").tofile(tmp_path / "train/raw_1536" / folder / "8.raw")
    (tmp_path / "train/DL_rafts_1536/DL").mkdir(parents=True)
    picture = np.repeat((pieces * 20).astype(np.uint8)[..., None], 3, 2)
    PIL.Image.fromarray(picture).save(tmp_path / "train/DL_rafts_1536/DL/8.png", compress_level=1)
    return tmp_path


def test_frames_are_cut_in_nine(whole: Path):
    reader = Rhid(whole)
    files = reader.files()
    assert [one.name for one in files] == [f"set{k}/8_{piece}" for k in (1, 3) for piece in range(1, 10)]
    assert {one.group for one in files} == {"8"}
    for place in (0, 2, 3, 8, 14):
        pair = reader.load(files[place])
        piece = place % 9 + 1
        assert pair.name == files[place].name
        assert pair.raw_format == RawFormat(PIECE, PIECE, "BayerRG12", 0, 4095)
        assert np.unique(pair.samples).tolist() == [100 * piece + (10 if place < 9 else 30)]
        assert pair.target.shape == (PIECE, PIECE, 3)
        assert np.unique(pair.target).tolist() == [20 * piece]
        assert pair.samples.base is None, "what is kept is the piece, not the frame"
        assert pair.gain_db == (0 if place < 9 else 20)
    (whole / "train.txt").write_text("8_5\n")
    assert names_of(reader) == ["set1/8_5", "set3/8_5"]


def test_a_smaller_picture_among_those_to_be_cut(whole: Path):
    folder = whole / "train/raw_1536"
    np.zeros(SIZE, "<u2").tofile(folder / "set3/9.raw")
    PIL.Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(whole / "train/DL_rafts_1536/DL/9.png")
    reader = Rhid(whole, sets=("set3",))
    with pytest.raises(UserError, match="set3/9_1 is 24x16, but the first one 1536x1536: all must be of one size"):
        reader.load(reader.files()[9])


def test_a_picture_that_is_none(write: Write):
    root = write("raw", "rgb", sets=())
    (root / "rgb" / f"{NAMES[0]}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2066_1.png cannot be read: .*copy it again"):
        Rhid(root).files()


# ---- samples -----------------------------------------------------------------------------------------------


def test_samples_carry_the_published_noise_level(write: Write):
    root = write("train/raw_512", "train/DL_512", names=("5_1",))
    samples = RawPairs(Rhid(root), crop=8)
    camera = torch.stack([samples[index]["camera"] for index in range(6)])
    assert camera[:, 0].tolist() == [0.0] * 6, "no exposure is known"
    level = NoiseInput(NoiseLevel((0.0, GAIN_DB)))
    assert level(camera[:, 1:2]).flatten().tolist() == [0.0, 0.5, 0.625, 0.75, 0.875, 1.0]


def test_frames_made_of_photographs_get_the_gain_of_the_set_whose_noise_they_have():
    shot = torch.tensor(SENSORS["rhid"].shot)
    gains = gain_db(shot)
    assert gains.tolist() == pytest.approx([GAIN_DB * SETS["set4"]] * 2, abs=1.0)
    assert gains[0] < GAIN_DB * SETS["set4"] < gains[1] + 0.5


def test_where_the_data_set_tells_nothing_the_recipe_does(write: Write):
    root = write("raw", "rgb", sets=())

    def drawn(**values: Any) -> list[float]:
        given = {"source": "pairs", "data_set": "rhid", "root": root, "crop": 8, **values}
        source = pydantic.TypeAdapter(PairsSource).validate_python(given)
        return source.open(1, held_out=False).samples[0]["camera"].tolist()

    assert drawn() == [0.0] * 5
    assert drawn(gain_db=24, exposure_us=150) == [150.0, 24.0, 0.0, 0.0, 0.0]
