"""`isp-bench memory`: its detector finds what it is for, and the pipeline holds still."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ispeed.bench.memory import GROWTH_LIMIT, Footprint, findings, measure_memory, watch
from ispeed.bench.pipeline import Settings

pytestmark = pytest.mark.alone

FRAME = 1 << 20
_LOOP = """
import mmap, sys, time
kept = []
print("ready", flush=True)
time.sleep(0.7)
while True:
    {}
    time.sleep(0.01)
"""
QUIET = "pass"
LEAK = "m = mmap.mmap(-1, 1 << 20); m.write(bytes(1 << 10) * (1 << 10)); kept.append(m)"
CHURN = "m = mmap.mmap(-1, 1 << 20); m.write(bytes(1 << 10) * (1 << 10)); m.close()"


@contextmanager
def program(body: str) -> Iterator[int]:
    code = _LOOP.format(body)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def watched(body: str) -> dict:
    with program(body) as pid:
        calls = iter((0, 50))
        return watch({"it": pid}, FRAME, settle_s=0.3, seconds=1.5, frames=lambda: next(calls), sample_s=0.2)


def test_a_process_that_keeps_still_has_no_findings():
    account = watched(QUIET)
    assert account["findings"] == []
    assert abs(account["growth_bytes"]) < GROWTH_LIMIT
    assert account["frames"] == 50


def test_a_leak_of_frames_shows_as_growth_and_as_new_mappings():
    account = watched(LEAK)
    assert account["growth_bytes"] >= 10 * FRAME
    assert any("mapped" in finding for finding in account["findings"])


def test_a_buffer_made_and_dropped_for_every_frame_shows():
    account = watched(CHURN)
    assert account["growth_bytes"] < 2 * FRAME  # the one buffer of the moment may be seen at the end and not before
    assert any("above its resident size" in finding for finding in account["findings"])
    assert any("page faults" in finding for finding in account["findings"])


def test_a_process_that_ends_meanwhile_is_an_error():
    with pytest.raises(ProcessLookupError, match="it process ended"), program("sys.exit()") as pid:
        watch({"it": pid}, FRAME, settle_s=0.1, seconds=5, frames=lambda: 0, sample_s=0.2)


def test_each_sign_alone_is_a_finding():
    before = Footprint(pss=0, own=0, rss=10 * FRAME, peak=10 * FRAME, faults=100, mappings={4096: 2 * FRAME})
    same = Footprint(0, 0, 10 * FRAME, 11 * FRAME - 1, 100 + 25, {4096: 2 * FRAME})
    assert findings("x", before, [same], FRAME, frames=1) == []
    grown = Footprint(0, 0, 10 * FRAME, 10 * FRAME, 100, {4096: 3 * FRAME})
    assert ["new area" in f for f in findings("x", before, [grown], FRAME, frames=1)] == [True]
    risen = Footprint(0, 0, 10 * FRAME, 11 * FRAME, 100, {4096: 2 * FRAME})
    assert ["rose" in f for f in findings("x", before, [risen], FRAME, frames=1)] == [True]
    faulty = Footprint(0, 0, 10 * FRAME, 10 * FRAME, 100 + 26, {4096: 2 * FRAME})
    assert ["page faults" in f for f in findings("x", before, [faulty], FRAME, frames=1)] == [True]


@pytest.mark.usefixtures("runtime_dir")
def test_the_pipeline_holds_still_for_twenty_seconds():
    settings = Settings(fps=200, width=320, height=240, pixel_format="BayerRG8")
    account = measure_memory(settings, seconds=20, settle_s=5)
    assert account["frames"] > 1000
    assert account["growth_bytes"] < GROWTH_LIMIT
    assert account["findings"] == []
    assert {"main", "grab", "develop", "subscriber"} <= account["growth_by_process"].keys()
    assert account["ledger"]["balanced"]
