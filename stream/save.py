"""Saving: every frame of a stream as a PNG. A subscriber like any other, in a process of its own.

    python -m ispeed.stream.save ENDPOINT DIR [--frames N]

Files are named by the camera's frame id: `00000042.png`. A camera that came back after an outage may count from the
beginning again, so frames of later acquisitions of the same run carry the number of theirs too:
`00000042-2.png`. Files of an earlier run are overwritten.

It ends after N frames, at SIGTERM, or when its standard input, being a pipe, is closed; it writes what it has and
prints one JSON line: {"saved": ..., "missed": ...}. It prints such a line once a second meanwhile. Exit code 2 where
nothing can be written.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.errors import UserError
from .publish import SAVER_TOPIC
from .reader import Frame, FrameOverwritten, StreamError, StreamTimeout
from .subscribe import Subscriber

_BUFFER_BYTES = 256 << 20  # copies that wait to be written, in all
_LOOK_MS = 100  # how long a wait for a frame may keep us from noticing the end
_DRAIN_S = 5.0
_PROGRESS_S = 1.0


class Stop:
    """Whether, and since when, the end was asked for: by SIGTERM or SIGINT, or by the end of a pipe.

    `watched` is a descriptor: if it is a pipe, its end is such a request, and Ctrl-C is left to the process that holds
    the other end. A context manager.
    """

    def __init__(self, watched: int | None = None) -> None:
        self.since_ns = 0
        self._pipe = watched if watched is not None and _is_pipe(watched) else None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            ignored = self._pipe is not None and number == signal.SIGINT
            self._before[number] = signal.signal(number, signal.SIG_IGN if ignored else self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> int:
        """0, or the CLOCK_MONOTONIC ns of the request."""
        pipe = self._pipe
        if not self.since_ns and pipe is not None and select.select([pipe], [], [], 0)[0] and not os.read(pipe, 4096):
            self.since_ns = time.monotonic_ns()
        return self.since_ns

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.since_ns = self.since_ns or time.monotonic_ns()


class PngWriter:
    """Writes frames as PNG files in a few threads. Holds a bounded number of copies; `put` waits for room.

    Attributes:
        accepted: Frames taken; all of them are files after `close`, unless `check` raises.
        overwritten: Frames that were gone before they were copied.

    Raises:
        UserError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "png")
        self._room: threading.Semaphore | None = None
        self._free: list[npt.NDArray[np.uint8]] = []
        self._first_segment: int | None = None
        self._error: OSError | None = None
        self.accepted = self.overwritten = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".ispeed-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(_sentence(folder, error)) from error

    def put(self, frame: Frame) -> None:
        """Copies a frame and has it written. Waits while too many copies are unwritten."""
        if self._room is None:
            self._room = threading.Semaphore(max(4, min(256, _BUFFER_BYTES // max(1, frame.array.nbytes))))
        self._room.acquire()
        buffer = self._free.pop() if self._free else np.empty(frame.array.shape, np.uint8)
        if buffer.shape != frame.array.shape:  # the stream began anew with another size
            buffer = np.empty(frame.array.shape, np.uint8)
        try:
            frame.copy(buffer)
        except FrameOverwritten:
            self.overwritten += 1
            self._give_back(buffer)
            return
        self.accepted += 1
        self._pool.submit(self._write, buffer, self._path(frame))

    def check(self) -> None:
        """Raises UserError when a file could not be written."""
        if self._error:
            raise UserError(_sentence(self._folder, self._error)) from self._error

    def close(self) -> None:
        """Returns when everything is written."""
        self._pool.shutdown(wait=True)

    def _path(self, frame: Frame) -> Path:
        if self._first_segment is None:
            self._first_segment = frame.segment
        later = "" if frame.segment == self._first_segment else f"-{frame.segment}"
        return self._folder / f"{frame.frame_id:08d}{later}.png"

    def _write(self, buffer: npt.NDArray[np.uint8], path: Path) -> None:
        from PIL import Image

        try:
            if self._error is None:
                Image.fromarray(buffer).save(path, "PNG", compress_level=1)
        except OSError as error:
            self._error = error
            path.unlink(missing_ok=True)
        finally:
            self._give_back(buffer)

    def _give_back(self, buffer: npt.NDArray[np.uint8]) -> None:
        self._free.append(buffer)
        if self._room:
            self._room.release()


def save_frames(
    subscriber: Subscriber,
    folder: Path,
    *,
    frames: int = 0,
    timeout_ms: float = 0,
    stop: Callable[[], int] = lambda: 0,
    progress: Callable[[dict[str, int]], None] = lambda report: None,
) -> dict[str, int]:
    """Saves `frames` frames (0: until `stop` or an error) to `folder`. Returns {"saved": n, "missed": n}.

    `stop` tells 0 or when the end was asked for (CLOCK_MONOTONIC ns); frames published before are still saved.
    `progress` is told what has been done so far, once a second.
    Raises UserError when something cannot be written, StreamTimeout after `timeout_ms` (0: never) without a frame.
    """
    writer = PngWriter(folder)
    last_s = told_s = time.monotonic()

    def report() -> dict[str, int]:
        return {"saved": writer.accepted, "missed": subscriber.missed + subscriber.lapped + writer.overwritten}

    try:
        while not frames or writer.accepted < frames:
            writer.check()
            if time.monotonic() - told_s >= _PROGRESS_S:
                told_s = time.monotonic()
                progress(report())
            asked_ns = stop()
            if asked_ns and time.monotonic_ns() - asked_ns > _DRAIN_S * 1e9:
                break
            try:
                frame = subscriber.receive(_LOOK_MS)
            except StreamTimeout:
                if asked_ns:
                    break
                if timeout_ms and (time.monotonic() - last_s) * 1e3 > timeout_ms:
                    raise
                continue
            last_s = time.monotonic()
            if asked_ns and frame.published_ns > asked_ns:
                break
            writer.put(frame)
    finally:
        writer.close()
    writer.check()
    return report()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m ispeed.stream.save` and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.stream.save", description="Save a stream's frames as PNG.")
    parser.add_argument("endpoint", help="where the stream is published, such as ipc:///run/me/cam")
    parser.add_argument("folder", type=Path, help="folder for the files; made where it is missing")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="end after N frames; 0 goes on (default 0)")
    parser.add_argument("--camera", type=int, metavar="N", help="index of the camera; left out: whichever comes first")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="folder of keys, for a tcp endpoint")
    options = parser.parse_args(argv)
    try:
        with (
            Stop(watched=0) as stop,
            Subscriber(options.endpoint, camera=options.camera, mode="every", keys=options.keys) as subscriber,
        ):
            subscriber.announce(SAVER_TOPIC)
            report = save_frames(subscriber, options.folder, frames=options.frames, stop=stop, progress=_tell)
    except UserError as error:
        sys.stderr.write(f"save: error: {error}\n")
        return 2
    except StreamError as error:
        sys.stderr.write(f"save: error: {error}\n")
        return 1
    _tell(report)
    return 0


def _tell(report: dict[str, int]) -> None:
    with suppress(BrokenPipeError):  # nobody is left to read it
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


def _sentence(folder: Path, error: OSError) -> str:
    return f"frames cannot be saved to {folder} ({error.strerror or error}): free space, or choose another folder"


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


if __name__ == "__main__":
    sys.exit(main())
