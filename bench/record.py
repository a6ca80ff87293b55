"""`isp-bench record`: the rate at which the recorder writes raw frames, against that of the disk.

The recorder is the real one, a process on a ring in shared memory that is full of frames; it is told of a trigger and
writes them all into an HDF5 file, from the making of the file to the moment when it is closed and on the disk. `dd`
writes as many bytes to the same folder, past the page cache and through it, in turn with it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from ..stream.config import make_config
from ..stream.log import ArrivalLog
from ..stream.record import open_recording
from ..stream.ring import Ring, Word
from ..stream.stage import StageProcess
from .machine import describe, in_words
from .pipeline import PipelineError
from .rate import write_report

SHARE = 0.8
_FPS = 1000.0
_TIMEOUT_S = 300.0
_DD = {
    "dd_direct": ("oflag=direct",),
    "dd_fdatasync": ("conv=fdatasync",),
}


class FullRing:
    """A raw ring whose every slot has been filled: what grab leaves behind.

    Args:
        fmt: Of the frames.
        frames: How many.
    """

    def __init__(self, fmt: RawFormat, frames: int) -> None:
        self.format, self.frames = fmt, frames
        self.raw = Ring.create("raw", frames, fmt.payload_size, 1)
        self.srgb = Ring.create("srgb", 2, fmt.width * fmt.height * 3, 1)
        log, now_ns = ArrivalLog(self.raw), time.monotonic_ns()
        noise = np.random.default_rng(1).integers(0, 256, fmt.payload_size + frames, np.uint8)
        for i in range(frames):
            self.raw.begin_write(i, i)
            self.raw.slot(i)[:] = noise[i : i + fmt.payload_size]  # no two frames are equal, and none can be squeezed
            self.raw.end_write(i, i)
            at_ns = now_ns - round((frames - i) * 1e9 / _FPS)
            log.add((i, 0, i + 1, i + 1, at_ns, 1, fmt.payload_size, 100.0, 0.0), 2 * i + 2)
        self.raw.words[Word.SEEN] = frames
        self.last_ns = now_ns - round(1e9 / _FPS)

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return self.frames * self.format.payload_size

    def matches(self, file: Path) -> bool:
        """Whether a recording has its frames in order, to the last one, and every byte of them right."""
        with open_recording(file) as recording:
            ids = recording.raw_frames["frame_id"]
            whole = all(
                np.array_equal(recording.read_raw(i), self.raw.slot(int(frame_id) - 1))
                for i, frame_id in enumerate(ids)
            )
            return whole and ids.tolist() == list(range(self.frames - len(ids) + 1, self.frames + 1))

    def close(self) -> None:
        """Gives the memory back."""
        self.raw.close()
        self.srgb.close()


class RecordProcess:
    """The record stage, attached to a ring."""

    def __init__(self, ring: FullRing, folder: Path) -> None:
        fmt, self._ring = ring.format, ring
        config = make_config({"record": folder, "pre_trigger_s": ring.frames / _FPS, "post_trigger_s": 0})
        geometry = {"camera": 0, "serial": "BENCH", "vendor": "ispeed", "model": "bench", "fps": _FPS}
        self._stage = StageProcess("record")
        self._call("open", config=config.model_dump(mode="json"))
        self._call(
            "attach",
            fds=(ring.raw.fd, ring.srgb.fd),
            geometry={**geometry, "width": fmt.width, "height": fmt.height},
            format=fmt.to_json(),
            stream_id=1,
            history=ring.frames,
            engine={},
            resumed=False,
        )

    def record(self) -> tuple[float, dict[str, Any]]:
        """Records the whole ring: seconds from the trigger to the end, and what was told of it."""
        start_s = time.monotonic()
        self._call("trigger", reason="bench", time_ns=self._ring.last_ns)
        while True:
            told = self._next()
            if told.get("change") == "ended":
                return time.monotonic() - start_s, told

    def close(self) -> None:
        """Ends the process."""
        self._stage.post("close")
        self._stage.end()

    def _call(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> None:
        self._stage.channel.call(command, _TIMEOUT_S, fds, **arguments)

    def _next(self) -> dict[str, Any]:
        channel = self._stage.channel
        if channel.backlog:
            return channel.backlog.pop(0)
        got = channel.receive(_TIMEOUT_S)
        if got is None:
            raise PipelineError(f"the recorder told nothing for {_TIMEOUT_S:g} s")
        return got[0]


def run_record(fmt: RawFormat, mib: int, repeats: int, folder: Path, out: Path | None) -> int:
    """Measures, prints, writes `out`, and returns 0 when the recorder reached its share of the disk's rate, else 1.

    Args:
        fmt: Of the frames.
        mib: Size of one recording.
        repeats: Rounds, each with the recorder and both ways of dd.
        folder: Where is written; on the disk that is asked about.
        out: A file for the figures.

    Raises:
        UserError: The folder cannot be written or has too little room.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    result = measure_record(fmt, mib, repeats, folder)
    why = _judge(result)
    write_report({"command": "record", "ok": not why, "missed_target": why, "machine": machine, **result}, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0


def measure_record(fmt: RawFormat, mib: int, repeats: int, folder: Path) -> dict[str, Any]:
    """The rates, MB/s, of each round and their medians. Raises as `run_record` does, PipelineError where it fails."""
    frames = max(16, (mib << 20) // fmt.payload_size)
    _require_room(folder, 2 * frames * fmt.payload_size)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-record-", dir=folder)))
        ring = FullRing(fmt, frames)
        stack.callback(ring.close)
        recorder = RecordProcess(ring, place)
        stack.callback(recorder.close)
        ways: dict[str, Callable[[], float]] = {
            "recorder": lambda: _record(recorder, ring, check=False),
            **{name: lambda flags=flags: _dd(place, ring.nbytes, flags) for name, flags in _DD.items()},
        }
        _record(recorder, ring, check=True)  # not measured: every byte of it is looked at
        rounds = [{name: round(way(), 1) for name, way in ways.items()} for _ in range(repeats)]
    columns = {name: [one[name] for one in rounds] for name in ways}
    return {
        "frame": {
            "width": fmt.width,
            "height": fmt.height,
            "pixel_format": fmt.pixel_format,
            "bytes": fmt.payload_size,
        },
        "frames": frames,
        "mb": round(ring.nbytes / 1e6, 1),
        "file_system": _file_system(folder),
        "mb_per_s": columns,
        "median_mb_per_s": {name: round(statistics.median(column), 1) for name, column in columns.items()},
        "spread": {name: round((max(c) - min(c)) / statistics.median(c), 3) for name, c in columns.items() if any(c)},
    }


def _record(recorder: RecordProcess, ring: FullRing, *, check: bool) -> float:
    seconds, told = recorder.record()
    file = Path(told["file"])
    try:
        if told["failed"] or told["frames"]["raw"] < ring.frames - 1:  # the very oldest has left the log
            raise PipelineError(f"the recorder wrote {told['frames']['raw']} of {ring.frames} frames: {told['reason']}")
        if check and not ring.matches(file):
            raise PipelineError("the recording is not what was in the ring")
    finally:
        file.unlink()
    return told["bytes"] / 1e6 / seconds


def _dd(folder: Path, nbytes: int, flags: tuple[str, ...]) -> float:
    """MB/s of dd, 0 where the file system refuses the flags."""
    file = folder / "dd"
    command = ["dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={nbytes >> 20}", *flags]
    start_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start_s
    file.unlink(missing_ok=True)
    return 0.0 if done.returncode else (nbytes >> 20 << 20) / 1e6 / seconds


def _require_room(folder: Path, nbytes: int) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} is no folder that can be written: choose another --folder")
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < nbytes:
        raise UserError(
            f"{folder} has less than {nbytes >> 20} MiB free: ask for fewer --mib, or choose another --folder"
        )


def _file_system(folder: Path) -> str:
    """Kind of the file system that a folder is on."""
    path, kind = folder.resolve(), "unknown"
    longest = -1
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, name = line.split()[:3]
        if path.is_relative_to(place) and len(place) > longest:
            kind, longest = name, len(place)
    return kind


def _judge(result: dict[str, Any]) -> list[str]:
    frame, medians = result["frame"], result["median_mb_per_s"]
    size = f"{frame['width']}x{frame['height']} {frame['pixel_format']}"
    print(f"recording  {result['frames']} frames of {size}, {result['mb']:g} MB, on {result['file_system']}, ", end="")
    print(f"median of {len(result['mb_per_s']['recorder'])} rounds")
    for name, median in medians.items():
        print(f"  {name:13s} {median:8.1f} MB/s   spread {result['spread'].get(name, 0):.0%}")
    faster = max(medians["dd_direct"], medians["dd_fdatasync"])
    share = medians["recorder"] / faster
    print(f"  the recorder writes at {share:.2f} of the rate of the faster dd (target {SHARE:g})")
    result["share"] = round(share, 3)
    return [] if share >= SHARE else [f"the recorder reached {share:.2f} of the disk's rate, not {SHARE:g}"]
