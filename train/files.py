"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..engines.errors import UserError


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Write a file, and its folder if need be; until all of it is on the disk, the one before it stays as it was.

    Args:
        path: Where.
        content: All of it.
        what: The file's kind with its article, for the message.

    Raises:
        UserError: It cannot be written, as on a full disk; nothing of it is left.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name of the new file with nothing in it
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {what} {path}: {error.strerror}") from error
    finally:  # also after Ctrl-C
        with contextlib.suppress(OSError):
            partial.unlink()
