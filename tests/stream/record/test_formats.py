"""DNG and MP4: read back by what others read them with."""

from __future__ import annotations

import csv
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import rawpy
import tifffile
from recorded_rings import FORMAT, PERIOD_NS, srgb_frame

from ispeed.engines import RawFormat, UserError, pack
from ispeed.engines.flat_field import gain_map, to_json
from ispeed.stream.record import mp4
from ispeed.stream.record.dng import DngWriter, colours
from ispeed.stream.record.hdf import Contents
from ispeed.stream.record.layout import EVENT, RAW_FRAME, SRGB_FRAME
from ispeed.stream.record.mp4 import Mp4Writer

MATRIX = [[1.6, -0.4, -0.2], [-0.3, 1.5, -0.2], [0.0, -0.6, 1.6]]
TEXTS = {"serial": "A1", "vendor": "ispeed", "model": "SimCam"}
UNIX_NS = 1_700_000_000_000_000_000


def rows_of(dtype: np.dtype, count: int, period_ns: int = PERIOD_NS) -> np.ndarray:
    rows = np.zeros(count, dtype)
    rows["frame_id"] = np.arange(7, 7 + count)
    rows["grabbed_ns"] = 1_000_000_000 + np.arange(count) * period_ns
    rows["realtime_offset_ns"] = UNIX_NS
    rows["segment"], rows["exposure_us"] = 1, 250.0
    return rows


def write_all(writer: Any, kind: str, frames: list[np.ndarray], rows: np.ndarray) -> None:
    for first in range(0, len(frames), 3):
        some = frames[first : first + 3]
        pieces = [memoryview(np.pad(frame.reshape(-1), (0, 100)).data) for frame in some]
        writer.write(kind, pieces, rows[first : first + 3])
        writer.commit(kind, rows[first : first + 3])


