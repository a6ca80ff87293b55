"""The soak: a real isp-stream at its full rate, and one fault after the other, for as many frames as are asked for.

Faults and their moments (in frames) are drawn from a seed, so that a run that fails can be played again. All the time,
and when it is over, must hold: frames go on after every fault; each account balances to the frame, isp-stream's and the
subscribers'; pixels are those of the frame that they are said to be; memory, descriptors and processes do not grow;
nothing is left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from ..stream.control import Control, ControlError
from .helper import HelperProcess
from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, PipelineError, Settings
from .processes import named_shared_memory, ring_memory, stage_pids
from .rate import write_report
from .soak_checks import (
    Sample,
    check_ledger,
    check_left,
    check_recording,
    check_subscriber,
    judge_memory,
    take_sample,
)
from .soak_faults import FAULTS, HANG_MS, SILENCE_MS, Step, schedule
from .soak_report import in_short, print_report, sums, trail

RECOVERY_S = 180.0  # for a frame after a fault; a machine under load starts processes slowly
ANSWER_S = 180.0
EVERY = 2000  # frames from one fault to the next
_LIFETIME_S = 6 * 3600.0
_SAMPLE_S = 10.0
_LOOK_S = 0.05
_ON = 20  # frames by which a camera is known to go on, and not only to have been late
#: What may be answered in the middle of faults; all else that is refused is a problem.
_EXPECTED = (
    "is not there at the moment",
    "did not answer within",
    "the engine stays as it is",
    "there is no engine 'no-such-engine",
    "nothing can be recorded any more",
    "its disk may be stuck",
    "the record process is being started again",
    "this camera does not",
)


class Soak:
    """One run and what is done to it.

    Attributes:
        endpoint, control_endpoint: Where it publishes, and takes commands.
        fps: Rate of each camera.
        problems: What should not have been, one sentence each.
    """

    def __init__(self, pipeline: Pipeline, endpoint: str, fps: float, cameras: int, seed: int) -> None:
        self.pipeline, self.endpoint, self.control_endpoint = pipeline, endpoint, f"{endpoint}.control"
        self.fps, self.cameras = fps, cameras
        self.problems: list[str] = []
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.accounts: dict[str, list[dict[str, Any]]] = {}
        self._chance = random.Random(seed)
        self._engines = dict.fromkeys(range(cameras), "classic")
        self._pool = ThreadPoolExecutor(4)
        self._changes: list[Future[None]] = []
        self._subscribers: dict[str, HelperProcess] = {}
        self._resumes: list[tuple[float, int]] = []
        self._sample_at = time.monotonic() + _SAMPLE_S
        self._read = 0  # events looked at
        self._statuses: dict[int, dict[str, Any]] = {}
        self._now = "the start"
        self._connected: set[str] = set()  # subscribers whose connections count among the descriptors

    # -- what faults use --------------------------------------------------------------------------------------------

    def ask(self, camera: int, command: str, **arguments: Any) -> dict[str, Any] | None:
        """A command to the run; None where it is refused for a reason that a fault explains."""
        try:
            with Control(self.control_endpoint, camera=camera, timeout_ms=ANSWER_S * 1e3) as control:
                return control.call(command, **arguments)
        except ControlError as error:
            if not any(part in str(error) for part in _EXPECTED):
                self._problem(f"{command} was refused: {error}")
        except TimeoutError as error:
            self._problem(f"{command}: {error}")
        return None

    def change_engine(self, camera: int, **changes: Any) -> None:
        """Asks for another engine, without waiting for the answer."""

        def change() -> None:
            answer = self.ask(camera, "engine", **changes)
            if answer and "engine" in changes:
                self._engines[camera] = answer["engine"]["name"]

        self._changes = [change for change in self._changes if not change.done()]
        self._changes.append(self._pool.submit(change))

    def other_engine(self, camera: int) -> str:
        """The one that does not develop now."""
        return "light-paired" if self._engines[camera] == "classic" else "classic"

    def signal(self, stage: str, number: signal.Signals) -> int | None:
        """Sends a signal to the main process or a process of that stage, by chance where there are several."""
        pids = [self.pipeline.pid] if stage == "main" else stage_pids(self.pipeline.marker, stage)
        if not pids:
            return None
        pid = self._chance.choice(sorted(pids))
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def resume(self, pid: int) -> None:
        """SIGCONT."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def resume_later(self, pid: int, seconds: float) -> None:
        """SIGCONT, after some time in which other things happen."""
        self._resumes.append((time.monotonic() + seconds, pid))

    def subscribe(self, name: str, camera: int, pause_ms: float = 0.0) -> int:
        """Starts a subscriber, in the place of an earlier one of that name. Returns its process id."""
        self.unsubscribe(name)
        helper = HelperProcess("soak_subscriber", self.endpoint, "--camera", str(camera), "--pause-ms", f"{pause_ms:g}")
        self._subscribers[name] = helper
        helper.read()
        return helper.pid

    def unsubscribe(self, name: str, *, kill: bool = False) -> None:
        """Ends a subscriber, and keeps its account. Harmless without one."""
        helper = self._subscribers.pop(name, None)
        if helper is None:
            return
        with helper:
            self.resume(helper.pid)
            if not kill:
                self.accounts.setdefault(name, []).append(helper.finish())

    # -- the run ----------------------------------------------------------------------------------------------------

    def play(self, steps: Sequence[Step], frames: int) -> None:
        """Does what the schedule says, looking around meanwhile, until so many frames were seen."""
        for camera in range(self.cameras):
            self.subscribe(f"steady {camera}", camera)
        self._connected = {
            name for name in ("slow", "stopped") if any(step.fault == f"{name}_subscriber" for step in steps)
        }
        for step in steps:
            self._until(step.at_frame)
            self._now = f"frame {step.at_frame}, {step.fault} of camera {step.camera}"
            FAULTS[step.fault](self, step)
            self.done[step.fault] += 1
            self._await_frames()
        self._until(frames)
        self._now = "the end"
        for change in self._changes:
            change.result(ANSWER_S)
        self._await_frames()

    def end(self) -> dict[int, dict[str, Any]]:
        """Ends the run as a user does, with every subscriber's account. Returns the ledgers by camera."""
        for name in list(self._subscribers):
            if not name.startswith("steady"):
                self.unsubscribe(name)
        self.pipeline.interrupt()
        code = self.pipeline.wait_end(60)
        for name in list(self._subscribers):
            self.unsubscribe(name)
        finals = {e["camera"]: e["ledger"] for e in list(self.pipeline.events) if e["event"] == "final"}
        # A recording that was cut off by a killed record process is told by the exit code, too.
        if code != 0 and not (code == 1 and self.done["kill_recorder"]):
            self.problems.append(f"isp-stream ended with exit code {code}")
        if len(finals) != self.cameras:
            self.problems.append(f"{len(finals)} of {self.cameras} cameras have an account at the end")
        return finals

    def close(self) -> None:
        """Ends what this class has started. Harmless when called twice."""
        self._pool.shutdown(wait=True)
        for helper in self._subscribers.values():
            self.resume(helper.pid)
            helper.__exit__(None, None, None)
        self._subscribers.clear()

    def frames(self) -> int:
        """Frames seen and missing so far, of all cameras."""
        accounts = [status["account"] for status in self._statuses.values()]
        return sum(account["seen"] + account["missing"] for account in accounts)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _until(self, frame: int) -> None:
        while self.frames() < frame:
            self._look()

    def _published(self) -> dict[int, int]:
        return {camera: status["account"]["published"] for camera, status in self._statuses.items()}

    def _await_frames(self) -> None:
        """Waits until every camera has published frames since now, by two of its statuses."""
        start_ns, deadline = time.monotonic_ns(), time.monotonic() + RECOVERY_S
        before: dict[int, int] = {}
        while time.monotonic() < deadline:
            self._look()
            for camera, status in self._statuses.items():
                if status["received_ns"] > start_ns:
                    before.setdefault(camera, status["account"]["published"])
            after = self._published()
            if len(before) == self.cameras and all(after[camera] > before[camera] + _ON for camera in before):
                return
        raise PipelineError(f"no frame of every camera within {RECOVERY_S:g} s after {self._now}")

    def _look(self) -> None:
        """Takes in what has come, and does what is due. Raises PipelineError when the run is over."""
        time.sleep(_LOOK_S)
        events = self.pipeline.events
        while self._read < len(events):
            self._note(events[self._read])
            self._read += 1
        if self.pipeline.ended:
            last = self.pipeline.stderr[-1].strip() if self.pipeline.stderr else "it said nothing"
            raise PipelineError(f"isp-stream ended after {self._now}: {last}")
        for at, pid in list(self._resumes):
            if time.monotonic() >= at:
                self.resume(pid)
                self._resumes.remove((at, pid))
        if time.monotonic() >= self._sample_at and self._quiet():
            sample = take_sample(self.pipeline.marker, self.pipeline.pid, self.frames())
            if sample is not None:
                self.samples.append(sample)
                self._sample_at = time.monotonic() + _SAMPLE_S

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "status":
            self._statuses[event["camera"]] = event
        elif event["event"] == "fault":
            self._problem(f"fault: {event['text']}")
        elif event["event"] == "recording" and event.get("change") == "ended" and event.get("file"):
            file = Path(event["file"])
            self.problems += check_recording(file)
            self.done["recordings checked"] += 1
            file.unlink()

    def _quiet(self) -> bool:
        """Whether everything is there, at work, and with the subscribers that will be there to the end."""
        if not self._connected <= self._subscribers.keys():
            return False
        if len(self._statuses) < self.cameras or any(not change.done() for change in self._changes):
            return False
        states = [told["state"] for status in self._statuses.values() for told in status["stages"].values()]
        engines = {status["engine"] for status in self._statuses.values()}
        live = all(status["state"] == "live" for status in self._statuses.values())
        return live and engines == {"classic"} and set(states) <= {"working", "idle"}

    def _problem(self, text: str) -> None:
        self.problems.append(f"{self._now}: {text}")


