"""What files of raw frames tell of the camera, beside what their samples are."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from ispeed.engines import UserError
from ispeed.engines.raw_files import load_raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three frames that say no more than their format."""
    path = tmp_path / "frames.npy"
    np.save(path, np.zeros((3, 4, 6), np.uint16))
    say(path, "")
    return path


def say(path: Path, text: str) -> None:
    Path(f"{path}.yaml").write_text(f"format: BayerRG12\n{text}")


def test_nothing_is_known_that_is_not_told(path: Path):
    frames = load_raw(str(path))
    for told, columns in ((frames.camera, 2), (frames.optics, 3)):
        assert (told.shape, told.dtype) == ((3, columns), np.float32)
        assert np.isnan(told).all()


@pytest.mark.parametrize(
    ("text", "query", "wanted"),
    [
        ("exposure_us: 250.5\ngain_db: -3\n", "", [[250.5, -3]] * 3),
        ("exposure_us: 250\ngain_db: [0, 6.5, 12]\n", "", [[250, 0], [250, 6.5], [250, 12]]),
        ("gain_db: 6\n", "?gain_db=1.5e1&exposure_us=80", [[80, 15]] * 3),
        ("", "?gain_db=-2", [[np.nan, -2]] * 3),
    ],
)
def test_exposure_and_gain_of_each_frame(path: Path, text: str, query: str, wanted: list[list[float]]):
    say(path, text)
    np.testing.assert_array_equal(load_raw(f"{path}{query}").camera, np.array(wanted, np.float32))


def test_iso_f_number_and_focal_length_of_each_frame(path: Path):
    say(path, "iso: [100, 200, 400]\nfocal_length_mm: 35\n")
    np.testing.assert_array_equal(
        load_raw(f"{path}?f_number=2.8").optics, np.array([[iso, 2.8, 35] for iso in (100, 200, 400)], np.float32)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gain_db: loud\n", "gain_db 'loud': it must be a number, or a list of them"),
        ("gain_db: .nan\n", "gain_db nan: it must be a number"),
        ("gain_db: yes\n", "gain_db True: it must be a number"),
        ("gain_db: []\n", "it must be a number"),
        ("iso: 0\n", "iso 0: it must be above 0; leave it out where it is not known"),
        ("f_number: [4, -4, 4]\n", "it must be above 0"),
        ("focal_length_mm: .inf\n", "it must be a number"),
        ("exposure_us: [1, {}]\n", "it must be a number"),
        ("exposure_us: [1, 2]\n", "holds 3 frames, but 2 numbers of exposure_us were said: give one for all, or one"),
        ("black: 2024-13-45", "cannot be read: month must be in 1..12"),
    ],
)
def test_wrong_words_are_one_sentence(path: Path, text: str, message: str):
    say(path, text)
    with pytest.raises(UserError, match=message) as caught:
        load_raw(str(path))
    assert "\n" not in str(caught.value)


# -- what the fuzzer found --------------------------------------------------------------------------------------


def npy(header: bytes, data: bytes = bytes(48)) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(b"{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000, 4, 6), }"), "is cut off: its header"),
        (npy(b"{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4, 6), }"), "is cut off"),
        (npy(b"{'descr': '<u2', 'fortran_order': False, 'shape': (3, 4, 6)"), r"is no \.npy file"),
        (
            npy(b"{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (4, 6), }"),
            "raw frames are uint8 or uint16",
        ),
        (npy(b"{'descr': '<u2', 'fortran_order': False, 'shape': (0, 16), }", b""), "height 0 is out of range"),
        (npy(b"[" * 5000), r"is no \.npy file"),
        (npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 4, 6), }"), "raw frames are uint8 or uint16"),
        (b"\x93NUMPY\x07\x00" + bytes(80), r"is no \.npy file"),
    ],
)
def test_npy_files_that_say_what_is_not_so(path: Path, content: bytes, message: str):
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_raw(str(path))


def test_npy_files_in_the_order_of_fortran(path: Path):
    samples = np.arange(72, dtype=np.uint16).reshape(3, 4, 6)
    np.save(path, np.asfortranarray(samples))
    np.testing.assert_array_equal(load_raw(str(path)).samples, samples)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk(b"IHDR", bytes([0, 0, 0, 6, 0, 0, 0, 4, 16, 0, 0, 0, 0])), chunk(b"tRNS", b"x")],
        [chunk(b"IHDR", bytes([0, 0, 0, 6, 0, 0, 0, 4, 16, 0, 0, 0, 0])), b"\0\0\0\x01\x08\0\0\0x"],
        [chunk(b"IHDR", bytes([0, 1, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0])), chunk(b"IDAT", b"x")],  # 65536 x 65536
        [chunk(b"IHDR", b"x")],
    ],
)
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_png_files_that_are_damaged(tmp_path: Path, chunks: list[bytes]):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    say(path, "")
    with pytest.raises(UserError, match=r"a\.png"):
        load_raw(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 0x" + "f" * 5000, "has width a value that is too long to show: it must be a whole number"),
        ("iso: 0x" + "f" * 5000, "has iso a value that is too long to show: it must be a number"),
        ("iso: " + "[" * 5000, "is nested too deeply|cannot be read"),
        ("width: 1.5", "has width 1.5: it must be a whole number"),
        ("width: 99999999999", "has width 99999999999: it must be a whole number"),
    ],
)
def test_sidecars_that_are_too_much(path: Path, text: str, message: str):
    say(path, text)
    with pytest.raises(UserError, match=message):
        load_raw(str(path))


@pytest.mark.parametrize("spec", ["x" * 300, "x" * 5000 + "?width=3", "a\0b", "\udcff.npy", "a\nb.npy"])
def test_names_that_no_file_has(spec: str):
    with pytest.raises(UserError, match="there is no file") as error:
        load_raw(spec)
    assert str(error.value).isprintable()
