"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .meters import Measures
from .run import Row, SetResult


class Column(NamedTuple):
    """How a measure is shown: its heading, and how many digits follow the point."""

    heading: str
    digits: int


COLUMNS = {
    "psnr": Column("PSNR dB", 2),
    "psnr_spread": Column("spread dB", 2),
    "ssim": Column("SSIM", 4),
    "ms_ssim": Column("MS-SSIM", 4),
    "lpips": Column("LPIPS", 4),
    "counted": Column("counted", 3),
    "noise_luma": Column("noise Y'", 2),
    "noise_chroma": Column("noise CbCr", 2),
    "ciede2000": Column("\N{GREEK CAPITAL LETTER DELTA}E2000", 2),
    "ciede2000_worst": Column("worst patch", 2),
    "mtf50": Column("MTF50 c/px", 3),
    "mtf50_upright": Column("upright", 3),
    "mtf50_level": Column("level", 3),
    "flicker_colour": Column("flicker of colour", 3),
    "flicker_edges": Column("of edges", 2),
    "flicker_pixels": Column("of pixels", 2),
}
"""Measures in the order of the table. Noise and flicker are standard deviations in codes of 8 bits."""

_PACKAGES = ("numpy", "numba", "onnx", "openvino", "onnxruntime", "opencv-python-headless", "opencv-python", "torch")


def headings(result: SetResult) -> list[str]:
    """Of the columns of a set's table."""
    phases = ["CFA"] if _phases(result) else []
    return ["engine", *phases, *(COLUMNS[name].heading for name in _measured(result))]


def lines(result: SetResult) -> list[list[str]]:
    """The rows of a set's table, as texts."""
    found, phases = _measured(result), _phases(result)
    return [[row.engine, *([row.phase] if phases else []), *_numbers(row.measures, found)] for row in result.rows]


def title(result: SetResult) -> str:
    """What a set is, and of how many frames."""
    settings, count = result.settings, max((len(row.frames) for row in result.rows), default=0)
    protocol = getattr(settings, "protocol", None)
    words = f"{settings.name}: {settings.kind}, {count} frame{'s' if count != 1 else ''}"
    return words + (f", protocol {protocol}" if protocol else "")


def notes(result: SetResult, most: int = 3) -> list[str]:
    """What did not go as it should, a line each; of each row only the first few."""
    said = list(result.skipped)
    for row in result.rows:
        where = " ".join(filter(None, (row.engine, row.phase)))
        said += [f"{where}: {note}" for note in row.notes[:most]]
        if len(row.notes) > most:
            said.append(f"{where}: and so {len(row.notes) - most} more")
    return said


def show(results: Sequence[SetResult]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a file has no width that rows must be folded to
    for result in results:
        table = Table(title=Text(title(result)), title_justify="left")
        for place, heading in enumerate(headings(result)):
            table.add_column(Text(heading), justify="left" if place == 0 else "right", overflow="fold")
        for line in lines(result):
            table.add_row(*map(Text, line))
        console.print(table)
        for note in notes(result):
            console.print(Text(note))


def to_json(result: SetResult) -> dict[str, Any]:
    """One set, in JSON values."""
    return {
        "name": result.settings.name,
        "settings": result.settings.model_dump(mode="json"),
        "rows": [_row(row) for row in result.rows],
        "skipped": result.skipped,
    }


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _row(row: Row) -> dict[str, Any]:
    frames = [{name: _finite(value) for name, value in frame.items()} for frame in row.frames]
    measures = {name: _finite(value) for name, value in row.measures.items()}
    return {"engine": row.engine, "cfa": row.phase or None, "mean": measures, "frames": frames, "notes": row.notes}


def _finite(value: Any) -> Any:
    """JSON has no infinity and nothing that is no number: the PSNR of equal pictures becomes a text."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "infinite" if math.isinf(value) else None


def _measured(result: SetResult) -> list[str]:
    found = {name for row in result.rows for name in row.measures}
    return [name for name in COLUMNS if name in found]


def _phases(result: SetResult) -> bool:
    return len({row.phase for row in result.rows}) > 1


def _numbers(measures: Measures, wanted: Sequence[str]) -> list[str]:
    values = [measures.get(name) for name in wanted]
    return ["" if v is None else f"{v:.{COLUMNS[n].digits}f}" for n, v in zip(wanted, values, strict=True)]


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
