"""The half of the `Engine` contract that every engine around a `Pipeline` fulfils in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..lanes import LaneTicket
from ..white_balance import CoreInputs
from .device import Device
from .pipeline import Pipeline


class PipelineEngine:
    """An engine whose `prepare` sets up `_device` and `_pipeline`. See `Engine`."""

    def __init__(self, inputs: CoreInputs) -> None:
        self._inputs = inputs
        self._device: Device | None = None
        self._pipeline: Pipeline | None = None

    @property
    def completion_fd(self) -> int | None:
        """See `Engine.completion_fd`; there is none before `prepare`."""
        return None if self._pipeline is None else self._pipeline.completion_fd

    @property
    def captured(self) -> bool:
        """Whether the network runs from CUDA graphs."""
        return self._pipeline is not None and self._pipeline.captured

    @property
    def host_copies(self) -> int:
        """Frames that the host copied so far; 0 unless a ring could not be page-locked."""
        return 0 if self._pipeline is None else self._pipeline.host_copies

    def device_memory(self) -> tuple[int, int]:
        """Bytes of the GPU that are free, and all of them; (0, 0) before `prepare`."""
        return (0, 0) if self._device is None else self._device.memory()

    def develop(
        self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]
    ) -> LaneTicket:
        """See `Engine.develop`."""
        if self._pipeline is None:
            raise RuntimeError("the engine is not prepared")
        return self._pipeline.develop(raw_slots, srgb_slots, params)

    def resume(self, white_balance: tuple[float, float, float]) -> None:
        """See `Engine.resume`."""
        self._inputs.resume(white_balance)

    def close(self) -> None:
        """See `Engine.close`."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        self._unload()
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def _unload(self) -> None:
        """Let go of what lies on the device, before the device goes. Called twice, too."""
