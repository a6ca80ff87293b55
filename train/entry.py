"""Where the console scripts begin. Ctrl-C is quiet from the first line on, before the slow imports."""

from __future__ import annotations

import signal
from types import FrameType

INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    # SystemExit unwinds through every context manager, so no half-written file stays behind
    raise SystemExit(INTERRUPTED)


def _begin() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def align() -> int:
    """`isp-align`."""
    _begin()
    from .align_cli import main

    return main()


def eval_() -> int:
    """`isp-eval`."""
    _begin()
    from .eval_cli import main

    return main()


def export() -> int:
    """`isp-export`."""
    _begin()
    from .cli import export as run

    return run()


def invert() -> int:
    """`isp-invert`."""
    _begin()
    from .invert_cli import main

    return main()


def train() -> int:
    """`isp-train`."""
    _begin()
    from .cli import train as run

    return run()
