"""What a raw frame is: its size, pixel format, CFA phase and levels, and its bytes as plain NumPy.

Names and codes are those of the GenICam Pixel Format Naming Convention (PFNC). The packed formats (``10p``, ``12p``)
are PFNC "lsb first": sample after sample, least significant bit first, without a gap, so four 10-bit samples fill
five bytes and two 12-bit samples fill three.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError

PIXEL_FORMATS: dict[str, int] = {
    "Mono8": 0x01080001,
    "BayerGR8": 0x01080008,
    "BayerRG8": 0x01080009,
    "BayerGB8": 0x0108000A,
    "BayerBG8": 0x0108000B,
    "BayerGR10": 0x0110000C,
    "BayerRG10": 0x0110000D,
    "BayerGB10": 0x0110000E,
    "BayerBG10": 0x0110000F,
    "BayerGR12": 0x01100010,
    "BayerRG12": 0x01100011,
    "BayerGB12": 0x01100012,
    "BayerBG12": 0x01100013,
    "BayerGR16": 0x0110002E,
    "BayerRG16": 0x0110002F,
    "BayerGB16": 0x01100030,
    "BayerBG16": 0x01100031,
    "BayerBG10p": 0x010A0052,
    "BayerBG12p": 0x010C0053,
    "BayerGB10p": 0x010A0054,
    "BayerGB12p": 0x010C0055,
    "BayerGR10p": 0x010A0056,
    "BayerGR12p": 0x010C0057,
    "BayerRG10p": 0x010A0058,
    "BayerRG12p": 0x010C0059,
}
"""PFNC code of every supported pixel format, by name."""

PIXEL_FORMAT_NAMES: dict[int, str] = {code: name for name, code in PIXEL_FORMATS.items()}
"""Name of every supported pixel format, by PFNC code."""

MAX_SIZE = 65535
"""Largest width and height, in pixels."""

_CFA = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}


@dataclass(frozen=True, init=False)
class RawFormat:
    """The format of one raw frame: all that is needed to read its bytes.

    Attributes:
        width: Pixels per row, 2 to 65535. Packed rows must end on a whole byte.
        height: Rows, 2 to 65535.
        pixel_format: PFNC name, a key of `PIXEL_FORMATS`.
        black_level: Sample value of no light, in DN of the pixel format.
        white_level: Sample value of saturation, in DN of the pixel format; above the black level.
    """

    width: int
    height: int
    pixel_format: str
    black_level: float
    white_level: float

    def __init__(
        self, width: int, height: int, pixel_format: str, black_level: float = 0.0, white_level: float | None = None
    ) -> None:
        """Check and keep the values; `white_level` None means the largest sample, `(1 << depth) - 1`.

        Raises:
            UserError: An unknown pixel format, a size or a level out of range, or a packed row ending inside a byte.
        """
        if pixel_format not in PIXEL_FORMATS:
            raise UserError(
                f"pixel format {pixel_format!r} is not supported; choose one of {', '.join(sorted(PIXEL_FORMATS))}"
            )
        put = object.__setattr__  # the way a frozen dataclass sets its fields
        put(self, "width", _size("width", width))
        put(self, "height", _size("height", height))
        put(self, "pixel_format", pixel_format)
        if self.width * self.bits_per_pixel % 8:
            step = 8 // math.gcd(8, self.bits_per_pixel)
            raise UserError(
                f"a row of {self.width} pixels ends inside a byte in {pixel_format}; use a width divisible by {step}"
            )
        full_scale = float((1 << self.depth) - 1)
        put(self, "black_level", float(black_level))
        put(self, "white_level", full_scale if white_level is None else float(white_level))
        if not 0.0 <= self.black_level < self.white_level <= full_scale:
            raise UserError(
                f"black level {self.black_level:g} and white level {self.white_level:g} do not fit {pixel_format}; "
                f"they must obey 0 <= black < white <= {full_scale:g}"
            )

    @property
    def depth(self) -> int:
        """Significant bits of one sample: 8, 10, 12 or 16."""
        return int(self.pixel_format.rstrip("p").lstrip(string.ascii_letters))

    @property
    def packed(self) -> bool:
        """Whether samples share bytes (10p and 12p)."""
        return self.pixel_format.endswith("p")

    @property
    def bits_per_pixel(self) -> int:
        """Bits one sample takes in memory: 8, 10 (10p), 12 (12p) or 16."""
        return self.depth if self.packed or self.depth == 8 else 16

    @property
    def cfa(self) -> str:
        """Colours of the top left 2x2 pixels in reading order: RGGB, GRBG, GBRG, BGGR, or MONO."""
        return _CFA[self.pixel_format[5:7]] if self.pixel_format.startswith("Bayer") else "MONO"

    @property
    def payload_size(self) -> int:
        """Bytes of one frame."""
        return self.width * self.height * self.bits_per_pixel // 8

    @property
    def pfnc_code(self) -> int:
        """32-bit PFNC code of the pixel format."""
        return PIXEL_FORMATS[self.pixel_format]

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values, from which `from_json` makes an equal format in another process."""
        return {
            "width": self.width,
            "height": self.height,
            "pixel_format": self.pixel_format,
            "black_level": self.black_level,
            "white_level": self.white_level,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RawFormat:
        """The format that `to_json` described.

        Raises:
            UserError: Missing or unknown keys, or values that no format has.
        """
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"this is no raw format: {error}; expected the keys that RawFormat.to_json writes"
            ) from error


