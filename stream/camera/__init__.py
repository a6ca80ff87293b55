"""Cameras: finding them, setting them up, and the ways their frames come into the ring."""

from .discovery import CameraInfo, Discovery, OpenCamera, list_cameras, producer_files

__all__ = ["CameraInfo", "Discovery", "OpenCamera", "list_cameras", "producer_files"]
