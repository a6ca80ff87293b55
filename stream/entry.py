"""Where the console scripts begin. Ctrl-C is quiet from the first line on, before the slow imports."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing has been started yet: there is nothing to clean up


def stream() -> int:
    """`isp-stream`. One that asks another one is ended by the signal itself: what was asked for may not be done."""
    end = signal.SIG_DFL if sys.argv[1:2] == ["control"] else _leave
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    from .cli import main

    return main()


def calibrate() -> int:
    """`isp-calibrate`."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    from .calibrate.cli import main

    return main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    # SystemExit unwinds through what writes a file, so that no half of one stays
    raise SystemExit(130)


def view() -> int:
    """`isp-view`."""
    signal.signal(signal.SIGINT, _leave)
    from .view import main

    return main()


def develop() -> int:
    """`isp-develop`."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    from .offline.cli import main

    return main()
