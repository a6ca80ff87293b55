"""What cameras write of how they took a frame: exposure, sensitivity, aperture, focal length, and their own name.

It may stand in four places, and of each tag the first that has it counts:

    exif.json     of many files, as `exiftool -json -n -r . > exif.json` writes it, or without -n, where values are
                  texts such as "1/250", "50.0 mm" and "f/2.8"
    NAME.json     of one frame, beside it, likewise
    the EXIF of the raw file (package exifread)
    the EXIF of the picture

A tag that none has is not known, nor is one that is null, undefined (0/0), or 0 where a lens that does not report its
f-number or focal length left it so. Other values that no camera has are refused.
"""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Rational
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import PIL.ExifTags
import PIL.Image

from ...engines.errors import UserError, reason
from .profile import EXPOSURES_US, F_NUMBERS, FOCAL_LENGTHS_MM, ISOS


class Told(NamedTuple):
    """What one place tells: its name for messages, and values by the names that exiftool gives to tags."""

    where: str
    tags: Mapping[str, Any]


@dataclass(frozen=True)
class Exif:
    """How a frame was taken; None is not known.

    Attributes:
        exposure_us: In microseconds.
        iso: The sensitivity.
        f_number: Focal length over aperture.
        focal_length_mm: In millimetres, the lens's own.
    """

    exposure_us: float | None = None
    iso: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None


class _Quantity(NamedTuple):
    """Under which names a value stands, between which ones it lies, and by what it is multiplied.

    `lens` is true for what a camera learns from the lens alone, and writes as 0 where the lens does not tell it.
    """

    names: tuple[str, ...]
    low: float
    high: float
    unit: str = ""
    scale: float = 1.0
    lens: bool = False


WRITES_LIST = "exiftool -json -n -r . > exif.json"
"""The command line for a list of all files."""

QUANTITIES = {
    "exposure_us": _Quantity(("ExposureTime",), EXPOSURES_US[0] / 1e6, EXPOSURES_US[1] / 1e6, " s", scale=1e6),
    "iso": _Quantity(("ISO", "PhotographicSensitivity", "ISOSpeedRatings"), *ISOS),
    "f_number": _Quantity(("FNumber",), *F_NUMBERS, lens=True),
    "focal_length_mm": _Quantity(("FocalLength",), *FOCAL_LENGTHS_MM, " mm", lens=True),
}
"""What is read, by the attribute of `Exif`."""

_MOST_SHORT = 65535
"""A sensitivity that EXIF 2.3 writes for all that do not fit into 16 bits, which `_LONG` then tells."""

_LONG = ("RecommendedExposureIndex", "StandardOutputSensitivity", "ISOSpeed")

_NUMBER = re.compile(
    r"(?:f/?)?\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|[-+]?inf)(?:\s*/\s*(\d+\.?\d*))?\s*(?:s|sec|mm)?",
    re.ASCII | re.IGNORECASE,
)
_UNDEFINED = ("", "undef")
"""What exiftool writes for 0/0, and what is left of a text of blanks."""

_QUIET = logging.NullHandler()


def read_exif(raw: Path, picture: Path, notes: Sequence[Told] = ()) -> Exif:
    """How a frame was taken.

    Args:
        raw: The raw file.
        picture: That of the camera.
        notes: What counts before that which is in the two.

    Raises:
        UserError: A value that no camera has, a damaged file, or exifread is needed and not installed.
    """
    found = _look_up(_places(raw, picture, notes), {name: each.names for name, each in QUANTITIES.items()})
    return Exif(**{name: _value(QUANTITIES[name], *told) for name, told in found.items()})


def picture_exposure_us(picture: Path) -> float | None:
    """The exposure that the EXIF of a picture alone tells, in microseconds; None where it tells none.

    Raises:
        UserError: A value that no camera has, or a damaged file.
    """
    wanted = QUANTITIES["exposure_us"]
    found = _look_up(iter([Told(str(picture), _of_picture(picture))]), {"exposure_us": wanted.names})
    return _value(wanted, *found["exposure_us"]) if found else None


