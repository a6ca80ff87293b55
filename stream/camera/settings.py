"""Brings a camera to what the config asks for, in an order that works, and tells what came of it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...engines.bayer import PIXEL_FORMATS, RawFormat
from ...engines.errors import UserError
from ..config import StreamConfig
from .discovery import CameraInfo
from .nodes import Features

if TYPE_CHECKING:
    from .camera import FeatureSet


@dataclass(frozen=True)
class Geometry:
    """What frames an opened camera will deliver; the answer to the `open` command.

    `payload` is the bytes to reserve for a slot (chunks included), `fps` the rate in Hz as read back, 0 if triggered or
    unknown. Levels are in DN of the pixel format. `exposure_us` and `gain_db` are None where the camera tells neither.
    `clock` says what the device time stamps are of: "host" (CLOCK_MONOTONIC), "ptp", or empty (the camera's own clock).
    `producer` is the .cti file that sees the camera; empty for a recording.
    """

    camera: int
    serial: str
    vendor: str
    model: str
    tl_type: str
    width: int
    height: int
    offset_x: int
    offset_y: int
    pixel_format: str
    payload: int
    alignment: int
    fps: float
    black_level: float
    white_level: float
    device_clock_is_host: bool
    acquisition: str
    min_buffers: int
    exposure_us: float | None
    gain_db: float | None
    clock: str = ""
    producer: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)


def configure(features: Features, config: StreamConfig, info: CameraInfo, scene: Any, warnings: list[str]) -> None:
    """Sets everything that `config` names; `scene` is what a simulated camera shall play, or None.

    Raises UserError for a value that the camera refuses. What it changed on its own goes to `warnings`.
    """
    wanted = dict(config.features)
    if scene is not None:
        _play(features, scene)
    trigger = str(wanted.get("TriggerSelector", "FrameStart"))
    if config.trigger:  # off, because some cameras let a trigger's source be set only then
        _switch_triggers_off(features, trigger)
    for name, value in wanted.items():  # first, because a user set or binning changes all that follows
        if config.trigger and name.startswith("Trigger") and "TriggerSelector" not in wanted:
            features.set_if_there("TriggerSelector", trigger)  # a user set may have selected another one
        features.set(name, value)
    if "AcquisitionMode" not in wanted:
        features.set_if_there("AcquisitionMode", "Continuous")
    _set_format(features, config, scene, warnings)
    _set_exposure(features, config)
    if "TriggerMode" not in wanted:
        _set_trigger(features, config.trigger, trigger, warnings)
    real = frame_rate(features, triggered=False) if _set_rate(features, config.fps, config.trigger) else 0.0
    if config.fps and real and abs(real - config.fps) > 0.01 * config.fps:
        warnings.append(
            f"camera {info.serial} runs at {real:g} fps instead of {config.fps:g}: "
            "exposure time, size or pixel format allow no more"
        )


def frame_rate(features: FeatureSet, triggered: bool) -> float:
    """The rate in Hz that the camera says it runs at; 0 with a trigger, or where it does not say."""
    if triggered:
        return 0.0
    rate = features.read("AcquisitionResultingFrameRate")
    if not rate and features.read("AcquisitionFrameRateEnable", True):  # else it runs as fast as it can
        rate = features.read("AcquisitionFrameRate")
    return float(rate or 0.0)


def clock_of(features: FeatureSet, info: CameraInfo) -> str:
    """What the camera's time stamps are of, see Geometry."""
    if info.simulated:
        return "host"
    return "ptp" if features.read("PtpStatus") in ("Master", "Slave") else ""


def exposure_and_gain(features: FeatureSet) -> tuple[float, float]:
    """(exposure time in us, gain in dB) by the camera's nodes; NaN where it tells none."""
    exposure, gain = features.read("ExposureTime"), features.read("Gain")
    return (
        float(exposure) if isinstance(exposure, (int, float)) else math.nan,
        float(gain) if isinstance(gain, (int, float)) else math.nan,
    )


def levels(features: Features, config: StreamConfig, scene: Any, raw: RawFormat, warnings: list[str]) -> RawFormat:
    """`raw` with the levels of the config, else of the scene's file, else of the camera."""
    black, white = config.black_level, config.white_level
    if scene is not None and scene.samples is not None and scene.pixel_format == raw.pixel_format.rstrip("p"):
        black = scene.black_level if black is None else black
        white = scene.white_level if white is None else white
    if black is None:
        black = float(features.read("BlackLevel", 0.0) or 0.0)
        if not 0 <= black < raw.white_level:
            warnings.append(
                f"camera {features.serial} tells a BlackLevel of {black:g}, which {raw.pixel_format} cannot hold: "
                "taken as 0; set black_level"
            )
            black = 0.0
    return RawFormat(raw.width, raw.height, raw.pixel_format, black, white)


def _play(features: Features, scene: Any) -> None:
    """Makes a simulated camera play `scene`; the frames of a file bring their size and format."""
    if scene.samples is None:
        features.set("SimScene", "Target")
        return
    features.set("SimSceneFile", f"/proc/self/fd/{scene.to_memfd()}")
    features.set("SimScene", "File")
    features.set("PixelFormat", scene.pixel_format)
    for offset in ("OffsetX", "OffsetY"):
        features.set(offset, 0)
    features.set("Width", scene.width)
    features.set("Height", scene.height)


def _set_format(features: Features, config: StreamConfig, scene: Any, warnings: list[str]) -> None:
    if config.pixel_format is not None:
        if config.pixel_format not in PIXEL_FORMATS:
            raise UserError(
                f"pixel format {config.pixel_format!r} is not supported; choose one of "
                f"{', '.join(sorted(PIXEL_FORMATS))}"
            )
        features.set("PixelFormat", config.pixel_format)
    elif features.read("PixelFormat") not in PIXEL_FORMATS:
        _fall_back_to_supported(features, warnings)
    _set_side(features, "Width", config.width, "OffsetX", config.offset_x, warnings)
    _set_side(features, "Height", config.height, "OffsetY", config.offset_y, warnings)


def _set_side(
    features: Features, size: str, pixels: int | None, offset: str, at: int | None, warnings: list[str]
) -> None:
    """Sets size and offset of one side, in pixels. A size alone leaves the offset, as far as that still fits."""
    if pixels is not None:
        before = features.read(offset)
        features.set_if_there(offset, 0)  # a size is limited by the offset that was there before
        features.set(size, pixels)
        if at is None and before:
            kept = _nearest(features.describe(offset), before)
            features.set_if_there(offset, kept)
            if (now := features.read(offset)) != before:
                warnings.append(
                    f"camera {features.serial}: {offset} is {now} instead of {before}: {size} {pixels} allows no more"
                )
    if at is not None:
        features.set(offset, at)


def _nearest(limits: dict[str, Any], value: int) -> int:
    """The largest value within `limits`, those that Features.describe tells, that is not above `value`."""
    low, high, step = limits.get("min", 0), limits.get("max", value), limits.get("inc") or 1
    return low + max(0, min(value, high) - low) // step * step


def _fall_back_to_supported(features: Features, warnings: list[str]) -> None:
    """Another pixel format for a camera that stands at one we cannot read: Bayer before mono, few bits before many."""
    own = features.read("PixelFormat", "an unknown format")
    offered = [name for name in features.entries("PixelFormat") if name in PIXEL_FORMATS]
    offered.sort(key=lambda name: (not name.startswith("Bayer"), PIXEL_FORMATS[name] >> 16))
    for name in offered:
        if features.set_if_there("PixelFormat", name):
            warnings.append(f"camera {features.serial} stood at {own}, which is not supported: set to {name}")
            return
    raise UserError(
        f"camera {features.serial} delivers {own} and offers no supported pixel format; "
        f"supported are {', '.join(sorted(PIXEL_FORMATS))}"
    )


def _set_exposure(features: Features, config: StreamConfig) -> None:
    if config.exposure_us is not None:
        features.set_if_there("ExposureAuto", "Off")
        try:
            features.set("ExposureTime", config.exposure_us)
        except UserError:
            # Some cameras take no exposure longer than a frame at the rate at which they stand. The exposure goes first
            # all the same: others take no rate whose frames are shorter than the exposure.
            with suppress(UserError):
                _set_rate(features, config.fps, config.trigger)
            features.set("ExposureTime", config.exposure_us)
    if config.gain_db is not None:
        features.set_if_there("GainAuto", "Off")
        features.set("Gain", config.gain_db)


def _set_rate(features: Features, fps: float | None, triggered: bool) -> bool:
    """Whether there is one to set. Where the rate is the trigger's, some cameras lock theirs."""
    if fps is None:
        return False
    features.set_if_there("AcquisitionFrameRateAuto", "Off")
    features.set_if_there("AcquisitionFrameRateEnable", True)
    if triggered and not features.writable("AcquisitionFrameRate"):
        return False
    features.set("AcquisitionFrameRate", fps)
    return True


def _set_trigger(features: Features, on: bool, trigger: str, warnings: list[str]) -> None:
    """Has the camera wait for `trigger` and for no other, or run freely."""
    _switch_triggers_off(features, trigger if on else features.read("TriggerSelector"))
    if not on:
        return
    if (selected := features.read("TriggerSelector", trigger)) != trigger:
        warnings.append(
            f"camera {features.serial} has no trigger {trigger} to select: it waits for its trigger {selected}"
        )
    features.set("TriggerMode", "On")


def _switch_triggers_off(features: Features, select: str | None) -> None:
    """All that the camera has; then the one called `select` is selected, where it can be."""
    before = features.read("TriggerSelector")
    for selector in features.entries("TriggerSelector") or (None,):
        if selector is None or features.set_if_there("TriggerSelector", selector):
            features.set_if_there("TriggerMode", "Off")
    if not (select is not None and features.set_if_there("TriggerSelector", select)) and before is not None:
        features.set_if_there("TriggerSelector", before)
