"""What the simulated camera plays: the target that it renders itself, or raw frames from a file."""

from __future__ import annotations

import fcntl
import os
import struct
import weakref
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ...engines.raw_files import load_raw

# The container that the producer reads; the C side of it is simcam/scene_file.c.
_HEADER = struct.Struct("<8s8I")
_HEADER_BYTES = 4096
_CFA_CODES = {"RGGB": 0, "GRBG": 1, "GBRG": 2, "BGGR": 3, "MONO": 4}

# What the camera can be set to.
_WIDTH = range(16, 8193, 4)
_HEIGHT = range(2, 8193, 2)


@dataclass(eq=False)
class Scene:
    """Frames for the simulated camera.

    Attributes:
        samples: uint16 [frames, height, width], DN of `pixel_format`; None for the target.
        width: Pixels per row; a multiple of 4, as the camera wants it.
        height: Rows; even.
        pixel_format: PFNC name without packing, such as BayerRG12; it says the filter array and the depth.
        black_level: Sample value of no light, in DN of `pixel_format`.
        white_level: Sample value of saturation, in DN of `pixel_format`.
        name: What to call it in messages: "target" or the file's path.
    """

    samples: npt.NDArray[np.uint16] | None
    width: int
    height: int
    pixel_format: str
    black_level: int
    white_level: int
    name: str
    _memfd: int = field(default=-1, init=False, repr=False)

    def to_memfd(self) -> int:
        """A descriptor of a memory file with these frames, in the container that the camera plays.

        Set ``/proc/self/fd/N`` as SimSceneFile, in this process. The scene keeps the descriptor, gives the same one
        again, and closes it when it is collected: hold the scene until SimScene is File and the camera has opened it.

        Raises:
            ValueError: This is the target, which the camera renders itself.
        """
        if self.samples is None:
            raise ValueError("the target has no frames to write: the camera renders it")
        if self._memfd < 0:
            memfd = os.memfd_create("ispeed-scene", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            weakref.finalize(self, os.close, memfd)
            with open(memfd, "wb", closefd=False) as file:
                file.write(self._header().ljust(_HEADER_BYTES, b"\0"))
                file.write(np.ascontiguousarray(self.samples, "<u2").data)
            # The camera maps the file: were it cut short, reading it would kill the process.
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
            self._memfd = memfd
        return self._memfd

    def _header(self) -> bytes:
        raw = RawFormat(self.width, self.height, self.pixel_format, self.black_level, self.white_level)
        frames = 0 if self.samples is None else len(self.samples)
        depth, cfa = raw.depth, _CFA_CODES[raw.cfa]
        levels = (self.black_level, self.white_level)
        return _HEADER.pack(b"ISPSCENE", 1, self.width, self.height, frames, depth, cfa, *levels)


def load_scene(spec: str) -> Scene:
    """The scene that `spec` names: "target", or a file as `engines.raw_files` reads it.

    The last columns and rows that exceed a width divisible by 4 and an even height are left out: the camera has no such
    sizes.

    Raises:
        UserError: No such file, one that cannot be read as what it is said to be, or a size that the camera lacks.
    """
    if spec == "target":
        return Scene(None, 1280, 1024, "BayerRG8", 4, 255, "target")
    loaded = load_raw(spec)
    frames, height, width = loaded.samples.shape
    if width not in range(_WIDTH.start, _WIDTH.stop) or height not in range(_HEIGHT.start, _HEIGHT.stop):
        raise UserError(
            f"{loaded.path} holds {frames} frames of {width}x{height}: the camera plays one or more of "
            f"{_WIDTH[0]}x{_HEIGHT[0]} to {_WIDTH[-1]}x{_HEIGHT[-1]}"
        )
    width, height = width // _WIDTH.step * _WIDTH.step, height // _HEIGHT.step * _HEIGHT.step
    raw = loaded.raw_format
    samples = np.ascontiguousarray(loaded.samples[:, :height, :width], np.uint16)
    levels = (int(raw.black_level), int(raw.white_level))
    return Scene(samples, width, height, raw.pixel_format, *levels, str(loaded.path))
