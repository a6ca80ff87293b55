"""Raw frames of which there are no pictures, of one camera and of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines.errors import UserError
from ispeed.engines.quality import develop_all
from ispeed.engines.raw_files import RawFrames
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.raws import RawFolder
from ispeed.train.data.readers import open_data_set
from ispeed.train.sources import PairsSource

LIGHT = np.array([0.3, 0.5, 0.2])
"""What the cameras see of the scene in red, green and blue, as a share of white."""


def samples(cfa: str, black: int, white: int, edge: int = 32) -> np.ndarray:
    y, x = np.mgrid[:edge, :edge]
    shade = 0.6 + 0.4 * np.sin(x / 5) * np.cos(y / 7)
    seen = np.empty((edge, edge), np.uint16)
    for place, colour in enumerate(cfa):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        seen[at] = np.rint(black + (white - black) * LIGHT["RGB".index(colour)] * shade[at])
    return seen


def write(path: Path, cfa: str, depth: int, black: int = 0) -> Path:
    white = 2**depth - 1
    samples(cfa, black, white).tofile(path)
    letters = {"RGGB": "RG", "GRBG": "GR", "GBRG": "GB", "BGGR": "BG"}[cfa]
    told = f"width: 32\nheight: 32\nformat: Bayer{letters}{depth}\nblack: {black}\nwhite: {white}\nexposure_us: 250\n"
    path.with_name(f"{path.name}.yaml").write_text(told)
    return path


def test_cameras_may_be_mixed(tmp_path: Path):
    """Their levels and phases differ, and what comes of them does not."""
    for place, (cfa, depth, black) in enumerate([("RGGB", 12, 0), ("BGGR", 10, 64), ("GRBG", 16, 1000)]):
        write(tmp_path / f"{place}.raw", cfa, depth, black)
    frames = RawPairs(RawFolder(tmp_path), crop=16, augment=False)
    assert len(frames) == 3
    means = [frames[index]["planes"].mean((1, 2)) for index in range(3)]
    for each in means:
        torch.testing.assert_close(each / each[1], torch.tensor([0.6, 1.0, 1.0, 0.4]), atol=0.12, rtol=0)
        assert 0.1 < each[1] < 0.6


@pytest.mark.parametrize("white_balance", ["grey_world", (1.5, 1.0, 0.8)])
def test_the_picture_is_the_classic_engines_with_the_gains_of_the_sample(white_balance: Any, tmp_path: Path):
    reader = RawFolder(write(tmp_path / "a.raw", "GBRG", 12, 100).parent)
    (files,) = reader.files()
    pair = reader.load(files)
    fmt = RawFormat(32, 32, "BayerGB12", black_level=100, white_level=4095)
    assert (pair.raw_format, pair.exposure_us, pair.gains) == (fmt, 250.0, None)
    sample = RawPairs(reader, classic=True, white_balance=white_balance)[0]
    gains = sample["gains"].numpy()
    (shown,) = develop_all(lambda: open_engine("classic"), [pack(pair.samples, fmt)], fmt, gains[None])
    # frames begin at a red sample, which this one has in its second row
    target = (sample["target"] * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(shown[1:31, :].astype(int) - target).max() <= 1
    if white_balance == "grey_world":
        assert np.ptp(target.reshape(-1, 3).mean(0)) < 6
    else:
        np.testing.assert_allclose(gains, white_balance)


def test_an_archive_is_no_array(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=np.zeros((4, 4), np.uint16))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(UserError, match="archive of arrays"):
        RawFolder(tmp_path).files()


def test_a_split_is_a_folder(tmp_path: Path):
    for folder, count in (("train", 3), ("val", 1)):
        (tmp_path / folder / "lab").mkdir(parents=True)
        for number in range(count):
            write(tmp_path / folder / f"lab/{number}.raw", "RGGB", 12)
    names = [files.name for files in RawFolder(tmp_path, split="val").files()]
    assert names == ["val/lab/0.raw"]
    assert len(RawFolder(tmp_path, split="train").files()) == 3
    assert len(RawFolder(tmp_path).files()) == 4
    for split, says in (
        ("test", "has no folder test: set options.split"),
        ("../a", "the name of a folder"),
        ("..", "name of a folder"),
    ):
        with pytest.raises(UserError, match=says):
            RawFolder(tmp_path, split=split).files()


def test_an_array_of_several_frames_is_so_many(tmp_path: Path):
    np.save(tmp_path / "snap.npy", np.stack([samples("RGGB", 0, 4095) // k for k in (1, 2, 4)]))
    (tmp_path / "snap.npy.yaml").write_text("format: BayerRG12\n")
    np.save(tmp_path / "one.npy", samples("RGGB", 0, 4095))
    (tmp_path / "one.npy.yaml").write_text("format: BayerRG12\n")
    reader = RawFolder(tmp_path)
    files = reader.files()
    assert [each.name for each in files] == ["one.npy", "snap.npy 0", "snap.npy 1", "snap.npy 2"]
    assert len({each.group for each in files}) == 2, "frames of one array are one scene"
    means = [float(reader.load(each).samples.mean()) for each in files]
    np.testing.assert_allclose(means / np.array(means[0]), [1, 1, 0.5, 0.25], atol=0.01)


def test_an_array_is_read_whole_but_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ispeed.train.data import raw_pair

    path, beside = tmp_path / "snap.npy", tmp_path / "snap.npy.yaml"
    frames = np.stack([samples("RGGB", 0, 4095) // k for k in (1, 2, 4)])
    np.save(path, frames)
    beside.write_text("format: BayerRG12\ngain_db: [1, 2, 3]\n")
    read = []

    def load_raw(spec: str) -> RawFrames:
        read.append(spec)
        return whole(spec)

    whole = raw_pair.load_raw
    monkeypatch.setattr(raw_pair, "load_raw", load_raw)
    reader = RawFolder(tmp_path)
    loaded = [reader.load(file) for file in reader.files()]
    assert read == [str(path)]
    for pair, frame, gain in zip(loaded, frames, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(pair.samples, frame)
        assert pair.samples.dtype == np.uint16
        assert pair.gain_db == gain
    beside.write_text("format: BayerRG12\ngain_db: 24\n")
    assert reader.load(reader.files()[1]).gain_db == 24, "what was changed is read again"
    np.save(path, frames + 4096)
    with pytest.raises(UserError, match="which BayerRG12 cannot hold"):
        reader.load(reader.files()[0])


def test_pairs_may_do_without_their_pictures(tmp_path: Path):
    for folder in ("raw", "rgb"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "raw/a.raw", "RGGB", 12)
    import PIL.Image

    PIL.Image.new("RGB", (32, 32), (250, 0, 250)).save(tmp_path / "rgb/a.png")
    taken = {"source": "pairs", "data_set": "folder", "root": str(tmp_path), "crop": 16}
    own, classic = (
        PairsSource.model_validate({**taken, "target": target}).open(1, held_out=False).samples[0]["target"]
        for target in ("picture", "classic")
    )
    torch.testing.assert_close(own.mean((1, 2)), torch.tensor([250.0, 0.0, 250.0]) / 255)
    assert float(classic[1].mean()) > 0.3


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no raw frames: "),
        ({"a.npy": b"x"}, r"a\.npy cannot be read"),
        ({"a.raw": bytes(2048)}, r"a\.raw"),
        ({"a.raw": bytes(1024), "a.raw.yaml": b"width: 32\nheight: 32\nformat: Mono8\n"}, "has no colours; give Bayer"),
    ],
)
def test_folders_that_will_not_do(files: dict[str, bytes], says: str, tmp_path: Path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def read() -> Any:
        reader = open_data_set("raws", tmp_path)
        return reader.load(reader.files()[0])

    with pytest.raises(UserError, match=says) as error:
        read()
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="there is no folder"):
        RawFolder(tmp_path / "none").files()
