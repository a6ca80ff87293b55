"""What a recording needs, known before the first frame: which frames, how much ring, how much disk."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass
from pathlib import Path

from ...engines.bayer import RawFormat
from ...engines.errors import UserError, reason
from ..config import StreamConfig
from ..ring import available_memory
from .layout import pages

_PACKAGES = {"h5": "h5py", "mp4": "av"}
_LEAST_S = 1.0  # of frames that the disk must hold where a recording has no end
_MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What is recorded of one camera.

    Attributes:
        kinds: "raw", "srgb" or both.
        on: What begins a recording: start, key, line, brightness.
        pre_s, post_s: Seconds before and after a trigger.
        limit_s: Longest recording in seconds; infinite where there is no limit.
    """

    folder: Path
    format: str
    kinds: tuple[str, ...]
    on: tuple[str, ...]
    pre_s: float
    post_s: float
    limit_s: float
    slack_s: float

    @property
    def from_start(self) -> bool:
        """Whether the first frame begins a recording."""
        return "start" in self.on

    @property
    def watches(self) -> bool:
        """Whether frames are looked at for a trigger."""
        return "line" in self.on or "brightness" in self.on

    @property
    def longest_s(self) -> float:
        """Longest recording that one trigger makes; infinite where none ends it."""
        return self.limit_s if self.from_start else min(self.limit_s, self.pre_s + self.post_s)

    def history(self, fps: float | None) -> int:
        """Frames that the ring must hold beside those that are in work, at `fps` frames a second (None: unknown).

        Raises UserError where a pre-trigger has no frame rate.
        """
        if not fps:
            if self.pre_s:
                raise UserError(
                    "the camera tells no frame rate, so how many frames --pre-trigger-s are is not known: set --fps "
                    "to the highest rate that triggers come at, or leave out --pre-trigger-s"
                )
            return 0
        return math.ceil((self.pre_s + self.slack_s) * fps)

    def require_memory(self, needed: int, kept: int) -> None:
        """Raises UserError when the rings, of `needed` bytes, do not fit into the free memory."""
        if needed > (available := available_memory()):
            raise UserError(
                f"keeping {kept} frames for --pre-trigger-s {self.pre_s:g} and --record-slack-s {self.slack_s:g} needs "
                f"{needed // _MIB} MiB of memory, and {available // _MIB} MiB are free: keep less, or record less"
            )

    def require_disk(self, fmt: RawFormat, fps: float | None) -> None:
        """Raises UserError when the disk cannot hold one recording of frames of this format, or is gone."""
        if self.format == "mp4" or not fps:
            return
        seconds = self.longest_s if math.isfinite(self.longest_s) else _LEAST_S
        pixels = fmt.width * fmt.height
        sizes = {"raw": pixels * 2 if self.format == "dng" else fmt.payload_size, "srgb": pixels * 3}
        needed = math.ceil(sum(pages(sizes[kind]) for kind in self.kinds) * fps * seconds)
        try:
            status = os.statvfs(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written ({reason(error).lower()})") from error
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise UserError(
                f"a recording of {seconds:g} s at {fps:g} fps needs {needed // _MIB} MiB, and {self.folder} has "
                f"{free // _MIB} MiB free: free space, choose another --record, or record less"
            )


def make_plan(config: StreamConfig) -> Plan | None:
    """What `config` asks to record; None where it does not.

    Raises UserError for options that do not go together, a package that is missing, or a folder that is not writable.
    """
    if config.record is None:
        _require_no_options(config)
        return None
    kinds = _kinds(config)
    triggered = bool(config.pre_trigger_s) or config.post_trigger_s is not None
    on = tuple(dict.fromkeys(config.record_on)) or (("key",) if triggered else ("start",))
    if "start" in on and (triggered or len(on) > 1):
        raise UserError(
            "--record-on start records from the first frame to the end: leave out --pre-trigger-s, --post-trigger-s "
            "and the other --record-on"
        )
    post_s = 1.0 if config.post_trigger_s is None else config.post_trigger_s
    limit_s = config.record_seconds or math.inf
    if "start" not in on and limit_s <= config.pre_trigger_s:
        raise UserError("--record-seconds is no longer than --pre-trigger-s, so nothing after a trigger would be kept")
    package = _PACKAGES.get(config.record_format)
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--record-format {config.record_format} needs {package}: pip install 'ispeed[record]'")
    _require_folder(config.record)
    return Plan(
        config.record, config.record_format, kinds, on, config.pre_trigger_s, post_s, limit_s, config.record_slack_s
    )


def _kinds(config: StreamConfig) -> tuple[str, ...]:
    what = config.record_what or ("srgb" if config.record_format == "mp4" else "raw")
    if config.record_format == "mp4" and what != "srgb":
        raise UserError(f"an MP4 holds sRGB frames alone, not {what}: leave out --record-what, or record h5")
    if config.record_format == "dng" and what != "raw":
        raise UserError(f"DNG files hold raw frames alone, not {what}: leave out --record-what, or record h5")
    return ("raw", "srgb") if what == "both" else (what,)


def _require_no_options(config: StreamConfig) -> None:
    names = ("record_on", "pre_trigger_s", "post_trigger_s", "record_seconds", "record_what")
    given = [name for name in names if getattr(config, name)]
    if given:
        raise UserError(f"--{given[0].replace('_', '-')} is about recordings: say with --record where they shall go")


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"nothing can be recorded in {folder}: {(error.strerror or str(error)).lower()}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"nothing can be recorded in {folder}: it is not writable")
