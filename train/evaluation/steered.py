"""Developers for what ParamISP is compared with: the steps that need no learning, and inverse networks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...engines.reference import levelled
from ..checkpoint import Checkpoint
from ..data.cfa import planes
from .developers import Skipped
from .frames import Frame, Matrix, Picture, to_picture
from .inverse import Canonical, Networks, Told

CANONICAL = "canonical"


class CanonicalDeveloper:
    """Demosaic, white balance and matrix, then an S of contrast and a power: the published baseline without learning,
    in float32. Both ways; frames whose array begins with red. See `developers.Developer`."""

    label = CANONICAL

    def __init__(self) -> None:
        self.inverter, self._matrix = Canonical(), torch.eye(3)

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`."""
        if frame.raw_format.cfa != "RGGB":
            raise Skipped("it is for frames whose filter array begins with red (RGGB)")
        self._matrix = torch.eye(3) if matrix is None else torch.from_numpy(matrix)

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        mosaic = torch.from_numpy(levelled(frame.raw, frame.raw_format).astype(np.float32))
        told = Told(torch.from_numpy(frame.gains)[None], self._matrix[None], torch.tensor([frame.camera]))
        return to_picture(self.inverter.picture(planes(mosaic[None], "RGGB"), told))

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`."""
        return {"name": self.label, "backend": f"torch {torch.__version__}"}

    def close(self) -> None:
        """See `Developer.close`; there is nothing to free."""


class InverseDeveloper:
    """A checkpoint of the form "inverse", which develops nothing. See `developers.Developer`.

    Args:
        spec: Of its file.
        checkpoint: What is in it.
    """

    def __init__(self, spec: str, checkpoint: Checkpoint) -> None:
        self.label, self.inverter, self._run = spec, Networks(checkpoint), checkpoint.run

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`. Raises Skipped."""
        raise Skipped("it makes frames of pictures, which sets of the kind inverse measure")

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`; not for this one."""
        raise RuntimeError("an inverse network develops nothing")

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`."""
        return {"name": Path(self.label).name, "backend": f"torch {torch.__version__}", "run": self._run}

    def close(self) -> None:
        """See `Developer.close`; there is nothing to free."""