@pytest.mark.parametrize(
    ("pixel_format", "pattern"),
    [
        ("BayerRG8", "RGGB"),
        ("BayerGR10p", "GRBG"),
        ("BayerGB12p", "GBRG"),
        ("BayerBG12", "BGGR"),
        ("BayerRG16", "RGGB"),
    ],
)
def test_dng(tmp_path: Path, pixel_format: str, pattern: str) -> None:
    depth = RawFormat(64, 48, pixel_format).depth
    fmt = RawFormat(64, 48, pixel_format, 4, (1 << depth) - 3)
    samples = [np.random.default_rng(i).integers(0, 1 << depth, (48, 64)).astype(np.uint16) for i in range(4)]
    calibration = {"white_balance": [2.0, 1.0, 1.6], "colour_matrix": MATRIX}
    writer = DngWriter(tmp_path / "run", Contents(fmt, texts=TEXTS, parts={"calibration": calibration}))
    rows = rows_of(RAW_FRAME, 4)
    rows["segment"][3] = 2
    rows["exposure_us"][1:] = 2.5, np.nan, 5e6
    write_all(writer, "raw", [pack(frame, fmt) for frame in samples], rows)
    event = np.zeros(1, EVENT)
    event["kind"], event["text"], event["frame_id"] = b"trigger", b"key", 8
    writer.event(event)
    writer.finish()
    assert writer.counts == {"raw": 4}
    names = ["00000007.dng", "00000008.dng", "00000009.dng", "00000010-2.dng"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [*names, "frames.csv"]
    exposures = [(250_000, 10**9), (2500, 10**9), (0, 10**6), (5_000_000, 10**6)]
    for name, frame, exposure in zip(names, samples, exposures, strict=True):
        with rawpy.imread(str(tmp_path / "run" / name)) as raw:
            assert np.array_equal(raw.raw_image, frame)
            assert "".join("RGBG"[index] for index in raw.raw_pattern.reshape(-1)) == pattern
            assert raw.white_level == (1 << depth) - 3
            assert set(raw.black_level_per_channel) == {4}
            balance = np.array(raw.camera_whitebalance[:3])
            assert np.allclose(balance / balance[1], [2.0, 1.0, 1.6], rtol=1e-3)
        with tifffile.TiffFile(tmp_path / "run" / name) as file:
            tags = {tag.code: tag.value for tag in file.pages[0].tags}
            assert tags[50708] == "ispeed SimCam"
            assert tags[50735] == "A1"
            assert tags[306].startswith("2023:11:14 22:13:2")
            assert tags[33434] == exposure
    with (tmp_path / "run" / "frames.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["frame_id"] for row in table] == ["7", "8", "9", "10", "8"]
    assert (table[0]["grabbed_ns"], table[4]["event"], table[4]["text"]) == ("1000000000", "trigger", "key")


def test_dng_of_a_grey_camera(tmp_path: Path) -> None:
    fmt = RawFormat(64, 48, "Mono8")
    frame = np.random.default_rng(1).integers(0, 256, (48, 64)).astype(np.uint16)
    writer = DngWriter(tmp_path / "run", Contents(fmt))
    write_all(writer, "raw", [pack(frame, fmt)], rows_of(RAW_FRAME, 1))
    writer.finish()
    with tifffile.TiffFile(tmp_path / "run" / "00000007.dng") as file:
        assert np.array_equal(file.pages[0].asarray(), frame)


def opcodes_of(value: bytes) -> list[tuple[int, bytes]]:
    """(code, parameters) of each opcode of a list, all of them optional and of DNG 1.3."""
    (count,), at = struct.unpack_from(">I", value), 4
    found = []
    for _ in range(count):
        code, version, flags, size = struct.unpack_from(">I4sII", value, at)
        assert (version, flags) == (b"\1\3\0\0", 1)
        found.append((code, value[at + 16 : at + 16 + size]))
        at += 16 + size
    assert at == len(value)
    return found


def apply_gain_map(gains: np.ndarray, parameters: bytes) -> None:
    """Multiplies the pixels of a gain map's area by its gains, as DNG's specification has a reader do it."""
    top, left, bottom, right, plane, planes, row_pitch, column_pitch = struct.unpack_from(">8I", parameters)
    assert (plane, planes) == (0, 1)
    rows, columns = struct.unpack_from(">2I", parameters, 32)
    spacing_v, spacing_h, origin_v, origin_h, map_planes = struct.unpack_from(">4dI", parameters, 40)
    nodes = np.frombuffer(parameters, ">f4", offset=76).reshape(rows, columns)
    assert map_planes == 1
    for y in range(top, bottom, row_pitch):
        for x in range(left, right, column_pitch):
            v = ((y + 0.5) / gains.shape[0] - origin_v) / spacing_v
            h = ((x + 0.5) / gains.shape[1] - origin_h) / spacing_h
            beside = [np.interp(h, np.arange(columns), nodes[row]) for row in range(rows)]
            gains[y, x] *= np.interp(v, np.arange(rows), beside)


@pytest.mark.parametrize(
    ("pixel_format", "phase"), [("BayerRG8", 0), ("BayerGR12", 1), ("BayerGB8", 2), ("BayerBG8", 3)]
)
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_a_dng_tells_developers_of_defects_and_flat_field(
    tmp_path: Path, pixel_format: str, phase: int, size: tuple[int, int]
) -> None:
    fmt = RawFormat(*size, pixel_format)
    mesh = np.random.default_rng(5).uniform(0.5, 3, (4, 4, 5))
    calibration = {"defects": [(3, 2), (10, 7)], "flat_field": to_json(mesh)}
    writer = DngWriter(tmp_path / "run", Contents(fmt, parts={"calibration": calibration}))
    frame = np.full((size[1], size[0]), 100, np.uint16)
    write_all(writer, "raw", [pack(frame, fmt)], rows_of(RAW_FRAME, 1))
    writer.finish()
    with rawpy.imread(str(tmp_path / "run" / "00000007.dng")) as raw:
        assert np.array_equal(raw.raw_image, frame)  # told, not done: the samples are the camera's
    with tifffile.TiffFile(tmp_path / "run" / "00000007.dng") as file:
        tags = {tag.code: tag.value for tag in file.pages[0].tags}
    assert opcodes_of(tags[51008]) == [(5, struct.pack(">7I", phase, 2, 0, 2, 3, 7, 10))]
    maps = opcodes_of(tags[51009])
    assert [code for code, _ in maps] == [9] * 4
    gains = np.ones(frame.shape)
    for _, parameters in maps:
        apply_gain_map(gains, parameters)
    assert np.allclose(gains, gain_map(mesh, fmt), rtol=1e-6)


def test_the_colours_of_a_dng_are_those_of_the_calibration() -> None:
    neutral, matrix = colours({"white_balance": [2.0, 1.0, 1.6], "colour_matrix": MATRIX})
    assert np.allclose(neutral, [0.5, 1, 0.625])
    # White of D65, seen by the camera, is its neutral; and back through gains and colour matrix it is white again.
    seen = matrix @ np.array([0.95047, 1.0, 1.08883])
    assert np.allclose(seen / seen.max(), neutral, atol=1e-3)
    assert np.allclose(np.array(MATRIX) @ (seen * [2.0, 1.0, 1.6]), 1, atol=2e-3)
    assert np.allclose(colours({})[0], 1)
    assert np.allclose(colours({"estimated_white_balance": [1.0, 1.0, 2.0]})[0], [1, 1, 0.5])


@pytest.mark.parametrize("matrix", [[[1, 1, 1]] * 3, [[1e-9, 0, 0], [0, 1, 0], [0, 0, 1]]])
def test_a_colour_matrix_that_has_no_inverse_is_refused(tmp_path: Path, matrix: list[list[float]]) -> None:
    contents = Contents(FORMAT, None, TEXTS, {"calibration": {"colour_matrix": matrix}})
    with pytest.raises(UserError, match="cannot be inverted"):
        DngWriter(tmp_path / "run", contents)
    assert list(tmp_path.iterdir()) == []


def read_video(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="rgb24"), float(frame.time or 0)) for frame in container.decode(video=0)]
    return [image for image, _ in frames], [time for _, time in frames]


