"""`/metrics`: what the cameras say, in the text format of Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .cameras import Camera

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = dict[str, str]


class Metric(NamedTuple):
    """One family: what it is, and its samples as (labels, value)."""

    name: str
    kind: str
    text: str
    samples: list[tuple[Labels, float]]


def write_metrics(cameras: Iterable[Camera], clients: int, pictures: int, version: str) -> str:
    """The whole page. `clients` look at the monitor now, `pictures` were encoded since it started."""
    own = [
        Metric("ispeed_info", "gauge", "Version of ispeed.", [({"version": version}, 1)]),
        Metric("ispeed_monitor_clients", "gauge", "Pages and programs connected to the monitor.", [({}, clients)]),
        Metric("ispeed_monitor_pictures_total", "counter", "Pictures that the monitor encoded.", [({}, pictures)]),
    ]
    return "".join(line for metric in [*own, *_families(list(cameras))] for line in _lines(metric))


def _families(cameras: list[Camera]) -> Iterator[Metric]:
    def gauge(name: str, text: str, samples: list[tuple[Labels, float]]) -> Metric:
        return Metric(name, "gauge", text, samples)

    def each(value: Any) -> list[tuple[Labels, float]]:
        return [({"camera": str(c.index)}, float(value(c))) for c in cameras]

    yield gauge("ispeed_up", "1 while the camera delivers, or waits for its trigger.", each(lambda c: c.health()["ok"]))
    yield gauge("ispeed_status_age_seconds", "Time since the pipeline's last status.", each(lambda c: c.status_age_s))
    yield gauge("ispeed_recording", "1 while frames are being recorded.", each(_is_recording))
    yield from _account(cameras)
    yield gauge("ispeed_stage_rate_hertz", "Frames a second through a stage.", _labelled(cameras, "rates", "stage"))
    stuck = [
        ({"camera": str(c.index), "stage": name}, float(told.get("state") == "stuck"))
        for c in cameras
        for name, told in _of(c, "stages").items()
    ]
    yield gauge("ispeed_stage_stuck", "1 while a stage has something to do and does not get on with it.", stuck)
    yield gauge(
        "ispeed_latency_seconds",
        "Time from the camera's stamp to publishing, over the last second; quantile 1 is the longest.",
        [
            ({"camera": str(c.index), "quantile": quantile}, float(latency[name]) / 1e3)
            for c in cameras
            for latency in [_of(c, "latency_ms")]
            for name, quantile in (("p50", "0.5"), ("p99", "0.99"), ("p999", "0.999"), ("max", "1"))
            if _is_number(latency.get(name))
        ],
    )
    yield gauge("ispeed_subscribers", "Subscriptions to the stream.", _labelled(cameras, "subscribers", "kind"))
    faults = [({"camera": str(c.index), "event": name}, float(n)) for c in cameras for name, n in c.counts.items()]
    yield Metric("ispeed_messages_total", "counter", "Messages of the pipeline since the monitor started.", faults)


def _account(cameras: list[Camera]) -> Iterator[Metric]:
    accounts = [({"camera": str(c.index)}, account) for c in cameras if (account := _of(c, "account"))]
    for name, key, text in (
        ("ispeed_frames_seen_total", "seen", "Frames that came from the camera."),
        ("ispeed_frames_missing_total", "missing", "Frames that the camera numbered and that never came."),
        ("ispeed_frames_published_total", "published", "Frames that were published."),
    ):
        yield Metric(name, "counter", text, [(labels, account[key]) for labels, account in accounts])
    lost = [
        ({**labels, "reason": reason}, float(count))
        for labels, account in accounts
        for reason, count in account["lost"].items()
    ]
    yield Metric("ispeed_frames_lost_total", "counter", "Frames that were not published, by reason.", lost)
    late = [(labels, account.get("late", 0)) for labels, account in accounts]
    yield Metric("ispeed_frames_late_total", "counter", "Missing frames that came behind newer ones: dropped.", late)
    in_flight = [(labels, account["in_flight"]) for labels, account in accounts]
    yield Metric("ispeed_frames_in_flight", "gauge", "Frames seen that are neither published nor lost yet.", in_flight)


def _of(camera: Camera, name: str) -> dict[str, Any]:
    value = (camera.status or {}).get(name)
    return value if isinstance(value, dict) else {}


def _labelled(cameras: list[Camera], name: str, label: str) -> list[tuple[Labels, float]]:
    return [
        ({"camera": str(c.index), label: key}, float(value))
        for c in cameras
        for key, value in _of(c, name).items()
        if _is_number(value)
    ]


def _is_recording(camera: Camera) -> bool:
    return camera.recording.get("state") == "recording"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.text}\n# TYPE {metric.name} {metric.kind}\n"
    for labels, value in metric.samples:
        inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{metric.name}{{{inside}}} {_number(value)}\n" if inside else f"{metric.name} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
