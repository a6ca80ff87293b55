"""`isp-bench compare`: ours against what people use today, in turn in one run, as ratios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .engine_compare import compare_engine
from .machine import describe, in_words
from .rate import write_report
from .transport import compare_subscribers, compare_transport

ENGINE_RATIO = 2.0
ENGINE_PSNR_DB = 50.0
ENGINE_MAX_CODES = 2
TRANSPORT_RATIO = 3.0
GROWTH_PERCENT = 10.0


def run_compare(
    width: int,
    height: int,
    pixel_format: str,
    repeats: int,
    seconds: float,
    only: Sequence[str] | None,
    out: Path | None,
) -> int:
    """Runs the parts (all, or `only` some), prints, writes `out`, and returns 0 when every target was reached, else 1.

    Raises UserError when a package to compare with is not installed.
    """
    require("cv2", "imagezmq")
    machine = describe()
    print(f"machine    {in_words(machine)}")
    parts = only or ("engine", "transport", "subscribers")
    report: dict[str, Any] = {"command": "compare", "machine": machine}
    why: list[str] = []
    if "engine" in parts:
        report["engine"] = compare_engine(width, height, pixel_format, repeats=repeats, seconds=seconds)
        why += _judge_engine(report["engine"])
    if "transport" in parts:
        report["transport"] = compare_transport(width, height, repeats, seconds)
        why += _judge_transport(report["transport"])
    if "subscribers" in parts:
        report["subscribers"] = compare_subscribers(width, height, repeats=repeats, seconds=seconds)
        why += _judge_subscribers(report["subscribers"])
    write_report({**report, "ok": not why, "missed_target": why}, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0


def require(*modules: str) -> None:
    """Raises UserError for a module that cannot be imported."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"{module} is not installed; install it with: pip install 'ispeed[bench]'")


def _judge_engine(result: dict[str, Any]) -> list[str]:
    print(
        f"\nengine     {result['width']}x{result['height']} {result['pixel_format']}, {result['threads']} threads,",
        end="",
    )
    print(f" median of {result['repeats']} runs of {result['seconds']:g} s")
    for side in ("classic", "opencv"):
        print(f"  {side:13s} {result[side]['median_fps']:9.1f} fps   spread {result[side]['spread']:.0%}")
    deviation = result["against_reference"]
    print(f"  ratio {result['ratio']:.2f} (target {ENGINE_RATIO:g}); against the NumPy reference ", end="")
    print(f"{deviation['psnr_db']:.1f} dB, at most {deviation['max_codes']:g} codes off")
    why = []
    if result["ratio"] < ENGINE_RATIO:
        why.append(f"the engine is {result['ratio']:.2f} times as fast as OpenCV, not {ENGINE_RATIO:g}")
    if deviation["psnr_db"] < ENGINE_PSNR_DB or deviation["max_codes"] > ENGINE_MAX_CODES:
        why.append("the engine is too far from its NumPy reference")
    return why


def _judge_transport(result: dict[str, Any]) -> list[str]:
    print(f"\ntransport  {result['width']}x{result['height']} RGB8, every frame written fresh and read whole,", end="")
    print(f" median of {result['repeats']} runs of {result['seconds']:g} s")
    for name, fps in result["median_fps"].items():
        print(f"  {name:13s} {fps:9.1f} fps   {result['fps'][name]}")
    print(f"  ratio {result['ratio']:.2f} to the faster way of imagezmq (target {TRANSPORT_RATIO:g})")
    if result["ratio"] < TRANSPORT_RATIO:
        return [f"the transport is {result['ratio']:.2f} times as fast as imagezmq, not {TRANSPORT_RATIO:g}"]
    return []


def _judge_subscribers(result: dict[str, Any]) -> list[str]:
    print(f"\npublisher's CPU per frame at {result['fps']:g} fps, median of {result['repeats']}")
    for label, name in (("with_frame", "writing the frame, and publishing"), ("descriptors_only", "publishing alone")):
        part = result[label]
        print(f"  {name:34s} {part['median_us']['1']:8.1f} us with 1 subscriber, ", end="")
        print(f"{part['median_us']['3']:8.1f} us with 3: {part['growth_percent']:+.1f} %")
    growth = result["with_frame"]["growth_percent"]
    if growth >= GROWTH_PERCENT:
        return [f"the publisher's CPU grows by {growth:.1f} % with three subscribers, limit {GROWTH_PERCENT:g} %"]
    return []
