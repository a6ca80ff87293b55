"""Files of a run, in a folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ..engines import files
from ..engines.errors import UserError, reason


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it. Returns those that were not there, the innermost first. Raises OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def why(error: OSError) -> str:
    """What is wrong where a folder cannot be made, or a file in it."""
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "there is a file where a folder should be"
    return reason(error)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of some folders that are empty, the innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_whole(path: Path, content: bytes, what: str) -> None:
    """`engines.files.write_whole`, which makes the folder if need be.

    Raises:
        UserError: As there, or no folder can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {what} {path}: {why(error)}") from error
    files.write_whole(path, content, what)
