"""A bar chart of `isp-bench engines`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engines.errors import UserError


def require_plot(path: Path) -> None:
    """Raises UserError if `draw` could not draw into that file: no PNG, or matplotlib is missing."""
    if path.suffix.lower() != ".png":
        raise UserError(f"the plot is a PNG file: let {path} end in .png")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError("matplotlib is not installed; install it with: pip install 'ispeed[bench]'") from error


def draw(report: dict[str, Any], path: Path) -> None:
    """Frames per second of every engine that was measured, one or more, with the spread of the runs, as a PNG.

    Raises:
        UserError: See `require_plot`, or the file cannot be written.
    """
    require_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in report["engines"] if "fps" in row][::-1]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates = [row["fps"] for row in rows]
    labels = [f"{row['label']}  ({row['engine']['backend']} {row['engine']['precision']})" for row in rows]
    bars = axes.barh(labels, rates, xerr=[row["fps"] * row["fps_spread"] / 2 for row in rows], color="#3b6ea5")
    axes.bar_label(
        bars,
        [f"{rate:.0f} fps, {row['latency_ms']['p50']:.1f} ms" for rate, row in zip(rates, rows, strict=True)],
        padding=6,
    )
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 2, max(rates) * 8)
    axes.set_xlabel("frames per second at the best batch (label: also the latency of one frame alone)")
    fmt, machine = report["format"], report["machine"]
    axes.set_title(
        f"{fmt['width']}x{fmt['height']} {fmt['pixel_format']}, {machine['cpu']}, {machine['cores']} cores", fontsize=10
    )
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"cannot write the plot {path}: {error.strerror}") from error
