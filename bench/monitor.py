"""What the monitor takes from the pipeline: the same runs with nobody at it and with clients that look, in turn.

A round is a run without `--monitor`, a run with it and its clients, and, where a folder to record to is given, one with
recording as well. The target: frames lost outside the moments when the machine stood still are no more with it than
without, and the published rate is reached wherever it is reached without.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from ..stream.monitor.address import require_packages
from .helper import HelperProcess
from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, Settings
from .processes import stage_pid
from .rate import RATE_TOLERANCE, TRANSPORT, measure, missed_target, write_report

ALONE, WATCHED, RECORDED = "without", "with monitor", "with monitor and recording"
_FIGURES = ("published_fps", "lost_outside_stalls", "latency_p50_ms", "latency_p99_ms", "latency_max_ms")


class Watchers:
    """Starts the clients of a run, and keeps what they had."""

    def __init__(self, clients: int, fps: float) -> None:
        self._arguments = ("--clients", str(clients), "--fps", f"{fps:g}")
        self._process: HelperProcess | None = None
        self.result: list[dict[str, Any]] = []

    def begin(self, pipeline: Pipeline, stack: ExitStack) -> dict[str, int]:
        """Waits until each has had a picture. Returns the process ids of the monitor and of the clients."""
        url = pipeline.wait_for("monitor", START_TIMEOUT_S)["url"]
        self._process = process = stack.enter_context(HelperProcess("clients", url, *self._arguments))
        process.read()
        monitor = stage_pid(pipeline.marker, "monitor")
        return {"monitor": monitor or 0, "clients": process.pid}

    def end(self) -> None:
        """Ends the clients and keeps their results."""
        if self._process:
            self.result = self._process.finish()["clients"]


def run_monitor(
    settings: Settings,
    seconds: float,
    clients: int,
    picture_fps: float,
    repeat: int,
    warm_up_s: float,
    record: Path | None,
    out: Path | None,
) -> int:
    """Runs `repeat` rounds, prints, writes `out`, and returns 0 when the target was reached, else 1."""
    require_packages()
    if record is not None and not record.is_dir():
        raise UserError(f"cannot record to {record}: there is no such folder")
    machine = describe()
    print(f"machine    {in_words(machine)}")
    print(
        f"clients    {clients} WebSockets, {picture_fps:g} pictures a second each; {seconds:g} s after {warm_up_s:g} s"
    )
    kinds = [ALONE, WATCHED] + ([] if record is None else [RECORDED])
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in range(repeat):
        # The order turns with the rounds, so that nothing that drifts speaks for one of them.
        for kind in kinds[:: -1 if number % 2 else 1]:
            run = _measure(settings, kind, record, seconds, warm_up_s, lambda: Watchers(clients, picture_fps))
            runs[kind].append(run)
            _print(f"round {number + 1} of {repeat}", kind, run)
    medians = {kind: _medians(of_kind) for kind, of_kind in runs.items()}
    why = judge(runs, settings.fps or 0.0)
    report = {
        "command": "monitor",
        "ok": not why,
        "missed_target": why,
        "target": "no frame lost outside stalls, and no rate missed, that is not without the monitor",
        "machine": machine,
        "settings": asdict(settings),
        "seconds": seconds,
        "warm_up_s": warm_up_s,
        "clients": clients,
        "picture_fps": picture_fps,
        "recorded": record is not None,
        "transport": TRANSPORT,
        "runs": runs,
        "median": medians,
    }
    for kind, figures in medians.items():
        print(f"\nmedian {kind}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()))
    write_report(report, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0


def judge(runs: dict[str, list[dict[str, Any]]], fps: float) -> list[str]:
    """What the runs with the monitor miss that those without reach, one sentence each; empty where nothing."""
    lost = {kind: sum(run["lost_outside_stalls"] for run in of_kind) for kind, of_kind in runs.items()}
    least = fps * (1 - RATE_TOLERANCE)
    low = {kind: sum(run["published_fps"] < least for run in of_kind) for kind, of_kind in runs.items()}
    why = []
    for kind, of_kind in runs.items():
        if lost[kind] > lost[ALONE]:
            why.append(f"{kind} {lost[kind]} frames were lost, without it {lost[ALONE]}")
        if low[kind] > low[ALONE]:
            why.append(f"{kind} {low[kind]} runs did not reach {fps:g} fps, without it {low[ALONE]}")
        for number, run in enumerate(of_kind):
            others = [w for w in missed_target(run, fps) if "frames lost" not in w and not w.startswith("published")]
            why += [f"{kind}, round {number + 1}: {reason}" for reason in others]
    return why


def _measure(
    settings: Settings,
    kind: str,
    record: Path | None,
    seconds: float,
    warm_up_s: float,
    watchers: Callable[[], Watchers],
) -> dict[str, Any]:
    extra = () if kind == ALONE else ("--monitor", ":0")
    watching = None if kind == ALONE else watchers()
    with ExitStack() as stack:
        if kind == RECORDED:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-monitor-", dir=record))
            extra += ("--record", place, "--record-on", "start")
        run = measure(replace(settings, extra=extra), seconds, warm_up_s=warm_up_s, beside=watching)
    return {**run, "clients": watching.result if watching else []}


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {name: round(statistics.median(_figure(run, name) for run in runs), 4) for name in _FIGURES}


def _figure(run: dict[str, Any], name: str) -> float:
    if name.startswith("latency_"):
        return run["latency_ms"][name.removeprefix("latency_").removesuffix("_ms")]
    return run[name]


def _print(round_: str, kind: str, run: dict[str, Any]) -> None:
    latency, witness = run["latency_ms"], run["witness"]
    print(
        f"{round_}, {kind}: {run['published_fps']:.1f} fps, lost {sum(run['lost'].values())} "
        f"(outside stalls {run['lost_outside_stalls']}), p50 {latency['p50']:.3f}, p99 {latency['p99']:.3f}, max "
        f"{latency['max']:.3f} ms; longest stall of the machine {witness['max_ms']} ms"
    )
    used = [f"{name} {use['cpu_percent']:g}" for name, use in run["processes"].items()]
    print(f"  CPU %      {', '.join(used)}")
    if run["clients"]:
        rates = ", ".join(f"{client['fps']:g}" for client in run["clients"])
        late = max(client["late_ms_p50"] for client in run["clients"])
        print(f"  clients    {rates} pictures a second, p50 {late:g} ms after the frame came", flush=True)
