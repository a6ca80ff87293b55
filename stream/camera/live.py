"""A camera behind a GenTL producer, opened and set up."""

from __future__ import annotations

import contextlib
from typing import Any

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ..config import StreamConfig
from ..ring import PAGE
from .chunks import enable_chunks
from .copying import CopySource
from .discovery import Discovery, OpenCamera
from .nodes import Features
from .settings import Geometry, clock_of, configure, exposure_and_gain, frame_rate, levels
from .sources import Source, ZeroCopySource


class LiveCamera:
    """See camera.Camera. What the user should know goes to `warnings`.

    Raises UserError when there is no such camera, it is in use, or it refuses a setting.
    """

    def __init__(self, config: StreamConfig, warnings: list[str]) -> None:
        self._config, self._warnings = config, warnings
        with Discovery(config.cti) as discovery:
            warnings += discovery.warnings
            self._camera: OpenCamera = discovery.open(config.camera)
        self._info = self._camera.info
        self.label = f"camera {self._info.serial}"
        try:
            self.features = Features(self._camera.node_map, self._info.serial)
            self.geometry = self._prepare()
        except BaseException:
            with contextlib.suppress(Exception):  # the reason to leave is the first one
                self._camera.close()
            raise

    def may_be_silent(self) -> bool:
        triggered = self.features.read("TriggerMode") == "On"
        return triggered or self.features.read("AcquisitionMode", "Continuous") != "Continuous"

    def close(self) -> None:
        self._camera.close()

    def _prepare(self) -> Geometry:
        """Sets the camera up and says what it will deliver."""
        config, info, features = self._config, self._info, self.features
        scene = None
        if config.scene is not None:
            if not info.simulated:
                raise UserError(
                    f"--scene is for the simulated camera, and {info.serial} is a {info.vendor} {info.model}"
                )
            from .scenes import load_scene

            scene = load_scene(config.scene)
        _end_earlier_acquisition(features)
        configure(features, config, info, scene, self._warnings)
        if "ChunkModeActive" not in config.features:
            enable_chunks(features, lines="line" in config.record_on)
        raw = RawFormat(features.read("Width"), features.read("Height"), features.read("PixelFormat"))
        raw = levels(features, config, scene, raw, self._warnings)
        offset = (int(features.read("OffsetX", 0)), int(features.read("OffsetY", 0)))
        if config.measured:
            config.measured.require_like(raw, info.serial, offset)
        stream = self._camera.stream
        alignment = max(1, _tolerant(lambda: stream.buffer_alignment, 1))
        payload = int(stream.payload_size if stream.defines_payload_size() else features.read("PayloadSize", 0, True))
        payload = -(-payload // alignment) * alignment
        if payload < raw.payload_size:
            raise UserError(
                f"{self.label} announces {payload} bytes a frame, {raw.width}x{raw.height} {raw.pixel_format} "
                f"needs {raw.payload_size}"
            )
        acquisition = self._choose_source(payload, alignment)
        self.source.least = raw.payload_size
        exposure_us, gain_db = exposure_and_gain(features)
        return Geometry(
            camera=info.index,
            serial=info.serial,
            vendor=info.vendor,
            model=info.model,
            tl_type=info.tl_type,
            width=raw.width,
            height=raw.height,
            offset_x=offset[0],
            offset_y=offset[1],
            pixel_format=raw.pixel_format,
            payload=payload,
            alignment=alignment,
            fps=frame_rate(features, triggered=features.read("TriggerMode") == "On"),
            black_level=raw.black_level,
            white_level=raw.white_level,
            device_clock_is_host=info.simulated,
            acquisition=acquisition,
            min_buffers=_tolerant(lambda: stream.buffer_announce_min, 1),
            exposure_us=exposure_us if exposure_us == exposure_us else None,
            gain_db=gain_db if gain_db == gain_db else None,
            clock=clock_of(features, info),
            producer=str(info.producer),
        )

    def _choose_source(self, payload: int, alignment: int) -> str:
        wish = self._config.acquisition
        if wish != "copy":
            source = ZeroCopySource(self._camera, self.features)
            if alignment <= PAGE and source.accepts(payload):
                self.source: Source = source
                return "zero-copy"
            if wish == "zero-copy":
                raise UserError(f"{self.label}: its producer takes no memory of ours: choose --acquisition copy")
            self._warnings.append(f"{self.label}: its producer takes no memory of ours: frames are copied")
        self.source = CopySource(self._camera, self.features)
        return "copy"


def _end_earlier_acquisition(features: Features) -> None:
    """Of a camera that nobody could tell to stop, when its last user died or its cable was out: it acquires on.

    Its size and format would stay locked for ever.
    """
    features.set_if_there("AcquisitionStop", True)
    features.set_if_there("TLParamsLocked", 0)


def _tolerant(ask: Any, default: int) -> int:
    """What a producer tells, or `default` where it does not know the question."""
    try:
        return int(ask())
    except Exception:  # optional in GenTL: each producer refuses in its own way
        return default
