"""The process behind --save, as the main process sees it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import ModuleType

from ispeed.stream.hub import Signals
from ispeed.stream.saver import Saver


def test_frames_that_never_came_keep_no_saver_stuck(
    runtime_dir: Path, tmp_path: Path, source: ModuleType, signals: Signals
) -> None:
    with source.RemoteSource() as stream:
        saver = Saver(stream.endpoints[0], 0, tmp_path)
        stream.do("await", descriptors=1)
        stream.do("publish", count=3)
        published = 3 + 5  # the last five of a burst were dropped on the way
        until(saver, published, "working")
        pid = saver_pid()
        deadline = time.monotonic() + 9
        while time.monotonic() < deadline:
            look(saver, published)
            assert saver.state()["state"] != "stuck"
        os.kill(pid, signal.SIGSTOP)
        until(saver, published, "stuck")
        os.kill(pid, signal.SIGCONT)
        until(saver, published, "idle")
        saver.finish(signals)
    assert saver.report == {"saved": 3, "missed": 0}


def look(saver: Saver, published: int) -> None:
    """As the main process does, several times a second."""
    saver.look(published)
    time.sleep(0.1)


def until(saver: Saver, published: int, state: str) -> None:
    """Looks until it is in that state."""
    deadline = time.monotonic() + 60
    while saver.state()["state"] != state:
        look(saver, published)
        assert time.monotonic() < deadline, saver.state()


def saver_pid() -> int:
    """Process id of the one saver that this process has started."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if b"ispeed.stream.save" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("there is no saver")
