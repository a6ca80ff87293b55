"""A recording as a camera: `--camera file:run.h5`."""

from __future__ import annotations

import math
import os
from typing import Any

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ...engines.inputs import iso_of
from ..config import StreamConfig, make_config
from ..footage import Footage, FootageOptions, open_footage
from .replay_source import ReplaySource
from .settings import Geometry
from .sources import Source
from .timeline import DEFAULT_FPS, Timeline

RATE = "AcquisitionFrameRate"
_LENS = ("f_number", "focal_length_mm")
_LEAST_FPS, _MOST_FPS = 0.001, 1e6


class ReplayCamera:
    """See camera.Camera. What the user should know goes to `warnings`.

    Raises UserError where the file holds no recording, or `config` asks for what a recording cannot do.
    """

    def __init__(self, config: StreamConfig, warnings: list[str]) -> None:
        _require_possible(config)
        self._footage = footage = _open(config)
        self.label = f"recording {footage.path}"
        try:
            warnings += _faults(self.label, footage)
            timeline = Timeline(footage.frames, footage.about.fps, config.fps, config.replay_speed)
            if not (timeline.known_rate or timeline.patient):
                warnings.append(f"{self.label} tells no rate: played at {DEFAULT_FPS:g} fps; --fps sets another")
            source = ReplaySource(footage, timeline, config.loop, lambda text: warnings.append(f"{self.label}: {text}"))
            self.source: Source = source
            self.features = ReplayFeatures(self.label, footage, timeline, source)
            _require_like(self.features, config)
            self.geometry = self._geometry(config, timeline)
        except BaseException:
            footage.close()
            raise

    def may_be_silent(self) -> bool:
        return True

    def close(self) -> None:
        self._footage.close()

    def _geometry(self, config: StreamConfig, timeline: Timeline) -> Geometry:
        raw, about, told = self._footage.raw_format, self._footage.about, self.features.read
        black = raw.black_level if config.black_level is None else config.black_level
        white = raw.white_level if config.white_level is None else config.white_level
        raw = RawFormat(raw.width, raw.height, raw.pixel_format, black, white)
        if config.measured:
            config.measured.require_like(raw, about.serial, about.offset)
        return Geometry(
            camera=0,
            serial=about.serial or self._footage.path.name,
            vendor=about.vendor,
            model=about.model or "recording",
            tl_type="File",
            width=raw.width,
            height=raw.height,
            offset_x=told("OffsetX"),
            offset_y=told("OffsetY"),
            pixel_format=raw.pixel_format,
            payload=raw.payload_size,
            alignment=1,
            fps=timeline.fps,
            black_level=raw.black_level,
            white_level=raw.white_level,
            device_clock_is_host=False,
            acquisition="replay",
            min_buffers=1,
            exposure_us=told("ExposureTime"),
            gain_db=told("Gain"),
        )


class ReplayFeatures:
    """What a recording tells by the names of SFNC. Only the rate can be set; other features only to what they are."""

    def __init__(self, label: str, footage: Footage, timeline: Timeline, source: ReplaySource) -> None:
        self._label, self._timeline, self._source = label, timeline, source
        raw, about = footage.raw_format, footage.about
        self._values: dict[str, Any] = {
            "Width": raw.width,
            "Height": raw.height,
            "OffsetX": (about.offset or (0, 0))[0],
            "OffsetY": (about.offset or (0, 0))[1],
            "PixelFormat": raw.pixel_format,
            "PayloadSize": raw.payload_size,
            "BlackLevel": raw.black_level,
            "AcquisitionMode": "Continuous",
            "TriggerMode": "Off",
            "DeviceVendorName": about.vendor,
            "DeviceModelName": about.model,
            "DeviceSerialNumber": about.serial,
        }

    def read(self, name: str, default: Any = None, fresh: bool = False) -> Any:
        value = self._now().get(name)
        return default if value is None else value

    def describe(self, name: str) -> dict[str, Any]:
        value, writable = self.read(name), name == RATE and not self._timeline.patient
        found: dict[str, Any] = {"name": name, "writable": writable}
        if value is not None:
            found["value"] = value
        if writable:
            found |= {"min": _LEAST_FPS, "max": _MOST_FPS, "unit": "Hz"}
        return found

    def set(self, name: str, value: Any) -> Any:
        self.check(name, value)
        if name == RATE:
            self._timeline.set_rate(float(value), self._source.next)
        return self.read(name)

    def check(self, name: str, value: Any) -> None:
        if name == RATE:
            self._check_rate(value)
            return
        is_now = self._now().get(name)
        if is_now is not None and (value is None or _equal(value, is_now)):
            return
        has = "" if is_now is None else f" from {_shown(is_now)} to {_shown(value)}"
        raise UserError(f"the {self._label} cannot change {name}{has}: only {RATE} can be set")

    def lasts(self, name: str) -> bool:
        return True

    def set_if_there(self, name: str, value: Any) -> bool:
        try:
            self.set(name, value)
        except UserError:
            return False
        return True

    def probe(self) -> None:
        """A file that is open is there."""

    def _now(self) -> dict[str, Any]:
        arrival, timeline = self._source.arrival, self._timeline
        exposure_us, gain_db = arrival.exposure_us, arrival.gain_db  # of the newest frame; at first, of the first
        return {
            **self._values,
            RATE: timeline.rate or None,
            "AcquisitionResultingFrameRate": timeline.fps or None,
            "ExposureTime": None if math.isnan(exposure_us) else exposure_us,
            "Gain": None if math.isnan(gain_db) else gain_db,
        }

    def _check_rate(self, value: Any) -> None:
        if self._timeline.patient:
            raise UserError(f"the {self._label} is played as fast as it is taken (replay_speed 0): {RATE} does nothing")
        try:
            possible = value is None or _LEAST_FPS <= float(value) <= _MOST_FPS
        except (TypeError, ValueError):
            possible = False
        if not possible:
            raise UserError(f"the {self._label}: {RATE} {value} is not possible: {_LEAST_FPS:g} to {_MOST_FPS:g} Hz")


