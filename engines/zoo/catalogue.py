"""Which models ship, and where they lie: every `<name>.onnx` of this package, with its card `<name>.md`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import UserError


def names() -> list[str]:
    """Names of the models that ship, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.onnx"))


def zoo_path(name: str) -> Path:
    """The core of that name.

    Raises:
        UserError: No model of that name ships.
    """
    known = names()
    if name not in known:
        shipped = f"use one of {', '.join(known)}" if known else "this installation has none"
        raise UserError(f"there is no model {name!r} in the zoo; {shipped}")
    return _folder() / f"{name}.onnx"


def _folder() -> Path:
    return Path(str(files(__name__.rpartition(".")[0])))
