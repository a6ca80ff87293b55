"""Photron's .mraw: frame after frame without a header, described by a .cih or .cihx file beside it.

Samples take 8 bits, 16 (least significant byte first), or 10 or 12 packed (most significant bit first). The description
is text of `Name : value` lines (.cih) or XML inside of other bytes (.cihx).
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError
from .base import About, ByteFile, Footage, FootageOptions, blank_frames, levelled_format, mosaic_format
from .repack import repack_10, repack_12

_MOST_TEXT = 16 << 20  # bytes of a description
_MOST_FRAMES = 1 << 26
_PACKED = {10: 4, 12: 2}  # samples that share whole bytes
_ORDERS = ("RGGB", "GRBG", "GBRG", "BGGR")
_NUMBERS = {
    "Total Frame": "frameInfo/totalFrame",
    "Start Frame": "frameInfo/startFrame",
    "Image Width": "imageDataInfo/resolution/width",
    "Image Height": "imageDataInfo/resolution/height",
    "Color Bit": "imageDataInfo/colorInfo/bit",
    "EffectiveBit Depth": "imageDataInfo/effectiveBit/depth",
    "Record Rate(fps)": "recordInfo/recordRate",
    "Shutter Speed(s)": "recordInfo/shutterSpeed",
    "Shutter Type2(nsec)": "recordInfo/shutterSpeedNsec",
}
_WORDS = {
    "Color Type": "imageDataInfo/colorInfo/type",
    "EffectiveBit Side": "imageDataInfo/effectiveBit/side",
    "Camera Type": "deviceInfo/deviceName",
    "File Format": "imageFileInfo/fileFormat",
}


class MrawFootage(Footage):
    """A .mraw file with its description. See `Footage`."""

    def __init__(self, path: Path, options: FootageOptions) -> None:
        """path: The .mraw file, or its description. Raises UserError: one is missing, damaged, or not for us."""
        pixels, description = _pair(path)
        said = _Said(description)
        width, height = said.whole("Image Width", 2, 65535), said.whole("Image Height", 2, 65535)
        self._bits = said.whole("Color Bit", 1, 96)
        name, levels = _layout(said, self._bits, options)
        raw_format = levelled_format((width, height), name, levels, options)
        if width * height % _PACKED.get(self._bits, 1):
            raise UserError(f"{description} is damaged: {width}x{height} pixels are not packed in {self._bits} bits")
        self._payload = width * height * self._bits // 8
        listed = said.whole("Total Frame", 1, _MOST_FRAMES)
        start = said.whole("Start Frame", 1, 1 << 62) if said.number("Start Frame") else 0
        self._file = ByteFile(pixels)
        count = min(listed, self._file.size // self._payload)
        if not count:
            self._file.close()
            raise UserError(f"{pixels} holds no whole frame of {self._payload} bytes: it is cut off; copy it again")
        frames = blank_frames(count)
        frames["exposure_us"] = said.exposure_us()
        frames["frame_id"] += start
        self._packed = np.empty(self._payload if self._bits in _PACKED else 0, np.uint8)
        about = About(fps=said.number("Record Rate(fps)"), model=said.word("Camera Type"), cut_off=listed - count)
        super().__init__(pixels, "mraw", raw_format, frames, about)

    def close(self) -> None:
        """See `Footage.close`."""
        self._file.close()

    def _read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        what, at = f"frame {index}", index * self._payload
        if self._bits not in _PACKED:
            self._file.read_into(at, out, what)
            return
        self._file.read_into(at, self._packed, what)
        (repack_12 if self._bits == 12 else repack_10)(self._packed, out)


class _Said:
    """What a description says, by the names of a .cih."""

    def __init__(self, path: Path) -> None:
        file = ByteFile(path)
        try:
            self._path, data = path, file.read(0, _MOST_TEXT)
        finally:
            file.close()
        read = _read_xml if path.suffix.lower() == ".cihx" else _read_lines
        self._values = read(path, data)

    def word(self, name: str) -> str:
        """What stands there, in one line of at most 80 characters; empty where nothing does."""
        return " ".join(self._values.get(name, "").split())[:80]

    def number(self, name: str) -> float | None:
        """A number above 0, which may be a fraction like 1/800000; None where there is none."""
        over, _, under = self.word(name).partition("/")
        try:
            value = float(over) / float(under or 1)
        except (ValueError, ZeroDivisionError):
            return None
        return value if 0 < value < math.inf else None

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number in a range. Raises UserError."""
        value = self.number(name)
        if value is None or value != int(value) or not least <= value <= most:
            got = self.word(name) or "nothing"
            raise UserError(f"{self._path} is damaged: its {name} must be a whole number from {least}, not {got}")
        return int(value)

    def exposure_us(self) -> float:
        """Microseconds; NaN where they are not told. A shutter speed above a second is one in parts of a second."""
        seconds = (self.number("Shutter Type2(nsec)") or 0) / 1e9 or self.number("Shutter Speed(s)") or math.nan
        return 1e6 * (1 / seconds if seconds > 1 else seconds)

    @property
    def path(self) -> Path:
        """The description, for messages."""
        return self._path


