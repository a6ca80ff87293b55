"""Files of a run, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from ..engines import files
from ..engines.errors import UserError


def write_whole(path: Path, content: bytes, what: str) -> None:
    """`engines.files.write_whole`, which makes the folder if need be.

    Raises:
        UserError: As there, or no folder can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {what} {path}: {error.strerror or error}") from error
    files.write_whole(path, content, what)