def read_model(raw: Path, picture: Path, notes: Sequence[Told] = ()) -> tuple[str, str]:
    """Maker and model of the camera, "" where not known. Arguments and errors are those of `read_exif`."""
    found = _look_up(_places(raw, picture, notes), {"model": ("Model",), "make": ("Make",)})
    texts = {name: told.tags[tag] for name, (told, tag) in found.items()}
    make, model = (" ".join(str(texts.get(name) or "").replace("\0", " ").split()) for name in ("make", "model"))
    return make, model


# ---- where it stands ---------------------------------------------------------------------------------------


def listed_exif(path: Path, files: Sequence[Path]) -> list[Told]:
    """What a list of exiftool tells of some files, in their order; those that it does not name are left out.

    Those that the list tells of by their path from its folder, or as much of that as it gives: lists stay true where
    they and all files are moved.

    Raises:
        UserError: The list cannot be read, is none, or names a file twice.
    """
    entries, found = _read_list(path, path.stat().st_mtime_ns), []
    for file in files:
        inside = len(file.relative_to(path.parent).parts)
        known = [(_common_end(each[0].parts, file.absolute().parts), each) for each in entries.get(file.name, [])]
        known = [(length, each) for length, each in known if length >= min(inside, len(each[0].parts))]
        best = [each for length, each in known if length == max(known, key=itemgetter(0))[0]]
        if len(best) > 1:
            raise UserError(f"{path} tells of {best[0][0]} twice: write it again with exiftool, once for each file")
        found += [Told(f"{path}, of {source},", tags) for source, tags in best]
    return found


def sidecar_exif(path: Path) -> Told:
    """What a JSON file of one frame tells. Raises UserError: it cannot be read, or is of another form."""
    notes = _read_json(path)
    if isinstance(notes, list) and len(notes) == 1:
        notes = notes[0]  # as exiftool writes it
    if not isinstance(notes, dict):
        raise UserError(f'{path} is not as it should be: it is {{"ExposureTime": 0.004, "ISO": 100, ...}} of one frame')
    return Told(str(path), _without_groups(notes))


