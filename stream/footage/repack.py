"""Bits as high-speed cameras pack them (most significant first), brought to PFNC's order (least significant first)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def repack_12(packed: Bytes, out: Bytes) -> None:
    """12-bit samples, two in three bytes, most significant bit first, to PFNC 12p.

    Args:
        packed: uint8 [N], N divisible by 3.
        out: uint8 [N], written; not the same memory.
    """
    b0, b1, b2 = packed.reshape(-1, 3).T
    o0, o1, o2 = out.reshape(-1, 3).T
    o0[:] = b0 << 4 | b1 >> 4
    o1[:] = b0 >> 4 | b2 << 4
    o2[:] = b1 << 4 | b2 >> 4


def repack_10(packed: Bytes, out: Bytes) -> None:
    """10-bit samples, four in five bytes, most significant bit first, to PFNC 10p.

    Args:
        packed: uint8 [N], N divisible by 5.
        out: uint8 [N], written; not the same memory.
    """
    o = out.reshape(-1, 5).T
    s0, s1, s2, s3 = samples_10(packed).reshape(-1, 4).T
    o[0] = s0 & 0xFF
    o[1] = (s0 >> 8 | s1 << 2) & 0xFF
    o[2] = (s1 >> 6 | s2 << 4) & 0xFF
    o[3] = (s2 >> 4 | s3 << 6) & 0xFF
    o[4] = s3 >> 2


def samples_10(packed: Bytes) -> npt.NDArray[np.uint16]:
    """10-bit samples, four in five bytes, most significant bit first: uint16 [N * 4 / 5], a fresh array.

    packed: uint8 [N], N divisible by 5.
    """
    b0, b1, b2, b3, b4 = packed.reshape(-1, 5).astype(np.uint16).T
    samples = [b0 << 2 | b1 >> 6, (b1 & 0x3F) << 4 | b2 >> 4, (b2 & 0x0F) << 6 | b3 >> 2, (b3 & 0x03) << 8 | b4]
    return np.stack(samples, axis=1).reshape(-1)


def light_of_p10() -> npt.NDArray[np.uint16]:
    """What the 1024 codes of Phantom's P10 stand for: uint16 [1024], 12-bit DN of light, black 64, white 4064.

    The codes follow the curve of ITU-R BT.709 with black at 64 and white at 1014. Against the table in the vendor's
    description of the format, this is at most 1 DN off between the levels.
    """
    signal = (np.arange(1024) - 63.5) / 950.5
    light = np.where(signal < 0.0812, signal / 4.5, ((np.maximum(signal, 0) + 0.0993) / 1.0993) ** (1 / 0.45))
    return np.clip(np.rint(64 + 4000 * light), 0, 4095).astype(np.uint16)
