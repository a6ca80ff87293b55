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
from ..engines.engine import Engine, Ticket
from ..engines.errors import UserError
from ..engines.slots import Slots


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job: {kind, spec, mode, threads, format, frames, pictures, white_balance, seconds}.

    Returns frames per second one at a time and at the best batch, latency one at a time in ms, and memory in MiB. The
    developed frames are written to `pictures` (uint8 [N, H, W, 3], .npy).
    """
    fmt = RawFormat.from_json(job["format"])
    frames = np.load(job["frames"], mmap_mode="r")
    raw, srgb = Slots(len(frames), fmt.payload_size), Slots(len(frames), fmt.width * fmt.height * 3)
    for k, frame in enumerate(frames):
        raw.slot(k)[:] = frame
        srgb.slot(k)[:] = 0
    before_mib = _resident_mib()
    engine = _open(job)
    try:
        start = time.perf_counter()
        engine.prepare(fmt, 1, raw, srgb)
        opened_s = time.perf_counter() - start
        turns = _Turns(engine, raw.slots)
        one, times = turns.one_at_a_time(job["seconds"])
        np.save(job["pictures"], np.stack([srgb.slot(k).reshape(fmt.height, fmt.width, 3) for k in range(raw.slots)]))
        best = {"batch": 1, "lanes": engine.info.lanes, "fps": turns.saturated(1, job["seconds"])}
        batch = 2
        while batch <= engine.info.max_batch:
            engine.prepare(fmt, batch, raw, srgb)
            fps = _Turns(engine, raw.slots).saturated(batch, job["seconds"])
            if fps > best["fps"]:
                best = {"batch": batch, "lanes": engine.info.lanes, "fps": fps}
            batch *= 2
        info = asdict(engine.info)
        copies = getattr(engine, "host_copies", None)
    finally:
        engine.close()
    return {
        "engine": {key: info[key] for key in ("name", "backend", "precision", "weights_sha256")},
        "prepare_s": opened_s,
        "fps_one_at_a_time": one,
        "latency_ms": {f"p{q:g}": float(np.percentile(times, q)) * 1e3 for q in (50, 99)},
        "best": best,
        "memory_mib": _resident_mib() - before_mib,
        "host_copies": copies,
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

    def saturated(self, batch: int, seconds: float) -> float:
        """Frames per second with every lane in use, as the develop stage drives it when frames wait."""
        flight: deque[Ticket] = deque()
        lanes = max(1, min(self._engine.info.lanes, self._slots // batch))
        for _ in range(2 * lanes):  # warm
            self.hand_in(batch).wait()
        start, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or not done:
            while len(flight) < lanes:
                flight.append(self.hand_in(batch))
            flight.popleft().wait()
            done += batch
        while flight:
            flight.popleft().wait()
        return done / elapsed


def _open(job: dict[str, Any]) -> Engine:
    """The engine of a job. `kind` "open" is what `isp-stream --engine` would open."""
    options = {"threads": job["threads"], "white_balance": tuple(job["white_balance"])}
    if job["kind"] == "open":
        return open_engine(job["spec"], mode=job["mode"], **options)
    if job["kind"] == "bare":
        from .bare_core import BareCore

        return BareCore(Path(job["spec"]), job["threads"], job["mode"])
    if job["kind"] == "onnxruntime":
        from ..engines.cpu_onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(Path(job["spec"]), **options)
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
