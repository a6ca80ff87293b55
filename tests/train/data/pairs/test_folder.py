"""A plain folder of frames and pictures: every kind of raw file, and what can be wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.train.data.folder import PairFolder, write_frame
from ispeed.train.data.pairs import RawPairs

Write = Callable[[Path, Any], None]
HEIGHT, WIDTH = 48, 64


@pytest.fixture
def samples(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path, write_png: Write) -> Path:
    """With a picture for a frame called a, which is not there yet."""
    (tmp_path / "raw").mkdir()
    write_png(tmp_path / "rgb/a.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    return tmp_path


def test_every_kind_of_file(folder: Path, samples: np.ndarray[Any, Any], write_png: Write):
    write_png(folder / "raw/a.png", samples)
    np.save(folder / "raw/b.npy", samples)
    samples.astype("<u2").tofile(folder / "raw/c.raw")
    for name in ("b.jpg", "c.png"):
        write_png(folder / "rgb" / name, np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    for name, keys in (("a.png", ""), ("b.npy", ""), ("c.raw", f"width: {WIDTH}\nheight: {HEIGHT}\n")):
        (folder / f"raw/{name}.yaml").write_text(f"format: BayerGB12\nblack: 16\nwhite: 4000\n{keys}")
    reader = PairFolder(folder)
    files = reader.files()
    assert [file.name for file in files] == ["a", "b", "c"]
    assert [file.extra[0].name for file in files] == ["a.png.yaml", "b.npy.yaml", "c.raw.yaml"]
    for file in files:
        pair = reader.load(file)
        np.testing.assert_array_equal(pair.samples, samples)
        assert pair.raw_format == RawFormat(WIDTH, HEIGHT, "BayerGB12", 16, 4000)
        assert pair.samples.dtype == np.uint16


def test_one_format_for_all(folder: Path, samples: np.ndarray[Any, Any]):
    samples.astype("<u2").tofile(folder / "raw/a.bin")
    reader = PairFolder(folder, keys=f"format=BayerBG12&width={WIDTH}&height={HEIGHT}&black=64")
    pair = reader.load(reader.files()[0])
    assert pair.raw_format == RawFormat(WIDTH, HEIGHT, "BayerBG12", 64)
    np.testing.assert_array_equal(pair.samples, samples)
    for keys, words in (("format", "does not say what the frames are"), ("depth=12", "unknown key 'depth'")):
        with pytest.raises(UserError, match=words):
            PairFolder(folder, keys=keys).load(reader.files()[0])


def test_the_camera_is_told_beside_a_frame_or_for_all(folder: Path, samples: np.ndarray[Any, Any], write_png: Write):
    for name in ("a", "b", "c"):
        np.save(folder / f"raw/{name}.npy", samples)
        write_png(folder / f"rgb/{name}.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
        (folder / f"raw/{name}.npy.yaml").write_text("format: BayerGB12\n")
    (folder / "raw/b.npy.yaml").write_text("format: BayerGB12\nexposure_us: 80.5\ngain_db: 6\n")
    (folder / "raw/c.npy.yaml").write_text("format: BayerGB12\nexposure_us: 80.5\niso: 200\nf_number: 4\n")
    (folder / "pairs.json").write_text(json.dumps({"c": {"gain_db": 9.5, "iso": 400}}))
    data = RawPairs(PairFolder(folder), crop=16, camera=(10.0, 1.0))
    assert [data[index]["camera"].tolist() for index in range(3)] == [
        [10, 1, 0, 0, 0],
        [80.5, 6, 0, 0, 0],
        [80.5, 9.5, 400, 4, 0],
    ]
    reader = PairFolder(folder, keys="gain_db=3")
    assert [reader.load(file).gain_db for file in reader.files()] == [3, 3, 9.5]


def test_a_split_is_a_folder_of_its_own(folder: Path, samples: np.ndarray[Any, Any], write_png: Write):
    for split, name in (("train", "a"), ("val", "b")):
        (folder / split / "raw").mkdir(parents=True)
        np.save(folder / f"{split}/raw/{name}.npy", samples)
        (folder / f"{split}/raw/{name}.npy.yaml").write_text("format: BayerGB12\n")
        write_png(folder / f"{split}/rgb/{name}.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    (folder / "val/pairs.json").write_text(json.dumps({"b": {"gain_db": 9.5}}))
    for split, name, gain_db in (("train", "a", None), ("val", "b", 9.5)):
        reader = PairFolder(folder, split=split)
        (file,) = reader.files()
        assert (file.name, reader.load(file).gain_db) == (name, gain_db)
    with pytest.raises(UserError, match=r"there is no folder .*test: give the one"):
        PairFolder(folder, split="test").files()


def test_groups_of_a_folder(folder: Path, samples: np.ndarray[Any, Any], write_png: Write):
    for name in ("s1_a", "s1_b", "s2_a"):
        np.save(folder / f"raw/{name}.npy", samples)
        write_png(folder / f"pictures/{name}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert [file.group for file in PairFolder(folder, rgb="pictures", group=2).files()] == ["s1", "s1", "s2"]
    assert [file.group for file in PairFolder(folder, rgb="pictures").files()] == ["s1_a", "s1_b", "s2_a"]


def test_what_is_wrong_with_a_folder(folder: Path, samples: np.ndarray[Any, Any], write_png: Write):
    with pytest.raises(UserError, match=r"raw holds no \*\.raw or \*\.bin .*: a folder of pairs is expected"):
        PairFolder(folder).files()
    with pytest.raises(
        UserError, match="has no folder frames: a folder of pairs is expected to be laid out as frames/"
    ):
        PairFolder(folder, raw="frames").files()
    write_png(folder / "raw/a.png", (samples >> 4).astype(np.uint8))
    reader = PairFolder(folder)
    file = reader.files()[0]
    with pytest.raises(UserError, match=r"a.png does not say what its samples are: write a.png.yaml"):
        reader.load(file)
    with pytest.raises(UserError, match=r"a.png has samples of 8 bits, which are not BayerRG12"):
        PairFolder(folder, keys="format=BayerRG12").load(file)
    with pytest.raises(UserError, match=r"holds Mono8, which has no colours"):
        PairFolder(folder, keys="format=Mono8").load(file)
    file.raw.unlink()
    np.save(folder / "raw/a.npy", (samples >> 4).astype(np.uint8))
    with pytest.raises(UserError, match=r"a.npy has samples of 8 bits, which are not BayerRG12"):
        PairFolder(folder, keys="format=BayerRG12").load(reader.files()[0])
    assert PairFolder(folder, keys="format=BayerRG8").load(reader.files()[0]).samples.max() == 255


# ---- DNG ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "cfa"), [((0, 1, 1, 2), "RG"), ((1, 2, 0, 1), "GB")])
def test_dng(
    pattern: Sequence[int], cfa: str, folder: Path, samples: np.ndarray[Any, Any], write_dng: Callable[..., None]
):
    pytest.importorskip("rawpy")
    samples = np.maximum(samples * 3, 600).astype(np.uint16)
    write_dng(folder / "raw/a.dng", samples, pattern, (0.5, 1, 0.8))
    reader = PairFolder(folder)
    pair = reader.load(reader.files()[0])
    assert pair.raw_format == RawFormat(WIDTH, HEIGHT, f"Bayer{cfa}16", 512, 14992)
    expected = samples.copy()
    expected[1::2, 1::2] -= 8
    np.testing.assert_array_equal(pair.samples, expected)
    np.testing.assert_allclose(pair.gains, [2, 1, 1.25], rtol=1e-3)


def test_damaged_dng(folder: Path, samples: np.ndarray[Any, Any], write_dng: Callable[..., None]):
    pytest.importorskip("rawpy")
    path = folder / "raw/a.dng"
    reader = PairFolder(folder)
    for data in (b"", b"II*\0" + bytes(200), b"no raw file at all"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a.dng cannot be read as DNG"):
            reader.load(reader.files()[0])
    write_dng(path, samples, (0, 1, 1, 2), (1, 1, 1))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"a.dng cannot be read as DNG"):
        reader.load(reader.files()[0])


def test_dng_without_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (folder / "raw/a.dng").write_bytes(b"")
    reader = PairFolder(folder)
    with pytest.raises(UserError, match=r"a.dng needs the package rawpy; run: pip install rawpy"):
        reader.load(reader.files()[0])


# ---- masks and notes, as isp-align writes them -------------------------------------------------------------------


@pytest.fixture
def masked(folder: Path, samples: np.ndarray[Any, Any], write_png: Write, rng: np.random.Generator) -> Path:
    for name in ("a", "b"):
        write_frame(folder / "raw" / f"{name}.png", samples, RawFormat(WIDTH, HEIGHT, "BayerGB12p", 16, 4000))
        write_png(folder / "rgb" / f"{name}.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
        write_png(folder / "mask" / f"{name}.png", rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8))
    return folder


def test_what_is_written_is_read(masked: Path, samples: np.ndarray[Any, Any]):
    reader = PairFolder(masked)
    files = reader.files()
    pair = reader.load(files[0])
    np.testing.assert_array_equal(pair.samples, samples)
    assert pair.raw_format == RawFormat(WIDTH, HEIGHT, "BayerGB12", 16, 4000)
    assert [path.name for path in files[0].extra] == ["a.png.yaml", "a.png"]
    assert pair.bytes == samples.nbytes + 4 * HEIGHT * WIDTH
    eight = RawFormat(WIDTH, HEIGHT, "BayerRG8", 3, 250)
    write_frame(masked / "raw" / "a.png", samples >> 4, eight)
    pair = reader.load(files[0])
    np.testing.assert_array_equal(pair.samples, samples >> 4)
    assert pair.raw_format == eight


def test_masks_are_cut_and_turned_with_the_rest(masked: Path, write_png: Write):
    with PIL.Image.open(masked / "mask" / "a.png") as image:
        mask = np.asarray(image)
    for name in ("a", "b"):
        write_png(masked / "mask" / f"{name}.png", mask)
        write_png(masked / "rgb" / f"{name}.png", np.repeat(mask[..., None], 3, axis=2))
    data = RawPairs(PairFolder(masked), crop=16, repeats=20)
    for index in range(len(data)):
        sample = data[index]
        assert sample["mask"].shape == (1, 16, 16)
        assert sample["mask"].dtype == torch.float32
        torch.testing.assert_close(sample["mask"], sample["target"][:1])
    whole = RawPairs(PairFolder(masked), multiple=16)[0]  # of GBRG, which begins with red in its second row
    np.testing.assert_array_equal(whole["mask"][0].numpy() * 255, mask[1:33, :64])


def test_without_masks_samples_have_none(masked: Path):
    for path in (masked / "mask").iterdir():
        path.unlink()
    (masked / "mask").rmdir()
    assert "mask" not in RawPairs(PairFolder(masked), crop=16)[0]
    reader = PairFolder(masked)
    assert reader.load(reader.files()[0]).mask is None


def test_wrong_masks(masked: Path, write_png: Write):
    reader = PairFolder(masked)
    files = reader.files()
    write_png(masked / "mask" / "a.png", np.zeros((HEIGHT, WIDTH + 2), np.uint8))
    with pytest.raises(UserError, match=r"a\.png is no mask: it must be grey, of 8 bits and 64x48"):
        reader.load(files[0])
    write_png(masked / "mask" / "a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png is no mask"):
        reader.load(files[0])
    (masked / "mask" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        reader.load(files[0])
    (masked / "mask" / "a.png").unlink()
    with pytest.raises(UserError, match=r"mask and the frames do not go together, the first that has no partner is a"):
        reader.files()


def test_notes(masked: Path):
    notes = {"a": {"group": "s", "gains": [4, 2, 3], "exposure_us": 80, "gain_db": 6.5}, "b": {"group": "s"}}
    (masked / "pairs.json").write_text(json.dumps(notes))
    reader = PairFolder(masked, group=1)
    files = reader.files()
    assert [file.group for file in files] == ["s", "s"]
    assert all(file.extra[-1].name == "pairs.json" for file in files)
    first, second = (reader.load(file) for file in files)
    assert first.gains is not None
    np.testing.assert_allclose(first.gains, [2, 1, 1.5])
    assert (first.exposure_us, first.gain_db) == (80, 6.5)
    assert (second.gains, second.exposure_us, second.gain_db) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "is not as it should be"),
        ('{"a": {"gains": 2}}', "is not as it should be"),
        ('{"a": {"colour": "red"}}', "is not as it should be"),
        ('{"a": {"gains": [1, 0, 1]}}', "white balance"),
    ],
)
def test_wrong_notes(masked: Path, text: str, words: str):
    (masked / "pairs.json").write_text(text)
    reader = PairFolder(masked)
    with pytest.raises(UserError, match=words):
        [reader.load(file) for file in reader.files()]


def test_pairs_that_are_still_apart(masked: Path, samples: np.ndarray[Any, Any], write_png: Write):
    write_png(masked / "rgb" / "a.png", np.full((100, 90, 3), 9, np.uint8))
    with pytest.raises(UserError, match="must lie on each other pixel for pixel"):
        PairFolder(masked).load(PairFolder(masked).files()[0])
    reader = PairFolder(masked, apart=True)
    pair = reader.load(reader.files()[0])
    assert pair.target.shape == (100, 90, 3)
    assert pair.mask is None
    np.testing.assert_array_equal(pair.samples, samples)
    write_frame(masked / "raw" / "a.png", samples >> 4, RawFormat(WIDTH, HEIGHT, "Mono8"))
    with pytest.raises(UserError, match="which has no colours"):
        reader.load(reader.files()[0])
