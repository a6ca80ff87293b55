"""Raw frames in files: what the simulated camera plays, and what isp-build calibrates and measures with.

A file is a headerless raw file (``.raw``, ``.bin``: u8, or u16 little-endian, frame after frame), a grey PNG that holds
a mosaic, or a ``.npy`` array. What its samples mean stands beside it in ``FILE.yaml``, or behind it in the way of a
URL: ``FILE?width=512&height=512&format=BayerRG12&black=0&white=4095``. What the camera was set to may stand there too:
``exposure_us``, ``gain_db``, ``iso``, ``f_number`` and ``focal_length_mm``, one number for all frames, or in FILE.yaml
a list with one for each; and ``offset_x`` and ``offset_y``, where on the sensor the frames were.
"""

from __future__ import annotations

import math
import os
import re
import struct
import urllib.parse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .bayer import PIXEL_FORMATS, RawFormat
from .errors import UserError, reason, shown
from .inputs import CAMERA
from .settings import parse_yaml

_EXPOSURE, _OPTICS = CAMERA[:2], CAMERA[2:]
_PLACE = ("offset_x", "offset_y")
_KEYS = ("width", "height", "format", "black", "white", *_PLACE, *CAMERA)
_EXAMPLE = {"width": 512, "height": 512, "format": "BayerRG12", "black": 0, "white": 4095}
_FORMATS = tuple(name for name in PIXEL_FORMATS if not name.endswith("p"))
_WHOLE = re.compile("[0-9]{1,10}")
_SUFFIXES = (".raw", ".bin", ".png", ".npy")


@dataclass(frozen=True, eq=False)
class RawFrames:
    """Frames of one format.

    Attributes:
        samples: Whole numbers [frames, height, width], DN of the pixel format; at least one frame.
        raw_format: Their format, without packing.
        path: The file.
        camera: float32 [frames, 2], exposure in microseconds and gain in dB of each; NaN where it is not told.
        optics: float32 [frames, 3], ISO, f-number and focal length in millimetres of each, likewise.
        offset: (x, y) of the frames on the sensor in pixels; None where it is not told.
    """

    samples: npt.NDArray[Any]
    raw_format: RawFormat
    path: Path
    camera: npt.NDArray[np.float32]
    optics: npt.NDArray[np.float32]
    offset: tuple[int, int] | None = None


def load_raw(spec: str, *, mapped: bool = False) -> RawFrames:
    """The frames of a file with a sidecar or a query (see the module).

    mapped: Leave the samples of a .raw, .bin or .npy file in it, read-only, where they are read when they are used.

    Keys are width and height (in pixels; PNG and .npy know them), format (PFNC name; the filter array and depth of the
    samples), black and white (levels in DN; 0 and the largest sample unless said), offset_x and offset_y (of the frames
    on the sensor, in pixels), and what is known of the camera:
    exposure_us (in microseconds), gain_db (in dB), iso, f_number and focal_length_mm (in millimetres).

    Raises:
        UserError: No such file, one that cannot be read as what it is said to be, or keys that are missing or unknown.
    """
    path, keys = _split(spec)
    if not os.path.isfile(path):  # unlike Path.is_file, no for a name that is too long
        raise UserError(f"there is no file {path}: give the path of a file with raw frames")
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{path} is no file of raw frames: those have one of the endings {', '.join(_SUFFIXES)}")
    values = {**_read_sidecar(path), **keys}
    format_name = _format(path, values)
    reader = {".png": _read_png, ".npy": _read_npy}.get(path.suffix.lower(), _read_raw)
    try:
        samples = reader(path, values, format_name, mapped)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return _make(path, samples, values, format_name)


def _make(path: Path, samples: npt.NDArray[Any], values: dict[str, Any], format_name: str) -> RawFrames:
    frames, height, width = samples.shape
    for name, size in (("width", width), ("height", height)):
        if values.get(name, size) != size:
            raise UserError(f"{path} has a {name} of {size}, but {values[name]} was said: correct the {name}")
    if not frames:
        raise UserError(f"{path} holds no frames: give a file with one or more")
    raw_format = RawFormat(width, height, format_name, values.get("black", 0), values.get("white"))
    if samples.max() >= 1 << raw_format.depth:
        raise UserError(
            f"{path} has samples up to {samples.max()}, which {format_name} cannot hold: correct the format "
            f"(for 14 bits say {format_name.rstrip('0123456789')}16 and white: 16383)"
        )
    camera, optics = (
        np.stack([_of_each(path, frames, name, values.get(name, [math.nan])) for name in names], axis=1)
        for names in (_EXPOSURE, _OPTICS)
    )
    x, y = (values.get(name) for name in _PLACE)
    return RawFrames(samples, raw_format, path, camera, optics, None if x is None or y is None else (x, y))


def _of_each(path: Path, frames: int, name: str, numbers: list[float]) -> npt.NDArray[np.float32]:
    if len(numbers) not in (1, frames):
        raise UserError(
            f"{path} holds {frames} frames, but {len(numbers)} numbers of {name} were said: give one for all, or one "
            "for each"
        )
    return np.broadcast_to(np.array(numbers, np.float32), frames)


