"""Reading recordings: what was written comes back; what is broken is one sentence."""

from __future__ import annotations

import fcntl
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.stream.record import EVENT, RAW_FRAME, open_recording, write_recording
from ispeed.stream.record.layout import put_text

FORMAT = RawFormat(16, 8, "BayerRG12p", 64)
FRAMES = np.random.default_rng(1).integers(0, 256, (5, FORMAT.payload_size), np.uint8)
SRGB = np.random.default_rng(2).integers(0, 256, (3, 8, 16, 3), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recording of five raw and three sRGB frames."""
    return write_recording(
        tmp_path / "a.h5", FORMAT, FRAMES, srgb=SRGB, geometry={"fps": 100.0}, calibration={"defects": [[1, 2]]}
    )


def test_what_was_written_comes_back(file: Path) -> None:
    with open_recording(file) as recording:
        assert recording.raw_format == FORMAT
        assert (recording.raw_count, recording.srgb_count) == (5, 3)
        assert recording.srgb_size == (16, 8)
        assert recording.complete
        assert recording.raw_frames.dtype == RAW_FRAME
        assert recording.events.dtype == EVENT
        assert recording.raw_frames["frame_id"].tolist() == [1, 2, 3, 4, 5]
        assert recording.geometry == {"fps": 100.0}
        assert recording.calibration == {"defects": [[1, 2]]}
        assert recording.settings == {}
        out = np.empty(FORMAT.payload_size, np.uint8)
        for i in range(5):
            assert recording.read_raw(i, out) is out
            assert np.array_equal(out, FRAMES[i])
        for i in range(3):
            assert np.array_equal(recording.read_srgb(i), SRGB[i])
        for beyond in (-1, 5):
            with pytest.raises(IndexError):
                recording.read_raw(beyond)
        with pytest.raises(ValueError, match="contiguous"):
            recording.read_raw(0, out[::2])


def test_a_compressed_copy_is_read_too(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "small.h5"
    with h5py.File(file) as source, h5py.File(other, "w") as copy:
        copy.attrs.update(source.attrs)
        copy.create_dataset("raw", data=source["raw"][:], chunks=(2, FORMAT.payload_size), compression="gzip")
        copy["raw"].attrs.update(source["raw"].attrs)
        copy["raw_frames"] = source["raw_frames"][:]
    with open_recording(other) as recording:
        assert recording.srgb_count == 0
        assert np.array_equal(recording.read_raw(4), FRAMES[4])


def test_frames_in_pieces_that_fill_the_memory_are_refused(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "large.h5"
    with h5py.File(file) as source, h5py.File(other, "w") as copy:
        copy.attrs.update(source.attrs)
        chunk = ((64 << 20) // FORMAT.payload_size + 1, FORMAT.payload_size)
        many = copy.create_dataset("raw", source["raw"].shape, np.uint8, chunks=chunk, maxshape=(None, chunk[1]))
        many.attrs.update(source["raw"].attrs)
        copy["raw_frames"] = source["raw_frames"][:]
    with pytest.raises(UserError, match="in pieces of 64 MiB, which are read whole"):
        open_recording(other)


def test_of_a_killed_writer_whole_frames_are_read(tmp_path: Path) -> None:
    rows = np.zeros(5, RAW_FRAME)
    rows["grabbed_ns"][:3] = 1
    file = write_recording(tmp_path / "a.h5", FORMAT, FRAMES, raw_frames=rows, complete=False)
    with open_recording(file) as recording:
        assert not recording.complete
        assert recording.raw_count == 3


def _change_attribute(name: str, value: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file.attrs[name]
        if isinstance(value, str):
            put_text(file.attrs, name, value)
        else:
            file.attrs[name] = value

    return change


def _external(file: h5py.File) -> None:
    del file["raw"]
    file["raw"] = h5py.ExternalLink("/etc/other.h5", "/raw")


def _outside(file: h5py.File) -> None:
    attributes = dict(file["raw"].attrs)
    del file["raw"]
    shape = (5, FORMAT.payload_size)
    file.create_dataset("raw", shape, np.uint8, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    file["raw"].attrs.update(attributes)


def _wrong_width(file: h5py.File) -> None:
    file["raw"].attrs["width"] = 32


def _no_column(file: h5py.File) -> None:
    rows = file["raw_frames"][:]
    del file["raw_frames"]
    file["raw_frames"] = rows[["frame_id", "grabbed_ns"]]


def _fewer_rows(file: h5py.File) -> None:
    rows = file["raw_frames"][:]
    del file["raw_frames"]
    file["raw_frames"] = rows[:2]


def _many_rows(file: h5py.File) -> None:
    del file["raw_frames"]
    file.create_dataset("raw_frames", (1 << 38,), RAW_FRAME, chunks=(1024,))


def _no_frames(file: h5py.File) -> None:
    del file["raw"], file["srgb"]


def _a_group(file: h5py.File) -> None:
    del file["raw"]
    file.create_group("raw")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_change_attribute("format", "other"), "no recording of isp-stream"),
        (_change_attribute("version", 2), "version 2"),
        (_change_attribute("complete", "yes"), "'complete'"),
        (_change_attribute("camera", -1), "'camera'"),
        (_change_attribute("settings", "{"), "'settings' is no JSON"),
        (_change_attribute("settings", "[" * 100_000), "'settings' is no JSON"),
        (_change_attribute("geometry", json.dumps([1])), "no JSON object"),
        (_change_attribute("serial", np.zeros(5000, "S1")), "'serial'"),
        (_external, "link to elsewhere"),
        (_outside, "are not in it"),
        (_wrong_width, "32x8 BayerRG12p has 384"),
        (_no_column, "no column"),
        (_fewer_rows, "5 frames and 2 rows"),
        (_many_rows, "are not in it"),
        (_no_frames, "holds no frames"),
        (_a_group, "no array of frames"),
    ],
)
def test_a_broken_recording_is_one_sentence(file: Path, harm: Any, said: str) -> None:
    with h5py.File(file, "r+") as opened:
        harm(opened)
    with pytest.raises(UserError, match=said) as raised:
        open_recording(file)
    assert "\n" not in str(raised.value)
    assert str(file) in str(raised.value)


def test_no_such_file_no_hdf5_and_cut_off_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no recording"):
        open_recording(tmp_path / "none.h5")
    with pytest.raises(UserError, match="there is no recording"):
        open_recording(tmp_path)
    other = tmp_path / "text.h5"
    other.write_text("no HDF5")
    with pytest.raises(UserError, match="no HDF5 file"):
        open_recording(other)
    whole = file.read_bytes()
    for length in (*range(0, 8192, 997), *range(8192, len(whole), len(whole) // 40)):
        other.write_bytes(whole[:length])
        with pytest.raises(UserError) as raised:
            open_recording(other)
        assert "\n" not in str(raised.value)


def test_a_recording_that_is_written_is_not_read(file: Path) -> None:
    with file.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as the HDF5 library of a writer does
        with pytest.raises(UserError, match="is being written"):
            open_recording(file)


_OPEN = """
import sys
from pathlib import Path
from ispeed.engines.errors import UserError
from ispeed.stream.record import open_recording
def most_kib():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = most_kib()
try:
    said = repr(open_recording(sys.argv[1]))
except UserError as error:
    said = str(error)
print(most_kib() - before, said)
"""


def open_elsewhere(file: Path) -> tuple[int, str]:
    """Opens it in a process of its own, which may hang: the KiB that it took at the most, and what was said."""
    command = [sys.executable, "-c", _OPEN, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    kib, said = done.stdout.split(" ", 1)
    return int(kib), said


_TEXT = h5py.string_dtype()


def _text_in_a_compound(file: h5py.File) -> None:
    del file.attrs["serial"]
    file.attrs.create("serial", np.array(("text",), [("a", _TEXT)]), dtype=[("a", _TEXT)])


def _texts_in_an_array(file: h5py.File) -> None:
    del file.attrs["serial"]
    kind = np.dtype([("a", _TEXT, (2,))])
    file.attrs.create("serial", np.array((["text", "more"],), kind), dtype=kind)


def _numbers_of_any_count(file: h5py.File) -> None:
    del file.attrs["camera"]
    numbers = np.empty(1, object)
    numbers[0] = np.array([1, 2], np.int32)
    file.attrs.create("camera", numbers, dtype=h5py.vlen_dtype(np.int32))


def _a_column_of_texts(name: str, dtype: np.dtype) -> Any:
    def change(file: h5py.File) -> None:
        wider = np.zeros(5, [*dtype.descr, ("more", _TEXT)])
        wider["more"] = "text"
        del file[name]
        file[name] = wider

    return change


def _spoil_heap(file: Path) -> None:
    """The first object of the global heap has the size -16: the HDF5 library goes through it for ever."""
    data = bytearray(file.read_bytes())
    at = data.index(b"GCOL") + 16
    struct.pack_into("<q", data, at + 8, -16)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_text_in_a_compound, "its attribute 'serial' has a variable length"),
        (_texts_in_an_array, "its attribute 'serial' has a variable length"),
        (_numbers_of_any_count, "its attribute 'camera' has a variable length"),
        (_a_column_of_texts("raw_frames", RAW_FRAME), "/raw_frames has a column of a variable length"),
        (_a_column_of_texts("events", EVENT), "/events has a column of a variable length"),
    ],
)
def test_nothing_is_read_from_the_global_heap(file: Path, harm: Any, said: str) -> None:
    """Where it is damaged, as here, the HDF5 library does not come back from there."""
    with h5py.File(file, "r+") as opened:
        harm(opened)
    _spoil_heap(file)
    assert said in open_elsewhere(file)[1]


def test_columns_of_a_later_version_are_left_out(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        rows: Any = opened["raw_frames"]
        before = rows[:]
        wider = np.zeros(len(rows), [("temperature", "<f4"), *rows.dtype.descr, ("name", "S8")])
        for column in before.dtype.names:
            wider[column] = before[column]
        del opened["raw_frames"]
        opened["raw_frames"] = wider
    with open_recording(file) as recording:
        assert recording.raw_frames.dtype == RAW_FRAME
        assert recording.raw_frames.tobytes() == before.tobytes()


@pytest.mark.parametrize(("size", "at"), [(256 << 20, None), (None, 1 << 40)])
def test_a_chunk_that_is_not_in_the_file_takes_no_memory(file: Path, size: int | None, at: int | None) -> None:
    """The index of a table says how large each chunk is and where it lies."""
    with h5py.File(file) as opened:
        rows: Any = opened["raw_frames"]
        chunk = rows.id.get_chunk_info(0)
    data = bytearray(file.read_bytes())
    # An entry of a version 1 B-tree: size, filters, place of the chunk in the table and within a row; address.
    entry = struct.pack("<IIQQQ", chunk.size, 0, 0, 0, chunk.byte_offset)
    place = data.index(entry)
    struct.pack_into("<I", data, place, size or chunk.size)
    struct.pack_into("<Q", data, place + 24, at or chunk.byte_offset)
    file.write_bytes(data)
    kib, sentence = open_elsewhere(file)
    assert "the rows of /raw_frames are not in it" in sentence
    assert kib < 128 << 10


def test_a_text_of_variable_length_is_refused_before_it_is_read(file: Path):
    with h5py.File(file, "r+") as opened:  # of a damaged global heap, where it lies, HDF5 does not come back
        opened.attrs["serial"] = "A1"
    with pytest.raises(UserError, match="its attribute 'serial' has a variable length"):
        open_recording(file)


def test_long_settings_come_back(file: Path):
    settings = {"defects": [[x, "é"] for x in range(20_000)]}
    with h5py.File(file, "r+") as opened:
        del opened.attrs["settings"]
        put_text(opened.attrs, "settings", json.dumps(settings, ensure_ascii=False))
        assert len(opened.attrs["settings"]) == 60_000
    with open_recording(file) as recording:
        assert recording.settings == settings
