"""Saver: the process behind `--save`, as the main process sees it. It is a subscriber like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .hub import Signals
from .liveness import Activity

_FINISH_S = 120.0
_PATIENCE_NS = 5_000_000_000  # it tells once a second how far it is


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

    def __init__(self, endpoint: str, camera: int, folder: Path, keys: Path | None = None) -> None:
        command = [sys.executable, "-m", "ispeed.stream.save", endpoint, str(folder), "--camera", str(camera)]
        command += ["--keys", str(keys)] if keys else []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._process.stdout:
            os.set_blocking(self._process.stdout.fileno(), False)
        self._told = b""  # of what it prints, the line that has begun
        self._progress: dict[str, int] = {}
        self._activity = Activity(_PATIENCE_NS)
        self.report: dict[str, int] = {}  # {"saved": n, "missed": m} in the end, unless it failed
        self.failure = ""

    def poll(self) -> str:
        """Why it has ended before its time, in its own sentence; empty while it runs."""
        if not self.failure and self._process.poll() is not None:
            self._note_failure(self._process.stderr.read() if self._process.stderr else "")
        return self.failure

    def look(self, published: int) -> None:
        """Takes down how far it is; `published` is how many frames there were for it.

        Of frames that were dropped before they reached it, it learns with the next one that does. One that goes on
        telling has taken all that came.
        """
        lines: list[bytes] = []
        if not self.failure and self._process.stdout:
            with suppress(BlockingIOError):
                *lines, self._told = (self._told + os.read(self._process.stdout.fileno(), 1 << 16)).split(b"\n")
                if lines:
                    self._progress = json.loads(lines[-1])
        done = sum(self._progress.values())
        self._activity.look(done, more=done < published and not lines)

    def state(self) -> dict[str, Any]:
        """How it gets on, see Activity.state; `gone` once it has ended."""
        return self._activity.state("gone" if self.failure else "")

    def finish(self, signals: Signals) -> None:
        """Lets it write what it has, at most two minutes or until a second signal, and keeps its report."""
        if self._process.stdin:
            self._process.stdin.close()  # by which it knows the end
            self._process.stdin = None
        deadline = time.monotonic() + _FINISH_S
        while True:
            try:
                out, errors = self._process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if signals.forced or time.monotonic() > deadline:
                    self._process.kill()
        if out.strip() and self._process.returncode == 0:
            self.report = json.loads(out.splitlines()[-1])
        else:
            self._note_failure(errors)

    def _note_failure(self, errors: str) -> None:
        sentence = errors.strip().split("error: ")[-1]
        self.failure = self.failure or sentence or "its process ended; files written until then are whole"
