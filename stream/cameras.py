"""Several cameras in one run: the settings of each, and the index that names its topics and endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .config import StreamConfig, make_config

#: Settings of the run as a whole, which no section of a camera may have.
WHOLE_RUN = (
    *("cti", "share_engine", "publish", "control", "insecure", "frames", "seconds", "save", "trace", "json", "quiet"),
    *("cameras", "keys", "monitor", "monitor_token", "monitor_host", "monitor_fps", "monitor_clients"),
)


def make_configs(in_files: Mapping[str, Any], flags: Mapping[str, Any]) -> list[StreamConfig]:
    """One config for each camera of the run: flags go before its section, and that before the rest of the files.

    Raises UserError for what cannot be.
    """
    common = {name: value for name, value in in_files.items() if name != "cameras"}
    sections = _sections(in_files.get("cameras"))
    chosen = [str(camera) for camera in flags.get("camera") or list(sections) or [common.get("camera", "0")]]
    for camera in chosen:
        if chosen.count(camera) > 1:
            raise UserError(f"camera {camera} is asked for twice: name each camera once")
    configs = []
    for camera in chosen:
        values = {**common, **sections.get(camera, {}), **flags, "camera": camera}
        features = [part["features"] for part in (common, sections.get(camera, {}), flags) if "features" in part]
        if features and all(isinstance(part, dict) for part in features):
            values["features"] = {name: value for part in features for name, value in part.items()}
        configs.append(make_config(values))
    if len(configs) > 1:
        configs = [_one_of_several(config, place) for place, config in enumerate(configs)]
    return configs


def _sections(given: Any) -> dict[str, dict[str, Any]]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(part, dict) for part in given.values()):
        raise UserError("cameras: write one section for each camera, such as {0: {fps: 500}, 1: {fps: 500}}")
    sections = {str(camera): dict(part) for camera, part in given.items()}
    for camera, part in sections.items():
        if wrong := [name for name in ("camera", *WHOLE_RUN) if name in part]:
            raise UserError(
                f"cameras.{camera}: {', '.join(wrong)} holds for the whole run: write it outside of cameras"
            )
    return sections


def _one_of_several(config: StreamConfig, place: int) -> StreamConfig:
    """What each camera must have of its own."""
    return config.model_copy(update={"shm_name": f"{config.shm_name}-{place}"}) if config.shm_name else config


def camera_indices(configs: Sequence[StreamConfig]) -> list[int]:
    """The index of each camera, which names endpoint and topics; serial numbers have to be looked up.

    Raises UserError where two are the same camera.
    """
    by_serial = _serials(configs[0].cti) if any(map(_is_serial, configs)) else {}
    # The grab stage says in its own words which cameras there are, where one is not.
    indices = [int(c.camera) if _is_index(c.camera) else by_serial.get(c.camera, -1) for c in configs]
    free = (index for index in range(len(configs) * 2) if index not in indices)
    indices = [next(free) if index < 0 else index for index in indices]
    for place, index in enumerate(indices):
        if index in indices[:place]:
            raise UserError(f"camera {configs[place].camera} is camera {index}, which is asked for already")
    return indices


def _is_index(camera: str) -> bool:
    return camera.isascii() and camera.isdecimal() and len(camera) < 4


def _is_serial(config: StreamConfig) -> bool:
    return not (_is_index(config.camera) or config.recording)


def _serials(cti: Sequence[Path]) -> dict[str, int]:
    from .camera import list_cameras

    return {camera.serial: camera.index for camera in list_cameras(cti)}
