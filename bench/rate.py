"""The real pipeline at a given rate: what it held, what it lost, how late frames were, and what it cost.

`measure` runs it once; `benchmark` runs it several times, prints tables and judges. The target: the published rate
within 1 % of what was asked, and no frame lost outside the times when the machine itself stood still for longer than
half the ring's slack (see `witness`).
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from ..stream.histogram import LatencyHistogram
from .helper import HelperProcess
from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, Settings
from .processes import UseSampler
from .witness import LossEvent, Stall, split_losses, stalls_of, start_witness, summarise, windows

WARM_UP_S = 2.0
RATE_TOLERANCE = 0.01
_SAMPLE_S = 5.0
_GRACE_S = 60.0


def start_subscriber(endpoint: str, warm_up_s: float, seconds: float) -> HelperProcess:
    """One reader of the stream in a process of its own: first it tells its `window`, at the end its `result`."""
    return HelperProcess("subscriber", endpoint, "--warm-up", f"{warm_up_s:g}", "--seconds", f"{seconds:g}")


class Beside(Protocol):
    """What runs beside the subscribers of a run."""

    def begin(self, pipeline: Pipeline, stack: ExitStack) -> dict[str, int]:
        """Starts it; whatever happens, it is to be gone when `stack` is. Returns the processes to look at, by name."""
        ...

    def end(self) -> None:
        """Ends it, after what was measured and before the pipeline ends."""
        ...


def measure(
    settings: Settings,
    seconds: float,
    subscribers: int = 1,
    warm_up_s: float = WARM_UP_S,
    beside: Beside | None = None,
) -> dict[str, Any]:
    """One run: `seconds` measured after `warm_up_s`. Returns a JSON-able account.

    Raises UserError for settings that isp-stream refuses, PipelineError when the pipeline does not do its part.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-"))
        endpoint = f"ipc://{folder}/bench"
        witness = stack.enter_context(start_witness())
        pipeline = stack.enter_context(Pipeline(settings, endpoint, START_TIMEOUT_S + warm_up_s + seconds + _GRACE_S))
        started = pipeline.wait_for("started", START_TIMEOUT_S)
        others = beside.begin(pipeline, stack) if beside else {}
        readers = [stack.enter_context(start_subscriber(endpoint, warm_up_s, seconds)) for _ in range(subscribers)]
        windows_of = [reader.read() for reader in readers]
        pids = {**started["pids"], **others, **{f"subscriber {i}": reader.pid for i, reader in enumerate(readers)}}
        sampler = _sample_use(pids, windows_of[0])
        results = [reader.read() for reader in readers]
        if beside:
            beside.end()
        final = pipeline.finish()
        stalls = stalls_of(witness)
        statuses = [event for event in list(pipeline.events) if event["event"] == "status"]
    return _account(started, windows_of[0], results, statuses, final, stalls, sampler)


def _sample_use(pids: dict[str, int], window: dict[str, Any]) -> UseSampler:
    """Looks at the processes at both ends of the window and every few seconds in between."""
    sampler = UseSampler(pids)
    end_s = window["end_ns"] * 1e-9
    at = window["start_ns"] * 1e-9
    while at < end_s:
        time.sleep(max(0.0, at - time.monotonic()))
        sampler.sample()
        at += _SAMPLE_S
    # Just before the end: the subscribers leave with the window.
    time.sleep(max(0.0, end_s - 0.1 - time.monotonic()))
    sampler.sample()
    return sampler


