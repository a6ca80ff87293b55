"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .meters import Measures
from .run import Row, SetResult


class Column(NamedTuple):
    """How a measure is shown: its heading, how many digits follow the point, and what it means."""

    heading: str
    digits: int
    meaning: str


_FLAT = "where the reference is flat: standard deviation in codes of 8 bits; less is better"
_STILL = (
    "from frame to frame of a still scene, of equal light where the light changes: standard deviation in codes of 8 "
    "bits; less is better"
)
_LOOKS = "how good the picture looks to a network that is shown no reference"

COLUMNS = {
    "psnr": Column("PSNR dB", 2, "how close pictures are to their references; more is better"),
    "psnr_spread": Column("spread dB", 2, "PSNR of the best filter array less that of the worst; less is better"),
    "ssim": Column("SSIM", 4, "how alike the structure of picture and reference is; 1 is best"),
    "ms_ssim": Column("MS-SSIM", 4, "the same on several scales; 1 is best"),
    "lpips": Column("LPIPS", 4, "distance to the reference as a network sees it; 0 is best"),
    "tmqi": Column("TMQI", 4, "how well the picture shows the range of the scene's light, and how natural; 1 is best"),
    "tmqi_fidelity": Column("TMQI S", 4, "the part of it that compares the structure of picture and light; 1 is best"),
    "tmqi_naturalness": Column(
        "TMQI N", 4, "the part of it that says how usual brightness and contrast are; 1 is best"
    ),
    "histogram": Column(
        "histogram", 4, "distance of the colours to those of the reference, wherever they are (Hellinger); 0 is best"
    ),
    "colours": Column(
        "colours",
        4,
        "distance of the colours to those of the photographs, wherever they are (Hellinger, of all pictures together); "
        "0 is best, which photographs of anything reach: see structure",
    ),
    "structure": Column(
        "structure",
        4,
        "how alike the lightness of the picture and of the classic engine's is (SSIM of L*, mean over the pictures); 1 "
        "is best, which the classic engine has itself",
    ),
    "nima": Column("NIMA", 3, f"{_LOOKS}: 1 to 10, more is better"),
    "musiq": Column("MUSIQ", 2, f"{_LOOKS}: about 0 to 100, more is better"),
    "liqe": Column("LIQE", 3, f"{_LOOKS}: 1 to 5, more is better"),
    "raw_psnr": Column("raw PSNR dB", 2, "how close frames made of the camera's pictures are to its own"),
    "cycle_psnr": Column("cycle PSNR dB", 2, "the same of frames that were made a picture of 8 bits and then a frame"),
    "counted": Column("counted", 3, "part of the picture whose reference can be relied on, and which is scored"),
    "noise_luma": Column("noise Y'", 2, f"noise of brightness {_FLAT}"),
    "noise_chroma": Column("noise CbCr", 2, f"noise of colour {_FLAT}"),
    "ciede2000": Column(
        "\N{GREEK CAPITAL LETTER DELTA}E2000",
        2,
        "how far colours are off (CIEDE2000), mean over the patches; 0 is best",
    ),
    "ciede2000_worst": Column("worst patch", 2, "the same of the patch that is farthest off"),
    "mtf50": Column(
        "MTF50 c/px",
        3,
        "sharpness: the frequency, in cycles per pixel, at which half of an edge's contrast is left; more is sharper, "
        "and more than the reference has is sharpened",
    ),
    "mtf50_upright": Column("upright", 3, "MTF50 of the upright edge"),
    "mtf50_level": Column("level", 3, "MTF50 of the level edge"),
    "flicker_colour": Column("flicker of colour", 3, f"change of the mean colour {_STILL}"),
    "flicker_edges": Column("of edges", 2, f"change of the steps across edges {_STILL}"),
    "flicker_pixels": Column("of pixels", 2, f"change of all values {_STILL}"),
    "flicker_jump": Column(
        "jump",
        2,
        "the largest jump of the mean colour as the light changes smoothly, in codes of 8 bits; less is better",
    ),
}
"""Measures in the order of the table."""

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
    """What a set is, of how many frames, and how they are scored."""
    settings, count = result.settings, max((len(row.frames) for row in result.rows), default=0)
    protocol = getattr(settings, "protocol", None)
    kind = "" if settings.name == settings.kind else f"{settings.kind}, "
    words = f"{settings.name}: {kind}{count} frame{'s' if count != 1 else ''}"
    words += f", protocol {protocol}" if protocol else ""
    return words + (f", against {result.photographs.about}" if result.photographs else "")


def about(result: SetResult) -> str:
    """What kind of set it is, in a sentence."""
    text = _help(result, "kind")
    return f"{text[:1].upper()}{text[1:]}."


def groups(result: SetResult) -> list[int]:
    """Places of the rows with which another filter array begins, after the first."""
    pairs = enumerate(itertools.pairwise(row.phase for row in result.rows), 1)
    return [place for place, (before, here) in pairs if here != before]


def meanings(results: Sequence[SetResult]) -> dict[str, str]:
    """What the headings of the tables mean, by heading, in their order."""
    said = {"CFA": "filter array of the raw frames; all is the mean over them"} if any(map(_phases, results)) else {}
    found = {name for result in results for name in _measured(result)}
    said |= {column.heading: column.meaning for name, column in COLUMNS.items() if name in found}
    scored = next((each for each in results if hasattr(each.settings, "protocol")), None)
    return said if scored is None else said | {"protocol": _help(scored, "protocol")}


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
    photographs = result.photographs
    return {
        "name": result.settings.name,
        "settings": result.settings.model_dump(mode="json"),
        "photographs": photographs and {"about": photographs.about, "manifest": photographs.manifest},
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


def _help(result: SetResult, name: str) -> str:
    return " ".join((type(result.settings).model_fields[name].description or "").split())


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
