"""What the engines that run a grafted core on the processor have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat
from .colour import core_finish
from .core import Core, read_core
from .engine import MODES, EngineInfo, Mode, Precision, SlotArray, WhiteBalance
from .errors import UserError
from .flat_field import FlatField, checked_mesh
from .graph import graft, raw_shape
from .white_balance import CoreInputs

Frames = list[npt.NDArray[np.uint8]]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class ProcessorEngine(ABC):
    """Develops with a model core on the processor, one frame per batch. See `Engine`.

    Run-time inputs: see `CoreInputs`.

    Attributes:
        info: See `EngineInfo`.
    """

    _backend: ClassVar[str]

    def __init__(
        self,
        core: Core | Path,
        *,
        threads: int | None = None,
        mode: Mode = "throughput",
        white_balance: WhiteBalance = "auto",
        colour_matrix: npt.ArrayLike | None = None,
        tone: str = "srgb",
        defects: Sequence[tuple[int, int]] = (),
        flat_field: FlatField | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Read the core. See `open_engine` for the options that are not here.

        Args:
            core: A core, or the path of one.
            threads: Most threads to compute on; None is one for each core of the processor.
            mode: Several frames at once, or each as soon as may be.
            white_balance, colour_matrix, tone, defects, flat_field: See `open_engine`.
            precision: Of what a core in float32 is computed in; None is what runtime and processor do best. An int8
                core computes in int8 whatever is said here, and in this precision between.

        Raises:
            UserError: The runtime is not installed, the file is no core, or an option is out of range or not for it.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; use 1 or more, or leave it out")
        if mode not in MODES:
            raise UserError(f"engine mode {mode!r} is unknown; use one of {', '.join(MODES)}")
        self._threads, self._mode = threads, mode
        best = self._load_runtime()
        if precision not in (None, *PRECISIONS):
            raise UserError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}, or leave it out")
        if precision == "bf16" and best != "bf16":
            raise UserError(f"{self._backend} has no bf16 on this processor; leave the precision out, or use fp32")
        self._precision: Precision = precision or best
        self._core = core if isinstance(core, Core) else read_core(core)
        info = self._core.info
        self._matrix, self._tone = core_finish(info.name, info.output, colour_matrix, tone, info.inputs)
        self._defects, self._flat_field = tuple(defects), flat_field
        mesh = None if flat_field is None else checked_mesh(flat_field)
        self._inputs = CoreInputs(info.inputs, white_balance, colour_matrix, mesh)
        self.info = EngineInfo(
            name=info.name,
            backend=self._backend,
            precision="int8" if info.precision == "int8" else self._precision,
            inputs=info.inputs,
            weights_sha256=info.sha256 or None,
        )

    def resume(self, white_balance: tuple[float, float, float]) -> None:
        """See `Engine.resume`; without effect where the user or the camera gives the gains."""
        self._inputs.resume(white_balance)

    @abstractmethod
    def _load_runtime(self) -> Precision:
        """Import the runtime. Returns the precision in which it is fastest here. Raises UserError if it is missing."""

    def _graft(self, raw_format: RawFormat, batch: int) -> bytes:
        """The grafted graph for one frame of this format, serialised ONNX.

        Raises:
            UserError: A batch of more than one frame, or a format that the core cannot develop.
        """
        if batch != 1:
            raise UserError(f"a batch of {batch} frames is out of range; a model on the processor takes 1 at a time")
        graph = graft(
            self._core,
            raw_format,
            batch=1,
            colour_matrix=self._matrix,
            tone=self._tone,
            defects=self._defects,
            flat_field=self._flat_field,
        )
        return graph.SerializeToString()

    def _refusal(self, version: str, reason: str) -> UserError:
        """What to raise where the runtime does not take the graph."""
        return UserError(f"{self._backend} {version} cannot run {self._core.path} ({reason}); export it again")


def check_batch(raw_slots: Sequence[int], srgb_slots: Sequence[int]) -> None:
    """Raises ValueError unless there is one slot of each."""
    if len(raw_slots) != 1 or len(srgb_slots) != 1:
        raise ValueError("a batch holds 1 raw slot and 1 sRGB slot")


def frame_views(raw_format: RawFormat, raw_ring: SlotArray, srgb_ring: SlotArray) -> tuple[Frames, Frames]:
    """Views of the slots in the shapes that a grafted graph has: uint8 [1, *raw_shape] and [1, H, W, 3].

    Raises:
        ValueError: A slot is too small, or an sRGB slot is read-only.
    """
    pixels = raw_format.height, raw_format.width, 3
    srgb = _views(srgb_ring, pixels)
    if not all(view.flags.writeable for view in srgb):
        raise ValueError("the slots of the sRGB ring must be writable")
    return _views(raw_ring, raw_shape(raw_format)), srgb


def processors() -> int:
    """Logical processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _views(ring: SlotArray, shape: tuple[int, ...]) -> Frames:
    size = int(np.prod(shape))
    slots = [ring.slot(k) for k in range(ring.slots)]
    if any(slot.size < size for slot in slots):
        raise ValueError(f"the slots of the ring need {size} bytes")
    return [slot[:size].reshape(1, *shape) for slot in slots]