def test_mp4(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "run.mp4", Contents(srgb_size=(FORMAT.width, FORMAT.height)), fps=100, record_fps=0)
    rows = rows_of(SRGB_FRAME, 40)
    rows["grabbed_ns"][20:] += 500_000_000  # the camera paused
    write_all(writer, "srgb", [srgb_frame(n) for n in range(40)], rows)
    writer.finish()
    assert (writer.counts, writer.thinned) == ({"srgb": 40}, 0)
    images, times = read_video(tmp_path / "run.mp4")
    assert np.allclose(times, (rows["grabbed_ns"] - rows["grabbed_ns"][0]) * 1e-9, atol=1e-4)
    for n, image in enumerate(images):
        assert np.abs(image.astype(int) - srgb_frame(n)).mean() < 8  # it is lossy, and chroma has half the size
    with (tmp_path / "run.csv").open() as file:
        assert [row["frame_id"] for row in csv.DictReader(file)] == [str(7 + n) for n in range(40)]


def test_mp4_with_fewer_frames_a_second(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "run.mp4", Contents(srgb_size=(FORMAT.width, FORMAT.height)), fps=100, record_fps=30)
    write_all(writer, "srgb", [srgb_frame(n) for n in range(100)], rows_of(SRGB_FRAME, 100))
    writer.finish()
    assert writer.counts["srgb"] + writer.thinned == 100
    assert writer.counts["srgb"] == 30
    assert len(read_video(tmp_path / "run.mp4")[0]) == 30


def thin(path: Path, fps: float, told_fps: float, record_fps: float) -> tuple[int, np.ndarray]:
    """How many of 1200 frames, which come up to a fifth of a period early or late, are left out; times of the rest."""
    contents = Contents(srgb_size=(16, 16))
    writer = Mp4Writer(path, contents, fps=told_fps, record_fps=record_fps)
    rows = rows_of(SRGB_FRAME, 1200)
    late = np.random.default_rng(3).uniform(-0.2, 0.2, 1200)
    rows["grabbed_ns"] = 1_000_000_000 + (np.arange(1200) + late) * 1e9 / fps
    write_all(writer, "srgb", [np.zeros((16, 16, 3), np.uint8)] * 1200, rows)
    writer.finish()
    assert writer.counts["srgb"] + writer.thinned == 1200
    return writer.thinned, np.array(read_video(path)[1])


@pytest.mark.parametrize("fps", [60, 59.94, 50, 30])
@pytest.mark.parametrize("told", [True, False])
def test_an_mp4_of_a_camera_that_is_no_faster_has_every_frame(tmp_path: Path, fps: float, told: bool) -> None:
    assert thin(tmp_path / "run.mp4", fps, fps if told else 0, 60)[0] == 0


