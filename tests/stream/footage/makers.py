"""Writers of Phantom's and Photron's files, made from the descriptions of the formats and not from our readers.

Samples are uint16 [frames, height, width], top row first, as in the picture.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

SETUP_SIZE = 10_000


def big_endian_bits(samples: np.ndarray, bits: int) -> bytes:
    """One bit after the other, the most significant first."""
    flat = samples.reshape(-1, 1) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(flat.astype(np.uint8).reshape(-1)).tobytes()


def stored(samples: np.ndarray, kind: str) -> bytes:
    """The bytes of one frame in a .cine."""
    if kind == "8":
        return samples[::-1].astype(np.uint8).tobytes()
    if kind == "16":
        return samples[::-1].astype("<u2").tobytes()
    return big_endian_bits(samples, {"P10": 10, "P12L": 12}[kind])


def write_cine(
    path: Path,
    samples: np.ndarray,
    kind: str = "16",
    *,
    real_bpp: int = 12,
    cfa: int = 3,
    compression: int = 2,
    levels: tuple[int, int] | None = (64, 4064),
    first: int = 0,
    fps: int = 1000,
    shutter_ns: int = 500_000,
    times: bool = True,
    exposures: np.ndarray | None = None,
    gains: tuple[float, float] | None = None,
    annotation: bytes = b"",
    setup_size: int = SETUP_SIZE,
    count: int | None = None,
) -> Path:
    """Writes a .cine. kind: 8, 16, P10 or P12L. Times start at 1,600,000,000.25 s, a 1/fps apart."""
    frames, height, width = samples.shape
    setup = bytearray(max(setup_size, 6100))

    def put(offset: int, code: str, *values: float) -> None:
        struct.pack_into("<" + code, setup, offset, *values)

    put(0, "H", min(fps, 65535))
    put(140, "2sH", b"ST", setup_size)
    put(737, "HH", width, height)
    put(743, "I", 4711)
    put(768, "I", fps)
    put(792, "I", 7001)
    put(808, "I", cfa)
    if gains:
        put(852, "8f", *gains * 4)
        put(5724, "I", 1)
    put(896, "I", real_bpp)
    put(1568, "I", shutter_ns)
    if levels:
        put(5732, "ii", *levels)
    put(5996, "f", 2.8)
    put(6004, "f", 50.0)
    setup = setup[:setup_size]
    blocks = b""
    if times:
        stamps = 1_600_000_000.25 + np.arange(frames) / fps
        parts = np.stack([(stamps % 1 * 2**32).astype("<u4") | 3, stamps.astype("<u4")], axis=1)
        blocks += struct.pack("<IHH", 8 + parts.nbytes, 1002, 0) + parts.tobytes()
    blocks += struct.pack("<IHH", 8 + 6, 1007, 0) + bytes(6)
    if exposures is not None:
        fractions = (exposures * 1e-6 * 2**32).astype("<u4")
        blocks += struct.pack("<IHH", 8 + fractions.nbytes, 1003, 0) + fractions.tobytes()
    images = [stored(each, kind) for each in samples]
    packing = {"P10": 0x100, "P12L": 0x400}.get(kind, 0)
    bits = 8 if kind == "8" else 16
    at = 44 + 40 + len(setup) + len(blocks)
    offsets, place = [], at + 8 * frames
    for image in images:
        offsets.append(place)
        place += 8 + len(annotation) + len(image)
    header = struct.pack(
        "<2sHHHiIiIIIIII", b"CI", 44, compression, 1, first, frames, first, count or frames, 44, 84, at, 0, 0
    )
    bitmap = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(images[0]), 0, 0, 0, 1 << bits)
    with path.open("wb") as file:
        file.write(header + bitmap + setup + blocks + struct.pack(f"<{frames}q", *offsets))
        for image in images:
            file.write(struct.pack("<I", 8 + len(annotation)) + annotation + struct.pack("<I", len(image)) + image)
    return path


def write_mraw(
    path: Path,
    samples: np.ndarray,
    bits: int = 12,
    *,
    effective: int = 12,
    side: str = "Lower",
    colour: str = "Bayer(RGGB)",
    xml: bool = True,
    frames: int | None = None,
) -> Path:
    """Writes path.mraw and its .cihx or .cih. Returns the path of the .mraw."""
    total, height, width = samples.shape
    pixels = path.with_suffix(".mraw")
    with pixels.open("wb") as file:
        for each in samples:
            if bits in (10, 12):
                file.write(big_endian_bits(each, bits))
            else:
                file.write(each.astype("<u2" if bits == 16 else "u1").tobytes())
    listed = total if frames is None else frames
    if xml:
        text = f"""<cih><fileInfo><date>2026/1/2</date></fileInfo>
<deviceInfo><deviceName>FASTCAM test</deviceName></deviceInfo>
<recordInfo><recordRate>2000</recordRate><shutterSpeed>4000</shutterSpeed></recordInfo>
<frameInfo><totalFrame>{listed}</totalFrame><recordedFrame>{listed}</recordedFrame></frameInfo>
<imageDataInfo><resolution><width>{width}</width><height>{height}</height></resolution>
<effectiveBit><depth>{effective}</depth><side>{side}</side></effectiveBit>
<colorInfo><bit>{bits}</bit><type>{colour}</type></colorInfo></imageDataInfo>
<imageFileInfo><fileFormat>MRaw</fileFormat></imageFileInfo><basicInfo><comment>c</comment></basicInfo></cih>"""
        path.with_suffix(".cihx").write_bytes(b"\0\1binary\0\n" + text.encode() + b"\n\xff\0more")
        return pixels
    lines = {
        "Camera Type": "FASTCAM test",
        "Record Rate(fps)": 2000,
        "Shutter Speed(s)": "1/4000",
        "Original Total Frame": listed,
        "Total Frame": listed,
        "Start Frame": -5,
        "Image Width": width,
        "Image Height": height,
        "Color Type": colour,
        "Color Bit": bits,
        "File Format": "MRaw",
        "EffectiveBit Depth": effective,
        "EffectiveBit Side": side,
        "Comment Text": "c",
    }
    body = "".join(f"{name} : {value}\n" for name, value in lines.items())
    path.with_suffix(".cih").write_text(f"#Camera Information Header\n{body}\n#System Information:\nOS : any\n\nEND\n")
    return pixels
