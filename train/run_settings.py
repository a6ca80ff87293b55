"""What a recipe says of how a run is measured, and of what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..engines.settings import Settings

if TYPE_CHECKING:
    from .sources import AnySource


class ValidationSettings(Settings):
    """How the run is measured."""

    every: Annotated[int, Field(ge=1)] = 2000
    """steps between measurements; there is one before the first step and one after the last"""
    improve_db: float | None = None
    """PSNR in dB that the run must gain over its start, else isp-train ends with exit code 1; null asks for nothing"""
    choose: Literal["psnr", "likeness"] | None = None
    """what best.pt, the best of all measurements, is chosen by: psnr, where targets are true pictures; likeness, where
    there are none: lightness as in the pictures of the classic engine, which are the targets, and the colours of
    photographs; null chooses nothing"""
    photographs: Path | None = None
    """for likeness: folder of the photographs (JPEG, PNG), and the folders in it; grey ones are left out; null is
    adversary.photographs"""
    beside: bool = False
    """measure in another process while training goes on; it has one thread of the processor, and results are those that
    one thread gives, to the bit; where one process trains"""

    def check(self, form: str, sources: Sequence[AnySource], photographs: Path | None) -> None:
        """Raises ValueError: nothing can be chosen in this way in a recipe with such sources for validation."""
        if self.choose == "psnr" and any(source.classic for source in sources):
            raise ValueError(
                "psnr to the classic engine's pictures says nothing of quality: set validation.choose to likeness, or "
                "validate on true pictures (which data_set: raws does not have)"
            )
        if self.choose != "likeness":
            if self.photographs is not None:
                raise ValueError("validation.photographs is for validation.choose: likeness; leave it out")
            return
        if form != "raw":
            raise ValueError(f"likeness is of what networks of the form raw show, not of the form {form}")
        # rendered scenes have such pictures too, of frames without noise
        if not all(source.classic or source.source == "scenes" for source in sources):
            raise ValueError(
                "likeness takes the classic engine's pictures for targets: give every source under data.validation "
                "target: classic or data_set: raws, or set validation.choose to psnr"
            )
        if photographs is None:
            raise ValueError(
                "likeness has the colours of photographs, and none are named (an adversary without photographs sees "
                "rendered scenes): set validation.photographs to a folder of them"
            )


class RunSettings(Settings):
    """What the run leaves behind."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "run"
    """name of its folder; the recipe's name where the recipe has none"""
    folder: Path = Path("runs")
    """where the folders of runs are"""
    log_every: Annotated[int, Field(ge=1)] = 50
    """steps between lines of metrics.jsonl"""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    """steps between checkpoints; a run that is killed goes on from the last"""
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """steps between checkpoints that stay beside last.pt, such as step-000500.pt: weights alone; null keeps none"""
    tensorboard: bool = False
    """write curves and pictures for TensorBoard too (package tensorboard)"""