def _pair(path: Path) -> tuple[Path, Path]:
    """The .mraw and its description. Raises UserError where there is no other half."""
    if path.suffix.lower() == ".mraw":
        wanted, other = path, [".cihx", ".cih", ".CIHX", ".CIH"]
    else:
        wanted, other = path, [".mraw", ".MRAW"]
    for suffix in other:
        if (found := path.with_suffix(suffix)).is_file():
            return (wanted, found) if path.suffix.lower() == ".mraw" else (found, wanted)
    raise UserError(f"there is no {path.with_suffix(other[0])}: a .mraw file and its .cihx or .cih lie side by side")


def _read_lines(path: Path, data: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in {**_NUMBERS, **_WORDS}:
            values.setdefault(name.strip(), value.strip())
    if not values:
        raise UserError(f"{path} describes no frames: it has no lines such as 'Image Width : 1024'")
    return values


def _read_xml(path: Path, data: bytes) -> dict[str, str]:
    begin, end = data.find(b"<cih>"), data.rfind(b"</cih>")
    text = data[begin : end + len(b"</cih>")] if 0 <= begin < end else b""
    if not text or b"<!" in text:  # entities could grow without bounds
        raise UserError(f"{path} describes no frames: it has no whole <cih> element")
    try:
        root = ElementTree.fromstring(text.decode("utf-8", "replace"))  # noqa: S314  # there are no entities in it
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return {name: root.findtext(place) or "" for name, place in {**_NUMBERS, **_WORDS}.items()}


def _layout(said: _Said, bits: int, options: FootageOptions) -> tuple[str, tuple[float, float | None]]:
    """Pixel format and levels of frames as they are read."""
    path, kind = said.path, said.word("Color Type").lower()
    if (made := said.word("File Format").lower()) not in ("", "mraw"):
        raise UserError(f"{path} describes a {made} file: save the frames as MRAW")
    if bits not in (8, 10, 12, 16):
        raise UserError(
            f"{path} describes pixels of {bits} bits, which are pictures of three colours: save the mosaic, before it "
            "is turned into colours"
        )
    effective = said.whole("EffectiveBit Depth", 8, 16) if said.word("EffectiveBit Depth") else bits
    name = mosaic_format(path, _depth(bits, effective, said), _order(kind), options, "p" if bits in _PACKED else "")
    if bits == 16 and said.word("EffectiveBit Side").lower() == "higher":
        return name, (0, ((1 << effective) - 1) << (16 - effective))
    return name, (0, (1 << min(bits, effective)) - 1)


def _depth(bits: int, effective: int, said: _Said) -> int:
    if bits < 16:
        return bits
    if effective > 12 or said.word("EffectiveBit Side").lower() == "higher":
        return 16
    return 10 if effective <= 10 else 12


def _order(kind: str) -> str | None:
    """The filter array that a colour type names: empty for grey, None where it names none."""
    if kind.startswith(("mono", "grey", "gray")):
        return ""
    return next((order[:2] for order in _ORDERS if order in kind.upper()), None)
