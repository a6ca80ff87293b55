"""Cameras: finding them, setting them up, and the ways their frames come into the ring."""

from .discovery import (
    CameraInfo,
    Discovery,
    OpenCamera,
    find_camera,
    is_index,
    list_cameras,
    name_alone,
    producer_files,
)

__all__ = [
    "CameraInfo",
    "Discovery",
    "OpenCamera",
    "find_camera",
    "is_index",
    "list_cameras",
    "name_alone",
    "producer_files",
]
