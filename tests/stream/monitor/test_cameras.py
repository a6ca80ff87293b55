"""What the monitor makes of status messages: states, health, and metrics that Prometheus reads."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ispeed.stream.monitor.cameras import Camera
from ispeed.stream.monitor.metrics import write_metrics

from .conftest import STARTED, status

TRIGGERED = {**STARTED, "geometry": {**STARTED["geometry"], "fps": 0.0}}
SLOW = {"event": "changed", "feature": "AcquisitionFrameRate", "value": 0.5, "text": "x"}
STUCK = status(stages={"grab": {"state": "working", "for_s": 9.0}, "develop": {"state": "stuck", "for_s": 6.0}})
HUNG = status(0, stages={"grab": {"state": "stuck", "for_s": 6.0}})
SLOW_DISK = status(stages={"grab": {"state": "working"}, "record": {"state": "stuck"}, "saver": {"state": "stuck"}})
_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|NaN|[+-]Inf)')


def camera(*messages: dict[str, Any], silent_s: float = 60.0) -> Camera:
    """A camera that had these messages, each status a second after the one before."""
    made = Camera(3, silent_s)
    for second, message in enumerate(messages):
        made.take({"t_s": float(second), **message})
    return made


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        ([], "starting"),
        ([STARTED], "starting"),
        ([STARTED, status()], "live"),
        ([status()], "live"),
        ([STARTED, status(0)], "live"),
        ([STARTED, *[status(0)] * 3], "gone"),
        ([STARTED, *[status(0)] * 3, status()], "live"),
        ([STARTED, SLOW, *[status(0)] * 5], "live"),
        ([STARTED, SLOW, *[status(0)] * 6], "gone"),
        ([TRIGGERED, *[status(0)] * 5], "idle"),
        ([TRIGGERED, status(1.0)], "live"),
        ([STARTED, *[status(0, fps=0.0)] * 5], "idle"),
        ([TRIGGERED, *[status(0, fps=100.0)] * 5], "gone"),
        ([STARTED, status(), {"event": "camera_lost", "text": "x"}], "gone"),
        ([STARTED, status(), {"event": "camera_lost", "text": "x"}, {"event": "waiting", "text": "y"}], "gone"),
        ([STARTED, status(), {"event": "camera_lost", "text": "x"}, {"event": "outage", "text": "z"}], "live"),
        ([STARTED, STUCK], "stuck"),
        ([STARTED, STUCK, status()], "live"),
        ([STARTED, *[status(0)] * 5, HUNG], "stuck"),
        ([STARTED, {"event": "camera_lost", "text": "x"}, HUNG], "gone"),
        ([STARTED, SLOW_DISK], "live"),
        ([STARTED, status(0, state="waiting")], "gone"),
        ([STARTED, status(), {"event": "final"}], "ended"),
        ([STARTED, status(), status(0, state="over")], "ended"),
    ],
)
def test_states(messages: list[dict[str, Any]], state: str) -> None:
    made = camera(*messages)
    assert made.state == state
    assert made.health()["ok"] is (state in ("live", "idle"))


def test_the_stage_that_is_stuck_is_named() -> None:
    assert camera(STARTED, STUCK).health()["stuck"] == "develop"
    made = camera(STARTED, STUCK, silent_s=-1.0)
    assert made.health()["stuck"] == "main"
    assert made.state == "stuck"


def test_a_stage_beside_the_stream_that_is_stuck_is_told_and_nothing_is_down() -> None:
    made = camera(STARTED, SLOW_DISK)
    assert made.to_json()["stuck_beside"] == ["record", "saver"]
    health = made.health()
    assert (health["ok"], health["stuck"], health["stuck_beside"]) == (True, None, ["record", "saver"])
    samples = read_metrics(write_metrics([made], 0, 0, "1"))
    assert samples['ispeed_up{camera="3"}'] == 1
    assert samples['ispeed_stage_stuck{camera="3",stage="record"}'] == 1
    assert samples['ispeed_stage_stuck{camera="3",stage="grab"}'] == 0


def test_what_is_kept_is_bounded() -> None:
    made = camera(STARTED, *[status()] * 500, *[{"event": "warning", "text": "x" * 9999}] * 500)
    assert (len(made.history), len(made.messages)) == (120, 100)
    assert len(made.messages[0]["text"]) == 500


def entry_of(made: Camera, message: dict[str, Any]) -> dict[str, Any]:
    """The entry that a message adds to the list of messages."""
    (told,) = (told for told in made.take(message) if told["type"] == "messages")
    return told["entries"][0]


def test_what_comes_again_for_another_subscriber_is_no_news() -> None:
    made = camera(STARTED, status(), status(), {"event": "camera_lost", "text": "gone"})
    since = made.gone_since_ms
    assert made.take(STARTED) == []
    assert made.take(status(t_s=2.0)) == []
    assert (made.state, made.gone_since_ms, len(made.history)) == ("gone", since, 2)
    assert made.take({**STARTED, "stream_id": "another"})[1]["type"] == "started"
    assert made.state == "live"


def test_what_the_recorder_does_is_followed() -> None:
    made = camera(STARTED, status(record={"state": "armed"}))
    assert made.recording == {"state": "armed"}
    begun = {"event": "recording", "state": "recording", "change": "recording", "reason": "page", "text": "x"}
    assert entry_of(made, begun)["level"] == "note"
    made.take(status(record={"state": "recording", "file": "a.h5", "frames": {"raw": 9}, "bytes": 99}, t_s=7.0))
    made.take(status(record={"state": "recording", "file": "a.h5", "frames": {"raw": 10}, "bytes": 100}, t_s=8.0))
    shown = {"state": "recording", "reason": "page", "file": "a.h5", "frames": {"raw": 10}, "bytes": 100}
    assert made.recording == shown
    ended = {"event": "recording", "state": "armed", "change": "ended", "failed": True, "text": "disk full", "bytes": 1}
    assert entry_of(made, ended)["level"] == "warning"
    assert made.recording == {"state": "armed"}
    lost = {"event": "recording", "state": "over", "change": "lost", "text": "gone"}
    assert entry_of(made, lost)["level"] == "error"


def read_metrics(text: str) -> dict[str, float]:
    """Samples by name and labels, after checking the format line by line."""
    kinds: dict[str, str] = {}
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, "a family comes once"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in kinds
            assert match[1].endswith("_total") == (kinds[match[1]] == "counter")
            samples[line.rsplit(" ", 1)[0]] = float(match[3])
    assert text.endswith("\n")
    return samples


def test_metrics() -> None:
    made = camera(STARTED, status(), {"event": "recording", "change": "recording", "state": "recording", "text": "on"})
    samples = read_metrics(write_metrics([made], 2, 7, '1.0"\\\n'))
    assert samples['ispeed_up{camera="3"}'] == 1
    assert samples['ispeed_recording{camera="3"}'] == 1
    assert samples['ispeed_frames_seen_total{camera="3"}'] == 10
    assert samples['ispeed_frames_missing_total{camera="3"}'] == 2
    assert samples['ispeed_frames_published_total{camera="3"}'] == 9
    assert samples['ispeed_frames_lost_total{camera="3",reason="superseded"}'] == 1
    assert samples['ispeed_stage_rate_hertz{camera="3",stage="develop"}'] == 100
    assert samples['ispeed_latency_seconds{camera="3",quantile="0.99"}'] == pytest.approx(0.002)
    assert samples['ispeed_subscribers{camera="3",kind="descriptors"}'] == 1
    assert samples["ispeed_monitor_clients"] == 2
    assert samples["ispeed_monitor_pictures_total"] == 7
    assert 0 <= samples['ispeed_status_age_seconds{camera="3"}'] < 60


def test_metrics_before_the_first_status() -> None:
    samples = read_metrics(write_metrics([Camera(0, 60.0)], 0, 0, "1"))
    assert samples['ispeed_up{camera="0"}'] == 0
    assert not any("frames" in name for name in samples)
