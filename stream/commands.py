"""Commands: does what is asked over the control socket, one request a turn of the main process's loop.

A change of engine takes a while and is answered when it is done; further ones of that camera wait until then. What the
record process is asked is answered when it has.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..engines.errors import UserError
from .changing import EngineChange
from .control_server import Asked, ControlServer
from .hub import Signals, Stopping
from .pipeline import Pipeline
from .recording import Asking
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

_MOST_LATER = 8
_ENDED = "the run has ended"


class Commands:
    """Obeys what `control` has waiting."""

    def __init__(self, control: ControlServer, pipelines: Sequence[Pipeline], signals: Signals) -> None:
        self._control, self._signals = control, signals
        self._pipelines = {pipeline.camera: pipeline for pipeline in pipelines}
        self._changes: dict[int, tuple[Asked, EngineChange]] = {}  # by camera
        self._recordings: list[tuple[Asked, Asking]] = []
        self._later: deque[Asked] = deque()  # changes of an engine that is being changed

    def serve_one(self) -> None:
        """Obeys the oldest request, if one waits, and answers it, and those that could not be answered at once."""
        self._answer_recordings()
        self._answer_changes()
        if self._control.waiting:
            self._serve(self._control.waiting.popleft())

    def end(self) -> None:
        """Answers what is still to be answered; the run is over."""
        self._answer_recordings()
        self._answer_changes()
        for waiting in (self._later, self._control.waiting):
            for _ in range(len(waiting)):  # those that come meanwhile are no longer heard
                self._control.refuse(waiting.popleft(), _ENDED)

    def _serve(self, asked: Asked) -> None:
        try:
            if isinstance(asked.request, EngineRequest):
                self._change_engine(asked, asked.request)
            elif isinstance(asked.request, RecordRequest):
                self._recordings.append((asked, self._ask_to_record(asked.request)))
            else:
                self._control.answer(asked, **self._obey(asked.request))
        except UserError as error:
            self._control.refuse(asked, str(error))
        except Stopping:  # while the camera was asked
            self._control.refuse(asked, _ENDED)
            raise

    def _answer_recordings(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.record.hear()
        for asked, asking in list(self._recordings):
            if asking.answer is not None:
                self._control.answer(asked, **asking.answer)
            elif asking.refusal:
                self._control.refuse(asked, asking.refusal)
            else:
                continue
            self._recordings.remove((asked, asking))

    def _answer_changes(self) -> None:
        for camera, (asked, change) in list(self._changes.items()):
            if change.answer is not None:
                self._control.answer(asked, **change.answer)
            elif change.refusal:
                self._control.refuse(asked, change.refusal)
            else:
                continue
            del self._changes[camera]
            for following in [other for other in self._later if other.request.camera == camera]:
                if camera not in self._changes:  # nor after one that was refused at once
                    self._later.remove(following)
                    self._serve(following)

    def _change_engine(self, asked: Asked, request: EngineRequest) -> None:
        pipeline, changes = self._pipeline(request.camera), request.changes()
        if not changes:
            raise UserError("say what shall change: engine, engine_mode or white_balance")
        if request.camera not in self._changes:
            self._changes[request.camera] = asked, pipeline.change_engine(changes)
        elif len(self._later) < _MOST_LATER:
            self._later.append(asked)
        else:
            raise UserError("the engine is being changed already: ask again when that is done")

    def _ask_to_record(self, request: RecordRequest) -> Asking:
        record = self._pipeline(request.camera).record
        return record.ask(request.action, request.reason or "control", time.monotonic_ns())

    def _pipeline(self, camera: int) -> Pipeline:
        if (pipeline := self._pipelines.get(camera)) is None:
            known = ", ".join(map(str, self._pipelines))
            raise UserError(f"there is no camera {camera} in this run: there are {known}")
        return pipeline

    def _obey(self, request: Request) -> dict[str, Any]:
        if isinstance(request, StopRequest):
            self._signals.ask_to_end()
            return {}
        if isinstance(request, StatusRequest):
            return {"cameras": [pipeline.meter.last for pipeline in self._pipelines.values()]}
        pipeline = self._pipeline(request.camera)
        if isinstance(request, FeaturesRequest):
            return pipeline.features(request.names)
        if isinstance(request, SetRequest):
            return pipeline.set(request.feature, request.value)
        if isinstance(request, TriggerRequest):
            return pipeline.trigger()
        raise UserError(f"{request.cmd} cannot be asked for")
