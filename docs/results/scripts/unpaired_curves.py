"""How training without pairs goes: likeness, its two parts, and the judges, of several runs, into one picture.

python docs/results/scripts/unpaired_curves.py unpaired-curves.png runs/unpaired-experiment/seed-1 .../seed-2 .../seed-3
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANELS = {
    "distance of colours to the photographs": ("colours",),
    "structure: SSIM of lightness": ("structure",),
    "judge of colour, log 2 where it tells nothing": ("judge_colour",),
    "judges of texture": ("judge_texture", "judge_texture_deep"),
    "chroma that is no stretch": ("chroma",),
    "mean squared change": ("mse",),
}
"""What is drawn, and the names of metrics.jsonl in it."""


def main(output: Path, runs: list[Path]) -> None:
    """Draws one line for each run."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()
    for number, run in enumerate(runs):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
            for style, name in zip(("-", "--"), names, strict=False):
                axes.plot(*curve(lines, name), style, color=f"C{number}", label=run.name if name == names[0] else None)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("step")
    panels[0].legend()
    figure.savefig(output, dpi=80)


def curve(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values, by step."""
    found = sorted((line["step"], line[name]) for line in lines if name in line)
    return [step for step, _ in found], [value for _, value in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
