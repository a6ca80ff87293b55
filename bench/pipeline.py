"""Pipeline: an `isp-stream --json` process as a benchmark sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..engines.errors import UserError
from .processes import RUN_VARIABLE, end_marked

START_TIMEOUT_S = 120.0  # a first run compiles the engine
END_TIMEOUT_S = 20.0


class PipelineError(Exception):
    """The pipeline ended, or did not do in time what the benchmark waited for. The message is one sentence."""


@dataclass(frozen=True)
class Settings:
    """What to run: camera settings in SFNC terms (pixels, Hz), the rest as in `isp-stream --help`; None leaves it."""

    fps: float | None = None
    width: int | None = None
    height: int | None = None
    pixel_format: str | None = None
    camera: str = "0"
    engine: str = "classic"
    policy: str = "every"
    slots: int | None = None
    threads: int | None = None
    extra: tuple[str, ...] = field(default=())

    def arguments(self) -> list[str]:
        """The same as `isp-stream` arguments."""
        values = {
            "--camera": self.camera,
            "--engine": self.engine,
            "--policy": self.policy,
            "--fps": self.fps,
            "--width": self.width,
            "--height": self.height,
            "--pixel-format": self.pixel_format,
            "--slots": self.slots,
            "--threads": self.threads,
        }
        given = [part for flag, value in values.items() if value is not None for part in (flag, f"{value}")]
        return [*given, *self.extra]


def stream_command() -> list[str]:
    """How to start `isp-stream` of the installation that this interpreter runs."""
    script = Path(sys.executable).parent / "isp-stream"
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from ispeed.stream.entry import stream; sys.exit(stream())"]


class Pipeline:
    """Starts `isp-stream`, keeps what it prints, and leaves nothing behind when the `with` block ends.

    It runs in a session of its own, so a Ctrl-C at the benchmark reaches it only through `interrupt`, and its
    environment carries a marker by which every process of the run is found again.
    """

    def __init__(
        self, settings: Settings, endpoint: str, at_most_s: float, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts it. `at_most_s` seconds after its start it ends by itself, even if this process was killed."""
        self.marker = uuid.uuid4().hex
        command = [*stream_command(), *settings.arguments(), "--json", "--publish", endpoint]
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            [*command, "--seconds", f"{at_most_s:g}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {}), RUN_VARIABLE: self.marker},
        )
        self.pid = self._process.pid
        self.events: list[dict[str, Any]] = []
        self.stderr: deque[str] = deque(maxlen=200)
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, event: str, timeout_s: float, after: int = 0) -> dict[str, Any]:
        """The first event of this name among `events[after:]`, waiting for it.

        Raises UserError when isp-stream refused its input, PipelineError when it ended or was silent for too long.
        """
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for got in self.events[after:]:
                    if got["event"] == event:
                        return got
                if not any(reader.is_alive() for reader in self._readers):
                    self._fail(event)
                if not self._news.wait(min(0.2, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise PipelineError(f"isp-stream reported no {event!r} within {timeout_s:g} s")

    def last(self, event: str) -> dict[str, Any] | None:
        """The newest event of this name, None if there was none."""
        return next((got for got in reversed(list(self.events)) if got["event"] == event), None)

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to every process of the session, as a terminal does it."""
        try:
            os.killpg(self.pid, signal.SIGINT)
        except ProcessLookupError:
            pass

    def wait_end(self, timeout_s: float = END_TIMEOUT_S) -> int:
        """The exit code (negative: the signal that ended it). Raises PipelineError if it does not end in time."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise PipelineError(f"isp-stream did not end within {timeout_s:g} s") from None
        for reader in self._readers:
            reader.join(5)
        return code

    def finish(self) -> dict[str, Any]:
        """Ends it as a user would and returns its final event. Raises PipelineError if there is none."""
        self.interrupt()
        self.wait_end()
        return self.wait_for("final", 1)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.interrupt()
        try:
            self.wait_end(END_TIMEOUT_S if kind is None else 5)
        except PipelineError:
            self._process.kill()
            self._process.wait()
        end_marked(self.marker)
        for reader, pipe in zip(self._readers, (self._process.stdout, self._process.stderr), strict=True):
            reader.join(5)
            if pipe and not reader.is_alive():
                pipe.close()

    def _read_events(self, pipe: IO[str]) -> None:
        for line in pipe:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "unreadable", "line": line[:200]}
            with self._news:
                self.events.append({**event, "received_ns": time.monotonic_ns()})
                self._news.notify_all()

    def _read_stderr(self, pipe: IO[str]) -> None:
        self.stderr.extend(pipe)

    def _fail(self, event: str) -> None:
        code = self._process.wait()
        why = self.stderr[-1].strip() if self.stderr else "it said nothing on stderr"
        if code == 2:
            raise UserError(why.removeprefix("isp-stream: error: "))
        raise PipelineError(f"isp-stream ended with exit code {code} before it reported {event!r}: {why}")
