"""The grab stage: `python -m ispeed.stream.grab CHANNEL_FD`, one process per camera.

A process of its own because the GenICam binding holds the GIL while it talks to a camera. It obeys the commands that
come over the channel, one at a time, and reports on its own when the camera is lost. It ends with its parent.
"""

from __future__ import annotations

import faulthandler
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from ..engines.errors import UserError
from .acquisition import Acquisition
from .channel import Channel, ChannelClosed, close_fds
from .config import Realtime, StreamConfig
from .hold import HoldOptions
from .stage import answer_user_error, run_stage

TICK_MS = 100
DRAIN_TICK_MS = 5
DRAIN_S = 5.0
CLOSE_S = 5.0


class Grab:
    """Serves one channel until it is told to close, or the other end is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._acquisition: Acquisition | None = None
        self._drain: tuple[dict[str, Any], float] | None = None  # the stop request to answer, and until when to drain
        self._reported_lost = self._reported_end = self._reported_refused = False
        self._closed = False
        self._commands: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any] | None]] = {
            "open": self._open,
            "attach": self._attach,
            "pause": self._pause,
            "consumer": self._consumer,
            "consumer_lost": self._consumer_lost,
            "start": self._start,
            "features": self._features,
            "set": self._set,
            "trigger": self._trigger,
            "stop": self._stop,
            "close": self._close,
        }

    def run(self) -> None:
        """Serves until closed."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._closed:
                ready = [fd for fd, _ in poll.poll(self._patience_ms())]
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                if self._channel.fileno() in ready:
                    self._serve()
                self._look_after()
        except ChannelClosed:  # the main process has ended
            self._shut_down()

    def _patience_ms(self) -> int | None:
        if self._drain is not None:
            return DRAIN_TICK_MS
        return TICK_MS if self._acquisition is not None and self._acquisition.streaming else None

    def _serve(self) -> None:
        message = self._channel.receive()
        if message is None:
            return
        request, fds = message
        command = self._commands.get(request.get("cmd", ""))
        if command is None or (fds and command != self._attach):
            close_fds(fds)
            error = UserError(f"the grab stage knows no command {request.get('cmd')!r}")
            answer_user_error(self._channel, request, error)
            return
        try:
            answer = command(request, fds)
        except UserError as error:
            answer_user_error(self._channel, request, error)
            return
        if answer is not None:
            self._channel.answer(request, **answer)

    def _look_after(self) -> None:
        """Makes changes that are due, passes on news, notices a lost camera, finishes a drain."""
        acquisition = self._acquisition
        if acquisition is None:
            return
        acquisition.check_alive()
        if acquisition.streaming and not acquisition.lost:
            acquisition.make_changes()
        while acquisition.changes:
            self._channel.send({"event": "changed", **acquisition.changes.pop(0)})
        while acquisition.warnings:
            self._channel.send({"event": "warning", "text": acquisition.warnings.pop(0)})
        if acquisition.lost and not self._reported_lost:
            self._reported_lost = True
            self._channel.send({"event": "camera_lost", "why": acquisition.lost})
            with _time_limit(CLOSE_S):  # no more frames come; what waits is still granted
                acquisition.stop(drain=True)
        if acquisition.refused and not self._reported_refused:
            self._reported_refused = True
            self._channel.send({"event": "unusable", "text": acquisition.refused})
        if acquisition.ended and not self._reported_end and acquisition.finished:
            self._reported_end = True
            self._channel.send({"event": "ended", "text": f"{acquisition.label} has ended"})
        if self._drain is not None and (time.monotonic() >= self._drain[1] or not acquisition.draining):
            request, self._drain = self._drain[0], None
            acquisition.abandon_waiting()
            self._channel.answer(request)

    def _open(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self._acquisition is not None:
            raise UserError("the grab stage has a camera open already")
        config = StreamConfig.model_validate(request["config"])
        warning = make_realtime(config.realtime)
        self._acquisition = Acquisition(config, self._wake, request.get("again", ()))
        if warning:
            self._acquisition.warnings.append(warning)
        return {"geometry": self._acquisition.geometry.to_json()}

    def _attach(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        names = ("policy", "depth", "reserve", "history", "limit")
        options = HoldOptions(*(request[name] for name in names), keep_history=request.get("keep_history", False))
        self._camera().attach(fds, options, request["timeout_ms"])
        return {}

    def _pause(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._camera().consumer(0)
        return {}

    def _consumer(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._camera().consumer(request["epoch"], request.get("depth", 0))
        return {}

    def _consumer_lost(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return {"taken": self._camera().consumer_lost()}

    def _start(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._reported_lost = self._reported_end = False
        self._camera().start(request["segment"])
        return {}

    def _features(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return self._camera().describe(request["names"])

    def _set(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        camera = self._camera()
        feature, value = request["feature"], camera.set(request["feature"], request["value"])
        return {"value": value, "lasts": camera.lasts(feature), "fps": camera.fps}

    def _trigger(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._camera().trigger()
        return {}

    def _stop(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any] | None:
        with _time_limit(CLOSE_S):
            self._camera().stop(drain=request["drain"])
        if not request["drain"]:
            self._camera().abandon_waiting()  # of a camera that was lost before
            return {}
        self._drain = (request, time.monotonic() + DRAIN_S)
        return None  # answered when nothing waits any more

    def _close(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._shut_down()
        return {}

    def _shut_down(self) -> None:
        self._closed = True
        acquisition, self._acquisition = self._acquisition, None
        if acquisition is None:
            return
        with _time_limit(CLOSE_S):
            try:
                acquisition.close()
            except Exception:
                if not acquisition.lost:
                    raise
                # A camera that is gone cannot be closed; the kernel lets go of the rest with the process.

    def _camera(self) -> Acquisition:
        if self._acquisition is None:
            raise UserError("the grab stage has no camera open")
        return self._acquisition


class _time_limit:  # noqa: N801 (a context manager that reads like a function)
    """Ends the process when the block takes longer: a dead device can hang inside the binding, which holds the GIL."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._sink = open(os.devnull, "w")
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._sink)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._sink.close()


def make_realtime(wish: Realtime) -> str:
    """Binds this process to a core and gives it a real-time priority; a sentence where that is not permitted.

    Raises UserError for a core that does not exist. Threads started later inherit both.
    """
    if wish.cpu is not None:
        try:
            os.sched_setaffinity(0, {wish.cpu})
        except OSError as error:
            cores = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            raise UserError(f"realtime cpu {wish.cpu} cannot be used: this process may run on {cores}") from error
    if wish.fifo:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(wish.fifo))
        except OSError:
            return (
                f"SCHED_FIFO {wish.fifo} is not permitted: grant it with an rtprio line in /etc/security/limits.conf "
                "or CAP_SYS_NICE; running at normal priority"
            )
    return ""


def main(channel: Channel) -> None:
    """Runs the stage."""
    sys.setswitchinterval(0.0005)  # a waiting thread gets the GIL sooner: frames do not wait for a config being read
    try:
        Grab(channel).run()
    finally:
        channel.close()


if __name__ == "__main__":
    sys.exit(run_stage("grab", main))
