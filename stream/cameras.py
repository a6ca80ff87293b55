"""Several cameras in one run: the settings of each, and the index that names its topics and endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.errors import UserError
from .camera import CameraInfo, find_camera, is_index, list_cameras
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
    """The index of each camera, which names endpoint and topics; all but a digit has to be looked up.

    Raises UserError where two are the same camera.
    """
    cameras = list_cameras(configs[0].cti) if any(map(_is_looked_up, configs)) else []
    indices = [_index(config, cameras) for config in configs]
    free = (index for index in range(len(configs) * 2) if index not in indices)
    indices = [next(free) if index < 0 else index for index in indices]
    for place, index in enumerate(indices):
        if index in indices[:place]:
            raise UserError(f"camera {configs[place].camera} is camera {index}, which is asked for already")
    return indices


def _is_looked_up(config: StreamConfig) -> bool:
    # A digit is taken for an index: to look would load every producer into the main process.
    return not config.recording and not (len(config.camera) == 1 and is_index(config.camera))


def _index(config: StreamConfig, cameras: Sequence[CameraInfo]) -> int:
    """As the grab stage will choose; -1 where it will say in its own words which cameras there are, or plays a file."""
    if config.recording:
        return -1
    if not _is_looked_up(config):
        return int(config.camera)
    found = find_camera(cameras, config.camera)
    return found.index if found else -1
