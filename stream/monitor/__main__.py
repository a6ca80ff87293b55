"""`python -m ispeed.stream.monitor CHANNEL_FD`: the monitor as a stage of the main process."""

import os

from ..stage import run_stage

NICE = 10  # the pipeline comes first, also while this loads what it needs


def main() -> int:
    """Runs the stage."""
    os.nice(NICE)
    from .server import serve

    return run_stage("monitor", serve)


if __name__ == "__main__":
    raise SystemExit(main())
