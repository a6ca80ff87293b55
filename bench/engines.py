"""`isp-bench engines`: every engine that this machine can run, on the same frames, in turn, in one run."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import RawFormat, UserError, pack, unpack
from ..engines.camera_frames import snap
from ..engines.quality import grey_world, psnr
from ..engines.raw_files import load_raw
from ..engines.zoo import names, zoo_path
from .helper import HelperProcess
from .machine import describe, in_words
from .rate import write_report

FRAMES = 16


@dataclass(frozen=True)
class Candidate:
    """One row: how to open an engine, and what to call it.

    Attributes:
        label: Its name in the table.
        kind: "open" (as isp-stream opens it), "fp32" (OpenVINO in float32), "onnxruntime", or "bare" (a core without
            head and tail).
        spec: What isp-stream's --engine takes, or the path of a core.
        mode: "throughput" or "latency".
        model: Rows of the same model are compared with its fp32 row.
    """

    label: str
    kind: str
    spec: str
    mode: str = "throughput"
    model: str = ""


def candidates(engines: Sequence[str]) -> list[Candidate]:
    """The rows for the engines named, or for all that ship where none is named."""
    rows = [Candidate("classic", "open", "classic")] if not engines else []
    for name in engines or names():
        core = name if name.endswith(".onnx") else str(zoo_path(name)) if name in names() else None
        model = Path(core).stem if core else name
        rows.append(Candidate(name, "open", name, model=model))
        if core is None:
            continue
        rows += [
            Candidate(f"{name}, latency mode", "open", name, "latency", model),
            Candidate(f"{name}, OpenVINO fp32", "fp32", core, model=model),
            Candidate(f"{name}, ONNX Runtime fp32", "onnxruntime", core, model=model),
            Candidate(f"{name}, bare core", "bare", core, model=model),
        ]
    return rows


def run_engines(
    engines: Sequence[str],
    fmt: RawFormat,
    camera: str,
    threads: int | None,
    repeats: int,
    seconds: float,
    out: Path | None,
    plot: Path | None,
) -> int:
    """Measures, prints a table, writes JSON and a plot, and returns 0; 1 when not one engine could run."""
    machine = describe()
    print(f"machine    {in_words(machine)}")
    print(f"frames     {fmt.width}x{fmt.height} {fmt.pixel_format} of camera {camera}, in turn, {repeats} rounds")
    rows = candidates(engines)
    with tempfile.TemporaryDirectory(prefix="ispeed-") as name:
        folder = Path(name)
        fmt = _snap(folder, fmt, camera)
        gains = _gains(folder / "frames.npy", fmt)
        results = [_Result(row) for row in rows]
        for _ in range(repeats):
            for number, result in enumerate(results):
                result.measure(folder / f"{number}.npy", folder, fmt, gains, threads, seconds)
                if engines and result.why and result.candidate.kind == "open":
                    raise UserError(result.why)
        _compare_pictures(results, folder)
    report = {
        "command": "engines",
        "machine": machine,
        "format": fmt.to_json(),
        "threads": threads,
        "repeats": repeats,
        "seconds": seconds,
        "engines": [result.to_json() for result in results],
    }
    _print(results)
    if plot is not None:
        from .engine_plot import draw

        draw(report, plot)
    measured = any(result.runs for result in results)
    write_report({**report, "ok": measured}, out)
    return 0 if measured else 1


class _Result:
    """What the runs of one candidate gave, or why it did not run."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.runs: list[dict[str, Any]] = []
        self.why = ""
        self.psnr_db: float | None = None

    def measure(
        self,
        pictures: Path,
        folder: Path,
        fmt: RawFormat,
        gains: Sequence[float],
        threads: int | None,
        seconds: float,
    ) -> None:
        if self.why:
            return
        job = folder / "job.json"
        values = {
            **asdict(self.candidate),
            "format": fmt.to_json(),
            "frames": str(folder / "frames.npy"),
            "pictures": str(pictures),
            "white_balance": list(gains),
            "threads": threads,
            "seconds": seconds,
        }
        job.write_text(json.dumps(values))
        with HelperProcess("engine_run", str(job)) as process:
            answer = process.read()
        if "refused" in answer:
            self.why = answer["refused"]
        else:
            self.runs.append(answer)

    def median(self, *keys: str) -> float:
        """Over the runs, of the number under these keys."""
        return statistics.median(_at(run, keys) for run in self.runs)

    def spread(self, *keys: str) -> float:
        """Largest less smallest, over the median."""
        values = [_at(run, keys) for run in self.runs]
        return (max(values) - min(values)) / self.median(*keys)

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {**asdict(self.candidate), "psnr_to_fp32_db": self.psnr_db}
        if not self.runs:
            return {**values, "not_measured": self.why}
        return {
            **values,
            "engine": self.runs[0]["engine"],
            "fps": self.median("best", "fps"),
            "fps_spread": self.spread("best", "fps"),
            "fps_one_at_a_time": self.median("fps_one_at_a_time"),
            "latency_ms": {q: self.median("latency_ms", q) for q in ("p50", "p99")},
            "memory_mib": self.median("memory_mib"),
            "runs": self.runs,
        }


