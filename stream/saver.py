"""Saver: the process behind `--save`, as the main process sees it. It is a subscriber like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..engines.errors import UserError


def make_folder(folder: Path) -> None:
    """Makes `folder` if it is not there. Raises UserError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"frames cannot be saved to {folder}: {(error.strerror or str(error)).lower()}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"frames cannot be saved to {folder}: it is not writable")


class Saver:
    """Starts `python -m ispeed.stream.save` on an endpoint, and ends it when every frame has been published."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        command = [sys.executable, "-m", "ispeed.stream.save", endpoint, str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._folder = folder
        self.report: dict[str, int] = {}

    def check(self) -> None:
        """Raises UserError with the process's own sentence when it has ended already."""
        if self._process.poll() is not None:
            text = (self._process.stderr.read() if self._process.stderr else "").strip()
            raise UserError(text.split("error: ")[-1] or f"frames cannot be saved to {self._folder}")

    def finish(self, at_once: bool) -> None:
        """Lets it write what it has (at most two minutes), then keeps its report {"saved": n, "missed": m}."""
        if at_once:
            self._process.kill()
        try:
            out, _ = self._process.communicate(timeout=120)  # closes its stdin, by which it knows the end
            self.report = json.loads(out.splitlines()[-1]) if out.strip() else {}
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            self._process.kill()
            self._process.communicate()