def with_calibration(config: StreamConfig) -> StreamConfig:
    """`config` with what its recording's camera was calibrated to, as far as it says nothing else itself.

    Unchanged where the camera is no recording. Raises UserError where the file holds none.
    """
    if not config.recording:
        return config
    with _open(config) as footage:
        values = _calibration(footage)
    known = {name: value for name, value in values.items() if value and name not in config.model_fields_set}
    try:
        return make_config({**config.model_dump(exclude_unset=True), **known}) if known else config
    except UserError as error:
        raise UserError(f"the calibration in {config.recording} does not hold: {error}") from error


def _open(config: StreamConfig) -> Footage:
    """The recording that `config` names. Raises UserError."""
    return open_footage(os.path.expanduser(config.recording), FootageOptions(config.cfa))


def _calibration(footage: Footage) -> dict[str, Any]:
    """Settings of StreamConfig that the file tells; None, or empty, where it does not."""
    found, first = footage.calibration, footage.frames[0]
    told = {name: float(first[name]) for name in ("iso", "gain_db", "f_number", "focal_length_mm")}
    f_number, focal_length_mm = (told[name] if math.isfinite(told[name]) else None for name in _LENS)
    base_iso = told["iso"] / iso_of(told["gain_db"], 1.0)
    return {
        "white_balance": found.white_balance,
        "colour_matrix": found.colour_matrix,
        "defects": found.defects,
        "flat_field": found.flat_field,
        "base_iso": round(base_iso, 6) if math.isfinite(base_iso) else None,
        "f_number": f_number,
        "focal_length_mm": focal_length_mm,
    }


def _faults(label: str, footage: Footage) -> list[str]:
    """What is wrong with the file, where it can be played nevertheless."""
    if footage.about.cut_off:
        return [f"{label} is cut off: {footage.about.cut_off} frames at its end are not played"]
    if not footage.about.complete:
        return [f"{label} was not written to its end: the {footage.count} frames that are whole are played"]
    return []


def _require_possible(config: StreamConfig) -> None:
    """Raises UserError for options that contradict each other, or what a recording is."""
    if config.trigger:
        raise UserError("a recording waits for no trigger: leave out --trigger")
    if config.scene is not None:
        raise UserError(f"--scene is for the simulated camera, and {config.camera} is a recording")
    if config.replay_speed == 0 and config.fps is not None:
        raise UserError("--replay-speed 0 plays as fast as frames are taken, without a rate: leave out --fps")
    if config.replay_speed == 0 and config.policy == "latest":
        raise UserError("--replay-speed 0 loses no frame, and --policy latest keeps only the newest: leave out one")


def _require_like(features: ReplayFeatures, config: StreamConfig) -> None:
    """Raises UserError where `config` asks for other frames than the recording's."""
    wanted: dict[str, Any] = {
        "Width": config.width,
        "Height": config.height,
        "OffsetX": config.offset_x,
        "OffsetY": config.offset_y,
        "PixelFormat": config.pixel_format,
        "ExposureTime": config.exposure_us,
        "Gain": config.gain_db,
    }
    for name, value in wanted.items():
        if value is not None:
            features.check(name, value)
    for name, value in config.features.items():
        features.set(name, value)


def _equal(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a) == str(b)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
