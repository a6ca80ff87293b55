"""HelperProcess: one of the benchmark's own processes, which prints one JSON object a line."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any

from .pipeline import PipelineError


class HelperProcess:
    """Runs `python -m ispeed.bench.MODULE` from construction to the end of the `with` block, where it is killed.

    Every helper also ends by itself when its standard input closes, so none outlives the benchmark; a session of its
    own keeps the terminal's Ctrl-C away from it.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = " ".join((module, *arguments[:1]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"ispeed.bench.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def read(self) -> dict[str, Any]:
        """Waits for its next object. Raises PipelineError when it ended instead, or has a reason to give (`why`)."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        message = json.loads(line) if line else {"why": f"the benchmark's process {self._name} ended without a result"}
        if "why" in message:
            raise PipelineError(message["why"])
        return message

    def finish(self) -> dict[str, Any]:
        """Closes its standard input and waits for its last object. Raises PipelineError as `read` does."""
        self.close_input()
        return self.read()

    def close_input(self) -> None:
        """Closes its standard input, which lets it end."""
        if self._process.stdin:
            self._process.stdin.close()

    def say(self, line: str) -> None:
        """Writes a line to its standard input."""
        if self._process.stdin:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def wait(self) -> None:
        """Waits until it has ended by itself, after its last object, so that it cleans up; half a minute at most."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)

    def kill(self) -> None:
        """kill -9. Harmless when it has ended."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> HelperProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
