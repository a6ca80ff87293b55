"""Scene files, played by the simulated camera."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from genicam import gentl

from ispeed.engines.bayer import RawFormat, pack
from ispeed.stream.camera.scenes import Scene, load_scene

Opener = Callable[..., Any]


def _scene(pixel_format: str, shape: tuple[int, int, int] = (3, 48, 64), black: int = 16) -> Scene:
    depth = RawFormat(16, 2, pixel_format).depth
    samples = np.random.default_rng(5).integers(0, 1 << depth, shape).astype(np.uint16)
    return Scene(samples, shape[2], shape[1], pixel_format, black, (1 << depth) - 1, "random")


def _play(rig: Any, scene: Scene, **features: Any) -> None:
    rig.set(SimSceneFile=f"/proc/self/fd/{scene.to_memfd()}", SimScene="File", **features)


def _pictures(rig: Any, count: int) -> list[npt.NDArray[np.uint16]]:
    rig.start()
    pictures = [rig.samples(frame) for frame in rig.frames(count)]
    rig.stop()
    return pictures


@pytest.mark.parametrize(
    ("scene_format", "pixel_format"),
    [
        ("BayerRG8", "BayerRG8"),
        ("BayerGR10", "BayerGR10p"),
        ("BayerGB12", "BayerGB12"),
        ("BayerBG12", "BayerBG12p"),
        ("BayerRG16", "BayerRG16"),
        ("Mono8", "Mono8"),
    ],
)
def test_frames_are_played_byte_exact(scene_format: str, pixel_format: str, rig: Any) -> None:
    scene = _scene(scene_format)
    _play(rig, scene, PixelFormat=pixel_format)
    assert scene.samples is not None
    rig.start()
    payloads = [frame.payload for frame in rig.frames(4)]
    wanted = [pack(frame, RawFormat(64, 48, pixel_format)) for frame in scene.samples]
    for number, payload in enumerate(payloads):
        assert np.array_equal(payload, wanted[number % 3])


def test_other_depths_shift(rig: Any) -> None:
    scene = _scene("BayerRG12")
    assert scene.samples is not None
    for pixel_format, expected in (
        ("BayerRG8", scene.samples >> 4),
        ("BayerRG10p", scene.samples >> 2),
        ("BayerRG16", scene.samples << 4),
    ):
        _play(rig, scene, PixelFormat=pixel_format)
        assert np.array_equal(_pictures(rig, 3), expected)


def test_size_and_region_of_interest_are_those_of_the_file(rig: Any) -> None:
    scene = _scene("BayerRG8", (1, 51, 67))
    _play(rig, scene, PixelFormat="BayerRG8")
    f = rig.features
    assert (f.WidthMax.value, f.HeightMax.value, f.Width.value, f.Height.value) == (64, 50, 64, 50)
    rig.set(Width=32, Height=20, OffsetX=6, OffsetY=10)
    assert scene.samples is not None
    assert np.array_equal(_pictures(rig, 1)[0], scene.samples[0, 10:30, 6:38])
    rig.set(SimScene="Target")
    assert f.WidthMax.value == 8192


def test_exposure_gain_and_noise_leave_files_alone(rig: Any) -> None:
    scene = _scene("BayerRG8")
    _play(rig, scene, PixelFormat="BayerRG8", ExposureAuto="Continuous", Gain=12.0)
    assert scene.samples is not None
    assert np.array_equal(_pictures(rig, 3), scene.samples)
    assert rig.features.ExposureTime.value == 500.0


def test_black_level_is_that_of_the_file(rig: Any) -> None:
    _play(rig, _scene("BayerRG12", black=80), PixelFormat="BayerRG12")
    assert rig.features.BlackLevel.value == 80
    rig.set(PixelFormat="BayerRG8")
    assert rig.features.BlackLevel.value == 5


def test_another_filter_array_is_refused_by_name(rig: Any) -> None:
    _play(rig, _scene("BayerGB8"), PixelFormat="BayerRG8")
    with pytest.raises(
        gentl.InvalidValueException, match="the scene file is BayerGB, but the pixel format is BayerRG8"
    ):
        rig.features.AcquisitionStart.execute()
    rig.set(PixelFormat="BayerGB8")
    assert len(_pictures(rig, 1)) == 1


def test_file_without_a_path_is_refused(rig: Any) -> None:
    rig.set(SimScene="File")
    with pytest.raises(gentl.InvalidValueException, match="SimSceneFile names no file"):
        rig.features.AcquisitionStart.execute()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be opened"),
        (b"", "too short"),
        (bytes(5000), "is not a scene file"),
        ("cut", "its header asks for"),
    ],
)
def test_what_is_no_scene_file_is_refused(content: Any, message: str, rig: Any, tmp_path: Path) -> None:
    path = tmp_path / "scene"
    if content == "cut":
        scene = _scene("BayerRG8")
        content = os.pread(scene.to_memfd(), 6000, 0)
    if content is not None:
        path.write_bytes(content)
    rig.set(SimScene="File")
    with pytest.raises(gentl.GenericException, match=message):
        rig.set(SimSceneFile=str(path))
    assert rig.features.SimSceneFile.value == ""


def test_a_real_raw_frame_is_played_byte_exact(data_dir: Path, open_rig: Opener) -> None:
    path = data_dir / "paired" / "rhid" / "val" / "raw" / "2075_9.raw"
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(data_dir)} in ISPEED_DATA")
    scene = load_scene(f"{path}?width=512&height=512&format=BayerRG12")
    rig = open_rig(Width=512, Height=512, PixelFormat="BayerRG12")
    _play(rig, scene)
    rig.start()
    assert rig.frame().payload.tobytes() == path.read_bytes()
