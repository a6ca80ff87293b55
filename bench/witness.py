"""The stall witness: did the machine itself stand still?

One thread per core, pinned, sleeps 1 ms and records how much later than asked it woke up. A frame lost while the
machine withheld a core for longer than the ring can bridge says nothing about the pipeline; the witness tells those
losses from the others, and both are printed.

`python -m ispeed.bench.witness` records until its standard input closes, then prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .helper import HelperProcess

SLEEP_NS = 1_000_000
RECORDED_NS = 2_000_000  # shorter oversleeps are only counted
MOST_STALLS = 20_000


@dataclass(frozen=True)
class Stall:
    """A core that did not run our thread from `start_ns`, when it was due, to `end_ns` (CLOCK_MONOTONIC)."""

    start_ns: int
    end_ns: int
    cpu: int

    @property
    def length_ns(self) -> int:
        """How long it lasted."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class LossEvent:
    """Frames whose loss was counted at some time between two stamps (CLOCK_MONOTONIC), by reason."""

    from_ns: int
    to_ns: int
    lost: dict[str, int]

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.lost.values())


def windows(stalls: Iterable[Stall], slack_ns: float) -> list[tuple[int, int]]:
    """Spans in which a stall may have cost frames: each stall longer than half the ring's slack, and the slack after
    it, because what piled up in the ring meanwhile is lost only when the ring is full. Sorted and merged."""
    return _merge((s.start_ns, s.end_ns + round(slack_ns)) for s in stalls if s.length_ns > slack_ns / 2)


def split_losses(events: Sequence[LossEvent], spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(frames lost inside the spans, frames lost outside). An event is inside where it overlaps a span at all."""
    inside = sum(e.count for e in events if any(e.from_ns <= end and start <= e.to_ns for start, end in spans))
    return inside, sum(e.count for e in events) - inside


def summarise(stalls: Sequence[Stall], slack_ms: float | None, start_ns: int, end_ns: int) -> dict[str, Any]:
    """What the witness saw between two stamps: the longest stall and when, and how many were over half the slack."""
    seen = [stall for stall in stalls if stall.end_ns >= start_ns and stall.start_ns <= end_ns]
    worst = max(seen, key=lambda stall: stall.length_ns, default=None)
    half = (slack_ms or 0) * 0.5e6
    long = [stall for stall in seen if slack_ms and stall.length_ns > half]
    return {
        "recorded_over_ms": RECORDED_NS * 1e-6,
        "stalls": len(seen),
        "stalled_ms": round(_covered_ns(seen) * 1e-6, 1),
        "max_ms": round(worst.length_ns * 1e-6, 3) if worst else 0.0,
        "max_at_s": round((worst.start_ns - start_ns) * 1e-9, 3) if worst else None,
        "max_cpu": worst.cpu if worst else None,
        "half_slack_ms": round(half * 1e-6, 1) if slack_ms else None,
        "over_half_slack": len(long),
        "over_half_slack_at_s": [round((stall.start_ns - start_ns) * 1e-9, 3) for stall in long[:100]],
    }


def _covered_ns(stalls: Sequence[Stall]) -> int:
    """Time in which at least one core stood still."""
    return sum(end - start for start, end in _merge((stall.start_ns, stall.end_ns) for stall in stalls))


def _merge(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def start_witness() -> HelperProcess:
    """The witness beside a benchmark; `stalls_of` ends it."""
    return HelperProcess("witness")


def stalls_of(witness: HelperProcess) -> list[Stall]:
    """Ends a witness; every stall since its start, oldest first."""
    return [Stall(**stall) for stall in witness.finish()["stalls"]]


class _Recorder:
    """The threads inside the witness process."""

    def __init__(self, cpus: Iterable[int]) -> None:
        self.stalls: list[Stall] = []
        self._running = True
        self._threads = [threading.Thread(target=self._watch, args=(cpu,)) for cpu in cpus]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Stall]:
        self._running = False
        for thread in self._threads:
            thread.join()
        return sorted(self.stalls, key=lambda stall: stall.start_ns)

    def _watch(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of the calling thread alone
        while self._running:
            due = time.monotonic_ns() + SLEEP_NS
            time.sleep(SLEEP_NS * 1e-9)
            now = time.monotonic_ns()
            if now - due > RECORDED_NS and len(self.stalls) < MOST_STALLS:
                self.stalls.append(Stall(due, now, cpu))


def main() -> int:
    """Records until standard input closes, then prints the stalls as JSON."""
    recorder = _Recorder(os.sched_getaffinity(0))
    try:
        sys.stdin.read()
    finally:
        stalls = recorder.stop()
    json.dump({"stalls": [asdict(stall) for stall in stalls]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