# ---- what was said about the file --------------------------------------------------------------------------


def _split(spec: str) -> tuple[Path, dict[str, Any]]:
    path, mark, query = spec.rpartition("?")
    if not mark or os.path.exists(spec):
        return Path(spec), {}
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    return Path(path), _checked(dict(pairs), f"the query behind {path}")


def _read_sidecar(path: Path) -> dict[str, Any]:
    sidecar = path.with_name(path.name + ".yaml")
    if not sidecar.is_file():
        return {}
    try:
        values = parse_yaml(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{sidecar} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{sidecar} holds no keys: write {_lines()}")
    return _checked(values, str(sidecar))


def _checked(values: dict[Any, Any], where: str) -> dict[str, Any]:
    for key, value in values.items():
        if key not in _KEYS:
            raise UserError(f"{where} has an unknown key {key!r}: the keys are {', '.join(_KEYS)}")
        if key in CAMERA:
            values[key] = _numbers(value, key, where)
        elif key != "format":
            values[key] = _whole(value, key, where)
    return values


def _whole(value: Any, key: str, where: str) -> int:
    number = int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
        raise UserError(f"{where} has {key} {shown(value)}: it must be a whole number, 0 or more")
    return number


def _numbers(value: Any, key: str, where: str) -> list[float]:
    given = value if isinstance(value, list) else [value]
    try:
        numbers = [math.nan if isinstance(number, bool) else float(number) for number in given]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError(f"{where} has {key} {shown(value)}: it must be a number, or a list of them, one for each frame")
    if key in _OPTICS and min(numbers) <= 0:
        raise UserError(f"{where} has {key} {shown(value)}: it must be above 0; leave it out where it is not known")
    return numbers


def _format(path: Path, values: dict[str, Any]) -> str:
    name = values.get("format")
    if name is None:
        query = urllib.parse.urlencode(_EXAMPLE)
        raise UserError(
            f"{path} does not say what its samples are: write {path.name}.yaml beside it ({_lines()}), "
            f"or append ?{query} to its path"
        )
    if name not in _FORMATS:
        raise UserError(
            f"{path} has the format {name!r}, which it cannot have (samples take whole bytes, those of 14 bits are "
            f"16 bits with white: 16383): choose one of {', '.join(_FORMATS)}"
        )
    return name


def _lines() -> str:
    return ", ".join(f"{key}: {value}" for key, value in _EXAMPLE.items())


# ---- reading: each gives whole numbers [frames, height, width] ---------------------------------------------


def _read_raw(path: Path, values: dict[str, Any], format_name: str, mapped: bool) -> npt.NDArray[Any]:
    if "width" not in values or "height" not in values:
        raise UserError(f"{path} has no header, so its size must be said: add width and height ({_lines()})")
    width, height = values["width"], values["height"]
    dtype = np.dtype("u1" if format_name.endswith("8") else "<u2")
    frame, size = width * height * dtype.itemsize, path.stat().st_size
    if not frame or not size or size % frame:
        raise UserError(
            f"{path} has {size} bytes, which is no multiple of the {frame} bytes of a {width}x{height} frame of "
            f"{format_name} ({dtype.itemsize} a sample): correct width, height or format"
        )
    samples = np.memmap(path, dtype, "r") if mapped else np.fromfile(path, dtype)
    return samples.reshape(-1, height, width)


def _read_png(path: Path, values: dict[str, Any], format_name: str, mapped: bool) -> npt.NDArray[Any]:
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("L", "I", "I;16", "I;16B"):
                raise UserError(f"{path} is a picture of mode {image.mode}: a mosaic is a grey PNG of 8 or 16 bits")
            if image.mode == "L" and not format_name.endswith("8"):
                raise UserError(f"{path} has samples of 8 bits, which are not {format_name}: correct the format")
            return np.asarray(image).astype(np.uint16)[np.newaxis]
    except (ValueError, SyntaxError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no PNG file, or is damaged: {error}") from error


def _read_npy(path: Path, values: dict[str, Any], format_name: str, mapped: bool) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        shape, fortran_order, dtype = _npy_header(path, file)
        if dtype.kind != "u" or dtype.itemsize > 2 or len(shape) not in (2, 3):
            raise UserError(
                f"{path} holds {dtype} {list(shape)}: raw frames are uint8 or uint16, height x width or "
                "frames x height x width"
            )
        # before anything is reserved: a header may promise more than a machine has
        told, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if told > there or min(shape) < 0:
            raise UserError(f"{path} is cut off: its header tells of {told} bytes, and {there} follow; copy it again")
        order = "F" if fortran_order else "C"
        if mapped and told:
            array = np.memmap(path, dtype, "r", file.tell(), shape, order)
        else:
            array = np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)
    return array if array.ndim == 3 else array[np.newaxis]


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that Python 2 wrote
            return readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # it evaluates text, and says in many ways what is wrong with that
        raise UserError(f"{path} is no .npy file: {reason(error)}") from error
