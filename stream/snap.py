"""`isp-stream --snap FILE.npy`: raw frames as the camera sent them, into a file that `--scene` plays. No engine runs.

The grab stage streams into a ring with a slot for each frame that is wanted, and nothing is given back before all are
there: so they are consecutive at any rate, as far as the camera and its transport lose none.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..engines import RawFormat, unpack
from ..engines.errors import UserError
from ..engines.inputs import iso_of
from .config import StreamConfig
from .frame import FrameRecord
from .hub import Hub, Signals, StageDied, Stopping
from .queues import GrantQueue
from .ring import Ring
from .stage import StageProcess

FRAMES = 16  # unless --frames says otherwise
_MOST_FRAMES = 4096
_QUEUED = 8  # further slots, so that the producer always has buffers
_OPEN_TIMEOUT_S = 60.0


class _Failed(Exception):
    """The frames did not come. The message is one sentence."""


def snap(config: StreamConfig, file: Path) -> int:
    """Saves `config.frames` raw frames (0: 16) and returns the exit code.

    `file` becomes uint16 [frames, height, width], DN of the pixel format, packed formats unpacked; `file`.yaml beside
    it says what the samples mean, and with which exposure and gain they were taken where the camera tells. Both are
    written whole or not at all.

    Raises:
        UserError: No such camera, a setting that it refuses, or a file that cannot be written.
    """
    _require_writable(file)
    for name in ("save", "trace", "record"):
        if getattr(config, name) is not None:
            raise UserError(f"--snap saves raw frames and develops none: leave out --{name}")
    count = config.frames or FRAMES
    if count > _MOST_FRAMES:
        raise UserError(f"--snap takes at most {_MOST_FRAMES} frames at once: ask for fewer --frames")
    camera = _Camera(config)
    try:
        raw_format, records, ring = camera.take(count)
        samples = np.stack([unpack(ring.slot(record.slot), raw_format) for record in records])
    except (_Failed, StageDied, TimeoutError) as error:
        sys.stderr.write(f"isp-stream: {error}; nothing was saved\n")
        return 1
    except Stopping:
        sys.stderr.write("isp-stream: stopped; nothing was saved\n")
        return 1
    finally:
        camera.close()
    meaning = _meaning(raw_format, camera.offset) | _taken_with(records, config)
    _write(file, samples, meaning)
    _tell(config, file, raw_format, records, meaning)
    return 0


class _Camera:
    """The grab stage with a ring that is as long as what is wanted of it.

    Attributes:
        offset: (x, y) of the frames on the sensor in pixels, once they are taken.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._config, self.offset = config, (0, 0)
        self._granted, self._returned = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        self._hub = Hub(self._on_wake, Signals())
        self._hub.watch(self._granted)
        self._grab: StageProcess | None = None
        self._ring: Ring | None = None

    def take(self, count: int) -> tuple[RawFormat, list[FrameRecord], Ring]:
        """Streams until `count` frames are there: their format, what they are, and where they lie until `close`.

        Raises UserError, _Failed, StageDied, TimeoutError or Stopping.
        """
        config = self._config
        grab = self._grab = self._hub.spawn("grab")
        settings = config.model_dump(mode="json")
        geometry = self._hub.call(grab, "open", _OPEN_TIMEOUT_S, config=settings)["geometry"]
        names = ("width", "height", "pixel_format", "black_level", "white_level")
        raw_format = RawFormat(*(geometry[name] for name in names))
        self.offset = geometry["offset_x"], geometry["offset_y"]
        slots = count + max(_QUEUED, geometry["min_buffers"])
        try:
            self._ring = ring = Ring.create("raw", slots, geometry["payload"], 0)
        except UserError as error:
            raise UserError(f"{count} frames do not fit into the free memory: ask for fewer --frames") from error
        options = {"policy": "block", "depth": count, "reserve": 0, "history": 0, "limit": count}
        fds = (ring.fd, self._granted, self._returned)
        self._hub.call(grab, "attach", 10, fds=fds, timeout_ms=config.timeout_ms, **options)
        self._hub.call(grab, "consumer", 5, epoch=1)
        self._hub.call(grab, "start", 10, segment=1)
        grants = GrantQueue(ring)
        self._await(lambda: len(grants) >= count)
        records = grants.peek(count)
        self._hub.call(grab, "stop", 10, drain=False)
        return raw_format, records, ring

    def _await(self, enough: Callable[[], bool]) -> None:
        ends_at = time.monotonic() + (self._config.seconds or float("inf"))
        while not enough():
            if time.monotonic() > ends_at:
                raise _Failed(f"not all frames came within {self._config.seconds:g} s")
            self._hub.pump(0.5)
            while self._hub.inbox:
                stage, message = self._hub.inbox.popleft()
                if message["event"] == "died":
                    raise _Failed(f"the {stage.name} process ended {stage.how_it_ended()}")
                if message["event"] == "unusable":
                    raise _Failed(message["text"])
                if message["event"] == "camera_lost":
                    raise _Failed(f"camera lost: {message['why']}")
                sys.stderr.write(f"isp-stream: {message.get('text', message['event'])}\n")

    def _on_wake(self) -> None:
        try:
            os.eventfd_read(self._granted)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Ends the stage and gives the memory back."""
        if self._grab:
            if not self._grab.dead:
                self._grab.post("close")
            self._hub.retire(self._grab, grace_s=5)
        if self._ring:
            self._ring.close()
        for fd in (self._granted, self._returned):
            os.close(fd)


def _meaning(fmt: RawFormat, offset: tuple[int, int]) -> dict[str, Any]:
    """What the sidecar says: the keys of `engines.raw_files`."""
    return {
        "width": fmt.width,
        "height": fmt.height,
        "format": fmt.pixel_format.rstrip("p"),
        "black": round(fmt.black_level),
        "white": round(fmt.white_level),
        "offset_x": offset[0],
        "offset_y": offset[1],
    }


def _taken_with(records: list[FrameRecord], config: StreamConfig) -> dict[str, Any]:
    """What the sidecar says of the camera: a number where all frames have the same, else one for each.

    ISO, f-number and focal length are only what the user has said; a base ISO that nobody gave would be invented.
    """
    told = {
        "exposure_us": [record.exposure_us for record in records],
        "gain_db": [record.gain_db for record in records],
        "f_number": [config.f_number or math.nan],
        "focal_length_mm": [config.focal_length_mm or math.nan],
    }
    if "base_iso" in config.model_fields_set:
        told["iso"] = [iso_of(record.gain_db, config.base_iso) for record in records]
    known = {name: numbers for name, numbers in told.items() if all(map(math.isfinite, numbers))}
    return {name: numbers if len(set(numbers)) > 1 else numbers[0] for name, numbers in known.items()}


def _require_writable(file: Path) -> None:
    if file.suffix != ".npy":
        raise UserError(f"--snap writes NumPy files: let {file} end in .npy")
    if os.path.isdir(file):
        raise UserError(f"frames cannot be saved to {file}: it is a folder; name a file")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"frames cannot be saved to {file}: there is no folder {file.parent} that can be written")


def _write(file: Path, samples: np.ndarray, meaning: dict[str, Any]) -> None:
    """Both files, each whole; the sidecar first, so that no frames lie there without their meaning."""
    sidecar = file.with_name(file.name + ".yaml")
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in (sidecar, file)]
    try:
        parts[0].write_text(yaml.safe_dump(meaning, sort_keys=False))
        with parts[1].open("wb") as stream:
            np.save(stream, samples)
        for part, path in zip(parts, (sidecar, file), strict=True):
            part.replace(path)
    except OSError as error:
        raise UserError(f"frames cannot be saved to {file}: {(error.strerror or str(error)).lower()}") from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()


def _tell(
    config: StreamConfig, file: Path, fmt: RawFormat, records: list[FrameRecord], meaning: dict[str, Any]
) -> None:
    missing = records[-1].frame_id - records[0].frame_id + 1 - len(records)
    counts = {"frames": len(records), "missing": missing}
    report = {"event": "snapped", "file": str(file), **counts, **meaning, "raw_format": fmt.to_json()}
    gaps = f", {missing} missing between them" if missing else ""
    text = f"{len(records)} frames of {fmt.width}x{fmt.height} {report['format']}{gaps}: play them with --scene {file}"
    if not config.quiet:
        sys.stdout.write((json.dumps(report) if config.json_lines else text) + "\n")
