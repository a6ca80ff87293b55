"""The whole pipeline with an engine on the GPU: a develop process that dies comes back, every frame is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

pytest.importorskip("torch")
for package in ("harvesters", "pydantic", "zmq"):
    pytest.importorskip(package, reason="the pipeline's packages are not here")


class Run:
    """A running isp-stream, of which the messages are read."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "ispeed.stream", "--json", "--width", "320", "--height", "240", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def until(self, event: str, published: int = 0) -> dict:
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if message["event"] == event and message.get("account", {}).get("published", published) >= published:
                return message
        raise AssertionError(f"isp-stream ended without {event!r}")


@pytest.fixture
def run(program: Path, runtime_dir: Path) -> Iterator[Run]:
    started = Run("--fps", "300", "--engine", str(program), "--seconds", "40")
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.wait()
    if started.process.stdout:
        started.process.stdout.close()


def test_a_develop_process_that_is_killed_comes_back_and_every_frame_is_counted(run: Run):
    pid = run.until("started")["pids"]["develop"]
    run.until("status", published=300)
    os.kill(pid, signal.SIGKILL)
    run.until("status", published=600)
    ledger = run.until("final")["ledger"]
    assert run.process.wait(60) == 0
    assert ledger["balanced"]
    assert ledger["in_flight"] == 0
    assert ledger["seen"] + ledger["missing"] == ledger["published"] + sum(ledger["lost"].values())
    assert ledger["lost"]["engine_error"] == 0
