"""Writing HDF5 recordings: every byte, on any file system, on a full disk, and by a writer that is killed."""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.stream.record import EVENT, RAW_FRAME, SRGB_FRAME, hdf, open_recording
from ispeed.stream.record.direct import DirectFile
from ispeed.stream.record.hdf import Contents, HdfWriter
from ispeed.stream.record.layout import pages

FORMAT = RawFormat(88, 66, "BayerRG12p")  # 8712 bytes: no whole pages
SRGB_SIZE = (40, 35)


class Slots:
    """Page-aligned memory with frames in it, as a ring has them: frame i has a pattern of its own."""

    def __init__(self, count: int, size: int) -> None:
        stride = pages(size)
        self._map = mmap.mmap(-1, count * stride)
        memory = memoryview(self._map)
        self.pieces = [memory[i * stride : (i + 1) * stride] for i in range(count)]
        self.arrays = [np.frombuffer(piece, np.uint8) for piece in self.pieces]
        for i, array in enumerate(self.arrays):
            array[:] = np.random.default_rng(i).integers(0, 256, len(array), np.uint8)  # and behind the frame as well


def rows_of(dtype: np.dtype, first: int, count: int) -> np.ndarray:
    """Rows of frames [first, first + count)."""
    rows = np.zeros(count, dtype)
    rows["frame_id"] = np.arange(first, first + count)
    rows["grabbed_ns"] = 1000 + rows["frame_id"]
    return rows


def fill(writer: HdfWriter, kind: str, slots: Slots, dtype: np.dtype, count: int) -> None:
    """Writes `count` frames in batches of up to 7."""
    done = 0
    while done < count:
        some = min(7, writer.room(kind), count - done)
        writer.write(kind, [slots.pieces[(done + i) % len(slots.pieces)] for i in range(some)])
        writer.commit(kind, rows_of(dtype, done, some))
        done += some


def test_every_byte_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf, "BLOCK_FRAMES", 10)
    raw, srgb = Slots(13, FORMAT.payload_size), Slots(5, 40 * 35 * 3)
    contents = Contents(FORMAT, SRGB_SIZE, {"serial": "A"}, {"settings": {"defects": [[1, 2]] * 20_000}}, camera=3)
    writer = HdfWriter(tmp_path / "a.h5", contents, {"raw": 25, "srgb": 3})
    event = np.zeros(1, EVENT)
    event["time_ns"], event["kind"], event["text"] = 5, b"trigger", b"key"
    fill(writer, "raw", raw, RAW_FRAME, 48)
    writer.event(event)
    fill(writer, "srgb", srgb, SRGB_FRAME, 21)
    fill(writer, "raw", raw, RAW_FRAME, 2)  # their ids begin anew
    assert writer.counts == {"raw": 50, "srgb": 21}
    _require_no_overlap(writer._file)
    writer.finish()
    with open_recording(tmp_path / "a.h5") as recording:
        assert recording.complete
        assert (recording.camera, recording.texts["serial"], recording.raw_format) == (3, "A", FORMAT)
        assert len(recording.settings["defects"]) == 20_000
        assert recording.raw_frames["frame_id"].tolist() == [*range(48), 0, 1]
        assert recording.srgb_frames["frame_id"].tolist() == list(range(21))
        assert recording.events.tolist() == event.tolist()
        for i in range(50):
            assert np.array_equal(recording.read_raw(i), raw.arrays[i % 48 % 13][: FORMAT.payload_size])
        for i in range(21):
            assert np.array_equal(recording.read_srgb(i).reshape(-1), srgb.arrays[i % 5][:4200])
    with h5py.File(tmp_path / "a.h5") as file:  # as anybody reads it
        assert file["raw"].shape == (50, FORMAT.payload_size)
        assert np.array_equal(file["raw"][49], raw.arrays[1][: FORMAT.payload_size])
    frames = 50 * pages(FORMAT.payload_size) + 21 * pages(4200)
    assert (
        frames < (tmp_path / "a.h5").stat().st_size < frames + (2 << 20)
    )  # nothing that was allocated in vain is left