def _size(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or not 2 <= value <= MAX_SIZE:
        raise UserError(f"{name} {value!r} is out of range; use a whole number from 2 to {MAX_SIZE}")
    return int(value)


def unpack(raw: npt.NDArray[np.uint8], fmt: RawFormat) -> npt.NDArray[np.uint16]:
    """The samples of a raw frame, the plain NumPy reference for every faster reader.

    Args:
        raw: uint8 [N], contiguous, N at least `fmt.payload_size`; bytes past the payload are ignored.
        fmt: What the bytes mean.

    Returns:
        uint16 [height, width], DN of the pixel format, a fresh array.

    Raises:
        ValueError: `raw` is not a flat uint8 array or is shorter than the payload.
    """
    if raw.dtype != np.uint8 or raw.ndim != 1 or raw.size < fmt.payload_size:
        raise ValueError(f"raw must be a flat uint8 array of at least {fmt.payload_size} bytes")
    payload = raw[: fmt.payload_size]
    if fmt.bits_per_pixel == 8:
        samples = payload.astype(np.uint16)
    elif fmt.bits_per_pixel == 16:
        samples = payload.view("<u2").astype(np.uint16)
    elif fmt.bits_per_pixel == 12:
        low, middle, high = payload.reshape(-1, 3).T.astype(np.uint16)
        samples = np.stack([low | (middle & 0x0F) << 8, middle >> 4 | high << 4], axis=1)
    else:
        b0, b1, b2, b3, b4 = payload.reshape(-1, 5).T.astype(np.uint16)
        samples = np.stack(
            [b0 | (b1 & 0x03) << 8, b1 >> 2 | (b2 & 0x0F) << 6, b2 >> 4 | (b3 & 0x3F) << 4, b3 >> 6 | b4 << 2], axis=1
        )
    return samples.reshape(fmt.height, fmt.width)


def pack(samples: npt.ArrayLike, fmt: RawFormat) -> npt.NDArray[np.uint8]:
    """The bytes of a raw frame: the inverse of `unpack`.

    Args:
        samples: Whole numbers [height, width], 0 to `(1 << depth) - 1`.
        fmt: What the bytes shall mean.

    Returns:
        uint8 [payload_size], a fresh array.

    Raises:
        ValueError: The shape is not the format's, or a sample does not fit its depth.
    """
    values = np.asarray(samples)
    if values.shape != (fmt.height, fmt.width) or values.dtype.kind not in "iu":
        raise ValueError(f"samples must be whole numbers of shape {(fmt.height, fmt.width)}")
    if values.min() < 0 or values.max() >= 1 << fmt.depth:
        raise ValueError(f"samples must lie from 0 to {(1 << fmt.depth) - 1} in {fmt.pixel_format}")
    if fmt.bits_per_pixel == 8:
        return values.astype(np.uint8).reshape(-1)
    words = values.astype("<u2")
    if fmt.bits_per_pixel == 16:
        return words.reshape(-1).view(np.uint8)
    if fmt.bits_per_pixel == 12:
        first, second = words.reshape(-1, 2).T
        parts = [first, first >> 8 | second << 4, second >> 4]
    else:
        s0, s1, s2, s3 = words.reshape(-1, 4).T
        parts = [s0, s0 >> 8 | s1 << 2, s1 >> 6 | s2 << 4, s2 >> 4 | s3 << 6, s3 >> 2]
    return np.stack([(part & 0xFF).astype(np.uint8) for part in parts], axis=1).reshape(-1)
