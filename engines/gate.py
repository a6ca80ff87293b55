"""The quality gate: measures what a build makes of held-out frames, and refuses it if the picture suffers too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from .bayer import RawFormat
from .core import Core
from .inputs import takes_matrix
from .opening import open_engine
from .quality import FAR_DB, HELD_OUT, Judge, Material, Score, develop_all, repacked


class BelowGate(Exception):
    """A build whose picture suffers more than allowed. The message is one sentence with the figure."""


@dataclass(frozen=True)
class Verdict:
    """A build that passed: what was measured, and how in words. Without a gate there is no score and no word."""

    score: Score | None = None
    how: str = ""


class Gate:
    """Measures against the float32 core on at most `HELD_OUT` frames."""

    def __init__(
        self,
        core: Core,
        material: Material,
        max_drop_db: float,
        colour_matrix: npt.NDArray[np.float32] | None,
        tell: Callable[[str], None],
    ) -> None:
        """`colour_matrix` is for cores that give linear light or are told it."""
        self._model, self._limit, self._tell = core.info.name, max_drop_db, tell
        # a file has it built in, unless it is told at run time
        self._told_matrix = colour_matrix if takes_matrix(core.info.inputs) else None
        count = min(HELD_OUT, len(material.frames))
        self._judge = Judge(core, material.only(range(count)), colour_matrix)

    def by_runtime(self, network: onnx.ModelProto, precision: str) -> Verdict:
        """Pass a network that ONNX Runtime computes, or raise BelowGate."""
        how = "ONNX Runtime on the processor, rounding where the plan rounds"
        return self._pass(self._judge.score(network), precision, how)

    def fits(self, fmt: RawFormat) -> bool:
        """Whether the frames can be had in this format."""
        return repacked(self._judge.material, fmt) is not None

    def by_engine(self, path: Path, fmt: RawFormat | None, precision: str) -> Verdict:
        """Pass an engine file that runs here, or raise BelowGate.

        Args:
            path: Of the file.
            fmt: Format that it takes; None takes any.
            precision: Of the build, for messages.
        """
        material = self._judge.material
        material = material if fmt is None else repacked(material, fmt) or material
        self._tell(f"measuring on {len(material.frames)} frames")
        engine = open_engine(str(path), colour_matrix=self._told_matrix, **material.corrections)
        how = f"the engine itself ({engine.info.backend}) on this machine"
        told = material.gains, material.camera
        pictures = develop_all(lambda: engine, material.frames, material.raw_format, *told)
        return self._pass(self._judge.score_pictures(pictures), precision, how)

    def _pass(self, score: Score, precision: str, how: str) -> Verdict:
        if score.fp32_db < FAR_DB:
            self._tell(
                f"note: the fp32 picture itself is only {score.fp32_db:.1f} dB near the reference, which makes the "
                "gate coarse; give --reference, or the camera's --colour-matrix"
            )
        if score.drop_db > self._limit:
            raise BelowGate(
                f"{self._model} in {precision} loses {score.drop_db:.3f} dB of PSNR against the reference "
                f"({score.psnr_db:.2f} dB instead of {score.fp32_db:.2f} in fp32), where {self._limit:g} dB are "
                "allowed; nothing was built"
            )
        return Verdict(score, f"{how}, against {self._judge.material.reference}")
