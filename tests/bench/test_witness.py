"""The stall witness, and which losses it excuses."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ispeed.bench.witness import LossEvent, Stall, split_losses, stalls_of, start_witness, summarise, windows

pytestmark = pytest.mark.alone

MS = 1_000_000
SLACK = 100 * MS


def test_only_stalls_over_half_the_slack_make_a_window():
    stalls = [Stall(0, 50 * MS, 0), Stall(1000 * MS, 1051 * MS, 1)]
    assert windows(stalls, SLACK) == [(1000 * MS, 1151 * MS)]


def test_windows_that_touch_are_one():
    stalls = [Stall(200 * MS, 260 * MS, 1), Stall(0, 120 * MS, 0), Stall(500 * MS, 560 * MS, 0)]
    assert windows(stalls, SLACK) == [(0, 360 * MS), (500 * MS, 660 * MS)]


def test_losses_are_excused_only_where_they_overlap_a_window():
    spans = [(1000 * MS, 1151 * MS)]
    before = LossEvent(900 * MS, 999 * MS, {"superseded": 1})
    across = LossEvent(990 * MS, 1000 * MS, {"superseded": 2, "camera_gap": 3})
    within = LossEvent(1100 * MS, 1110 * MS, {"no_free_buffer": 7})
    after = LossEvent(1152 * MS, 1160 * MS, {"superseded": 11})
    assert split_losses([before, across, within, after], spans) == (12, 12)
    assert split_losses([before, after], []) == (0, 12)


def test_summary_says_where_the_longest_stall_lies():
    stalls = [Stall(0, 500 * MS, 0), Stall(1100 * MS, 1160 * MS, 1), Stall(1150 * MS, 1170 * MS, 0)]
    summary = summarise(stalls, 100.0, 1000 * MS, 2000 * MS)
    assert summary["stalls"] == 2  # the first was over before the span
    assert (summary["max_ms"], summary["max_at_s"], summary["max_cpu"]) == (60.0, 0.1, 1)
    assert summary["stalled_ms"] == 70.0
    assert (summary["half_slack_ms"], summary["over_half_slack"], summary["over_half_slack_at_s"]) == (50.0, 1, [0.1])


def test_summary_without_stalls_or_slack():
    assert summarise([], None, 0, MS) == {
        "recorded_over_ms": 2.0,
        "stalls": 0,
        "stalled_ms": 0,
        "max_ms": 0.0,
        "max_at_s": None,
        "max_cpu": None,
        "half_slack_ms": None,
        "over_half_slack": 0,
        "over_half_slack_at_s": [],
    }


def test_a_real_witness_sees_that_it_was_stopped():
    with start_witness() as witness:
        time.sleep(0.5)
        os.kill(witness.pid, signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        time.sleep(0.15)
        continued_ns = time.monotonic_ns()
        os.kill(witness.pid, signal.SIGCONT)
        time.sleep(0.1)
        stalls = stalls_of(witness)
    seen = {stall.cpu for stall in stalls if stall.start_ns < stopped_ns + 10 * MS and stall.end_ns > continued_ns}
    assert seen == os.sched_getaffinity(0)
