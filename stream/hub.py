"""Hub: the one poll of the main process, over the stages' channels and whatever else wakes it.

Calls to a stage keep that poll going, so nothing is published late because a stage is slow to answer; what comes
meanwhile lies in `inbox` for the outer loop.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .channel import ChannelClosed, check
from .stage import StageProcess

_log = logging.getLogger(__name__)
LAST_BREATH_S = 1.0  # from the end of a stage's channel to that of its process
_LOOK_S = 0.01  # how often to look whether a process has ended
_END_S = 30.0  # for a killed process to end, which takes its time with much memory or a GPU to give back


class Stopping(Exception):
    """The user asked to end while a call was under way."""


class StageDied(Exception):
    """The stage ended while a call was under way."""


class Signals:
    """SIGINT and SIGTERM, counted from the moment this is made: the first asks to drain and end, the second forces."""

    def __init__(self) -> None:
        self.count = 0
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.on_force: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @property
    def forced(self) -> bool:
        """Whether the user will not wait."""
        return self.count > 1

    def ask_to_end(self) -> None:
        """As the first signal does; a second one is a user's who will not wait."""
        self.count = max(self.count, 1)
        os.eventfd_write(self.wake, 1)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.count += 1
        os.eventfd_write(self.wake, 1)
        if self.forced:
            self.on_force()


class Hub:
    """Starts, calls and ends stages. `on_wake` runs first whenever anything wakes the poll."""

    def __init__(self, on_wake: Callable[[], None], signals: Signals) -> None:
        self._on_wake = on_wake
        self.signals = signals
        signals.on_force = self._kill_all
        self._stages: dict[int, StageProcess] = {}
        self._answers: dict[tuple[int, int], dict[str, Any]] = {}
        self._poll = select.poll()
        self.watch(signals.wake)
        self.inbox: deque[tuple[StageProcess, dict[str, Any]]] = deque()

    def watch(self, fd: int) -> None:
        """Wakes whenever the descriptor is readable; `on_wake` is to read it."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        with suppress(KeyError):
            self._poll.unregister(fd)

    def pump(self, timeout_s: float, *, stoppable: bool = True) -> None:
        """Waits up to `timeout_s` for anything and takes in messages. Raises Stopping once a signal has come."""
        ready = self._poll.poll(timeout_s * 1e3)
        self._on_wake()
        for fd, _ in ready:
            if (stage := self._stages.get(fd)) is not None:
                self._read(stage)
            elif fd == self.signals.wake:
                os.eventfd_read(fd)
        if stoppable and self.signals.count:
            raise Stopping

    def _read(self, stage: StageProcess) -> None:
        try:
            got = stage.channel.receive(0)
        except ChannelClosed:
            self._ignore(stage)
            self.inbox.append((stage, {"event": "died"}))
            return
        if got is not None and "call" in got[0]:
            self._answers[id(stage), got[0]["call"]] = got[0]
        elif got is not None:
            self.inbox.append((stage, got[0]))

    def call(
        self,
        stage: StageProcess,
        command: str,
        timeout_s: float,
        fds: tuple[int, ...] = (),
        stoppable: bool = True,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Sends a command and waits for its answer. Raises UserError, StageDied, TimeoutError or Stopping."""
        return self.answer(stage, stage.post(command, fds, **arguments), timeout_s, stoppable=stoppable)

    def answer(self, stage: StageProcess, call: int, timeout_s: float, *, stoppable: bool = True) -> dict[str, Any]:
        """Waits for an answer while the poll goes on. Raises UserError, StageDied, TimeoutError or Stopping."""
        deadline = time.monotonic() + timeout_s
        while (answer := self.answer_now(stage, call)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the {stage.name} process did not answer within {timeout_s:g} s")
            self.pump(0.05, stoppable=stoppable)
        return answer

    def answer_now(self, stage: StageProcess, call: int) -> dict[str, Any] | None:
        """An answer, if it has come. Raises UserError, StageDied."""
        answer = self._answers.pop((id(stage), call), None)
        if answer is None and stage.dead:
            raise StageDied(f"the {stage.name} process ended")
        return None if answer is None else check(answer)

    def spawn(self, name: str) -> StageProcess:
        """Starts a stage and watches it."""
        return self.adopt(StageProcess(name))

    def adopt(self, stage: StageProcess) -> StageProcess:
        """Watches a stage that has been started."""
        self._stages[stage.channel.fileno()] = stage
        self._poll.register(stage.channel.fileno(), select.POLLIN)
        return stage

    def retire(self, stage: StageProcess, grace_s: float = 0.0) -> None:
        """Takes a stage out of the poll and sees its process end, killed after `grace_s`. Harmless when repeated.

        The poll goes on meanwhile, for what other cameras deliver.
        """
        self._ignore(stage)
        self.await_end(stage, grace_s)
        if not stage.ended and stage.dismiss():
            self.await_end(stage, _END_S)
        if not stage.end():
            _log.warning("the %s process %d cannot be ended: the kernel holds it", stage.name, stage.pid)
        self._stages = {fd: other for fd, other in self._stages.items() if other is not stage}
        for unasked in [key for key in self._answers if key[0] == id(stage)]:
            del self._answers[unasked]

    def kill_and_wait(self, stage: StageProcess) -> None:
        """Kills a stage's process and sees it end, as far as the kernel lets it. The poll goes on."""
        stage.kill()
        self.await_end(stage, _END_S)

    def await_end(self, stage: StageProcess, grace_s: float) -> None:
        """Waits up to `grace_s` seconds for a process to end by itself, less when the user forces it. The poll goes on.

        After this `how_it_ended` does not have to wait.
        """
        deadline = time.monotonic() + grace_s
        while not stage.ended and time.monotonic() < deadline and not self.signals.forced:
            self.pump(_LOOK_S, stoppable=False)

    def _ignore(self, stage: StageProcess) -> None:
        """Its channel has ended, or soon will: the poll looks at it no more."""
        stage.dead = True
        with suppress(KeyError, ValueError):
            self._poll.unregister(stage.channel.fileno())

    def _kill_all(self) -> None:
        for stage in list(self._stages.values()):
            stage.kill()

    def current(self, stage: StageProcess) -> bool:
        """Whether the stage has not been retired."""
        return stage in self._stages.values()
