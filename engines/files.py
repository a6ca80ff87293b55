"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .errors import UserError


def write_whole(path: Path, content: bytes, what: str = "") -> None:
    """Write a file in a folder that is there; until all of it is on the disk, the one before it stays as it was.

    Args:
        path: Where.
        content: All of it.
        what: The file's kind with its article, for the message: "the checkpoint".

    Raises:
        UserError: It cannot be written, as on a full disk; nothing of it is left.
    """
    # the process is in the name, so that two that write the same file do not share a half
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name of the new file with nothing in it
        partial.replace(path)
    except OSError as error:
        named = f"{what} {path}" if what else str(path)
        raise UserError(f"cannot write {named}: {error.strerror or error}") from error
    finally:  # also after Ctrl-C
        with suppress(OSError):
            partial.unlink()
