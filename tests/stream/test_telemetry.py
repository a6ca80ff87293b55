"""What the main process tells its user: nobody who reads it slowly, or not at all, holds up a frame."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ispeed.stream.telemetry import Telemetry

from .conftest import Run


@pytest.fixture
def complaining(runtime_dir) -> Iterator[tuple[Run, int]]:
    """A run, and the end of a pipe from which its stderr can be read."""
    read, write = os.pipe()
    run = Run("--width", "160", "--height", "120", "--fps", "200", stderr=write)
    os.close(write)
    yield run, read
    run.close()


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_faults_that_nobody_reads_hold_nothing_up(complaining, reader):
    run, read = complaining
    develop = run.until("started")["pids"]["develop"]
    if reader == "gone":
        os.close(read)
    else:
        pipe = os.open(f"/proc/{run.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while os.write(pipe, bytes(4096)):
                pass
        os.close(pipe)
    os.kill(develop, signal.SIGKILL)
    run.until("stage_died")
    run.published(run.until("status")["account"]["published"] + 20)
    run.signal()
    run.finish()
    if reader == "asleep":
        os.close(read)


def test_a_message_that_the_terminal_took_half_of_spoils_no_other(capfd):
    telemetry = Telemetry("plain")
    meter = telemetry.meter(0, "every")
    viewer = telemetry._viewer
    assert viewer
    os.kill(viewer.pid, signal.SIGSTOP)
    meter.note("long", "x" * 100_000)  # more than a pipe holds
    os.kill(viewer.pid, signal.SIGCONT)
    meter.saved({"saved": 7}, None)
    telemetry.close()
    assert viewer.returncode == 0
    assert capfd.readouterr() == ("saved 7 frames to None, missed 0\n", "")
