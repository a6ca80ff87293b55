"""What a reference scores that lies on the frame: in its own colours, and in the frame's.

isp-align data/paired/rhid -o own --data-set rhid --set options.split=val
isp-align data/paired/rhid -o frame --data-set rhid --set options.split=val --set colours=frame
python docs/results/scripts/rhid_ceiling.py data/paired/rhid/val/rgb own frame
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ispeed.train.data.photos import read_photo
from ispeed.train.protocols import score


def main(references: Path, folders: list[Path]) -> None:
    """Prints PSNR and SSIM of each picture, and their means."""
    for folder in folders:
        found = []
        for path in sorted((folder / "rgb").glob("*.png")):
            scored = score(read_photo(path), read_photo(references / path.name), "colour")
            found.append((scored.psnr, scored.ssim))
            sys.stdout.write(f"{folder.name} {path.stem}: {scored.psnr:.2f} dB, {scored.ssim:.3f}\n")
        psnr, ssim = np.mean(found, axis=0)
        sys.stdout.write(f"{folder.name}: {psnr:.2f} dB, {ssim:.3f}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
