"""Commands: does what is asked over the control socket, one request a turn of the main process's loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..engines.errors import UserError
from .control_server import Asked, ControlServer
from .hub import Signals
from .pipeline import Pipeline
from .requests import (
    EngineRequest,
    FeaturesRequest,
    RecordRequest,
    Request,
    SetRequest,
    StatusRequest,
    StopRequest,
    TriggerRequest,
)


class Commands:
    """Obeys what `control` has waiting."""

    def __init__(self, control: ControlServer, pipelines: Sequence[Pipeline], signals: Signals) -> None:
        self._control, self._signals = control, signals
        self._pipelines = {pipeline.camera: pipeline for pipeline in pipelines}

    def serve_one(self) -> None:
        """Obeys the oldest request, if one waits, and answers it."""
        if not self._control.waiting:
            return
        asked: Asked = self._control.waiting.popleft()
        try:
            self._control.answer(asked, **self._obey(asked.request))
        except UserError as error:
            self._control.refuse(asked, str(error))

    def _obey(self, request: Request) -> dict[str, Any]:
        if isinstance(request, StopRequest):
            self._signals.ask_to_end()
            return {}
        if isinstance(request, StatusRequest):
            return {"cameras": [pipeline.meter.last for pipeline in self._pipelines.values()]}
        pipeline = self._pipelines.get(request.camera)
        if pipeline is None:
            known = ", ".join(map(str, self._pipelines))
            raise UserError(f"there is no camera {request.camera} in this run: there are {known}")
        if isinstance(request, FeaturesRequest):
            return pipeline.features(request.names)
        if isinstance(request, SetRequest):
            return pipeline.set(request.feature, request.value)
        if isinstance(request, TriggerRequest):
            return pipeline.trigger()
        if isinstance(request, EngineRequest):
            return _change_engine(pipeline, request)
        return _record(pipeline, request)


def _change_engine(pipeline: Pipeline, request: EngineRequest) -> dict[str, Any]:
    changes = request.changes()
    if not changes:
        raise UserError("say what shall change: engine, engine_mode or white_balance")
    return pipeline.change_engine(changes)


def _record(pipeline: Pipeline, request: RecordRequest) -> dict[str, Any]:
    return pipeline.record.ask(request.action, request.reason or "control", time.monotonic_ns())
