"""Recordings and raw files as footage, and paths that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, unpack
from ispeed.stream.footage import FootageOptions, open_footage
from ispeed.stream.record import RAW_FRAME, write_recording

FORMAT = RawFormat(16, 8, "BayerRG12p", 64)
FRAMES = np.random.default_rng(1).integers(0, 256, (5, FORMAT.payload_size), np.uint8)


def test_a_recording(tmp_path: Path) -> None:
    rows = np.zeros(5, RAW_FRAME)
    rows["frame_id"] = [7, 8, 9, 11, 12]
    rows["grabbed_ns"] = 1 + np.arange(5)
    rows["exposure_us"], rows["gain_db"] = 900, [0, 20, 6, np.nan, 0]
    path = write_recording(
        *(tmp_path / "a.h5", FORMAT, FRAMES),
        raw_frames=rows,
        geometry={"fps": 500.0},
        settings={"base_iso": 200, "f_number": 4.0},
        calibration={"white_balance": [1.5, 1, 2], "colour_matrix": np.eye(3).tolist(), "defects": [[1, 2]]},
        serial="S1",
    )
    with open_footage(path) as footage:
        assert (footage.kind, footage.count, footage.fps, footage.about.serial) == ("recording", 5, 500, "S1")
        assert footage.raw_format == FORMAT
        assert footage.frames["frame_id"].tolist() == [7, 8, 9, 11, 12]
        np.testing.assert_allclose(footage.frames["iso"], [200, 2000, 200 * 10**0.3, np.nan, 200])
        assert footage.frames["f_number"].tolist() == [4.0] * 5
        calibration = footage.calibration
        assert (calibration.white_balance, calibration.defects) == ((1.5, 1, 2), ((1, 2),))
        assert calibration.colour_matrix == np.eye(3).tolist()
        out = np.empty(FORMAT.payload_size + 1, np.uint8)
        footage.read(3, out)
        np.testing.assert_array_equal(out[:-1], FRAMES[3])
    with open_footage(path, FootageOptions("BG", 0, 1000)) as footage:
        assert footage.raw_format == RawFormat(16, 8, "BayerBG12p", 0, 1000)


def test_a_recording_without_raw_frames(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.h5", None, None, srgb=np.zeros((2, 8, 16, 3), np.uint8))
    with pytest.raises(UserError, match="sRGB frames only"):
        open_footage(path)


@pytest.mark.parametrize(
    "calibration", [{"white_balance": [1, 2]}, {"defects": 5}, {"colour_matrix": [["a"]]}, {"flat_field": {"R": [[1]]}}]
)
def test_a_recording_with_a_calibration_that_is_none(tmp_path: Path, calibration: dict[str, object]) -> None:
    path = write_recording(tmp_path / "a.h5", FORMAT, FRAMES, calibration=calibration)
    with pytest.raises(UserError, match="calibration is damaged"):
        open_footage(path)


@pytest.mark.parametrize("suffix", [".npy", ".raw"])
def test_raw_files(tmp_path: Path, suffix: str) -> None:
    samples = np.random.default_rng(2).integers(0, 4096, (3, 8, 16)).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, samples)
    else:
        samples.tofile(path)
    spec = f"{path}?width=16&height=8&format=BayerGR12&black=64&exposure_us=500"
    with open_footage(spec) as footage:
        assert footage.raw_format == RawFormat(16, 8, "BayerGR12", 64)
        assert (footage.kind, footage.count, footage.fps) == ("raw", 3, None)
        assert footage.frames["exposure_us"].tolist() == [500.0] * 3
        out = np.empty(footage.raw_format.payload_size, np.uint8)
        for index in range(3):
            footage.read(index, out)
            np.testing.assert_array_equal(unpack(out, footage.raw_format), samples[index])


def test_grey_that_is_a_mosaic_after_all(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 16), np.uint8))
    with open_footage(f"{tmp_path}/a.npy?format=Mono8", FootageOptions("GB")) as footage:
        assert footage.raw_format == RawFormat(16, 8, "BayerGB8")


@pytest.mark.parametrize(
    "name", ["a.avi", "a", "no.cine", "no.h5", "no.mraw", "no.npy", "a\0b.cine", "x" * 300 + ".cine"]
)
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        open_footage(tmp_path / name)


@pytest.mark.parametrize("suffix", [".h5", ".cine", ".cih", ".cihx", ".npy"])
def test_folders_pipes_and_rubbish(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"rubbish{suffix}").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "rubbish.mraw").write_bytes(b"")
    for name in ("folder", "pipe", "rubbish"):
        with pytest.raises(UserError):
            open_footage(tmp_path / f"{name}{suffix}")
