"""Training samples of rendered scenes: what there is without any data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sampling import SeededSamples
from .scene import render_scene
from .sensor import COLOUR_MATRIX, ClassicTarget, expose

EDGE = 352
"""Of a scene, in pixels."""


class Scenes(SeededSamples):
    """Crops of rendered scenes as the simulated camera's sensor sees them; the target is the classic engine's picture
    of the same without noise.

    What a sample shows follows from seed, epoch and index alone. Scenes are rendered when they are first drawn, and
    kept.
    """

    def __init__(self, count: int, crop: int, *, scenes: int = 96, seed: int = 0) -> None:
        """Nothing is rendered yet.

        Args:
            count: Samples of an epoch.
            crop: Their edge in mosaic pixels, even, at most `EDGE`.
            scenes: How many differ; each takes 1.5 MB.
            seed: Of everything drawn.
        """
        super().__init__(count, seed)
        self._crop, self._scenes = crop, scenes
        self._rendered: dict[int, npt.NDArray[np.float32]] = {}
        self._target: ClassicTarget | None = None

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample.

        Returns:
            planes: float32 [4, crop/2, crop/2], R, Gr, Gb, B, black 0, white 1, not white balanced.
            gains: float32 [3], of R, G, B, green 1.
            target: float32 [3, crop, crop], sRGB in [0, 1].
            matrix: float32 [3, 3], the camera's colours after white balance to linear sRGB.
            camera: float32 [5], the columns of `engines.inputs.CAMERA`; of these the gain alone is known.

        Raises:
            IndexError: There is no such sample.
        """
        rng = np.random.default_rng([self._seed, 1, int(self._epoch), self._checked(index)])
        frame = expose(rng, self._piece(rng))
        self._target = self._target or ClassicTarget(self._crop, self._crop)
        picture = self._target.develop(frame.clean, frame.gains)
        return {
            "planes": torch.from_numpy(frame.planes),
            "gains": torch.from_numpy(frame.gains),
            "target": torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32)) / 255,
            "matrix": torch.from_numpy(COLOUR_MATRIX.copy()),
            "camera": torch.tensor([0.0, frame.gain_db, 0.0, 0.0, 0.0]),
        }

    def _piece(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Of any scene, in any of the eight orientations."""
        number = int(rng.integers(self._scenes))
        if number not in self._rendered:
            self._rendered[number] = render_scene(np.random.default_rng([self._seed, 0, number]), EDGE, EDGE)
        y, x = rng.integers(0, EDGE - self._crop + 1, 2)
        piece = self._rendered[number][y : y + self._crop, x : x + self._crop]
        return np.rot90(piece[:, :: rng.choice([-1, 1])], int(rng.integers(4)))

    def __getstate__(self) -> dict[str, object]:
        # a worker renders for itself, and the engine of the target cannot be sent
        return self.__dict__ | {"_rendered": {}, "_target": None}