def test_an_index_that_needs_more_room_than_was_kept_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of recordings of more than 100,000 frames: the library puts it behind the last frame, within its page."""
    for name, value in (("_META_BYTES", 4096), ("_META_FRAMES", 64), ("BLOCK_FRAMES", 16)):
        monkeypatch.setattr(hdf, name, value)
    raw, srgb = Slots(13, FORMAT.payload_size), Slots(5, 40 * 35 * 3)
    writer = HdfWriter(tmp_path / "a.h5", Contents(FORMAT, SRGB_SIZE), {"raw": 16, "srgb": 16})
    for _ in range(20):
        fill(writer, "raw", raw, RAW_FRAME, 65)
        fill(writer, "srgb", srgb, SRGB_FRAME, 65)
    writer.finish()
    with h5py.File(tmp_path / "a.h5") as opened:  # as anybody reads it
        file: Any = opened
        raws, pictures = file["raw"][()], file["srgb"][()]
    for i in range(20 * 65):
        assert np.array_equal(raws[i], raw.arrays[i % 65 % 13][: FORMAT.payload_size])
        assert np.array_equal(pictures[i].reshape(-1), srgb.arrays[i % 65 % 5][:4200])


def test_frames_smaller_than_a_page(tmp_path: Path) -> None:
    fmt = RawFormat(16, 8, "BayerRG8")
    raw, srgb = Slots(7, fmt.payload_size), Slots(5, 4200)
    writer = HdfWriter(tmp_path / "a.h5", Contents(fmt, SRGB_SIZE), {"raw": 3, "srgb": 3})
    for _ in range(4):
        fill(writer, "raw", raw, RAW_FRAME, 70)
        fill(writer, "srgb", srgb, SRGB_FRAME, 50)
    writer.finish()
    with open_recording(tmp_path / "a.h5") as recording:
        for i in range(280):
            assert np.array_equal(recording.read_raw(i), raw.arrays[i % 70 % 7][: fmt.payload_size])
        for i in range(200):
            assert np.array_equal(recording.read_srgb(i).reshape(-1), srgb.arrays[i % 50 % 5][:4200])


def _require_no_overlap(file: h5py.File) -> None:
    """Nothing lies where a frame is written, whole pages long."""
    places: list[tuple[int, int]] = []
    for name in ("raw", "srgb", "raw_frames", "srgb_frames", "events"):
        file[name].id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, chunk.size)))
    places.sort()
    for (offset, size), (following, _) in itertools.pairwise(places):
        assert offset % 4096 == 0
        assert offset + pages(size) <= following


def test_a_file_system_without_direct_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal of O_DIRECT is played, because what the file systems of this machine refuse is not known."""
    really = os.pwritev

    def refuse(fd: int, pieces: list, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") and flags(fd) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return really(fd, pieces, offset)

    def flags(fd: int) -> int:
        line = next(line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "flags" in line)
        return int(line.split()[1], 8)

    monkeypatch.setattr(os, "pwritev", refuse)
    slots = Slots(4, FORMAT.payload_size)
    writer = HdfWriter(tmp_path / "a.h5", Contents(FORMAT), {"raw": 9})
    fill(writer, "raw", slots, RAW_FRAME, 9)
    writer.finish()
    with open_recording(tmp_path / "a.h5") as recording:
        for i in range(9):
            assert np.array_equal(recording.read_raw(i), slots.arrays[i % 4][: FORMAT.payload_size])


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that writes less than asked is played: it does so when it likes."""
    really = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, at: really(fd, [pieces[0][:4096]], at))
    slots = Slots(3, 12288)
    path = tmp_path / "a.bin"
    path.touch()
    file = DirectFile(path)
    file.write(0, slots.pieces)
    file.close()
    assert path.read_bytes() == b"".join(slots.pieces)


_ON_A_SMALL_DISK = """
import json, os, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_hdf import *
folder = Path(sys.argv[1])
slots = Slots(4, FORMAT.payload_size)
said = {{}}
try:
    HdfWriter(folder / "big.h5", Contents(FORMAT), {{"raw": 1000}})
except OSError as error:
    said["refused"] = error.errno
said["left"] = sorted(os.listdir(folder))
writer = HdfWriter(folder / "a.h5", Contents(FORMAT), {{"raw": 10}})
try:
    fill(writer, "raw", slots, RAW_FRAME, 1000)
except OSError as error:
    said["full"] = error.errno
said["written"] = writer.counts["raw"]
writer.finish()
with open_recording(folder / "a.h5") as recording:
    said["complete"], said["read"] = recording.complete, recording.raw_count
    said["right"] = all(
        np.array_equal(recording.read_raw(i), slots.arrays[i % 4][: FORMAT.payload_size])
        for i in range(recording.raw_count)
    )
print(json.dumps(said))
"""


def test_a_full_disk(small_disk: Callable[[str, int], str]) -> None:
    said = json.loads(small_disk(_ON_A_SMALL_DISK.format(tests=str(Path(__file__).parent)), 4 << 20))
    assert said.pop("written") == said.pop("read") > 200  # to the last frame that fits, though blocks are larger
    assert said == {"refused": errno.ENOSPC, "left": [], "full": errno.ENOSPC, "complete": True, "right": True}


_WRITE_UNTIL_KILLED = """
import random, signal, sys, time
sys.path.insert(0, {tests!r})
from test_hdf import *
hdf.BLOCK_FRAMES = 16
slots = Slots(16, FORMAT.payload_size)
path = Path(sys.argv[1])
for number in range(int(sys.argv[2])):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b".")
        for file in range(1000):
            writer = HdfWriter(path / f"{{number}}-{{file}}.h5", Contents(FORMAT), {{"raw": 40}})
            for first in range(0, 400, 8):
                some = min(8, writer.room("raw"))
                writer.write("raw", [slots.pieces[(writer.counts["raw"] + i) % 16] for i in range(some)])
                writer.commit("raw", rows_of(RAW_FRAME, writer.counts["raw"], some))
                os.write(write, bytes(f"{{file}} {{writer.counts['raw']}}\\n", "ascii"))
            writer.finish()
    os.close(write)
    said = os.read(read, 1)
    while said.count(b"\\n") < 9 * number:  # files have 50 batches, so the later ones have written some
        more = os.read(read, 1 << 16)
        assert more  # else it has ended
        said += more
    time.sleep(random.uniform(0, 0.01))  # in the middle of anything
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL  # it had not ended, nor failed
    while more := os.read(read, 1 << 16):
        said += more
    os.close(read)
    lines = said[1:].decode().splitlines()
    print(number, lines[-1] if lines else "0 0", flush=True)