@pytest.mark.parametrize("fps", [61, 75, 90, 119.88, 240])
def test_an_mp4_of_a_faster_camera_has_the_rate_that_was_asked_for(tmp_path: Path, fps: float) -> None:
    thinned, times = thin(tmp_path / "run.mp4", fps, fps, 60)
    assert 1200 - thinned == pytest.approx(1200 * 60 / fps, abs=2)
    # As evenly as the frames allow: each is that one nearest to its time.
    assert np.abs(times * 60 - np.arange(len(times))).max() < 0.5 * 60 / fps + 0.5


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_mp4_says_what_its_colours_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """Without that players guess, and by the height of the frames."""
    monkeypatch.setattr(mp4, "_CODECS", tuple(known for known in mp4._CODECS if known[0] == codec))
    writer = Mp4Writer(tmp_path / "run.mp4", Contents(srgb_size=(64, 48)), fps=100, record_fps=0)
    colour = np.broadcast_to(np.array([40, 160, 90], np.uint8), (48, 64, 3))
    write_all(writer, "srgb", [colour] * 3, rows_of(SRGB_FRAME, 3))
    writer.finish()
    with av.open(str(tmp_path / "run.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.01, 0.02], abs=1e-4)
    frame = frames[0]
    assert (int(frame.color_range), int(frame.colorspace), frame.color_primaries, frame.color_trc) == (1, 1, 1, 13)
    luma, blue, red = (bytes(plane)[0] for plane in frame.planes)
    kr, kg, kb = 0.2126, 0.7152, 0.0722  # of ITU-R BT.709
    y = (kr * 40 + kg * 160 + kb * 90) / 255
    wanted = 16 + 219 * y, 128 + 224 * (90 / 255 - y) / 1.8556, 128 + 224 * (40 / 255 - y) / 1.5748
    assert [luma, blue, red] == pytest.approx(wanted, abs=3)


def test_an_encoder_that_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the encoder cannot go on"):
        Mp4Writer(tmp_path / "run.mp4", Contents(srgb_size=(64, 1)), fps=100, record_fps=0)
    assert list(tmp_path.iterdir()) == []


_ON_A_FULL_DISK = """
import sys
from contextlib import suppress
sys.path.insert(0, {tests!r})
from test_formats import *
folder = Path(sys.argv[1])
noise = [np.random.default_rng(n).integers(0, 256, (240, 320, 3), np.uint8) for n in range(3)]
for number in range(2):
    writer = Mp4Writer(folder / f"{{number}}.mp4", Contents(srgb_size=(320, 240)), fps=100, record_fps=0)
    try:
        for _ in range(100):
            write_all(writer, "srgb", noise, rows_of(SRGB_FRAME, 3))
    except OSError as error:
        print(error.strerror)
    with suppress(OSError):
        writer.finish()
    writer.discard()
open_files = [os.path.realpath(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")]
print(os.listdir(folder), [path for path in open_files if "mp4" in path])
"""


def test_an_mp4_on_a_full_disk(small_disk: Callable[[str, int], str]) -> None:
    said = small_disk(_ON_A_FULL_DISK.format(tests=str(Path(__file__).parent)), 1 << 18).splitlines()
    assert said[:-1] == ["No space left on device"] * 2
    assert said[-1] == "[] []"  # neither a file nor a descriptor is left


def test_mp4_of_an_odd_size_leaves_out_the_last_row_and_column(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "run.mp4", Contents(srgb_size=(65, 49)), fps=100, record_fps=0)
    write_all(writer, "srgb", [np.full((49, 65, 3), 90, np.uint8)] * 3, rows_of(SRGB_FRAME, 3))
    writer.finish()
    assert [image.shape for image in read_video(tmp_path / "run.mp4")[0]] == [(48, 64, 3)] * 3


_WRITE_UNTIL_KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_formats import *
writer = Mp4Writer(Path(sys.argv[1]), Contents(srgb_size=(FORMAT.width, FORMAT.height)), fps=100, record_fps=0)
rows = rows_of(SRGB_FRAME, 600)
for first in range(0, 600, 3):
    write_all(writer, "srgb", [srgb_frame(n) for n in range(first, first + 3)], rows[first : first + 3])
print("written", flush=True)
sys.stdin.read()
"""


def test_an_mp4_whose_writer_was_killed_still_plays(tmp_path: Path) -> None:
    program = _WRITE_UNTIL_KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, str(tmp_path / "run.mp4")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    assert len(read_video(tmp_path / "run.mp4")[0]) >= 300
