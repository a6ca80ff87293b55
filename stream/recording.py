"""RecordSide: one camera's record process, as the main process starts, asks, watches and ends it.

The stream never waits for it: a record process that dies, hangs or has a full disk costs recordings, not frames.
"""

from __future__ import annotations

import time
from typing import Any

from ..engines.errors import UserError
from .config import StreamConfig
from .hub import LAST_BREATH_S, Hub, StageDied
from .liveness import Activity
from .meter import Meter
from .record.plan import Plan, make_plan
from .shared import Shared
from .stage import StageProcess

_OPEN_S = 60.0
_ASK_S = 10.0  # after which the process does not do any more what it was asked
_LATE_S = 1.0  # for its answer to get here
_CLOSE_S = 90.0  # for writing what the ring still holds
_MOST_DEATHS = 5
_MOST_ASKED = 16  # that is not answered
_PATIENCE_NS = 5_000_000_000
_CHANGING = ("engine", "engine_mode", "white_balance")  # settings that a run may change


class Asking:
    """What has become of something that the process was asked for.

    Attributes:
        answer: What it does now, as in the status; None before it has answered.
        refusal: Why it is not done; empty before that is known.
    """

    def __init__(self, stage: StageProcess, call: int, until_s: float) -> None:
        self.stage, self.call, self.until_s = stage, call, until_s
        self.answer: dict[str, Any] | None = None
        self.refusal = ""