def _account(
    started: dict[str, Any],
    window: dict[str, Any],
    results: Sequence[dict[str, Any]],
    statuses: Sequence[dict[str, Any]],
    final: dict[str, Any],
    stalls: Sequence[Stall],
    sampler: UseSampler,
) -> dict[str, Any]:
    first = results[0]
    slack_ms = started["slack_ms"]
    events = [LossEvent(**event) for event in first["loss_events"]]
    inside, outside = split_losses(events, windows(stalls, (slack_ms or 0) * 1e6) if slack_ms else [])
    lost: dict[str, int] = {}
    for event in events:
        for reason, count in event.lost.items():
            lost[reason] = lost.get(reason, 0) + count
    latency, read = _latencies(results)
    return {
        "geometry": started["geometry"],
        "engine": started["engine"],
        "slots": started["slots"],
        "slack_ms": slack_ms,
        "published_fps": round(first["published_fps"], 2),
        "rates": {**_stage_rates(statuses, window), "subscriber": round(first["received_fps"], 1)},
        "frames": first["sequences"],
        "lost": lost,
        "lost_inside_stalls": inside,
        "lost_outside_stalls": outside,
        "lost_in_warm_up": first["lost_before"],
        "subscribers": [{k: r[k] for k in ("frames", "missed", "lapped", "torn", "restarts")} for r in results],
        "latency_ms": latency,
        "latency_read_ms": read,
        "processes": sampler.summary(first["sequences"]),
        "witness": summarise(stalls, slack_ms, window["start_ns"], window["end_ns"]),
        "ledger": final["ledger"],
        "exit": final["exit"],
    }


