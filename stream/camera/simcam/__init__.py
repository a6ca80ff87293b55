"""The simulated camera: a GenTL producer in C, and what a program has to know to use it.

The producer offers two cameras, ``SIM0001`` and ``SIM0002``. Its features carry their SFNC names; those that no real
camera has are called ``Sim...`` and are described in ``camera.xml``. One process at a time may open a camera; the lock
files lie in ``$XDG_RUNTIME_DIR``, or in ``/tmp``.

Chunks. With ``ChunkModeActive`` every complete frame carries the enabled chunks behind its image, from the next
multiple of 8 bytes on; ``DSGetBufferChunkData`` gives the place of each. A chunk is 8 bytes, little-endian: see
`CHUNK_IDS`.

The frame number. Frames of the target carry their number, without the wrap of 16-bit ids, in the top-left corner: a
strip of 32 cells of 4 x 4 pixels, highest bit first, where full scale is one and the black level zero (in images less
than 128 pixels wide the strip is folded into lines of ``width // 4`` cells), and below it in decimal digits.

Scene files. `ispeed.stream.camera.scenes` writes them: a page of 4096 bytes that begins with ``ISPSCENE`` and the u32
numbers version, width, height, frames, depth, filter array (0 RG, 1 GR, 2 GB, 3 BG, 4 mono), black and white, then all
samples as u16, little-endian. They are played byte-exact where the depth of the PixelFormat is that of the file; to
fewer bits the lowest ones are dropped, to more bits zeros are appended.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from ....engines.errors import UserError

__all__ = ["CAMERA_FROM_SRGB", "CHUNK_IDS", "FAULTS_ONCE", "SERIAL_NUMBERS", "producer_path"]

SERIAL_NUMBERS = ("SIM0001", "SIM0002")

CHUNK_IDS = {"ChunkExposureTime": 0x1001, "ChunkGain": 0x1002, "ChunkFrameID": 0x1003, "ChunkLineStatusAll": 0x1004}
"""Chunk id by feature name: float64 in us, float64 in dB, uint64, uint64 with a bit for each line (not enabled at
first)."""

FAULTS_ONCE = ("SimSkipCount", "SimIncompleteCount", "SimStallMs", "SimVanishAt", "SimVanish")
"""Features that make one fault: no settings, which would be made again when the camera comes back."""

CAMERA_FROM_SRGB = ((0.42, 0.12, 0.02), (0.12, 0.75, 0.13), (0.02, 0.16, 0.46))
"""What the sensor's red, green and blue pixels see of linear sRGB light."""

_PRODUCER = "ispeed_simcam.cti"


def producer_path() -> Path:
    """Path of the producer, a ``.cti`` file.

    Raises:
        UserError: it was not built.
    """
    path = Path(str(importlib.resources.files(__name__) / _PRODUCER))
    if not path.is_file():
        raise UserError(
            "the simulated camera was not built because no C compiler was found: install gcc and reinstall ispeed"
        )
    return path
