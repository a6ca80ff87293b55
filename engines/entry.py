"""Where isp-build begins. Ctrl-C is quiet from the first line on, before the slow imports."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def build() -> int:
    """`isp-build`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from .build_cli import main

    return main(sys.argv[1:])


def _leave(number: int, frame: FrameType | None) -> None:
    # SystemExit unwinds through every context manager, so that no half-built file stays
    raise SystemExit(_INTERRUPTED)
