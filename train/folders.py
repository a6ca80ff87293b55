"""Folders of results that are there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from ..engines.errors import UserError
from .files import make_folder, remove_empty, why

W = TypeVar("W", bound="WholeFolder")


class WholeFolder:
    """Where results go. Use it as a context: what was written is there afterwards, or nothing is if it failed.

    It is made beside its place and moved there when it is whole.

    Args:
        path: The folder, empty or not there.
        command: Whose results it holds, for messages.
        marker: A file that tells results of the command from other files.
        replace: Replace the folder if it has the marker.

    Raises:
        UserError: There is something in it, or it cannot be made.
    """

    def __init__(self, path: Path, command: str, marker: str, *, replace: bool = False) -> None:
        self._path = path = path.resolve()  # neither "." nor a link can be replaced
        self._check(command, marker, replace)
        try:
            self._above = make_folder(path.parent)
            self.made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent.resolve()))
            self.made.chmod(0o755)
        except OSError as error:
            raise self.cannot(error) from error

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        try:
            if kind is None:
                self._move()
        except OSError as error:
            raise self.cannot(error) from error
        finally:
            shutil.rmtree(self.made, ignore_errors=True)
            remove_empty(self._above)

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file, `name` relative to the folder, which makes the folders on the way.

        Raises:
            UserError: It cannot be written.
        """
        path = self.made / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError as error:
            raise self.cannot(error) from error

    def cannot(self, error: OSError) -> UserError:
        """What to raise where something cannot be written."""
        return UserError(f"cannot write the results to {self._path}: {why(error)}")

    def _check(self, command: str, marker: str, replace: bool) -> None:
        path = self._path
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, and results fill a folder; name a new one")
        try:
            there = [each.name for each in path.iterdir()] if path.exists() else []
        except OSError as error:
            raise self.cannot(error) from error
        if not there:
            return
        if marker not in there:
            raise UserError(f"{path} holds other files than results of {command}; name a new folder")
        if not replace:
            raise UserError(f"{path} holds results already; name a new folder, or replace them with --force")

    def _move(self) -> None:
        if self._path.is_dir() and any(self._path.iterdir()):
            old = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent.resolve()))
            try:
                self._path.rename(old / "replaced")
                try:
                    self.made.rename(self._path)
                except OSError:
                    (old / "replaced").rename(self._path)
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            self.made.rename(self._path)  # also onto an empty folder
