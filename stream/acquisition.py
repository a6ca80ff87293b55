"""One camera's acquisition: opens it, moves its frames into the raw ring, and notices when it is gone.

Three threads share it. The *control* thread (the process's main thread) calls the methods; the *acquire* thread waits
for frames; the *return* thread waits for slots that develop gives back, and offers them to the producer at once: a
return that is only seen when the next frame comes would starve the camera while every slot is out. One lock guards the
bookkeeping; the data path releases the GIL while it waits.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..engines.errors import UserError
from .camera.camera import open_camera
from .camera.nodes import CameraUnreachable
from .camera.settings import exposure_and_gain, frame_rate
from .camera.sources import INCOMPLETE, SourceEnded, SourceFailed
from .changes import Schedule
from .config import StreamConfig
from .hold import Hold, HoldOptions
from .ring import Ring, Word

WAIT_MS = 50  # the acquire thread looks this often whether it shall end
_AWAY_S = 1.0  # of the acquisition's own silence, after which the camera's counts from then on
PROBE_S = 1.0  # with a trigger, the camera is asked this often whether it is there
SILENT_PROBE_S = 0.25  # without, this often once it is silent
_SEEN = int(Word.SEEN)  # a plain int: an IntEnum member costs a call each time it indexes
READ_S = 1.0  # exposure and gain are read again this often where no chunk tells them
PERIODS = 2.5  # a camera slower than the timeout is silent only after this many of its periods


class Acquisition:
    """A camera, opened. `warnings` and `changes` collect what the user is told; `wake_fd` is an eventfd that says: look
    here. `again` is (feature, value) of what was set on the camera during the run, before it was lost.

    Raises UserError when there is no such camera, it is in use, or it refuses a setting.
    """

    def __init__(self, config: StreamConfig, wake_fd: int, again: Sequence[tuple[str, Any]] = ()) -> None:
        self.warnings: list[str] = []
        self.changes: list[dict[str, Any]] = []  # what was set during the run, for the user
        self.lost: str | None = None  # why the camera is lost
        self.refused = ""  # why its frames cannot be used, as a sentence
        self.ended = False  # whether the camera, a recording, has no more frames
        self._schedule = Schedule(config.at)
        self._wake_fd = wake_fd
        self._camera = open_camera(config, self.warnings)
        self._features, self._source = self._camera.features, self._camera.source
        self.label, self.geometry = self._camera.label, self._camera.geometry
        try:
            self._set_again(again)
            self._schedule.check(self._features)
        except BaseException:
            with contextlib.suppress(Exception):  # the reason to leave is the first one
                self._camera.close()
            raise
        self._lock = threading.Lock()
        self._hold: Hold | None = None
        self._ring: Ring | None = None
        self._fds: list[int] = []
        self._acquire_thread: threading.Thread | None = None
        self._return_thread: threading.Thread | None = None
        self._end_returns = os.eventfd(0, os.EFD_CLOEXEC)
        self._ending = False
        self._gone = False  # whether the camera did not answer
        self._timeout_s = config.timeout_ms / 1000
        self._heard = self._probed = self._looked = self._read = time.monotonic()
        self._look_at_nodes()

    @property
    def streaming(self) -> bool:
        """Whether the acquire thread runs."""
        return self._acquire_thread is not None

    @property
    def draining(self) -> bool:
        """Whether frames still wait that may yet be granted."""
        with self._lock:
            return self._hold is not None and self._hold.can_drain()

    @property
    def finished(self) -> bool:
        """Whether the camera has no more frames, and develop has given back all of those that it could be granted."""
        with self._lock:
            return self.ended and self._hold is not None and not self._hold.granted and not self._hold.can_drain()

    def _set_again(self, again: Sequence[tuple[str, Any]]) -> None:
        for name, value in again:
            try:
                self._features.set(name, value)
            except UserError as error:
                self.warnings.append(f"set during the run, and now not again: {error}")
        if again:
            fps = frame_rate(self._features, triggered=self._features.read("TriggerMode") == "On")
            self.geometry = replace(self.geometry, fps=fps)

    def attach(self, fds: list[int], options: HoldOptions, timeout_ms: int) -> None:
        """Maps the raw ring (`fds`: ring, grant eventfd, return eventfd) and offers its slots to the source.

        Raises UserError when the producer refuses the ring's memory.
        """
        if self._ring is not None:
            raise RuntimeError("a ring is attached already")
        self._ring = Ring.attach(fds[0], writable=True)
        self._fds = fds[1:]
        self._timeout_s = timeout_ms / 1000
        try:
            self._source.attach(self._ring)
        except SourceFailed as error:
            raise UserError(f"{self.label}: {error}; choose --acquisition copy") from error
        source = self._source
        if source.patient:  # it waits for a slot, so no frame has to make room for it
            options = replace(options, policy="block")
        self._hold = Hold(
            self._ring,
            options,
            source.queue,
            fds[1],
            statistics=lambda: (source.underruns(), source.undelivered()),
            warn=self._warn,
        )
        self._return_thread = threading.Thread(target=self._return_loop, name="returns", daemon=True)
        self._return_thread.start()

    def consumer(self, epoch: int, depth: int = 0) -> None:
        """The develop process `epoch` is ready, for `depth` frames at once (0: as many as before); 0 pauses grants."""
        with self._lock:
            self._need_hold().consumer(epoch, depth)

    def consumer_lost(self) -> int:
        """The develop process died; how many slots it held."""
        with self._lock:
            return self._need_hold().consumer_lost()

    def start(self, segment: int) -> None:
        """Starts the acquisition; its frames carry `segment`. Raises UserError when the camera refuses."""
        hold = self._need_hold()
        self._look_at_nodes()
        self._ending, self.lost, self.ended, self._gone = False, None, False, False
        self.make_changes()  # of a camera that was opened again, all that were due before
        try:
            with self._lock:
                hold.start(segment)
            self._source.start()
        except SourceFailed as error:
            self._source.stop(gone=False)
            self._take_back()
            raise UserError(f"{self.label} does not start: {error}") from error
        self._heard = self._probed = time.monotonic()
        self._acquire_thread = threading.Thread(target=self._acquire_loop, name="acquire", daemon=True)
        self._acquire_thread.start()

    def stop(self, drain: bool) -> None:
        """Ends the acquisition. What was delivered is counted; without `drain` what waits counts as stopped.

        A camera that is lost but answers is told to stop: it would acquire on. One that is dying may hang in here.
        """
        if self._acquire_thread is None:
            return
        if self.lost and not self._gone:
            self._probe(time.monotonic())
        self._source.stop(gone=self._gone)
        self._ending = True
        self._acquire_thread.join()
        self._acquire_thread = None
        self._take_back()
        if not drain:
            self.abandon_waiting()

    def abandon_waiting(self) -> None:
        """Counts what waits as stopped."""
        with self._lock:
            if self._hold is not None:
                self._hold.abandon_waiting()

    def set(self, feature: str, value: Any) -> Any:
        """Sets a feature and returns its value read back. Raises UserError."""
        result = self._features.set(feature, value)
        self._look_at_nodes()
        return result

    def lasts(self, feature: str) -> bool:
        """Whether a feature is a setting, to be made again when the camera comes back."""
        return self._features.lasts(feature)

    def describe(self, names: list[str]) -> dict[str, Any]:
        """What features are set to and can be set to, see Features.describe."""
        return {"features": [self._features.describe(name) for name in names]}

    def make_changes(self) -> None:
        """Sets the features whose time has come; one that is refused is a warning, for the run has begun."""
        for change in self._schedule.due(self._need_hold().ring.words[Word.SEEN]):
            try:
                value = self.set(change.feature, change.value)
            except UserError as error:
                self.changes.append({"text": f"at {change.after} frames: {error}", "refused": True})
                continue
            shown = f"{value:g}" if isinstance(value, float) else value
            told = f"{self.label}: {change.feature} {shown}, after {change.after} frames"
            made = {"feature": change.feature, "value": value, "after": change.after, "fps": self._fps}
            self.changes.append({"text": told, "lasts": self._features.lasts(change.feature), **made})
        self._change_at = self._schedule.next_after

    @property
    def fps(self) -> float | None:
        """The camera's rate in Hz; None where it has none of its own."""
        return self._fps

    def trigger(self) -> None:
        """Fires the software trigger. Raises UserError."""
        self._features.set("TriggerSoftware", True)

    def check_alive(self) -> None:
        """Sets `lost` when the camera is silent though it should not be, or does not answer."""
        if self._acquire_thread is None or self.lost or self._hold is None:
            return
        self._hold.ring.words[Word.GRAB_ALIVE_NS] = time.monotonic_ns()  # the probes below may hang
        now = time.monotonic()
        away_s, self._looked = now - self._looked, now
        if self.ended:
            return
        if away_s > _AWAY_S:  # this process stood still: who knows whether the camera was silent
            self._heard = now
        if self._hold.queued == 0:  # it has nowhere to put a frame: silence is ours, not its own
            self._heard = now
        silent_s = now - self._heard
        if silent_s < READ_S <= now - self._read:
            self._follow(now)
        if self._may_be_silent:
            if now - self._probed >= PROBE_S:
                self._probe(now)
            return
        fps = self._fps
        period_s = 1 / fps if fps else 0.0
        if silent_s >= max(self._timeout_s, PERIODS * period_s):
            self._probe(now)
            self.lost = self.lost or f"silent for {silent_s * 1000:.0f} ms"
        elif silent_s >= max(SILENT_PROBE_S, PERIODS * period_s) and now - self._probed >= SILENT_PROBE_S:
            self._probe(now)

    def close(self) -> None:
        """Stops, takes the buffers back, closes the camera. Raises the binding's exceptions where it is gone."""
        try:
            self.stop(drain=False)
            os.eventfd_write(self._end_returns, 1)
            if self._return_thread is not None:
                self._return_thread.join()
            self.abandon_waiting()
            self._source.release()
        finally:
            self._camera.close()
        if self._ring is not None:
            self._hold = None
            self._ring.close()
        for fd in (*self._fds, self._end_returns):
            os.close(fd)

    def _acquire_loop(self) -> None:
        hold, source, lock = self._need_hold(), self._source, self._lock
        arrival, wait, now_ns, arrived = source.arrival, source.wait, time.monotonic_ns, hold.arrived
        words, patient = hold.ring.words, source.patient
        try:
            first = True
            while True:
                if patient and not self._ending and hold.sated:
                    time.sleep(WAIT_MS / 1e3)  # frames that nobody would take are left where they are
                    continue
                ending = self._ending  # before the wait, or what came behind it would not be looked for
                slot = wait(0 if ending else WAIT_MS)
                if slot < 0:
                    if slot == INCOMPLETE:
                        self._count_passed_over()
                    elif ending:
                        with lock:
                            hold.left_behind(source.left_behind())
                        return
                    continue
                grabbed_ns = now_ns()
                exposure_us, gain_db = arrival.exposure_us, arrival.gain_db
                if exposure_us != exposure_us:  # NaN: not told with the frame
                    exposure_us = self._exposure_us
                if gain_db != gain_db:
                    gain_db = self._gain_db
                if first and not arrival.incomplete:
                    first = False
                    if why := source.fault():
                        arrived = hold.refused
                        self._refuse(why)
                with lock:
                    arrived(slot, arrival, grabbed_ns, exposure_us, gain_db)
                self._heard = grabbed_ns * 1e-9
                if words[_SEEN] >= self._change_at:
                    self._change_at = math.inf  # the control thread makes it, and looks for the next
                    os.eventfd_write(self._wake_fd, 1)
        except SourceEnded as end:
            with lock:
                hold.ended(end.last_id)
            self.ended = True
            os.eventfd_write(self._wake_fd, 1)
        except SourceFailed as error:
            self._fail(str(error))
        except Exception as error:  # a producer's surprise shall end the acquisition, not the account of it
            self._fail(f"{type(error).__name__} in the acquisition: {error}")

    def _count_passed_over(self) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            self._need_hold().passed_over(now_ns)
        self._heard = now_ns * 1e-9

    def _return_loop(self) -> None:
        hold, lock = self._need_hold(), self._lock
        returns_fd = self._fds[1]
        poll = select.poll()
        poll.register(returns_fd, select.POLLIN)
        poll.register(self._end_returns, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._end_returns in ready:
                return
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(returns_fd)
            try:
                with lock:
                    hold.take_returns()
            except SourceFailed as error:
                self._fail(str(error))

    def _take_back(self) -> None:
        """Frees every slot that the source has; first of all no more is offered, or one would slip in behind."""
        with self._lock:
            self._need_hold().stop()
        self._source.flush()

    def _look_at_nodes(self) -> None:
        """Reads what the nodes say and the acquire thread and `check_alive` need to know."""
        self._exposure_us, self._gain_db = exposure_and_gain(self._features)
        self._fps = frame_rate(self._features, triggered=self._features.read("TriggerMode") == "On")
        self._may_be_silent = self._camera.may_be_silent()

    def _follow(self, now: float) -> None:
        """Reads exposure and gain again where no chunk tells them: the camera, or another program, may change them.

        From the camera, not a cache, and in the control thread: the acquire thread waits for no register. Only while
        frames come, for one that is dying may hang.
        """
        self._read = now
        arrival = self._source.arrival
        if arrival.exposure_us != arrival.exposure_us:  # NaN: not told with the frame
            self._exposure_us = self._read_anew("ExposureTime", self._exposure_us)
        if arrival.gain_db != arrival.gain_db:
            self._gain_db = self._read_anew("Gain", self._gain_db)

    def _read_anew(self, name: str, before: float) -> float:
        value = self._features.read(name, fresh=True)
        return float(value) if isinstance(value, (int, float)) else before

    def _fail(self, why: str) -> None:
        if not self._ending:
            self.lost = self.lost or why
            os.eventfd_write(self._wake_fd, 1)

    def _refuse(self, why: str) -> None:
        self.refused = f"{self.label}: {why}"
        os.eventfd_write(self._wake_fd, 1)

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self.label}: {text}")
        os.eventfd_write(self._wake_fd, 1)

    def _probe(self, now: float) -> None:
        self._probed = now
        try:
            self._features.probe()
        except CameraUnreachable as error:
            self._gone = True
            self.lost = self.lost or f"it does not answer ({error})"

    def _need_hold(self) -> Hold:
        if self._hold is None:
            raise RuntimeError("no ring is attached")
        return self._hold
