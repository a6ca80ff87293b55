"""EngineChanger: replaces one camera's engine by another, without stopping the camera.

A second develop process opens and prepares the new engine while the first goes on. When it is ready, frames wait in
the ring for the moment in which the first finishes what it holds and the second takes over. Where the second cannot be
made ready, the first just stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engines.errors import UserError
from .developing import DevelopSide
from .handover import Handover
from .hub import StageDied
from .shared import Shared


class EngineChange:
    """What has become of a change.

    Attributes:
        answer: {"engine": ...} once it is done; None before.
        refusal: Why the engine stays as it is; empty before that is known.
    """

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self.refusal = ""


class EngineChanger:
    """One change at a time.

    Args:
        changed: Is called when another engine has taken over.
    """

    def __init__(self, develop: DevelopSide, handover: Handover, changed: Callable[[], None]) -> None:
        self._develop, self._handover, self._changed = develop, handover, changed
        self._change: EngineChange | None = None

    def begin(self, changes: dict[str, Any]) -> EngineChange:
        """Begins a change to other settings (fields of StreamConfig, as JSON). Raises UserError."""
        if self._change:
            raise UserError("the engine is being changed already: ask again when that is done")
        try:
            self._develop.begin_another(changes)
        except OSError as error:
            raise UserError(f"the engine stays as it is: no process can be started: {error.strerror}") from error
        self._change = EngineChange()
        return self._change

    def step(self, shared: Shared) -> None:
        """Goes on as far as that is possible without waiting for the new engine."""
        another = self._develop.another
        if another is None:
            return
        try:
            if not another.step(shared):
                return
        except UserError as error:
            self.end(str(error))
        except (StageDied, TimeoutError) as error:
            self.end(f"the engine stays as it is: {error} while it made the new one ready")
        else:
            # Whether the first process works, has just died, or is on its way back: the second is ready.
            self._handover.switch()
            self._changed()
            if self._change:
                self._change.answer = {"engine": self._develop.engine}
            self._change = None

    def end(self, why: str) -> None:
        """Gives up a change that is under way. Harmless without one."""
        self._develop.drop_another()
        if self._change:
            self._change.refusal = why
        self._change = None