@lru_cache(maxsize=8)
def _read_list(path: Path, changed: int) -> dict[str, list[tuple[PurePath, Mapping[str, Any]]]]:
    """The entries of a list that was last changed then, by the name of the file; each pair asks for them."""
    notes = _read_json(path)
    if not isinstance(notes, list) or not all(
        isinstance(note, dict) and isinstance(note.get("SourceFile"), str) for note in notes
    ):
        raise UserError(f"{path} is not as it should be: write it with {WRITES_LIST}")
    entries: dict[str, list[tuple[PurePath, Mapping[str, Any]]]] = {}
    for note in notes:
        source = PurePath(note["SourceFile"])
        entries.setdefault(source.name, []).append((source, _without_groups(note)))
    return entries


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def _without_groups(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what `exiftool -G` puts before them, as in EXIF:ISO; of several the first counts."""
    plain: dict[str, Any] = {}
    for name, value in tags.items():
        plain.setdefault(name.rpartition(":")[2], value)
    return plain


def _common_end(some: Sequence[str], others: Sequence[str]) -> int:
    """How many parts of two paths are equal, from the end."""
    length = 0
    for part, other in zip(reversed(some), reversed(others), strict=False):
        if part != other:
            break
        length += 1
    return length


def _places(raw: Path, picture: Path, notes: Sequence[Told]) -> Iterator[Told]:
    """All places in their order. The files are opened only if asked for."""
    yield from notes
    yield Told(str(raw), _of_raw(raw))
    yield Told(str(picture), _of_picture(picture))


def _of_raw(path: Path) -> dict[str, Any]:
    try:
        import exifread
    except ImportError as error:
        raise UserError(
            f"reading the EXIF of {path.name} needs the package exifread; run: pip install exifread"
        ) from error
    logging.getLogger("exifread").addHandler(_QUIET)  # that a file has no EXIF is no news
    try:
        with path.open("rb") as file:
            tags = exifread.process_file(file, details=False)
    except Exception as error:  # exifread reports a damaged file by whatever it stumbles over
        raise _unreadable(path, error) from error
    plain: dict[str, Any] = {}
    for group in ("EXIF", "Image"):
        for name, tag in tags.items():
            if name.startswith(f"{group} "):
                plain.setdefault(name.partition(" ")[2], tag.values)
    return plain


def _of_picture(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(), PIL.Image.open(path) as image:
            warnings.simplefilter("error")  # of tags that are cut off Pillow only warns
            main = image.getexif()
            tags = {**main, **main.get_ifd(PIL.ExifTags.IFD.Exif)}
    except Exception as error:  # Pillow reports damaged EXIF by whatever it stumbles over
        raise _unreadable(path, error) from error
    return {PIL.ExifTags.TAGS[tag]: value for tag, value in tags.items() if tag in PIL.ExifTags.TAGS}


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"the EXIF of {path} cannot be read: {reason(error)}; copy it again, or write exif.json for it")


# ---- what it means -----------------------------------------------------------------------------------------


def _look_up(places: Iterator[Told], wanted: Mapping[str, Sequence[str]]) -> dict[str, tuple[Told, str]]:
    """Of each wanted thing the first place that has one of its tags, and the tag."""
    found: dict[str, tuple[Told, str]] = {}
    for told in places:
        for name, tags in wanted.items():
            tag = next((tag for tag in tags if tag in told.tags), None)
            if tag is not None:
                found.setdefault(name, (told, tag))
        if len(found) == len(wanted):
            break
    return found


def _value(quantity: _Quantity, told: Told, tag: str) -> float | None:
    """The value in the unit of `Exif`. Raises UserError: it is no number, or out of range."""
    written = told.tags[tag]
    try:
        value = _number(written)
        if "ISO" in quantity.names and value == _MOST_SHORT:
            tag = next((name for name in _LONG if name in told.tags), tag)
            written = told.tags[tag]
            value = _number(written)
    except ValueError:
        raise _absurd(quantity, told, tag, "which is no number") from None
    except OverflowError:
        raise _absurd(quantity, told, tag, "which is too large for a number") from None
    if value is None or (quantity.lens and value == 0):
        return None
    if not quantity.low <= value <= quantity.high:
        limits = f"from {quantity.low:g} to {quantity.high:g}{quantity.unit}"
        raise _absurd(quantity, told, tag, f"which does not lie {limits}")
    return value * quantity.scale


def _absurd(quantity: _Quantity, told: Told, tag: str, why: str) -> UserError:
    written = told.tags[tag]
    while isinstance(written, (list, tuple)) and len(written) == 1:
        written = written[0]
    shown = repr(written) if isinstance(written, (str, bytes)) else str(written)
    return UserError(
        f"{told.where} has {tag} {shown}, {why}: correct it, or write {quantity.names[0]} into an exif.json, which "
        "comes first (null where it is not known)"
    )


def _number(value: Any) -> float | None:
    """What is written as number, fraction, text, or first of a list; None where undefined. Raises ValueError: none."""
    if isinstance(value, (list, tuple)):
        return _number(value[0]) if value else None
    if value is None or (isinstance(value, str) and value.strip() in _UNDEFINED):
        return None
    if isinstance(value, float):
        return value
    if isinstance(value, Rational) and not isinstance(value, bool):
        return _ratio(float(value.numerator), float(value.denominator))
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    return _ratio(float(match[1]), float(match[2] or 1))


def _ratio(above: float, below: float) -> float | None:
    """Their ratio; none of them is where both are 0."""
    if below:
        return above / below
    return math.copysign(math.inf, above) if above else None