def _settings(fps: float, width: int, height: int, cameras: int, recordings: Path) -> Settings:
    extra = [part for camera in range(1, cameras) for part in ("--camera", str(camera))]
    extra += ["--timeout-ms", str(SILENCE_MS), "--stage-timeout-ms", str(HANG_MS)]
    extra += ["--record", str(recordings), "--pre-trigger-s", "0.1", "--post-trigger-s", "0.2"]
    return Settings(fps, width, height, "BayerRG8", slots=256, extra=tuple(extra))


def soak(
    frames: int,
    seed: int = 1,
    cameras: int = 1,
    *,
    fps: float = 1000,
    width: int = 160,
    height: int = 120,
    every: int = EVERY,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays a soak. Returns a JSON-able report; `problems` are what should not have been.

    Raises UserError for what isp-stream refuses, PipelineError where it does not even start.
    """
    if unknown := sorted(set(only) - set(FAULTS)):
        raise UserError(f"there is no fault {unknown[0]!r}: use {', '.join(FAULTS)}")
    steps = schedule(seed, frames, every, cameras, list(only or FAULTS))
    named, started_s = named_shared_memory(), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-")))
        for name in ("run", "out"):
            (folder / name).mkdir(mode=0o700)
        endpoint = f"ipc://{folder}/run/soak"
        settings = _settings(fps, width, height, cameras, folder / "out")
        environment = {"XDG_RUNTIME_DIR": str(folder / "run")}
        pipeline = stack.enter_context(Pipeline(settings, endpoint, _LIFETIME_S, environment))
        pipeline.wait_for("started", START_TIMEOUT_S)
        rings = ring_memory(pipeline.pid)
        run = Soak(pipeline, endpoint, fps, cameras, seed)
        stack.callback(run.close)
        ledgers: dict[int, dict[str, Any]] = {}
        last_told: list[dict[str, Any]] = []
        try:
            run.play(steps, frames)
        except PipelineError as error:
            run.problems.append(str(error))
            last_told = trail(pipeline.events)
        try:
            ledgers = run.end()
        except PipelineError as error:
            run.problems.append(str(error))
        run.problems += [problem for camera, ledger in ledgers.items() for problem in check_ledger(camera, ledger)]
        run.problems += _check_accounts(run, ledgers)
        run.problems += check_left(pipeline.marker, rings, named, folder / "run")
        if pipeline.stderr and any("Traceback" in line for line in pipeline.stderr):
            run.problems.append(f"a traceback on stderr: {pipeline.stderr[-1].strip()}")
        told = Counter(event["event"] for event in pipeline.events)
        shutil.rmtree(folder / "out")
    memory, growth = judge_memory(run.samples)
    return {
        "problems": [*run.problems, *growth],
        "seed": seed,
        "frames": sum(ledger["seen"] + ledger["missing"] for ledger in ledgers.values()),
        "seconds": round(time.monotonic() - started_s, 1),
        "faults": dict(sorted(run.done.items())),
        "told": {name: count for name, count in sorted(told.items()) if name != "status"},
        "cameras": {camera: in_short(ledger) for camera, ledger in ledgers.items()},
        "subscribers": {name: sums(accounts) for name, accounts in sorted(run.accounts.items())},
        "memory": memory,
        **({"trail": last_told} if last_told else {}),
    }


def _check_accounts(run: Soak, ledgers: dict[int, dict[str, Any]]) -> list[str]:
    most = max((ledger["published"] for ledger in ledgers.values()), default=0)
    return [
        problem
        for name, accounts in run.accounts.items()
        for account in accounts
        for problem in check_subscriber(name, account, most)
    ]


def run_soak(
    frames: int, seed: int, cameras: int, fps: float, width: int, height: int, only: Sequence[str], out: Path | None
) -> int:
    """Plays a soak, prints, writes `out`, and returns 0 when all held, else 1."""
    machine = describe()
    print(f"machine    {in_words(machine)}")
    asked = {"frames": frames, "fps": fps, "width": width, "height": height, "cameras": cameras, "only": list(only)}
    report = soak(frames, seed, cameras, fps=fps, width=width, height=height, only=only)
    problems = report.pop("problems")
    print_report(report, problems)
    result = {"command": "soak", "ok": not problems, "problems": problems, "machine": machine, "asked": asked}
    write_report({**result, **report}, out)
    print("target     " + ("reached" if not problems else "MISSED"))
    return 0 if not problems else 1
