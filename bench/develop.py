"""`isp-bench develop`: what a second worker is worth to isp-develop, on a Ray cluster and without one.

The same frames again and again by one worker and by two, a thread each, in turn; every run must make the same bytes.
Rates count from the moment the first worker is ready.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.bayer import RawFormat, pack
from ..engines.errors import UserError
from ..stream.record.writer import write_recording
from .helper import HelperProcess
from .machine import describe, in_words
from .pipeline import PipelineError
from .rate import write_report

GAIN = 1.7
"""How many times as fast two Ray workers must be as one."""

WAYS = ("ray", "processes")
WORKERS = (1, 2)


@dataclass
class _Way:
    """Runs of one way to have workers, by their number."""

    name: str
    options: Sequence[str]
    runs: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: {number: [] for number in WORKERS})

    @property
    def gains(self) -> list[float]:
        """How many times as fast two workers were as one, in each round."""
        one, two = ([run["rate"] for run in self.runs[number]] for number in WORKERS)
        return [second / first for first, second in zip(one, two, strict=True)]

    def rate(self, workers: int) -> float:
        """Median, frames a second."""
        return statistics.median(run["rate"] for run in self.runs[workers])

    def to_json(self) -> dict[str, Any]:
        gains = self.gains
        return {
            "rate": {str(number): self.rate(number) for number in WORKERS},
            "gain": {"median": statistics.median(gains), "least": min(gains), "most": max(gains)},
            "runs": {str(number): runs for number, runs in self.runs.items()},
        }


def run_develop(
    fmt: RawFormat, engine: str, frames: int, made: str, ways: Sequence[str], repeats: int, out: Path | None
) -> int:
    """Measures, prints a table, writes JSON, and returns 0; 1 where a second Ray worker is worth too little.

    Args:
        fmt: Of the frames.
        engine: As in isp-develop.
        frames: Of each run.
        made: png, tiff, mp4 or h5.
        ways: Of `WAYS`; none takes both.
        repeats: Rounds.
        out: File for the figures.

    Raises:
        UserError: isp-develop refuses it.
        PipelineError: A run failed, or made other bytes.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    print(
        f"frames     {frames} of {fmt.width}x{fmt.height} {fmt.pixel_format}, developed with {engine} to {made};",
        end="",
    )
    print(f" a thread each worker, {repeats} rounds", flush=True)
    with tempfile.TemporaryDirectory(prefix="ispeed-") as name, ExitStack() as stack:
        folder = Path(name)
        footage = _footage(folder / "run.h5", fmt, frames)
        command = [str(footage), "--engine", engine, "--format", made, "--threads", "1", "--json"]
        results = []
        for way in ways or WAYS:
            options: list[str] = []
            if way == "ray":
                nodes = stack.enter_context(HelperProcess("ray_nodes", "2"))
                options = ["--ray", str(nodes.read()["address"])]
                stack.callback(_end, nodes)
            results.append(_Way(way, options))
        digests: set[str] = set()
        for number in range(repeats):
            for way in results:
                for workers in sorted(WORKERS, reverse=number % 2 == 1):  # machines grow slower and faster
                    run, digest = _develop([*command, *way.options, "--workers", str(workers)], folder / "made")
                    way.runs[workers].append(run)
                    digests.add(digest)
    if len(digests) != 1:
        raise PipelineError(f"runs made {len(digests)} different results of the same frames")
    return _report(machine, fmt, engine, frames, made, results, out)


def _end(nodes: HelperProcess) -> None:
    """Lets a cluster end by itself: killed, it would leave its processes behind."""
    nodes.close_input()
    nodes.wait()


def _footage(path: Path, fmt: RawFormat, frames: int) -> Path:
    """A recording of a moving picture with noise."""
    y, x = np.mgrid[: fmt.height, : fmt.width].astype(np.float32)
    rng = np.random.default_rng(1)
    reach = fmt.white_level - fmt.black_level

    def frame(k: int) -> Any:
        light = 0.3 + 0.2 * np.sin((x + 3 * k) / 40) + 0.1 * np.cos((y - 2 * k) / 25) + rng.normal(0, 0.02, x.shape)
        return pack((fmt.black_level + reach * light.clip(0, 1)).astype(np.uint16), fmt)

    return write_recording(path, fmt, np.stack([frame(k) for k in range(frames)]), fps=1000)


def _develop(arguments: Sequence[str], folder: Path) -> tuple[dict[str, Any], str]:
    """A run, and a digest of what it made, which is removed."""
    command = [sys.executable, "-m", "ispeed.stream.offline", *arguments, "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        if done.returncode == 2:
            raise UserError(said.removeprefix("isp-develop: error: "))
        raise PipelineError(f"isp-develop ended with code {done.returncode} and said: {said}")
    final = json.loads(done.stdout.splitlines()[-1])
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    shutil.rmtree(folder)
    return {name: final[name] for name in ("seconds", "rate", "died")}, digest.hexdigest()


def _report(
    machine: dict[str, Any],
    fmt: RawFormat,
    engine: str,
    frames: int,
    made: str,
    results: Sequence[_Way],
    out: Path | None,
) -> int:
    print(f"\n{'workers on':12s} {'one':>10s} {'two':>10s} {'gain':>8s} {'least':>8s} {'most':>8s}")
    missed = []
    for way in results:
        row = way.to_json()
        print(f"{way.name:12s} {way.rate(1):8.1f}/s {way.rate(2):8.1f}/s", end="")
        print("".join(f" {row['gain'][name]:7.2f}x" for name in ("median", "least", "most")))
        if way.name == "ray" and row["gain"]["median"] < GAIN:
            missed.append(f"two Ray workers are {row['gain']['median']:.2f} times as fast as one")
    print("bytes      the same in all runs")
    report = {
        "command": "develop",
        "ok": not missed,
        "missed_target": missed,
        "target": {"gain_on_ray": GAIN},
        "machine": machine,
        "frame": {"width": fmt.width, "height": fmt.height, "pixel_format": fmt.pixel_format},
        "engine": engine,
        "frames": frames,
        "format": made,
        "threads": 1,
        "identical_bytes": True,
        "ways": {way.name: way.to_json() for way in results},
    }
    write_report(report, out)
    print("target     " + ("reached" if not missed else "MISSED: " + "; ".join(missed)))
    return 1 if missed else 0
