"""The transport comparison, small and short: it measures, and it says so when a process fails."""

from __future__ import annotations

import pytest

from ispeed.bench.pipeline import PipelineError
from ispeed.bench.transport import compare_subscribers, compare_transport
from ispeed.bench.transport_roles import StopWatch, start_role


def test_compares_with_imagezmq():
    pytest.importorskip("imagezmq")
    result = compare_transport(64, 48, repeats=1, seconds=1)
    assert set(result["median_fps"]) == {"ispeed", "imagezmq ipc", "imagezmq tcp"}
    assert all(fps > 0 for fps in result["median_fps"].values())
    fastest = max(result["median_fps"]["imagezmq ipc"], result["median_fps"]["imagezmq tcp"])
    assert result["ratio"] == pytest.approx(result["median_fps"]["ispeed"] / fastest, abs=0.05)


def test_measures_the_publisher_with_one_and_three_subscribers():
    result = compare_subscribers(64, 48, fps=200, repeats=1, seconds=0.4)
    for part in (result["with_frame"], result["descriptors_only"]):
        one, three = part["median_us"]["1"], part["median_us"]["3"]
        assert one > 0
        assert part["growth_percent"] == pytest.approx((three / one - 1) * 100, abs=0.5)


def test_a_process_that_fails_is_told():
    with start_role("no_such_role", {}) as role, pytest.raises(PipelineError, match="no_such_role ended without"):
        role.read()


def test_a_stop_watch_without_frames_has_no_rate():
    assert StopWatch(0.1).result() == {"fps": 0.0, "cpu_us": 0.0}
