"""Model cores on the processor, through ONNX Runtime: for machines that OpenVINO has no wheel for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._processor import Precision, ProcessorEngine, check_batch, frame_views, processors
from .bayer import RawFormat
from .engine import SlotArray
from .errors import UserError
from .ticket import FinishedTicket

_LOG_ERRORS_ONLY = 3


def import_onnxruntime(who: str = "this engine") -> Any:
    """The package. Raises UserError, which says who needs it, where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{who} needs ONNX Runtime; run: pip install 'ispeed[onnxruntime]'") from error
    return onnxruntime


class OnnxRuntimeEngine(ProcessorEngine):
    """Develops through ONNX Runtime, in float32 or int8, finished when `develop` returns; both modes are the same.

    See `ProcessorEngine`.
    """

    _backend = "onnxruntime"
    completion_fd = None
    _session: Any = None
    _binding: Any = None

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """See `Engine.prepare`."""
        self.close()
        self._session = self._open(self._graft(raw_format, batch))
        raw, srgb = frame_views(raw_format, raw_ring, srgb_ring)
        value = self._onnxruntime.OrtValue.ortvalue_from_numpy
        # On the processor these are the memory itself, which they do not keep alive.
        self._views = raw, srgb
        self._raw, self._srgb = [value(frame) for frame in raw], [value(frame) for frame in srgb]
        self._gains = np.ones((1, 3), np.float32)
        self._params = np.zeros((1, len(self.info.inputs)), np.float32)
        self._ticket = FinishedTicket(self._gains)
        self._binding = self._session.io_binding()
        if self.info.inputs:
            self._binding.bind_ortvalue_input("params", value(self._params))
        self._inputs.prepare(raw_format, raw_ring)
        self._run(value(np.zeros_like(raw[0])), value(np.zeros_like(srgb[0])))

    def develop(
        self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]
    ) -> FinishedTicket:
        """See `Engine.develop`."""
        if self._binding is None:
            raise RuntimeError("the engine is not prepared")
        check_batch(raw_slots, srgb_slots)
        self._inputs.fill(raw_slots, params, self._params, self._gains)
        self._run(self._raw[raw_slots[0]], self._srgb[srgb_slots[0]])
        return self._ticket

    def close(self) -> None:
        """See `Engine.close`; the views of the rings are let go as well."""
        self._binding = self._session = None
        self._raw, self._srgb, self._views = [], [], ()
        self._inputs.close()

    def _load_runtime(self) -> Precision:
        self._onnxruntime = import_onnxruntime()
        return "fp32"

    def _open(self, graph: bytes) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.intra_op_num_threads = self._threads or processors()
        options.inter_op_num_threads = 1
        # Threads that spin between frames would take the processor from the other stages.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return self._onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, which have no other base
            raise self._refusal(self._onnxruntime.__version__, str(error).strip().splitlines()[-1]) from error

    def _run(self, raw: Any, srgb: Any) -> None:
        self._binding.bind_ortvalue_input("raw", raw)
        self._binding.bind_ortvalue_output("srgb", srgb)
        self._session.run_with_iobinding(self._binding)
