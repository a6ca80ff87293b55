"""Recording: frames of a running stream into files, and what reads them again."""

from .layout import EVENT, RAW_FRAME, SRGB_FRAME
from .reader import Recording, open_recording
from .writer import write_recording

__all__ = ["EVENT", "RAW_FRAME", "SRGB_FRAME", "Recording", "open_recording", "write_recording"]
