"""A worker process: `python -m ispeed.stream.offline.worker CHANNEL_FD`. Commands: `open` (the job), `develop`.

It ends with its parent, or when its channel does, and leaves Ctrl-C to its parent.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any

from ...engines.errors import UserError
from ..channel import Channel, ChannelClosed
from ..stage import become_stage

_TELL_S = 0.1  # how often progress is told


def main() -> int:
    """Works until there is no more to do."""
    channel = become_stage(sys.argv[1])
    try:
        serve(channel)
    except ChannelClosed:
        return 0
    return 1


def serve(channel: Channel) -> None:
    """Does what it is told. Returns where it cannot go on, and has said why; raises ChannelClosed at the end."""
    try:
        _serve(channel)
    except UserError as error:
        channel.send({"event": "user_error", "text": str(error)})
    except ChannelClosed:
        raise
    except BaseException as error:  # the last line of defence: one sentence, no traceback
        channel.send({"event": "fault", "text": sentence_of(error)})


def sentence_of(error: BaseException) -> str:
    """What to tell the user of something that no sentence is written for."""
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return f"frames cannot be written{place}: {error.strerror or error}; mend that, and run the same command again"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return f"a worker failed: {type(error).__name__}: {said} ({os.path.basename(frame.filename)}:{frame.lineno})"


def _serve(channel: Channel) -> None:
    job = _next(channel)["job"]
    limit_threads(job["threads"])
    from .job import Job
    from .work import FrameDeveloper

    with FrameDeveloper(Job.for_worker(job)) as developer:
        channel.send({"event": "ready"})
        while True:
            request = _next(channel)
            developer.develop(request["positions"], request["places"], _Teller(channel))
            channel.send({"event": "done", "count": len(request["positions"])})


def limit_threads(threads: int | None) -> None:
    """Keeps libraries that are loaded from now on to so many threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(threads or 1))


class _Teller:
    """Tells of progress, not too often."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._last_s = channel, time.monotonic()

    def __call__(self, count: int) -> None:
        if (now := time.monotonic()) - self._last_s >= _TELL_S:
            self._last_s = now
            self._channel.send({"event": "progress", "count": count})


def _next(channel: Channel) -> dict[str, Any]:
    got = channel.receive()
    return got[0] if got else {}


if __name__ == "__main__":
    raise SystemExit(main())
