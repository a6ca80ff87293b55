"""Files of raw frames without a maker: .raw, .bin, .npy and grey .png, with FILE.yaml beside them or ?KEY=VALUE behind.

See `engines.raw_files`. Levels that stand there go before none, those of the user before these.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError
from ...engines.raw_files import load_raw
from .base import About, Footage, FootageOptions, blank_frames, levelled_format, with_cfa


class RawFootage(Footage):
    """A file of raw frames. It is mapped, not read, where it is no picture. See `Footage`."""

    def __init__(self, spec: str, options: FootageOptions) -> None:
        """spec: Path, with a query where one is needed. Raises UserError."""
        loaded = load_raw(spec, mapped=True)
        fmt, self._samples = loaded.raw_format, loaded.samples
        if fmt.width == 3:
            raise UserError(f"{loaded.path} holds pictures of three colours: give the mosaic, before a demosaic")
        name = with_cfa(fmt.pixel_format, options)
        raw_format = levelled_format((fmt.width, fmt.height), name, (fmt.black_level, fmt.white_level), options)
        self._dtype = np.dtype("u1" if fmt.bits_per_pixel == 8 else "<u2")
        frames = blank_frames(len(self._samples))
        for k, field in enumerate(("exposure_us", "gain_db")):
            frames[field] = loaded.camera[:, k]
        for k, field in enumerate(("iso", "f_number", "focal_length_mm")):
            frames[field] = loaded.optics[:, k]
        super().__init__(loaded.path, "raw", raw_format, frames, About())

    def close(self) -> None:
        """See `Footage.close`."""
        self._samples = np.empty((0, 0, 0), np.uint8)

    def _read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        out.view(self._dtype).reshape(self._samples.shape[1:])[:] = self._samples[index]
