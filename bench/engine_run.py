"""One engine, measured in a process of its own: `python -m ispeed.bench.engine_run JOB.json`.

A process of its own, so that one engine's threads, memory and faults are not another's. Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import RawFormat, open_engine
from ..engines.cuda.engine import PipelineEngine
from ..engines.engine import Engine, Ticket
from ..engines.errors import UserError
from ..engines.slots import Slots
from .gpu_use import GpuUse

SLOTS = 32
"""Of each ring: enough for three lanes of eight frames."""

GPU_SUFFIXES = (".plan", ".engine", ".pt2")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job: {kind, spec, mode, threads, format, frames, pictures, white_balance, seconds}.

    Returns frames per second one at a time and at the best batch, latency one at a time in ms, and memory in MiB. The
    developed frames are written to `pictures` (uint8 [N, H, W, 3], .npy).
    """
    fmt = RawFormat.from_json(job["format"])
    frames = np.load(job["frames"], mmap_mode="r")
    raw, srgb = Slots(SLOTS, fmt.payload_size), Slots(SLOTS, fmt.width * fmt.height * 3)
    for k in range(SLOTS):
        raw.slot(k)[:] = frames[k % len(frames)]
        srgb.slot(k)[:] = 0
    before_mib = _resident_mib()
    engine = _open(job)
    try:
        start = time.perf_counter()
        engine.prepare(fmt, 1, raw, srgb)
        opened_s = time.perf_counter() - start
        turns = _Turns(engine, raw.slots)
        one, times = turns.one_at_a_time(job["seconds"])
        shown = [srgb.slot(k).reshape(fmt.height, fmt.width, 3) for k in range(len(frames))]
        np.save(job["pictures"], np.stack(shown))
        best = turns.saturated(1, job["seconds"])
        batch = 2
        while batch <= engine.info.max_batch:
            engine.prepare(fmt, batch, raw, srgb)
            result = _Turns(engine, raw.slots).saturated(batch, job["seconds"])
            best = max(best, result, key=lambda one: one["fps"])
            batch *= 2
        info = asdict(engine.info)
        on_gpu = _on_gpu(engine) if isinstance(engine, PipelineEngine) else None
    finally:
        engine.close()
    return {
        "engine": {key: info[key] for key in ("name", "backend", "precision", "weights_sha256")},
        "prepare_s": opened_s,
        "fps_one_at_a_time": one,
        "latency_ms": {f"p{q:g}": float(np.percentile(times, q)) * 1e3 for q in (50, 99)},
        "best": best,
        "memory_mib": _resident_mib() - before_mib,
        "gpu": on_gpu,
    }


def _on_gpu(engine: PipelineEngine) -> dict[str, Any]:
    """What only engines on a GPU have: memory of all programs on it, in MiB, and whether frames took a way round."""
    free, total = engine.device_memory()
    return {
        "memory_mib": (total - free) / 2**20,
        "host_copies": engine.host_copies,
        "captured": engine.captured,
    }


class _Turns:
    """Hands the same frames in again and again."""

    def __init__(self, engine: Engine, slots: int) -> None:
        self._engine, self._slots = engine, slots
        self._params = np.full((engine.info.max_batch, len(engine.info.inputs)), np.nan, np.float32)
        self._next = 0

    def hand_in(self, batch: int) -> Ticket:
        slots = [(self._next + i) % self._slots for i in range(batch)]
        self._next += batch
        return self._engine.develop(slots, slots, self._params[:batch])

    def one_at_a_time(self, seconds: float) -> tuple[float, npt.NDArray[np.float64]]:
        """Frames per second, and each frame's seconds from handing in to done; every slot at least once."""
        for _ in range(self._slots):
            self.hand_in(1).wait()
        times: list[float] = []
        start = last = time.perf_counter()
        while last - start < seconds or len(times) < 3:
            self.hand_in(1).wait()
            now = time.perf_counter()
            times.append(now - last)
            last = now
        return len(times) / (last - start), np.array(times)

    def saturated(self, batch: int, seconds: float) -> dict[str, Any]:
        """Frames per second with every lane in use, as the develop stage drives it when frames wait.

        Beside it how long batches took then, in ms, and how busy the GPU was, in percent (None without one).
        """
        flight: deque[tuple[Ticket, float]] = deque()
        lanes = max(1, min(self._engine.info.lanes, self._slots // batch))
        for _ in range(2 * lanes):  # warm
            self.hand_in(batch).wait()
        times: list[float] = []
        with GpuUse(isinstance(self._engine, PipelineEngine)) as use:
            start = last = time.perf_counter()
            while last - start < seconds or not times:
                while len(flight) < lanes:
                    flight.append((self.hand_in(batch), time.perf_counter()))
                ticket, handed_in = flight.popleft()
                ticket.wait()
                last = time.perf_counter()
                times.append(last - handed_in)
        for ticket, _ in flight:
            ticket.wait()
        return {
            "batch": batch,
            "lanes": lanes,
            "fps": batch * len(times) / (last - start),
            "latency_ms": {f"p{q:g}": float(np.percentile(times, q)) * 1e3 for q in (50, 99)},
            "gpu_busy_percent": use.percent,
        }


def _open(job: dict[str, Any]) -> Engine:
    """The engine of a job. `kind` "open" is what `isp-stream --engine` would open."""
    options = {"threads": job["threads"], "white_balance": tuple(job["white_balance"])}
    if job["kind"] == "open":
        if Path(job["spec"]).suffix.lower() in GPU_SUFFIXES or job["spec"] == "auto":  # which has no use for threads
            options["threads"] = None
        return open_engine(job["spec"], mode=job["mode"], raw_format=RawFormat.from_json(job["format"]), **options)
    if job["kind"] == "bare":
        from .bare_core import BareCore

        return BareCore(Path(job["spec"]), job["threads"], job["mode"])
    if job["kind"] == "onnxruntime":
        from ..engines.cpu_onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(Path(job["spec"]), **options)
    if job["kind"] == "eager":
        from ..engines.torch_gpu import TorchEngine

        return TorchEngine(Path(job["spec"]), mode=job["mode"], capture=False, white_balance=options["white_balance"])
    from ..engines.cpu import CpuEngine

    return CpuEngine(Path(job["spec"]), mode=job["mode"], precision="fp32", **options)


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str]) -> int:
    """Measures the job in the file named, prints the result or {why}, and returns 0."""
    job = json.loads(Path(arguments[0]).read_text())
    try:
        print(json.dumps(measure(job)), flush=True)
    except UserError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