class RecordSide:
    """The record process of one camera. Without --record there is none, and everything here does nothing.

    Attributes:
        plan: What is recorded; None where nothing is.
        stage: The process; None where there is none (any more).
        failed: Whether a recording ended before its time.
    """

    def __init__(self, hub: Hub, config: StreamConfig, meter: Meter) -> None:
        self._hub, self._meter = hub, meter
        self._settings = config.model_dump(mode="json")
        self.plan: Plan | None = make_plan(config)
        self.stage: StageProcess | None = None
        self.failed = False
        self._deaths = 0
        self._call = 0  # that opens it or gives it the rings, while it makes itself ready
        self._attaching = False  # whether it is given the rings
        self._deadline = 0.0
        self._status: dict[str, Any] = {}
        self._asked: list[Asking] = []  # that is not answered
        self._keys: list[Asking] = []
        self._activity, self._reports = Activity(_PATIENCE_NS), 0

    def begin(self) -> None:
        """Starts the process, without waiting."""
        if self.plan:
            self.stage = self._hub.spawn("record")
            self._call, self._attaching = self.stage.post("open", config=self._settings), False
            self._deadline = time.monotonic() + _OPEN_S

    def attach(self, shared: Shared, engine: dict[str, Any]) -> None:
        """Gives it the rings and waits. Raises UserError, StageDied, TimeoutError."""
        if self.stage is None:
            return
        self._hub.answer(self.stage, self._call, _OPEN_S)
        self._post_attach(self.stage, shared, engine, resumed=False)
        self._note_state(self._hub.answer(self.stage, self._call, _OPEN_S))
        self._call = 0

    def step(self, shared: Shared, engine: dict[str, Any]) -> None:
        """Goes on with a process that was started again, as far as its answers have come, and hears others."""
        self.hear()
        stage = self.stage
        if stage is None or not self._call:
            return
        try:
            answer = self._hub.answer_now(stage, self._call)
            if answer is None:
                if time.monotonic() > self._deadline:
                    raise TimeoutError(f"the record process did not become ready within {_OPEN_S:g} s")
            elif not self._attaching:
                self._post_attach(stage, shared, engine, resumed=True)
            else:
                self._note_state(answer)
                self._call = 0
                self.tell_engine(engine, self._settings)  # which may have changed meanwhile
        except StageDied:  # it has its own event in the inbox
            pass
        except (UserError, TimeoutError) as error:
            self._lose(str(error))

    @property
    def status(self) -> dict[str, Any]:
        """What it does, for the status message: {"record": {state, file, frames, bytes, behind}}, or nothing."""
        return {"record": self._status} if self.plan else {}

    def look(self) -> None:
        """Takes down whether it still reports, as it does once a second while it records; to be called often."""
        self._activity.look(self._reports, more=self._status.get("state") == "recording")

    def activity(self) -> dict[str, Any]:
        """How it gets on, see Activity.state; `gone` where it has ended."""
        return self._activity.state("" if self.stage else "gone")

    def ask(self, action: str, reason: str, time_ns: int = 0) -> Asking:
        """Asks to begin (`start`), end (`stop`) or trigger (`trigger`) a recording. `hear` tells what became of it.

        Raises UserError where nobody can be asked.
        """
        if self.plan is None:
            raise UserError("nothing is recorded in this run: start isp-stream with --record FOLDER")
        if self.stage is None or self.stage.dead:
            raise UserError("nothing can be recorded any more in this run: its record process has ended")
        if self._call:
            raise UserError("the record process is being started again: ask once more in a moment")
        if len(self._asked) >= _MOST_ASKED:
            raise UserError("the record process has not yet answered what it was asked before: ask again when it has")
        now_s = time.monotonic()
        until_ns = round((now_s + _ASK_S) * 1e9)
        call = self.stage.post(action, reason=reason, time_ns=time_ns, until_ns=until_ns)
        self._asked.append(Asking(self.stage, call, now_s + _ASK_S + _LATE_S))
        return self._asked[-1]

    def hear(self) -> None:
        """Takes in what the process has answered, or has not in time."""
        for asking in list(self._asked):
            try:
                answer = self._hub.answer_now(asking.stage, asking.call)
                if answer is None and time.monotonic() > asking.until_s:
                    raise TimeoutError(f"the record process did not answer within {_ASK_S:g} s")
            except UserError as error:
                asking.refusal = str(error)
            except (TimeoutError, StageDied) as error:
                asking.refusal = f"{error}: its disk may be stuck"
            else:
                if answer is None:
                    continue
                self._note_state(answer)
                asking.answer = self._status
            self._asked.remove(asking)
        for asking in [asking for asking in self._keys if asking not in self._asked]:
            self._keys.remove(asking)
            if asking.refusal:
                self._warn_refused(asking.refusal)

    @property
    def listens_to_keys(self) -> bool:
        """Whether Enter in the terminal triggers."""
        return self.plan is not None and "key" in self.plan.on

    def on_key(self, time_ns: int) -> None:
        """Enter was pressed, at that CLOCK_MONOTONIC."""
        if self.listens_to_keys:
            try:
                self._keys.append(self.ask("trigger", "key", time_ns))
            except UserError as error:
                self._warn_refused(str(error))

    def tell_engine(self, engine: dict[str, Any], settings: dict[str, Any]) -> None:
        """The engine of later recordings, and the settings that it was made with (of StreamConfig, as JSON)."""
        self._settings |= {name: settings[name] for name in _CHANGING}
        if self.stage and not self.stage.dead and not self._call:
            self.stage.post("tell", engine=engine, settings=self._settings)

    def handle(self, message: dict[str, Any]) -> None:
        """Deals with what the process reports, or with its end."""
        if message["event"] == "died":
            self._restart()
        elif message["event"] == "recording":
            self._report(message)

    def end(self) -> None:
        """Lets it write what is left, and sees it end. Harmless when repeated."""
        stage, self.stage = self.stage, None
        if stage is None:
            return
        if not stage.dead and not self._call:
            try:
                self._hub.call(stage, "close", _CLOSE_S, stoppable=False)
            except (StageDied, TimeoutError, UserError) as error:
                self.failed = True
                self._meter.fault(f"recording ended: {error}", event="recording", change="lost", state="over")
        self.hear()
        for asking in self._asked:
            asking.refusal = "the run has ended"
        self._asked = []
        for other, message in list(self._hub.inbox):  # what it has said meanwhile
            if other is stage and message["event"] == "recording":
                self._report(message)
        self._hub.retire(stage, grace_s=2)

    # -- inside -------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        stage = self.stage
        if stage is None:
            return
        self._hub.retire(stage, LAST_BREATH_S)
        self.stage, self._deaths, self.failed = None, self._deaths + 1, True
        again = self._deaths <= _MOST_DEATHS
        text = f"the record process ended {stage.how_it_ended()}; what it had written is kept"
        text += "; starting it again" if again else "; it did so again and again: nothing is recorded any more"
        self._note_state({"state": "armed" if again else "over"})
        self._meter.fault(text, event="stage_died", stage="record")
        if not again:
            return
        try:
            self.begin()
        except OSError as error:
            self._lose(f"its process cannot be started: {error.strerror}")

    def _post_attach(self, stage: StageProcess, shared: Shared, engine: dict[str, Any], *, resumed: bool) -> None:
        """`resumed`: in the middle of the run."""
        self._call = stage.post(
            "attach",
            (shared.raw.fd, shared.srgb.fd),
            geometry=shared.geometry,
            format=shared.raw_format.to_json(),
            stream_id=shared.stream_id,
            history=shared.sure_history,
            engine=engine,
            resumed=resumed,
        )
        self._attaching = True
        self._deadline = time.monotonic() + _OPEN_S

    def _warn_refused(self, why: str) -> None:
        self._meter.warning(why, event="recording", change="refused", state=self._status.get("state"))

    def _lose(self, why: str) -> None:
        stage, self.stage, self._call = self.stage, None, 0
        if stage is not None:
            self._hub.retire(stage)  # or it might record after all, when its disk wakes up
        self._meter.fault(f"nothing is recorded any more: {why}", event="recording", change="lost", state="over")
        self._note_state({"state": "over"})

    def _report(self, message: dict[str, Any]) -> None:
        change = message["change"]
        self._reports += 1
        self._note_state(message)
        if change == "ended":
            self._deaths = 0  # it does its work
        if change == "progress":
            return
        details = {name: value for name, value in message.items() if name not in ("event", "text")}
        text = message.get("text") or _text(message)
        self.failed |= bool(message.get("failed"))
        if change == "refused" or message.get("failed"):
            self._meter.warning(text, event="recording", **details)
        else:
            self._meter.note("recording", text, **details)

    def _note_state(self, message: dict[str, Any]) -> None:
        names = ("state", "file", "frames", "bytes", "behind") if message["state"] == "recording" else ("state",)
        self._status = {name: message[name] for name in names if name in message}


def _text(message: dict[str, Any]) -> str:
    short = f" without its first {message['short_s']:g} s, which are gone" if "short_s" in message else ""
    if message["change"] == "recording":
        return f"recording {message['file']}{short} ({message['reason']})"
    if message["change"] == "trigger":
        return f"recording goes on ({message['reason']})"
    counts = " and ".join(f"{count} {kind}" for kind, count in message["frames"].items())
    lapped = sum(message["lapped"].values())
    lost = f", {lapped} LAPPED" if lapped else ""
    thinned = f", {message['thinned']} left out" if message["thinned"] else ""
    size = f"{message['bytes'] / 1e6:.1f} MB"
    to = f", {size}, to {message['file']}" if message.get("file") else ""
    return f"recorded {counts} frames{to}{lost}{thinned}{short}: {message['reason']}"
