"""How far displacement that is found misses the true one, and pictures' gradients those of the truth.

python docs/results/scripts/misisp_truth.py runs/misisp-experiment [FOLDER_OF_PICTURES ...]

The folders are those of isp-eval --pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from ispeed.train.alignment.align import Aligner
from ispeed.train.alignment.flow import make_flow
from ispeed.train.alignment.settings import AlignSettings
from ispeed.train.data.folder import PairFolder
from ispeed.train.data.photos import read_photo
from ispeed.train.losses.basic import Gradient
from ispeed.train.stages import load_mapper


def main(run: Path, folders: list[Path]) -> None:
    """Prints both."""
    root = run / "held_out"
    aligner = Aligner(AlignSettings(registered="yes"), make_flow(), load_mapper(run / "mapper" / "last.pt"))
    reader, medians = PairFolder(root), []
    for file in reader.files():
        pair = aligner.align(reader.load(file))
        off = pair.flow - np.load(root / "flow" / f"{file.name}.npy")
        medians.append(float(np.median(np.hypot(off[..., 0], off[..., 1])[pair.mask])))
    middle, worst = np.median(medians), max(medians)
    sys.stdout.write(f"{len(medians)} pairs, pixels: median of medians {middle:.3f}, worst {worst:.3f}\n")
    for folder in folders:
        pictures = sorted(folder.glob("*.png"))
        missed = [Gradient()(_light(path), _light(root / "truth" / path.name)) for path in pictures]
        mean = float(torch.stack(missed).mean())
        sys.stdout.write(f"{folder.name}: {len(missed)} pictures, gradients miss by {mean:.4f}\n")


def _light(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_photo(path)).permute(2, 0, 1)[None].float() / 255


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
