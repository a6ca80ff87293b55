"""The status viewer: a real process fed through a pipe."""

import json
import os
import subprocess
import sys

import pytest

from ispeed.stream.frame import LOSS_REASONS
from ispeed.stream.status import losses, started_line

STATUS = {
    "event": "status",
    "t_s": 2.0,
    "rates": {"camera": 1000.0, "grab": 999.0, "develop": 998.0, "publish": 997.0},
    "account": {"lost": {**dict.fromkeys(LOSS_REASONS, 0), "superseded": 3}},
    "latency_ms": {"from": "device", "p50": 0.91, "p99": 1.2},
    "bottleneck": "none (engine 40% busy)",
    "subscribers": {"descriptors": 2, "pixels": 1},
}


def show(style, messages):
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    command = [sys.executable, "-m", "ispeed.stream.status", style]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30, check=True)


def test_plain_lines_name_rates_losses_latency_and_bottleneck():
    text = show("plain", [STATUS]).stdout
    for part in ("camera 1000", "publish 997", "superseded 3", "p50 0.91", "engine 40% busy", "2+1"):
        assert part in text


@pytest.mark.parametrize(
    ("fps", "acquisition", "told"),
    [
        (100.0, "zero-copy", "BayerRG8, 100 fps, zero-copy"),
        (0.0, "copy", "BayerRG8, triggered or free-running, copy"),
        (0.0, "replay", "BayerRG8, as fast as it is taken, replay"),
    ],
)
def test_the_first_line_tells_the_rate_as_far_as_it_is_known(fps, acquisition, told):
    camera = {"camera": 0, "model": "SimCam", "serial": "SIM0001", "width": 64, "height": 48}
    geometry = {**camera, "pixel_format": "BayerRG8", "fps": fps, "acquisition": acquisition}
    engine = {"name": "classic", "backend": "numba", "precision": "fp32"}
    assert told in started_line({"geometry": geometry, "engine": engine, "slots": 16, "endpoint": ["ipc:///x"]})


def test_of_a_run_that_ends_there_is_no_limit():
    text = show("plain", [{**STATUS, "bottleneck": "", "stages": {}}]).stdout
    assert "limit" not in text
    assert "ms | subscribers 2+1" in text


def test_late_frames_are_named_where_there_are_any():
    account = {"lost": {**dict.fromkeys(LOSS_REASONS, 0), "camera_gap": 3}, "late": 2}
    sums = {**account, "seen": 7, "missing": 3, "published": 7}
    segment = {"number": 1, "duration_s": 1.0, "account": sums, "ended_by": "the end"}
    ledger = {**sums, "balanced": True, "segments": [segment, segment], "outages": []}
    latency = {"from": "device", "p50": 1.0, "p99": 1.0, "p999": 1.0, "max": 1.0, "count": 7}
    final = {"event": "final", "ledger": ledger, "latency_ms": latency, "exit": 0}
    text = show("plain", [{**STATUS, "account": account}, final]).stdout
    assert text.count("lost 3 (camera_gap 3), 2 of them late") == 4
    assert "late" not in show("plain", [STATUS]).stdout


def test_json_lines_pass_through_unchanged():
    assert json.loads(show("json", [STATUS]).stdout) == STATUS


def test_live_keeps_faults_above_the_status():
    out = show("live", [{"event": "fault", "text": "camera lost: gone"}, STATUS])
    assert "camera lost: gone" in out.stdout
    assert not out.stderr


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ispeed.stream.status", "plain"]
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            command, input=json.dumps(STATUS) + "\n", stdout=gone, stderr=subprocess.PIPE, text=True, timeout=30
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_losses_in_words():
    assert losses(dict.fromkeys(LOSS_REASONS, 0)) == "0"
    assert losses({"camera_gap": 2, "superseded": 1, "incomplete": 0}) == "3 (camera_gap 2, superseded 1)"