"""


_WITHOUT_RESERVE = """
import sys
from contextlib import suppress
sys.path.insert(0, {tests!r})
from test_hdf import *
folder = Path(sys.argv[1])
DirectFile.reserve = lambda file, offset, length: None
slots, said = Slots(3, FORMAT.payload_size), {{}}
def attempt(name, step):
    try:
        step()
    except OSError as error:
        said[name] = [error.errno, error.strerror]
writer = HdfWriter(folder / "a.h5", Contents(FORMAT), {{"raw": 8}})
fill(writer, "raw", slots, RAW_FRAME, 8)
with suppress(OSError), open(folder / "rest", "wb", buffering=0) as rest:
    while True:
        rest.write(bytes(4096))
attempt("room", lambda: writer.room("raw"))
attempt("finish", writer.finish)
attempt("another", lambda: HdfWriter(folder / "b.h5", Contents(FORMAT), {{"raw": 8}}))
with open_recording(folder / "a.h5") as recording:
    said["frames"] = recording.raw_count
said["there"] = sorted(os.listdir(folder))
print(json.dumps(said))
"""


def test_a_full_disk_that_could_not_reserve(small_disk: Callable[[str, int], str]) -> None:
    """As on file systems without fallocate: the HDF5 library itself finds it full, and says so in its own way."""
    said = json.loads(small_disk(_WITHOUT_RESERVE.format(tests=str(Path(__file__).parent)), 4 << 20))
    full = [errno.ENOSPC, os.strerror(errno.ENOSPC)]
    assert said == {"room": full, "finish": full, "another": full, "frames": 8, "there": ["a.h5", "rest"]}


def test_what_a_killed_writer_had_written_is_read(tmp_path: Path) -> None:
    """Killed at any moment: while it allocates, writes, or finishes a file. Every file that is there can be read."""
    program = _WRITE_UNTIL_KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "20"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    last = {
        number: (file, count) for number, file, count in (map(int, line.split()) for line in done.stdout.splitlines())
    }
    assert len(last) == 20
    assert sum(count for _, count in last.values()) > 0
    complete, read = 0, 0
    slots = Slots(16, FORMAT.payload_size)
    for path in tmp_path.glob("[0-9]*.h5"):
        number, file = map(int, path.stem.split("-"))
        with open_recording(path) as recording:
            complete, read = complete + recording.complete, read + recording.raw_count
            if file < last[number][0]:
                assert recording.complete
            if file == last[number][0]:
                assert recording.raw_count >= last[number][1]
            for i in range(recording.raw_count):
                assert np.array_equal(recording.read_raw(i), slots.arrays[i % 16][: FORMAT.payload_size])
    assert complete > 0
    assert read >= sum(count for _, count in last.values())
