"""Writers of small data sets, in the layouts in which the real ones are published."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

Array = npt.NDArray[np.generic]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def write_png() -> Callable[[Path, Array], None]:
    """Writes a grey PNG of 8 or 16 bits, or an RGB picture in the format of the name."""

    def write(path: Path, values: Array) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(values).save(path, quality=95)

    return write


@pytest.fixture
def mosaic_of() -> Callable[[Array, str], Array]:
    """Samples of a picture [H, W, 3] under a filter array: what each site lets through."""

    def sample(picture: Array, cfa: str) -> Array:
        samples = np.empty(picture.shape[:2], np.uint16)
        for place, colour in enumerate(cfa):
            at = np.s_[place // 2 :: 2, place % 2 :: 2]
            samples[at] = picture[..., "RGB".index(colour)][at]
        return samples

    return sample


@pytest.fixture
def write_dng() -> Callable[..., None]:
    """Writes an uncompressed DNG of 16 bits."""
    return _write_dng


_BYTE, _TEXT, _SHORT, _LONG, _RATIONAL, _SIGNED = 1, 2, 3, 4, 5, 10
_CODES = {_BYTE: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _SIGNED: "i"}
_STRIPS, _EXIF = 273, 34665


def _write_dng(
    path: Path,
    samples: Array,
    pattern: Sequence[int],
    neutral: Sequence[float],
    *,
    matrix: npt.ArrayLike | None = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    exif: Mapping[int, tuple[int, Any]] | None = None,
    model: tuple[str, str] = ("ispeed", "test"),
    linear: bool = False,
) -> None:
    """Levels are 512 (one site of 2 x 2 has 520) and 15000.

    Args:
        path: The file.
        samples: uint16 [H, W], or [H, W, 3] with `linear`.
        pattern: Colours of the filters, 0 to 2 are R, G, B: four or, as X-Trans has them, 36.
        neutral: What the camera gives for grey.
        matrix: From XYZ to the camera, in steps of 1/10000; None leaves the tag out.
        exif: Kind and values of tags, which get a folder of their own.
        model: Maker and model of the camera.
        linear: Three colours at every place.
    """
    height, width, colours = (*samples.shape, 1)[:3]
    edge = round(len(pattern) ** 0.5)
    tags: dict[int, tuple[int, Any]] = {
        254: (_LONG, [0]),
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [16] * colours),
        259: (_SHORT, [1]),
        262: (_SHORT, [34892 if linear else 32803]),
        271: (_TEXT, f"{model[0]}\0".encode()),
        272: (_TEXT, f"{model[1]}\0".encode()),
        _STRIPS: (_LONG, [0]),
        274: (_SHORT, [1]),
        277: (_SHORT, [colours]),
        278: (_LONG, [height]),
        279: (_LONG, [samples.nbytes]),
        33421: (_SHORT, [edge, edge]),
        33422: (_BYTE, list(pattern)),
        _EXIF: (_LONG, [0]),
        50706: (_BYTE, [1, 4, 0, 0]),
        50708: (_TEXT, b"ispeed test\0"),
        50713: (_SHORT, [2, 2] if edge == 2 else [1, 1]),
        50714: (_SHORT, [512, 512, 512, 520] if edge == 2 else [512]),
        50717: (_LONG, [15000]),
        50721: (_SIGNED, [(round(value * 10_000), 10_000) for value in np.ravel([] if matrix is None else matrix)]),
        50728: (_RATIONAL, [(round(value * 10_000), 10_000) for value in neutral]),
        50778: (_SHORT, [21]),
    }
    left_out = {50721} if matrix is None else set()
    left_out |= {33421, 33422, 50713, 50714} if linear else set()
    left_out |= set() if exif else {_EXIF}
    tags = {tag: what for tag, what in tags.items() if tag not in left_out}
    second = 8 + len(_folder(tags, 0))  # sizes do not depend on the places that the tags hold
    folder = _folder(exif, second) if exif else b""
    tags |= {_EXIF: (_LONG, [second])} if exif else {}
    tags[_STRIPS] = (_LONG, [second + len(folder)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + _folder(tags, 8) + folder + samples.astype("<u2").tobytes())


def _folder(tags: Mapping[int, tuple[int, Any]], start: int) -> bytes:
    """A folder of tags that begins there, with what does not fit into it."""
    after = start + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        count = len(values)
        data = values if kind == _TEXT else struct.pack(f"<{np.size(values)}{_CODES[kind]}", *np.ravel(values).tolist())
        entries += struct.pack("<HHI", tag, kind, count)
        entries += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", after + len(extra))
        extra += data + b"\0" * (len(data) % 2) if len(data) > 4 else b""
    return struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + extra
