"""The data sets that can be read, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...engines.errors import UserError
from . import camera_pairs, folder, hdr_pairs, raws, rhid, sidd, ultraisp, zrr
from .raw_pair import PairReader


class _DataSet(NamedTuple):
    reader: Callable[..., PairReader]
    how_to_get: Callable[[], str]


_DATA_SETS = {
    "zrr": _DataSet(zrr.Zrr, zrr.how_to_get),
    "ultraisp": _DataSet(ultraisp.UltraIsp, ultraisp.how_to_get),
    "rhid": _DataSet(rhid.Rhid, rhid.how_to_get),
    "hdrisp": _DataSet(hdr_pairs.HdrPairs, hdr_pairs.how_to_get),
    "sidd": _DataSet(sidd.Sidd, sidd.how_to_get),
    "folder": _DataSet(folder.PairFolder, folder.how_to_get),
    "raws": _DataSet(raws.RawFolder, raws.how_to_get),
    "exif": _DataSet(camera_pairs.CameraPairs, camera_pairs.how_to_get),
}


_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    tuple[str, ...]: "a list of texts",
}
"""What options of readers take."""


def data_sets() -> tuple[str, ...]:
    """Their names."""
    return tuple(_DATA_SETS)


def how_to_get(name: str) -> str:
    """Where a data set is published, its licence if known, how to unpack it. Raises UserError: an unknown name."""
    return _known(name).how_to_get()


def open_data_set(name: str, root: Path, **options: Any) -> PairReader:
    """A reader.

    Args:
        name: One of `data_sets`.
        root: The folder that holds it.
        options: What else its class takes, as from a recipe: `split`, `sets`, `keys` ...

    Raises:
        UserError: An unknown name or option.
    """
    reader = _known(name).reader
    known = [field.name for field in dataclasses.fields(reader) if field.name != "root"]  # pyright: ignore[reportArgumentType]
    for option in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise UserError(f"the data set {name} has no option {option!r}: its options are {listed}")
    kinds = get_type_hints(reader)
    return reader(root, **{key: _of_kind(value, kinds[key], key, name) for key, value in options.items()})


def _of_kind(value: Any, kind: Any, option: str, name: str) -> Any:
    """An option as its reader takes it; lists of a recipe become tuples, so that readers stay hashable."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"the data set {name} has {option} {value!r}: it takes {_WORDS[kind]}") from error


def _known(name: str) -> _DataSet:
    if name not in _DATA_SETS:
        raise UserError(f"there is no data set {name!r}: choose one of {', '.join(_DATA_SETS)}")
    return _DATA_SETS[name]
