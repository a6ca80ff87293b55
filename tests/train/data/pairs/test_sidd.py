"""SIDD on a small tree in its published layout. Frames need the packages h5py and scipy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.train.data.sidd import PEDESTAL, Sidd

Write = Callable[[Path, Any], None]
Array = np.ndarray[Any, Any]

SCENES = ("0001_001_S6_00100_00060_3200_L", "0002_001_GP_00800_00350_5500_N", "0140_006_IP_01600_01600_3200_H")
SCALE = 65535 - PEDESTAL


def write_frame(path: Path, light: Array) -> None:
    """A MATLAB 7.3 file: HDF5 with columns stored one after the other."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = light.T.astype(np.float32)


def write_metadata(path: Path, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("scipy.io").savemat(path, {"metadata": {"Make": "maker", **values}})


@pytest.fixture
def light(rng: np.random.Generator) -> Array:
    """Two lamps and noise below black: no two orientations are alike."""
    y, x = np.mgrid[:24, :32]
    lamps = np.exp(-((x - 6) ** 2 + (y - 4) ** 2) / 40) + 0.5 * np.exp(-((x - 20) ** 2 + (y - 18) ** 2) / 20)
    return (0.6 * lamps + rng.normal(0, 0.004, y.shape)).astype(np.float32)


@pytest.fixture
def write_sidd(light: Array, write_png: Write) -> Callable[..., None]:
    def write(
        raw: Path, srgb: Path, sub: bool = False, turn: Callable[[Array], Array] = lambda picture: picture
    ) -> None:
        picture = (255 * np.clip(light, 0, 1)[..., None].repeat(3, 2)).astype(np.uint8)
        for scene in SCENES:
            at = scene[:4]
            for number in ("010", "011"):
                noisy, metadata, clean = (
                    f"{at}_{kind}/{at}_{kind}_{number}" if sub else f"{at}_{kind}_{number}"
                    for kind in ("NOISY_RAW", "METADATA_RAW", "GT_SRGB")
                )
                write_frame(raw / scene / f"{noisy}.MAT", light)
                write_metadata(raw / scene / f"{metadata}.MAT", AsShotNeutral=[[0.5, 1.0, 0.25]])
                write_png(srgb / scene / f"{clean}.PNG", turn(picture))
                (srgb / scene / f"{at}_NOISY_SRGB_{number}.PNG").touch()

    return write


@pytest.mark.parametrize(
    ("raw", "srgb", "sub"),
    [
        ("SIDD_Medium_Raw/Data", "SIDD_Medium_Srgb/Data", False),
        ("Data", "Data", False),
        (".", ".", True),
    ],
)
def test_sidd(raw: str, srgb: str, sub: bool, tmp_path: Path, light: Array, write_sidd: Callable[..., None]):
    write_sidd(tmp_path / raw, tmp_path / srgb, sub)
    reader = Sidd(tmp_path)
    files = reader.files()
    assert [file.name for file in files] == [f"{scene}/{number}" for scene in SCENES for number in ("010", "011")]
    assert [file.group for file in files] == ["001"] * 4 + ["006"] * 2, "scenes, not instances of them"
    for file, cfa in zip(files[::2], ("GR", "BG", "RG"), strict=True):
        pair = reader.load(file)
        assert pair.raw_format == RawFormat(32, 24, f"Bayer{cfa}16", PEDESTAL)
        np.testing.assert_allclose((pair.samples - float(PEDESTAL)) / SCALE, light, atol=1e-5)
        np.testing.assert_allclose(pair.gains, [2, 1, 4])
        assert pair.target.shape == (24, 32, 3)
    assert light.min() < 0
    assert pair.samples.min() < PEDESTAL, "noise below black is kept"


@pytest.mark.parametrize("turn", [np.rot90, lambda p: np.rot90(p, 2), np.fliplr, lambda p: np.rot90(np.fliplr(p))])
def test_turned_pictures_are_turned_back(
    turn: Callable[[Array], Array], tmp_path: Path, light: Array, write_sidd: Callable[..., None]
):
    write_sidd(tmp_path, tmp_path, turn=lambda picture: np.ascontiguousarray(turn(picture)))
    reader = Sidd(tmp_path)
    pair = reader.load(reader.files()[0])
    np.testing.assert_array_equal(pair.target[..., 1], (255 * np.clip(light, 0, 1)).astype(np.uint8))


def test_sidd_elsewhere(tmp_path: Path, write_sidd: Callable[..., None]):
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere: give the one that holds SIDD"):
        Sidd(tmp_path / "nowhere").files()
    with pytest.raises(
        UserError, match="holds no scenes: SIDD is expected to be laid out as SIDD_Medium_Raw/Data/SCENE"
    ):
        Sidd(tmp_path).files()
    (tmp_path / "SIDD_Medium_Raw/Data").mkdir(parents=True)
    with pytest.raises(UserError, match="has no folder SIDD_Medium_Srgb/Data"):
        Sidd(tmp_path).files()
    (tmp_path / "SIDD_Medium_Srgb/Data").mkdir(parents=True)
    (tmp_path / "SIDD_Medium_Raw/Data" / SCENES[0]).mkdir()
    with pytest.raises(UserError, match=r"hold no \*_NOISY_RAW_\*\.MAT"):
        Sidd(tmp_path).files()
    write_sidd(tmp_path / "SIDD_Medium_Raw/Data", tmp_path / "SIDD_Medium_Srgb/Data")
    (tmp_path / "SIDD_Medium_Srgb/Data" / SCENES[1] / "0002_GT_SRGB_011.PNG").unlink()
    with pytest.raises(UserError, match=r"0002_NOISY_RAW_011.MAT has no GT_SRGB_011 in .*SIDD_Medium_Srgb"):
        Sidd(tmp_path).files()


def test_damaged_matlab_files(tmp_path: Path, light: Array, write_png: Write, write_sidd: Callable[..., None]):
    write_sidd(tmp_path, tmp_path)
    reader = Sidd(tmp_path)
    file = reader.files()[0]
    write_metadata(file.extra[0], AsShotNeutral=[[0.5, 0.0, 0.25]])
    with pytest.raises(UserError, match="AsShotNeutral must be above 0"):
        reader.load(file)
    for damage in (lambda: write_metadata(file.extra[0]), lambda: file.extra[0].write_bytes(b"MATLAB 5.0 MAT-file")):
        damage()
        with pytest.raises(
            UserError, match=r"METADATA_RAW_010.MAT holds no metadata with AsShotNeutral, or is damaged"
        ):
            reader.load(file)
    write_metadata(file.extra[0], AsShotNeutral=[[0.5, 1.0, 0.25]])
    write_frame(file.raw, light[:-1])
    with pytest.raises(UserError, match=r"is 32x23, but its picture .* is 32x24"):
        reader.load(file)
    write_frame(file.raw, light[None])
    with pytest.raises(UserError, match="holds 3 dimensions: a frame has two"):
        reader.load(file)
    whole = file.raw.read_bytes()
    for data in (whole[: len(whole) // 2], b"no file of MATLAB"):
        file.raw.write_bytes(data)
        with pytest.raises(UserError, match=r"NOISY_RAW_010.MAT is no MATLAB 7.3 file with a frame x"):
            reader.load(file)


def test_sidd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_sidd: Callable[..., None]):
    write_sidd(tmp_path, tmp_path)
    reader = Sidd(tmp_path)
    file = reader.files()[0]
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="run: pip install h5py"):
        reader.load(file)
