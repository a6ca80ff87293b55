"""The door of `isp-bench`: a quiet Ctrl-C is in place before anything heavy is imported."""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Runs `isp-bench` with the process's arguments and returns its exit code (0 reached, 1 missed, 2 bad input)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from .cli import run

    return run(sys.argv[1:])


def _leave(number: int, frame: FrameType | None) -> None:
    # SystemExit unwinds through every context manager, so whatever was started is ended.
    raise SystemExit(INTERRUPTED)
