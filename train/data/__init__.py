"""What networks are trained on."""

from .scene import render_scene
from .sensor import CAMERA_FROM_SRGB, COLOUR_MATRIX, ClassicTarget, Exposure, expose

__all__ = [
    "CAMERA_FROM_SRGB",
    "COLOUR_MATRIX",
    "ClassicTarget",
    "Exposure",
    "expose",
    "render_scene",
]
