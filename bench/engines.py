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

from ..engines import RawFormat, UserError, pack, unpack
from ..engines.camera_frames import snap
from ..engines.colour import checked_matrix
from ..engines.cuda.driver import gpu_or_none
from ..engines.quality import Matrix, Picture, classic_pictures, grey_world, psnr
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
        kind: "open" (as isp-stream opens it), "fp32" (OpenVINO in float32), "onnxruntime", "eager" (torch without
            CUDA graphs), or "bare" (a core without head and tail).
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
    if not engines and gpu_or_none() is not None:  # what isp-build made for this GPU, if it made something
        rows.append(Candidate("auto", "open", "auto"))
    for name in engines or names():
        core = name if name.endswith(".onnx") else str(zoo_path(name)) if name in names() else None
        model = Path(core).stem if core else name
        rows.append(Candidate(name, "open", name, model=model))
        if name.endswith(".pt2"):
            rows.append(Candidate(f"{name}, eager", "eager", name, model=model))
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
    colour_matrix: Sequence[float] | None = None,
) -> int:
    """Measures, prints a table, writes JSON and a plot, and returns 0; 1 when not one engine could run.

    Pictures are compared with the fp32 form of the same model, and with a reference: the classic engine's pictures of
    the same frames, with this colour matrix.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    print(f"frames     {fmt.width}x{fmt.height} {fmt.pixel_format} of camera {camera}, in turn, {repeats} rounds")
    rows = candidates(engines)
    matrix = None if colour_matrix is None else checked_matrix(colour_matrix)
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
        _compare_pictures(results, folder, _references(folder, fmt, gains, matrix))
    report = {
        "command": "engines",
        "machine": machine,
        "format": fmt.to_json(),
        "white_balance": gains,
        "colour_matrix": colour_matrix,
        "threads": threads,
        "repeats": repeats,
        "seconds": seconds,
        "engines": [result.to_json() for result in results],
    }
    _print(results)
    measured = any(result.runs for result in results)
    write_report({**report, "ok": measured}, out)
    if plot is not None and measured:
        from .engine_plot import draw

        draw(report, plot)
    return 0 if measured else 1


class _Result:
    """What the runs of one candidate gave, or why it did not run."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.runs: list[dict[str, Any]] = []
        self.why = ""
        self.psnr_db: float | None = None
        self.reference_psnr_db: float | None = None
        self.drop_db: float | None = None

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

    @property
    def engine(self) -> dict[str, Any]:
        """What it says of itself, once it has run."""
        return self.runs[0]["engine"]

    @property
    def is_bare(self) -> bool:
        """Whether it has no pictures."""
        return self.candidate.kind == "bare"

    @property
    def is_fp32(self) -> bool:
        """Whether its pictures are those of a core in float32 throughout; one in 8 bits stays so in its fp32 row."""
        return self.candidate.kind == "fp32" and self.engine["precision"] == "fp32"

    def median(self, *keys: str) -> float:
        """Over the runs, of the number under these keys."""
        return statistics.median(_at(run, keys) for run in self.runs)

    def spread(self, *keys: str) -> float:
        """Largest less smallest, over the median."""
        values = [_at(run, keys) for run in self.runs]
        return (max(values) - min(values)) / self.median(*keys)

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            **asdict(self.candidate),
            "spec": Path(self.candidate.spec).name,  # a figure travels without the folders of its machine
            "psnr_to_fp32_db": self.psnr_db,
            "psnr_to_reference_db": self.reference_psnr_db,
            "drop_from_fp32_db": self.drop_db,
        }
        if not self.runs:
            return {**values, "not_measured": self.why}
        return {
            **values,
            "engine": self.engine,
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


def _references(folder: Path, fmt: RawFormat, gains: Sequence[float], matrix: Matrix | None) -> list[Picture]:
    frames = np.load(folder / "frames.npy")
    return classic_pictures(list(frames), fmt, np.tile(np.array(gains, np.float32), (len(frames), 1)), matrix)


def _compare_pictures(results: Sequence[_Result], folder: Path, references: Sequence[Picture]) -> None:
    """PSNR of every row to an fp32 row of its model, and to the references, over all frames.

    A core in 8 bits, a plan and a torch program have no fp32 row of their own: theirs is that of the core with the same
    name, if it was measured too.
    """
    files = [(result, folder / f"{number}.npy") for number, result in enumerate(results)]
    developed = [(result, list(np.load(file))) for result, file in files if result.runs and not result.is_bare]
    full: dict[str, tuple[_Result, list[Picture]]] = {}
    for result, pictures in developed:
        result.reference_psnr_db = psnr(pictures, references)
        if result.is_fp32:
            full[result.candidate.model] = result, pictures
            full.setdefault(result.engine["name"], (result, pictures))
    for result, pictures in developed:
        names = (result.candidate.model, result.engine["name"])
        found = next((full[name] for name in names if name in full), None)
        if found is not None and not result.is_fp32:
            result.psnr_db = psnr(pictures, found[1])
            result.drop_db = psnr(found[1], references) - psnr(pictures, references)


def _print(results: Sequence[_Result]) -> None:
    print(f"\n{'engine':34s} {'runs on':24s} {'fps':>8s} {'spread':>7s} {'one: p50':>9s} {'p99 ms':>8s}", end="")
    print(f" {'MiB':>6s} {'dB to fp32':>11s} {'to reference':>13s} {'lost':>6s}")
    for result in results:
        if not result.runs:
            print(f"{result.candidate.label:34s} not measured: {result.why}")
            continue
        info = result.engine
        quality = (
            "" if number is None else f"{number:.{digits}f}"
            for number, digits in ((result.psnr_db, 1), (result.reference_psnr_db, 2), (result.drop_db, 3))
        )
        print(f"{result.candidate.label:34s} {info['backend'] + ' ' + info['precision']:24s}", end="")
        print(f" {result.median('best', 'fps'):8.1f} {result.spread('best', 'fps'):7.0%}", end="")
        print(f" {result.median('latency_ms', 'p50'):9.2f} {result.median('latency_ms', 'p99'):8.2f}", end="")
        print(" {:6.0f} {:>11s} {:>13s} {:>6s}".format(result.median("memory_mib"), *quality))
        if (on_gpu := result.runs[-1]["gpu"]) is not None:
            _print_gpu(on_gpu, result.runs[-1]["best"])


def _print_gpu(on_gpu: dict[str, Any], best: dict[str, Any]) -> None:
    busy = "" if best["gpu_busy_percent"] is None else f"{best['gpu_busy_percent']:.0f} % busy, "
    print(f"    GPU: {busy}{on_gpu['memory_mib']:.0f} MiB in use by all programs, batch {best['batch']},", end="")
    print(f" {best['lanes']} lanes, p99 in flight {best['latency_ms']['p99']:.2f} ms,", end="")
    print(f" {on_gpu['host_copies']} host copies, {'CUDA graphs' if on_gpu['captured'] else 'layer by layer'}")
