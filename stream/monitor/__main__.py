"""`python -m ispeed.stream.monitor CHANNEL_FD`: the monitor as a stage of the main process."""

import os
from contextlib import suppress
from pathlib import Path

from ..stage import run_stage

NICE = 5  # a third of the weight of others: enough to start while an engine takes all that there is


def give_way(nice: int = NICE) -> None:
    """Lets the pipeline have the processor first."""
    os.nice(nice)
    # Where the kernel groups processes by session, and a stage has one of its own, only the group's value counts.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def main() -> int:
    """Runs the stage."""
    give_way()  # also while this loads what it needs
    from .server import serve

    return run_stage("monitor", serve)


if __name__ == "__main__":
    raise SystemExit(main())
