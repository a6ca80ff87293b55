"""A recording as a camera: `--camera file:run.h5`."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ..config import StreamConfig, make_config
from .footage import Footage, open_footage
from .replay_source import ReplaySource
from .settings import Geometry
from .sources import Source
from .timeline import DEFAULT_FPS, Timeline

_RATES = ("AcquisitionFrameRate", "AcquisitionResultingFrameRate")
_MOST_FPS = 1e6


class ReplayCamera:
    """See camera.Camera. What the user should know goes to `warnings`.

    Raises UserError where the file holds no recording, or `config` asks for what a recording cannot do.
    """

    def __init__(self, config: StreamConfig, path: Path, warnings: list[str]) -> None:
        self.label = f"recording {path}"
        _require_possible(config)
        self._footage = footage = open_footage(path)
        try:
            warnings += footage.warnings
            timeline = Timeline(footage.records, footage.fps, config.fps, config.replay_speed)
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
        raw, about = self._footage.raw_format, self._footage.about
        black = raw.black_level if config.black_level is None else config.black_level
        white = raw.white_level if config.white_level is None else config.white_level
        raw = RawFormat(raw.width, raw.height, raw.pixel_format, black, white)
        if config.measured:
            config.measured.require_like(raw, about.get("serial"))
        exposure_us, gain_db = self.features.read("ExposureTime"), self.features.read("Gain")
        return Geometry(
            camera=0,
            serial=about.get("serial", ""),
            vendor=about.get("vendor", ""),
            model=about.get("model", ""),
            tl_type="File",
            width=raw.width,
            height=raw.height,
            offset_x=about.get("offset_x", 0),
            offset_y=about.get("offset_y", 0),
            pixel_format=raw.pixel_format,
            payload=raw.payload_size,
            alignment=1,
            fps=timeline.fps,
            black_level=raw.black_level,
            white_level=raw.white_level,
            device_clock_is_host=False,
            acquisition="replay",
            min_buffers=1,
            exposure_us=exposure_us,
            gain_db=gain_db,
        )


class ReplayFeatures:
    """What a recording tells by the names of SFNC. Only the rate can be set; other features only to what they are."""

    def __init__(self, label: str, footage: Footage, timeline: Timeline, source: ReplaySource) -> None:
        self._label, self._timeline, self._source = label, timeline, source
        raw, about = footage.raw_format, footage.about
        self._values: dict[str, Any] = {
            "Width": raw.width,
            "Height": raw.height,
            "OffsetX": about.get("offset_x", 0),
            "OffsetY": about.get("offset_y", 0),
            "PixelFormat": raw.pixel_format,
            "PayloadSize": raw.payload_size,
            "BlackLevel": raw.black_level,
            "AcquisitionMode": "Continuous",
            "TriggerMode": "Off",
            "DeviceVendorName": about.get("vendor", ""),
            "DeviceModelName": about.get("model", ""),
            "DeviceSerialNumber": about.get("serial", ""),
        }

    def read(self, name: str, default: Any = None, fresh: bool = False) -> Any:
        value = self._now().get(name)
        return default if value is None else value

    def set(self, name: str, value: Any) -> Any:
        self.check(name, value)
        if name == _RATES[0]:
            self._timeline.set_rate(float(value), self._source.next)
        return self.read(name)

    def check(self, name: str, value: Any) -> None:
        if name == _RATES[0]:
            self._check_rate(value)
            return
        now = self._now()
        if name not in now:
            raise UserError(f"the {self._label} cannot change {name}: only {_RATES[0]} can be set")
        if value is not None and str(value) != str(now[name]) and not _equal(value, now[name]):
            is_now = "which it does not tell" if now[name] is None else f"which is {_shown(now[name])},"
            raise UserError(f"the {self._label} cannot change {name}, {is_now} to {_shown(value)}")

    def set_if_there(self, name: str, value: Any) -> bool:
        try:
            self.set(name, value)
        except UserError:
            return False
        return True

    def probe(self) -> None:
        """A file that is open is there."""

    def _now(self) -> dict[str, Any]:
        arrival = self._source.arrival  # of the newest frame, before the start of the first
        exposure_us, gain_db = arrival.exposure_us, arrival.gain_db
        return {
            **self._values,
            **dict.fromkeys(_RATES, self._timeline.fps),
            "ExposureTime": None if math.isnan(exposure_us) else exposure_us,
            "Gain": None if math.isnan(gain_db) else gain_db,
        }

    def _check_rate(self, value: Any) -> None:
        if self._timeline.patient:
            raise UserError(f"the {self._label} is played as fast as it is taken (replay_speed 0), so it has no rate")
        if value is not None and not (_equal(value, value) and 0 < float(value) <= _MOST_FPS):
            raise UserError(f"the {self._label} cannot be played at {value} fps: above 0 to {_MOST_FPS:g} Hz")


def with_calibration(config: StreamConfig) -> StreamConfig:
    """`config` with what its recording's camera was calibrated to, as far as it says nothing else itself.

    Unchanged where the camera is no recording. Raises UserError where the file holds none.
    """
    if config.recording is None:
        return config
    with contextlib.closing(open_footage(config.recording)) as footage:
        known = {name: value for name, value in footage.calibration.items() if name not in config.model_fields_set}
    try:
        return make_config({**config.model_dump(exclude_unset=True), **known}) if known else config
    except UserError as error:
        raise UserError(f"the calibration in {config.recording} does not hold: {error}") from error


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
        return False


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