def _at(run: dict[str, Any], keys: Sequence[str]) -> float:
    value: Any = run
    for key in keys:
        value = value[key]
    return value


def _snap(folder: Path, fmt: RawFormat, camera: str) -> RawFormat:
    """Raw frames of the camera as `frames.npy`: uint8 [FRAMES, payload]. Returns their format with its levels."""
    file = folder / "snapped.npy"
    settings = {"width": fmt.width, "height": fmt.height, "pixel-format": fmt.pixel_format}
    full = snap(file, FRAMES, camera, settings)
    np.save(folder / "frames.npy", np.stack([pack(samples, full) for samples in load_raw(str(file)).samples]))
    return full


def _gains(frames: Path, fmt: RawFormat) -> list[float]:
    """White balance of the first frame, which every engine is then given."""
    return grey_world(unpack(np.load(frames, mmap_mode="r")[0], fmt), fmt).tolist()


def _compare_pictures(results: Sequence[_Result], folder: Path) -> None:
    """PSNR of every row to the fp32 row of its model, over all frames."""
    reference: dict[str, npt.NDArray[np.uint8]] = {}
    for number, result in enumerate(results):
        if result.candidate.kind == "fp32" and result.runs:
            reference[result.candidate.model] = np.load(folder / f"{number}.npy")
    for number, result in enumerate(results):
        truth = reference.get(result.candidate.model)
        if truth is None or not result.runs or result.candidate.kind in ("bare", "fp32"):
            continue
        result.psnr_db = psnr(list(np.load(folder / f"{number}.npy")), list(truth))


def _print(results: Sequence[_Result]) -> None:
    print(f"\n{'engine':34s} {'runs on':24s} {'fps':>8s} {'spread':>7s} {'one: p50':>9s} {'p99 ms':>8s}", end="")
    print(f" {'MiB':>6s} {'dB to fp32':>11s}")
    for result in results:
        if not result.runs:
            print(f"{result.candidate.label:34s} not measured: {result.why}")
            continue
        info = result.runs[0]["engine"]
        psnr = "" if result.psnr_db is None else f"{result.psnr_db:.1f}"
        print(f"{result.candidate.label:34s} {info['backend'] + ' ' + info['precision']:24s}", end="")
        print(f" {result.median('best', 'fps'):8.1f} {result.spread('best', 'fps'):7.0%}", end="")
        print(f" {result.median('latency_ms', 'p50'):9.2f} {result.median('latency_ms', 'p99'):8.2f}", end="")
        print(f" {result.median('memory_mib'):6.0f} {psnr:>11s}")
