"""The door to footage: which reader a path is for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...engines.errors import UserError, reason
from .base import Footage, FootageOptions

SUFFIXES = (".h5", ".hdf5", ".cine", ".mraw", ".cihx", ".cih", ".raw", ".bin", ".npy", ".png")
"""Endings of the files that `open_footage` reads."""


def open_footage(spec: str | Path, options: FootageOptions | None = None) -> Footage:
    """Opens raw frames in a file.

    Args:
        spec: Path of a recording of isp-stream (.h5), of Phantom's .cine, of Photron's .mraw or the .cihx or .cih
            beside it, or of a file of raw frames (.raw, .bin, .npy, .png) with FILE.yaml beside it or ?KEY=VALUE
            behind it.
        options: What the user knows better than the file.

    Raises:
        UserError: There is no such file, it is damaged, or not of a kind that can be developed.
    """
    text = str(spec)
    suffix = Path(text if os.path.exists(text) else text.partition("?")[0]).suffix.lower()
    opened = _READERS.get(suffix)
    if opened is None:
        raise UserError(f"{text} is no footage that can be read: those files end in {', '.join(SUFFIXES)}")
    try:
        return opened(text, options or FootageOptions())
    except (OSError, ValueError) as error:  # such as of names that are too long, or that no file can have
        raise UserError(f"{text} cannot be opened: {reason(error)}") from error


def _recording(spec: str, options: FootageOptions) -> Footage:
    from .recording import RecordedFootage

    return RecordedFootage(Path(spec), options)


def _cine(spec: str, options: FootageOptions) -> Footage:
    from .cine import CineFootage

    return CineFootage(Path(spec), options)


def _mraw(spec: str, options: FootageOptions) -> Footage:
    from .mraw import MrawFootage

    return MrawFootage(Path(spec), options)


def _raw(spec: str, options: FootageOptions) -> Footage:
    from .raw import RawFootage

    return RawFootage(spec, options)


_READERS: dict[str, Callable[[str, FootageOptions], Footage]] = {
    **dict.fromkeys((".h5", ".hdf5"), _recording),
    ".cine": _cine,
    **dict.fromkeys((".mraw", ".cihx", ".cih"), _mraw),
    **dict.fromkeys((".raw", ".bin", ".npy", ".png"), _raw),
}