def _latencies(results: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(stamp -> usable by the subscriber, grabbed -> read whole), over all subscribers."""
    merged = {name: LatencyHistogram() for name in ("device", "grabbed", "read")}
    for result in results:
        for name, bins in result["latency"].items():
            merged[name].merge(LatencyHistogram.from_json(bins))
    origin = "device" if merged["device"].count else "grabbed"
    return {"from": origin, **merged[origin].summary_ms()}, {"from": "grabbed", **merged["read"].summary_ms()}


def _stage_rates(statuses: Sequence[dict[str, Any]], window: dict[str, Any]) -> dict[str, float]:
    """Mean rate (Hz) of every stage over the status intervals that lie inside the window."""
    sums: dict[str, float] = {}
    total_s = 0.0
    for before, status in pairwise(statuses):
        if before["received_ns"] < window["start_ns"] or status["received_ns"] > window["end_ns"]:
            continue
        span_s = status["t_s"] - before["t_s"]
        total_s += span_s
        for stage, rate in status["rates"].items():
            sums[stage] = sums.get(stage, 0.0) + rate * span_s
    return {stage: round(value / total_s, 1) for stage, value in sums.items()} if total_s else {}


def missed_target(run: dict[str, Any], fps: float) -> list[str]:
    """Why a run missed the target of `fps` (Hz), one sentence each; empty when it reached it."""
    why = []
    if run["published_fps"] < fps * (1 - RATE_TOLERANCE):
        why.append(f"published {run['published_fps']:.1f} fps of {fps:g}")
    if run["lost_outside_stalls"]:
        why.append(f"{run['lost_outside_stalls']} frames lost while the machine ran well")
    if not run["ledger"]["balanced"] or run["ledger"]["in_flight"]:
        why.append("the ledger does not balance")
    if run["exit"]:
        why.append(f"isp-stream ended with exit code {run['exit']}")
    torn = sum(subscriber["torn"] for subscriber in run["subscribers"])
    if torn:
        why.append(f"{torn} frames were overwritten while a subscriber read them")
    return why


def benchmark(
    settings: Settings, seconds: float, subscribers: int, repeat: int, warm_up_s: float, out: Path | None
) -> int:
    """Runs `repeat` times, prints, writes `out`, and returns 0 when every run reached the target, else 1."""
    fps = settings.fps or 0.0
    machine = describe()
    print(f"machine    {in_words(machine)}")
    runs, why = [], []
    for number in range(repeat):
        run = measure(settings, seconds, subscribers, warm_up_s)
        run["missed_target"] = missed_target(run, fps)
        why += [f"run {number + 1}: {reason}" for reason in run["missed_target"]]
        runs.append(run)
        if number == 0:
            _print_setup(run, seconds, warm_up_s, subscribers)
        _print_run(run, f"run {number + 1} of {repeat}" if repeat > 1 else "run", fps)
    report = {
        "command": "run",
        "ok": not why,
        "missed_target": why,
        "target": {"fps": fps, "rate_tolerance": RATE_TOLERANCE, "lost_outside_stalls": 0},
        "machine": machine,
        "settings": asdict(settings),
        "seconds": seconds,
        "warm_up_s": warm_up_s,
        "frame": _frame(runs[0]["geometry"]),
        "engine": runs[0]["engine"],
        "transport": TRANSPORT,
        "runs": runs,
        "median": _medians(runs),
    }
    if repeat > 1:
        print(f"\nmedian of {repeat}: " + ", ".join(f"{name} {value:g}" for name, value in report["median"].items()))
    write_report(report, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0


TRANSPORT = "shared-memory ring, descriptors over ZeroMQ ipc, same host"


def write_report(report: dict[str, Any], out: Path | None) -> None:
    """Writes a report as JSON, if a file was named."""
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten    {out}")


def _frame(geometry: dict[str, Any]) -> dict[str, Any]:
    size = {name: geometry[name] for name in ("width", "height", "pixel_format")}
    return {**size, "raw_bytes": geometry["payload"], "srgb_bytes": size["width"] * size["height"] * 3}


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    values = {"published_fps": [run["published_fps"] for run in runs]}
    for name in ("p50", "p99", "p999", "max"):
        values[f"latency_{name}_ms"] = [run["latency_ms"][name] for run in runs]
    values["lost_outside_stalls"] = [run["lost_outside_stalls"] for run in runs]
    return {name: round(statistics.median(column), 4) for name, column in values.items()}


def _print_setup(run: dict[str, Any], seconds: float, warm_up_s: float, subscribers: int) -> None:
    frame, engine, geometry = _frame(run["geometry"]), run["engine"], run["geometry"]
    slack = f"{run['slack_ms']:.1f} ms" if run["slack_ms"] else "unknown"
    print(
        f"camera     {geometry['vendor']} {geometry['model']} {geometry['serial']}, data path {geometry['acquisition']}"
    )
    print(
        f"frame      {frame['width']}x{frame['height']} {frame['pixel_format']}, raw {frame['raw_bytes']} bytes,",
        end="",
    )
    print(f" sRGB {frame['srgb_bytes']} bytes")
    print(f"engine     {engine['name']} ({engine['backend']}, {engine['precision']})")
    print(f"transport  {TRANSPORT}; {run['slots']} slots, slack {slack}")
    print(f"measured   {seconds:g} s after {warm_up_s:g} s of warm-up, {subscribers} subscriber(s) reading every frame")


def _print_run(run: dict[str, Any], title: str, fps: float) -> None:
    print(f"\n{title}: {run['published_fps']:.1f} of {fps:g} fps")
    print("  rate Hz      " + ", ".join(f"{stage} {rate:g}" for stage, rate in run["rates"].items()))
    lost = ", ".join(f"{reason} {count}" for reason, count in run["lost"].items()) or "none"
    print(f"  lost         {lost}", end="")
    print(f" (inside stalls {run['lost_inside_stalls']}, outside {run['lost_outside_stalls']})", end="")
    print(f"; in warm-up {run['lost_in_warm_up']}")
    for subscriber in run["subscribers"]:
        print("  subscriber   " + ", ".join(f"{name} {count}" for name, count in subscriber.items()))
    for label, latency in (("usable", run["latency_ms"]), ("read whole", run["latency_read_ms"])):
        origin = "the device stamp (simulated camera)" if latency["from"] == "device" else "grabbed"
        values = ", ".join(f"{name} {latency[key]:.3f}" for name, key in _PERCENTILES)
        print(f"  latency ms   {values}  from {origin} to {label}")
    print(f"  {'process':14s} {'CPU %':>7s} {'core-ms/frame':>14s} {'PSS MiB':>9s}")
    for name, use in run["processes"].items():
        print(f"  {name:14s} {use['cpu_percent']:7.1f} {use['core_ms_per_frame']:14.3f} {use['pss_mib']:9.1f}")
    _print_witness(run["witness"])


_PERCENTILES = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max"))


def _print_witness(witness: dict[str, Any]) -> None:
    at = f" at {witness['max_at_s']} s on CPU {witness['max_cpu']}" if witness["max_at_s"] is not None else ""
    print(f"  machine      {witness['stalls']} stalls over 2 ms, {witness['stalled_ms']:g} ms in all, ", end="")
    print(f"longest {witness['max_ms']} ms{at}; ", end="")
    half = witness["half_slack_ms"]
    print(f"{witness['over_half_slack']} over half the slack ({half} ms)" if half else "slack unknown", end="")
    print(f", at {witness['over_half_slack_at_s']} s" if witness["over_half_slack_at_s"] else "")
