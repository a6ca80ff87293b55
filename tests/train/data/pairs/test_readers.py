"""ZRR, UltraISP and RHID on small trees in their published layouts, and what is said about other trees."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.train.data.raw_pair import one_black
from ispeed.train.data.readers import data_sets, how_to_get, open_data_set
from ispeed.train.data.rhid import Rhid
from ispeed.train.data.ultraisp import UltraIsp
from ispeed.train.data.zrr import Zrr

Write = Callable[[Path, Any], None]


def _words(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def zrr(tmp_path: Path, rng: np.random.Generator, write_png: Write) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        for index in range(count):
            write_png(tmp_path / split / f"huawei_raw/{index}.png", rng.integers(60, 1021, (16, 16)).astype(np.uint16))
            write_png(tmp_path / split / f"canon/{index}.jpg", np.full((16, 16, 3), 40 * index, np.uint8))
    (tmp_path / "full_resolution").mkdir()
    return tmp_path


def test_zrr(zrr: Path, rng: np.random.Generator):
    reader = Zrr(zrr)
    files = reader.files()
    assert [file.name for file in files] == ["0", "1", "2"]
    assert [len(Zrr(zrr, "test").files()), len({file.group for file in files})] == [2, 3]
    pair = reader.load(files[2])
    assert pair.raw_format == RawFormat(16, 16, "BayerRG10", 63, 1020)
    np.testing.assert_array_equal(pair.samples, rng_frames(2))
    assert pair.samples.dtype == np.uint16
    assert pair.target.shape == (16, 16, 3)
    assert abs(pair.target.mean() - 80) < 2, "JPEG"
    assert pair.gains is None


def rng_frames(index: int) -> np.ndarray[Any, Any]:
    """The frame that the fixture drew at this place."""
    rng = np.random.default_rng(11)
    return [rng.integers(60, 1021, (16, 16)) for _ in range(index + 1)][-1]


def test_zrr_elsewhere(zrr: Path, write_png: Write):
    with pytest.raises(UserError) as error:
        Zrr(zrr / "train").files()
    assert re.search(r"train has no folder train/huawei_raw: .* train/canon/\*\.jpg", _words(error))
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere: .* Zurich RAW to RGB"):
        Zrr(zrr / "nowhere").files()
    with pytest.raises(UserError, match="no split 'val': choose one of train, test"):
        Zrr(zrr, "val").files()
    for path in (zrr / "test/canon").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"test/canon holds no \*\.jpg or \*\.jpeg: .* test likewise"):
        Zrr(zrr, "test").files()


def test_files_without_a_partner(zrr: Path, write_png: Write):
    (zrr / "train/canon/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 3 files in .*huawei_raw have no partner .*canon, the first is 1.png"):
        Zrr(zrr).files()
    (zrr / "test/huawei_raw/0.png").unlink()
    with pytest.raises(UserError, match=r"1 of 2 files in .*canon have no partner .*huawei_raw, the first is 0.jpg"):
        Zrr(zrr, "test").files()
    write_png(zrr / "train/canon/0.jpeg", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(UserError, match=r"holds both 0.jpeg and 0.jpg"):
        Zrr(zrr).files()


def test_damaged_files(zrr: Path, write_png: Write):
    reader = Zrr(zrr)
    raw, target, shallow = reader.files()
    whole = raw.raw.read_bytes()
    raw.raw.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"huawei_raw/0.png cannot be read") as error:
        reader.load(raw)
    assert _words(error)
    target.target.write_bytes(target.target.read_bytes()[:200])
    with pytest.raises(UserError, match=r"canon/1.jpg cannot be read: .*; copy it again"):
        reader.load(target)
    write_png(shallow.raw, np.zeros((16, 16), np.uint8))
    with pytest.raises(UserError, match=r"2.png has samples of 8 bits, which are not BayerRG10"):
        reader.load(shallow)
    write_png(shallow.raw, np.full((16, 16), 1024, np.uint16))
    with pytest.raises(UserError, match=r"samples up to 1024, which BayerRG10 cannot hold"):
        reader.load(shallow)
    write_png(shallow.raw, np.zeros((16, 18), np.uint16))
    with pytest.raises(UserError, match=r"2.png is 18x16, but its picture .*2.jpg is 16x16"):
        reader.load(shallow)
    write_png(shallow.target, np.zeros((16, 18), np.uint8))
    with pytest.raises(UserError, match=r"2.jpg is a picture of mode L: the target of a pair is RGB"):
        reader.load(shallow)


@pytest.mark.parametrize("folder", ["mediatek_raw", "mediatek_raw_normal"])
def test_ultraisp(folder: str, tmp_path: Path, rng: np.random.Generator, write_png: Write):
    # black everywhere, each site at its own level, and one site each that is saturated
    samples = np.tile(np.array([[58, 61], [60, 62]], np.uint16), (4, 4))
    samples[:2, :2] = 1023
    picture = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for split in ("train", "val"):
        write_png(tmp_path / split / folder / "7.png", samples)
        write_png(tmp_path / split / "fujifilm/7.png", picture)
    reader = UltraIsp(tmp_path, "val")
    pair = reader.load(reader.files()[0])
    np.testing.assert_array_equal(pair.target, picture)
    fmt = pair.raw_format
    assert (fmt.pixel_format, fmt.black_level, fmt.white_level) == ("BayerRG10", 58, 1019)
    assert np.unique(pair.samples[2:]).tolist() == [58], "black is black at every site"
    assert pair.samples[:2, :2].min() >= fmt.white_level, "saturated is saturated at every site"
    with pytest.raises(UserError, match=r"has no folder test/mediatek_raw: .* train/fujifilm/\*\.png"):
        UltraIsp(tmp_path, "test").files()


def test_one_black_level_for_four_sites():
    samples = np.array([[10, 20], [30, 40]], np.uint16)
    same, black, white = one_black(samples, [[5, 5], [5, 5]], 100)
    assert same is samples
    assert (black, white) == (5, 100)
    shifted, black, white = one_black(samples, [[5, 7], [5, 50]], 100)
    np.testing.assert_array_equal(shifted, [[10, 18], [30, 0]])
    assert (black, white) == (5, 55)
    np.testing.assert_array_equal(samples, [[10, 20], [30, 40]])


@pytest.fixture
def write_rhid(rng: np.random.Generator, write_png: Write) -> Callable[..., None]:
    def write(raw: Path, *pictures: Path, names: tuple[str, ...] = ("12_1", "12_2", "7_1")) -> None:
        raw.mkdir(parents=True)
        for name in names:
            rng.integers(0, 4096, (12, 20)).astype("<u2").tofile(raw / f"{name}.raw")
            for value, folder in enumerate(pictures):
                write_png(folder / f"{name}.png", np.full((12, 20, 3), value, np.uint8))

    return write


def test_rhid_as_in_its_recipes(tmp_path: Path, write_rhid: Callable[..., None]):
    base = tmp_path / "train"
    write_rhid(base / "raw_512/set1", base / "DL_rafts_512/DL", base / "DL_512")
    write_rhid(base / "raw_512/set4", names=("12_1", "7_1"))
    reader = Rhid(tmp_path)
    files = reader.files()
    assert [file.name for file in files] == ["set1/12_1", "set1/12_2", "set1/7_1", "set4/12_1", "set4/7_1"]
    assert [file.group for file in files] == ["12", "12", "7", "12", "7"]
    pair = reader.load(files[3])
    np.testing.assert_array_equal(pair.samples, np.fromfile(base / "raw_512/set4/12_1.raw", "<u2").reshape(12, 20))
    assert pair.raw_format == RawFormat(20, 12, "BayerRG12", 0, 4095)
    assert pair.target.max() == 0, "aligned ones"
    unaligned = Rhid(tmp_path, sets=("set4",), aligned=False)
    assert [file.name for file in unaligned.files()] == ["set4/12_1", "set4/7_1"]
    assert unaligned.load(unaligned.files()[0]).target.min() == 1
    with pytest.raises(UserError, match=r"raw_512 has no folder set3: there is set1, set4"):
        Rhid(tmp_path, sets=("set4", "set3")).files()


def test_rhid_without_sets_and_as_in_its_demo(tmp_path: Path, write_rhid: Callable[..., None]):
    write_rhid(tmp_path / "plain/val/raw", tmp_path / "plain/val/rgb")
    assert [file.name for file in Rhid(tmp_path / "plain", "val").files()] == ["12_1", "12_2", "7_1"]
    write_rhid(tmp_path / "demo/Revealer/set4", tmp_path / "demo/Canon")
    assert [file.name for file in Rhid(tmp_path / "demo").files()] == ["set4/12_1", "set4/12_2", "set4/7_1"]


def test_rhid_elsewhere(tmp_path: Path, write_rhid: Callable[..., None]):
    with pytest.raises(UserError, match=r"has no folder val/raw_512: RHID is expected .*SPLIT/rgb/\*\.png"):
        Rhid(tmp_path, "val").files()
    write_rhid(tmp_path / "train/raw")
    with pytest.raises(UserError, match=r"has no folder rgb: RHID is expected"):
        Rhid(tmp_path).files()


def test_rhid_frames_of_another_size(tmp_path: Path, write_rhid: Callable[..., None]):
    write_rhid(tmp_path / "train/raw", tmp_path / "train/rgb")
    reader = Rhid(tmp_path)
    short, double, _ = reader.files()
    short.raw.write_bytes(short.raw.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"has 478 bytes, which is no multiple of the 480 bytes of a 20x12 frame"):
        reader.load(short)
    double.raw.write_bytes(double.raw.read_bytes() * 2)
    with pytest.raises(UserError, match=r"holds 2 frames, but one is wanted"):
        reader.load(double)


def test_rhid_for_real(data_dir: Path):
    reader = open_data_set("rhid", data_dir / "paired/rhid", split="val")
    pairs = [reader.load(file) for file in reader.files()]
    assert [pair.name for pair in pairs] == ["2075_9", "3049_8"]
    assert {pair.samples.shape for pair in pairs} == {(512, 512)}
    for pair in pairs:  # frame and picture show the same: dark where the other is dark
        grey = pair.target.mean(2)[::8, ::8].ravel()
        assert np.corrcoef(grey, pair.samples[::8, ::8].ravel())[0, 1] > 0.5


def test_data_sets_by_name(tmp_path: Path):
    assert data_sets() == ("zrr", "ultraisp", "rhid", "hdrisp", "sidd", "folder", "raws", "exif")
    for name in data_sets():
        text = how_to_get(name)
        assert len(text) > 80
        assert "\n" not in text
        assert "http" in text or name in ("folder", "raws")
    assert open_data_set("rhid", tmp_path, split="val", sets=["set2"]) == Rhid(tmp_path, "val", ("set2",))
    with pytest.raises(
        UserError, match="no data set 'raise': choose one of zrr, ultraisp, rhid, hdrisp, sidd, folder, raws, exif"
    ):
        how_to_get("raise")
    with pytest.raises(UserError, match="zrr has no option 'sets': its options are split"):
        open_data_set("zrr", tmp_path, sets=["set1"])


@pytest.mark.parametrize(
    ("name", "option", "says"),
    [
        ("rhid", {"sets": 3}, "the data set rhid has sets 3: it takes a list of texts"),
        ("rhid", {"aligned": "maybe"}, "aligned 'maybe': it takes true or false"),
        ("rhid", {"split": None}, "split None: it takes a text"),
        ("folder", {"group": "("}, r"group '\(': it takes a whole number"),
        ("folder", {"rgb": ["a"]}, r"rgb \['a'\]: it takes a text"),
    ],
)
def test_options_of_another_kind(tmp_path: Path, name: str, option: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        open_data_set(name, tmp_path, **option)


@pytest.mark.parametrize("name", data_sets())
def test_every_option_has_a_word_for_its_kind(tmp_path: Path, name: str):
    reader = open_data_set(name, tmp_path)
    for field in dataclasses.fields(reader)[1:]:  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match=f"has {field.name} .*: it takes "):
            open_data_set(name, tmp_path, **{field.name: object()})
