"""The highest rate that the pipeline holds without losing a frame: doubling until it fails, then bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .machine import describe, in_words
from .pipeline import PipelineError, Settings
from .rate import measure, missed_target, write_report

LOWEST_FPS = 50.0
HIGHEST_FPS = 100_000.0
RESOLUTION = 0.03


def highest(holds: Callable[[float], bool], lowest: float = LOWEST_FPS, most: float = HIGHEST_FPS) -> float | None:
    """The highest rate (Hz) for which `holds` was true, within 3 % below one for which it was not.

    None if not even `lowest` holds. `holds` is asked at most a score of times.
    """
    if not holds(lowest):
        return None
    low, high = lowest, lowest * 2
    while high <= most and holds(high):
        low, high = high, high * 2
    high = min(high, most)
    while high / low > 1 + RESOLUTION:
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def run_max(settings: Settings, seconds: float, confirm_s: float, warm_up_s: float, out: Path | None) -> int:
    """Searches, confirms the rate found in a longer run (lowering it by 3 % while it fails), prints, writes `out`.

    Returns 0, or 1 when no rate holds.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    tries: list[dict[str, Any]] = []

    def holds(fps: float, span_s: float = seconds) -> bool:
        # Another program on the machine can only make a try fail, never hold: so a second one may speak for the rate.
        return attempt(fps, span_s) or attempt(fps, span_s)

    def attempt(fps: float, span_s: float) -> bool:
        try:
            run = measure(replace(settings, fps=round(fps, 1)), span_s, warm_up_s=warm_up_s)
        except PipelineError as error:
            why = [str(error)]
        else:
            why = missed_target(run, fps)
        tries.append({"fps": round(fps, 1), "seconds": span_s, "missed_target": why})
        print(f"  {fps:9.1f} fps for {span_s:g} s: {'held' if not why else '; '.join(why)}", flush=True)
        return not why

    found = highest(holds)
    for _ in range(10):
        if found is None or holds(found, confirm_s):
            break
        found = found * (1 - RESOLUTION)
    else:
        found = None
    size = f"{settings.width or 'default'}x{settings.height or 'default'} {settings.pixel_format or 'default format'}"
    print(f"\n{size}: " + (f"holds {found:.0f} fps without loss" if found else "holds no rate"))
    report = {"command": "max", "ok": found is not None, "held_fps": found, "machine": machine, "tries": tries}
    write_report({**report, "settings": asdict(settings)}, out)
    return 0 if found is not None else 1
