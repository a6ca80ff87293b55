"""Scenes for the simulated camera, from what a user names."""

from __future__ import annotations

import gc
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ispeed.engines.errors import UserError
from ispeed.stream.camera.scenes import load_scene

FRAMES = np.random.default_rng(3).integers(0, 4096, (2, 6, 20)).astype(np.uint16)
QUERY = "?width=20&height=6&format=BayerGR12&black=60&white=4000"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two frames of 12 bits, 20 x 6."""
    path = tmp_path / "frames.raw"
    FRAMES.astype("<u2").tofile(path)
    return path


def test_target() -> None:
    scene = load_scene("target")
    assert scene.samples is None
    assert scene.name == "target"
    with pytest.raises(ValueError, match="the camera renders it"):
        scene.to_memfd()


def test_raw_file_with_a_query(raw: Path) -> None:
    scene = load_scene(f"{raw}{QUERY}")
    assert np.array_equal(scene.samples, FRAMES)
    assert (scene.width, scene.height, scene.pixel_format) == (20, 6, "BayerGR12")
    assert (scene.black_level, scene.white_level, scene.name) == (60, 4000, str(raw))


def test_raw_file_with_a_sidecar_that_a_query_corrects(raw: Path) -> None:
    Path(f"{raw}.yaml").write_text("width: 20\nheight: 6\nformat: BayerRG12\nblack: 16\n")
    assert load_scene(str(raw)).black_level == 16
    scene = load_scene(f"{raw}?black=20&format=BayerBG12")
    assert (scene.black_level, scene.pixel_format, scene.white_level) == (20, "BayerBG12", 4095)


def test_bytes_are_samples_of_8_bits(tmp_path: Path) -> None:
    path = tmp_path / "frames.bin"
    path.write_bytes(bytes(range(120)))
    scene = load_scene(f"{path}?width=20&height=6&format=Mono8")
    assert np.array_equal(scene.samples, np.arange(120).reshape(1, 6, 20))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_mosaic(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "mosaic.png"
    mosaic = (FRAMES[0] >> (4 if dtype is np.uint8 else 0)).astype(dtype)
    Image.fromarray(mosaic).save(path)
    scene = load_scene(f"{path}?format=BayerRG{8 if dtype is np.uint8 else 12}")
    assert np.array_equal(scene.samples, mosaic[np.newaxis])


@pytest.mark.parametrize("array", [FRAMES, FRAMES[0], (FRAMES >> 4).astype(np.uint8), FRAMES.astype(">u2")])
def test_npy(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    np.save(path, array)
    scene = load_scene(f"{path}?format=BayerRG12")
    assert scene.samples is not None
    assert scene.samples.dtype == np.uint16
    assert np.array_equal(scene.samples, array.reshape(-1, 6, 20))


def test_odd_sizes_lose_what_the_camera_cannot_have(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    np.save(path, FRAMES[:, :5, :19])
    scene = load_scene(f"{path}?format=BayerRG12")
    assert np.array_equal(scene.samples, FRAMES[:, :4, :16])
    assert (scene.width, scene.height) == (16, 4)


def test_a_question_mark_may_be_in_a_name(tmp_path: Path) -> None:
    path = tmp_path / "why?.npy"
    np.save(path, FRAMES)
    Path(f"{path}.yaml").write_text("format: BayerRG12")
    assert len(load_scene(str(path)).samples) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", r"does not say what its samples are: write frames.raw.yaml beside it \(width: 512, .*append \?width=512"),
        ("?", "does not say what its samples are"),
        ("?format=BayerRG12", "add width and height"),
        ("?width=20&height=6", "does not say what its samples are"),
        ("?width=20&height=7&format=BayerRG12", "480 bytes, which is no multiple of the 280 bytes of a 20x7 frame"),
        ("?width=0&height=6&format=BayerRG12", "correct width, height or format"),
        ("?widht=20&height=6&format=BayerRG12", "unknown key 'widht': the keys are width, height, format"),
        ("?width=twenty&height=6&format=BayerRG12", "width 'twenty': it must be a whole number"),
        ("?width=-20&height=6&format=BayerRG12", "it must be a whole number"),
        ("?nonsense", "unknown key 'nonsense'"),
        ("?width=20&height=6&format=BayerRG12p", "'BayerRG12p', which it cannot have"),
        ("?width=20&height=6&format=RGB8", "'RGB8', which it cannot have"),
        ("?width=20&height=6&format=BayerRG10", "which BayerRG10 cannot hold: correct the format"),
        ("?width=20&height=6&format=BayerRG12&black=4000&white=100", "0 <= black < white <= 4095"),
        ("?width=8&height=6&format=BayerRG12", "5 frames of 8x6: the camera plays one or more of 16x2 to 8192x8192"),
    ],
)
def test_wrong_words_are_one_sentence(query: str, message: str, raw: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_scene(f"{raw}{query}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.raw", None, "there is no file"),
        ("photo.jpg", b"x", "is no file of raw frames: those have one of the endings .raw"),
        ("broken.png", b"x", "broken.png cannot be read"),
        ("broken.npy", b"x", "broken.npy is no .npy file"),
        ("empty.raw", b"", "has 0 bytes"),
    ],
)
def test_wrong_files_are_one_sentence(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_scene(f"{tmp_path / name}?width=16&height=2&format=BayerRG8")


def test_arrays_and_pictures_of_another_kind_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", np.zeros((6, 20)))
    with pytest.raises(UserError, match=r"holds float64 \[6, 20\]: raw frames are uint8 or uint16"):
        load_scene(f"{tmp_path}/real.npy?format=BayerRG8")
    Image.new("RGB", (20, 6)).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match="a picture of mode RGB: a mosaic is a grey PNG"):
        load_scene(f"{tmp_path}/colour.png?format=BayerRG8")
    np.save(tmp_path / "size.npy", FRAMES)
    with pytest.raises(UserError, match="has a width of 20, but 24 was said"):
        load_scene(f"{tmp_path}/size.npy?format=BayerRG12&width=24")


@pytest.mark.parametrize("text", ["just words", "width: [", "depth: 12"])
def test_broken_sidecars_are_one_sentence(text: str, raw: Path) -> None:
    Path(f"{raw}.yaml").write_text(text)
    with pytest.raises(UserError, match=r"frames\.raw\.yaml") as caught:
        load_scene(str(raw))
    assert "\n" not in str(caught.value)


def test_memfd_holds_header_and_samples_and_goes_with_the_scene(raw: Path) -> None:
    scene = load_scene(f"{raw}{QUERY}")
    memfd = scene.to_memfd()
    assert scene.to_memfd() == memfd
    content = os.pread(memfd, 10000, 0)
    assert struct.unpack_from("<8s8I", content) == (b"ISPSCENE", 1, 20, 6, 2, 12, 1, 60, 4000)
    assert np.array_equal(np.frombuffer(content[4096:], "<u2").reshape(2, 6, 20), FRAMES)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(memfd, 0)
    del scene
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memfd)
