"""Targets: footage of others: recordings, .cine, .mraw."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from ..stream.footage.opening import open_footage
from ..stream.record.reader import open_recording
from ..stream.record.writer import write_recording
from .fuzz_target import Target

Prepared = tuple[Callable[[bytes], object], list[bytes]]

_WIDTH, _HEIGHT = 8, 4


def _read_all(path: Path) -> None:
    """Every frame, and what is told of each."""
    with open_footage(path) as footage:
        out = np.empty(footage.raw_format.payload_size, np.uint8)
        for index in range(min(4, len(footage.frames))):
            footage.read(index, out)
        _ = footage.about, footage.frames.tolist()


def _recording(folder: Path, stack: ExitStack) -> Prepared:
    path = folder / "a.h5"
    fmt = RawFormat(_WIDTH, _HEIGHT, "BayerRG12", 64, 4000)
    raw = np.zeros((2, fmt.payload_size), np.uint8)
    srgb = np.zeros((2, _HEIGHT, _WIDTH, 3), np.uint8)
    calibration = {"white_balance": [2, 1, 1.5], "defects": [[1, 2]]}
    calibration["flat_field"] = {name: [[1.0, 1.5], [1.25, 1.0]] for name in ("R", "Gr", "Gb", "B")}
    told = {"geometry": {"fps": 100.0, "offset_x": 4}, "settings": {"base_iso": 100}, "calibration": calibration}
    seeds = [
        _small(write_recording(path, fmt, raw, serial="A1", **told)),
        _small(write_recording(path, fmt, raw, srgb=srgb, complete=False)),
    ]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with open_recording(path) as recording:
            for index in range(min(4, recording.srgb_count)):
                recording.read_srgb(index)
            _ = repr(recording), recording.events.tolist()
        _read_all(path)

    return read, seeds


def _small(path: Path) -> bytes:
    """The same recording without the gaps that writing at full rate needs, so that most of it means something."""
    import h5py

    small = path.with_suffix(".small")
    with h5py.File(path) as whole, h5py.File(small, "w") as file:
        file.attrs.update(whole.attrs)
        for name, item in whole.items():
            chunks = (1, *item.shape[1:]) if item.ndim > 1 else None
            file.create_dataset(name, data=item[:8], chunks=chunks).attrs.update(item.attrs)
    return small.read_bytes()


def _cine(folder: Path, stack: ExitStack) -> Prepared:
    path = folder / "a.cine"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _read_all(path)

    return read, [_make_cine(16, 0), _make_cine(8, 0), _make_cine(16, 0x100), _make_cine(16, 0x400)]


def _make_cine(bits: int, packing: int) -> bytes:
    """A .cine of two frames; the layout is in `stream/footage/cine.py`."""
    setup = bytearray(1600)
    for offset, code, value in ((0, "H", 1000), (743, "I", 4711), (768, "I", 1000), (808, "I", 3), (896, "I", 8)):
        struct.pack_into("<" + code, setup, offset, value)
    struct.pack_into("<2sH", setup, 140, b"ST", len(setup))
    pixels = bytes(_WIDTH * _HEIGHT * {0x100: 10, 0x400: 12}.get(packing, bits) // 8)
    blocks = struct.pack("<IHHIIII", 24, 1002, 0, 3, 1_600_000_000, 7, 1_600_000_001)
    blocks += struct.pack("<IHHII", 16, 1003, 0, 1 << 20, 1 << 21)
    at = 84 + len(setup) + len(blocks)
    frame = struct.pack("<II", 8, len(pixels)) + pixels
    offsets = struct.pack("<2q", at + 16, at + 16 + len(frame))
    head = struct.pack("<2sHHHiIiIIIIII", b"CI", 44, 2, 1, 0, 2, 0, 2, 44, 84, at, 0, 0)
    bitmap = struct.pack("<IiiHHIIiiII", 40, _WIDTH, _HEIGHT, 1, bits, packing, len(pixels), 0, 0, 0, 1 << 8)
    return head + bitmap + bytes(setup) + blocks + offsets + frame * 2


_CIH = b"""Camera Type : FASTCAM test
Record Rate(fps) : 2000
Shutter Speed(s) : 1/4000
Total Frame : 2
Start Frame : -5
Image Width : 8
Image Height : 4
Color Type : Bayer(RGGB)
Color Bit : 12
File Format : MRaw
EffectiveBit Depth : 12
EffectiveBit Side : Lower
"""
_CIHX = b"""<cih><deviceInfo><deviceName>FASTCAM test</deviceName></deviceInfo>
<recordInfo><recordRate>2000</recordRate><shutterSpeed>4000</shutterSpeed></recordInfo>
<frameInfo><totalFrame>2</totalFrame></frameInfo>
<imageDataInfo><resolution><width>8</width><height>4</height></resolution>
<effectiveBit><depth>12</depth><side>Lower</side></effectiveBit>
<colorInfo><bit>12</bit><type>Bayer(RGGB)</type></colorInfo></imageDataInfo>
<imageFileInfo><fileFormat>MRaw</fileFormat></imageFileInfo></cih>"""


def _described(suffix: str, seed: bytes) -> Callable[[Path, ExitStack], Prepared]:
    """Descriptions of .mraw files."""

    def prepare(folder: Path, stack: ExitStack) -> Prepared:
        (folder / "a.mraw").write_bytes(bytes(_WIDTH * _HEIGHT * 12 // 8 * 2))
        path = folder / f"a{suffix}"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            _read_all(path)

        return read, [seed, seed.replace(b"12", b"10"), seed.replace(b"2000", b"1e3")]

    return prepare


FOOTAGE = (
    Target("recording", "recordings (HDF5)", (UserError,), _recording, (b"format", b"\x89HDF"), 0.3, ("h5py",)),
    Target("cine", "Phantom's .cine", (UserError,), _cine, (b"CI", b"ST")),
    Target(
        "cihx",
        "Photron's .cihx",
        (UserError,),
        _described(".cihx", b"\0\1\n" + _CIHX),
        (b"<!ENTITY", b"<bit>"),
    ),
    Target("cih", "Photron's .cih", (UserError,), _described(".cih", _CIH), (b" : ", b"Color Bit")),
)
