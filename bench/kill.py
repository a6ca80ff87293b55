"""The fault drill: kill -9 of every process of the pipeline, and Ctrl-C at any moment, many times each.

After each fault: no process of the run is left, nobody holds its memory, the ledger balances where the main process
lived to write it, and a new run on the same camera and endpoint gets its first frame. Moments are drawn from a seeded
generator, so a drill can be repeated.
"""

from __future__ import annotations

import os
import random
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from ..stream.frame import FrameHeader
from ..stream.subscribe import Subscriber
from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, PipelineError, Settings
from .processes import named_shared_memory, ring_memory, stage_pid, wait_gone, wait_released
from .rate import start_subscriber, write_report

GONE_S = 5.0
RECOVERY_S = 20.0
_LIFETIME_S = 120.0
_SPREAD_S = 0.3  # how long after a frame a kill may come


@dataclass
class Outcome:
    """What happened in the turns of one scenario. `problems` name the turn; `seconds` are recoveries or ends."""

    turns: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Drill:
    """One camera and endpoint, hit again and again."""

    def __init__(self, settings: Settings, folder: str, seed: int) -> None:
        self._settings = settings
        self._endpoint = f"ipc://{folder}/drill"
        self._socket = Path(folder, "drill")
        self._random = random.Random(seed)
        self._start_s = 2.0  # how long a start takes; measured as the drill goes on
        self._named = named_shared_memory()

    def run(self, scenario: str, times: int, progress: Callable[[int, list[str]], None] | None = None) -> Outcome:
        """Plays `scenario`, a key of `SCENARIOS`, `times` times, then starts once more and looks at a frame."""
        outcome = Outcome()
        play = SCENARIOS[scenario]
        self._check_restart()  # also fills the compiler's cache, so that a first turn is like the others
        for turn in range(times):
            outcome.turns += 1
            try:
                seconds, problems = play(self)
                outcome.seconds.append(seconds)
            except (PipelineError, TimeoutError) as error:
                problems = [str(error)]
            outcome.problems += [f"turn {turn + 1}: {problem}" for problem in problems]
            if progress:
                progress(turn + 1, problems)
        try:
            self._check_restart()
        except (PipelineError, TimeoutError) as error:
            outcome.problems.append(f"restart after the last turn: {error}")
        return outcome

    # -- the scenarios: each returns (seconds of recovery or end, problems) -----------------------------------------

    def kill_subscriber(self) -> tuple[float, list[str]]:
        """kill -9 of a subscriber while it reads: the next one gets frames, nobody upstream notices."""
        with self._running() as (pipeline, rings, _):
            with start_subscriber(self._endpoint, 0.0, _LIFETIME_S) as victim:
                victim.read()
                self._pause()
                victim.kill()
                killed_s = time.monotonic()
            with Subscriber(self._endpoint, mode="every", timeout_ms=RECOVERY_S * 1e3) as watcher:
                watcher.receive()
            seconds = time.monotonic() - killed_s
            problems = [f"{e['event']}: {e.get('text')}" for e in pipeline.events if e["event"] in _FAULTS]
            return seconds, problems + self._end(pipeline, rings)

    def kill_grab(self) -> tuple[float, list[str]]:
        """kill -9 of grab: a new one opens the camera, a new segment begins."""
        return self._kill_stage("grab", lambda header, before, _: header.segment > before.segment)

    def kill_develop(self) -> tuple[float, list[str]]:
        """kill -9 of develop: a new one develops on, in the same segment."""
        return self._kill_stage("develop", lambda header, _, killed_ns: header.develop_start_ns > killed_ns)

    def kill_main(self) -> tuple[float, list[str]]:
        """kill -9 of the main process: everything ends with it."""
        with self._running() as (pipeline, rings, _):
            self._pause()
            os.kill(pipeline.pid, signal.SIGKILL)
            killed_s = time.monotonic()
            problems = self._left_behind(pipeline, rings)
            return time.monotonic() - killed_s, problems

    def interrupt(self) -> tuple[float, list[str]]:
        """Ctrl-C at any moment from the first instruction on: a quiet end, the socket gone, and a restart works."""
        with Pipeline(self._settings, self._endpoint, _LIFETIME_S) as pipeline:
            time.sleep(self._random.uniform(0, self._start_s * 1.25 + 0.5))
            rings = ring_memory(pipeline.pid)
            interrupted_s = time.monotonic()
            pipeline.interrupt()
            code = pipeline.wait_end()
            seconds = time.monotonic() - interrupted_s
            problems = _unquiet(pipeline, code)
            final = pipeline.last("final")
            if final is not None:
                problems += _unbalanced(final)
            problems += self._left_behind(pipeline, rings)
            if self._socket.exists():
                problems.append("the socket was left behind")
        self._check_restart()
        return seconds, problems

    # -- their parts ------------------------------------------------------------------------------------------------

    def _kill_stage(
        self, stage: str, recovered: Callable[[FrameHeader, FrameHeader, int], bool]
    ) -> tuple[float, list[str]]:
        with self._running() as (pipeline, rings, first):
            self._pause()
            pid = stage_pid(pipeline.marker, stage)
            if pid is None:
                return 0.0, [f"no {stage} process was there to kill"]
            os.kill(pid, signal.SIGKILL)
            killed_ns = time.monotonic_ns()
            with Subscriber(self._endpoint, mode="every", timeout_ms=RECOVERY_S * 1e3) as watcher:
                while not recovered(watcher.receive().header, first, killed_ns):
                    if time.monotonic_ns() - killed_ns > RECOVERY_S * 1e9:
                        raise PipelineError(f"no frame of a new {stage} process came within {RECOVERY_S:g} s")
            seconds = (time.monotonic_ns() - killed_ns) * 1e-9
            problems = []
            if stage_pid(pipeline.marker, stage) in (None, pid):
                problems.append(f"the {stage} process was not replaced")
            if pipeline.last("stage_died") is None:
                problems.append(f"nobody was told that {stage} died")
            return seconds, problems + self._end(pipeline, rings)

    @contextmanager
    def _running(self) -> Iterator[tuple[Pipeline, set[tuple[int, int]], FrameHeader]]:
        """A run that has delivered a frame: (pipeline, its rings, that frame's header)."""
        with Pipeline(self._settings, self._endpoint, _LIFETIME_S) as pipeline:
            pipeline.wait_for("started", START_TIMEOUT_S)
            with Subscriber(self._endpoint, mode="every", timeout_ms=RECOVERY_S * 1e3) as subscriber:
                header = subscriber.receive().header
            self._start_s = (time.monotonic_ns() - pipeline.started_ns) * 1e-9
            rings = ring_memory(pipeline.pid)
            if len(rings) < 2:
                raise PipelineError(f"the main process holds {len(rings)} rings, not two")
            yield pipeline, rings, header

    def _check_restart(self) -> None:
        with self._running() as (pipeline, _, _):
            pipeline.finish()

    def _pause(self) -> None:
        time.sleep(self._random.uniform(0, _SPREAD_S))

    def _end(self, pipeline: Pipeline, rings: set[tuple[int, int]]) -> list[str]:
        """Ctrl-C, then everything that must hold after a clean end."""
        final = pipeline.finish()
        problems = _unbalanced(final)
        if final["exit"] != 0:
            problems.append(f"isp-stream ended with exit code {final['exit']}")
        return problems + self._left_behind(pipeline, rings)

    def _left_behind(self, pipeline: Pipeline, rings: set[tuple[int, int]]) -> list[str]:
        left = wait_gone(pipeline.marker, GONE_S)
        problems = [f"process {pid} outlived the run by {GONE_S:g} s: {command}" for pid, command in left.items()]
        if keepers := wait_released(rings, GONE_S):
            problems.append(f"memory of the run is still held by {keepers}")
        if named := named_shared_memory() - self._named:
            problems.append(f"left in shared memory: {sorted(named)}")
        return problems


_FAULTS = ("fault", "stage_died", "stage_hung", "camera_lost")

SCENARIOS: dict[str, Callable[[Drill], tuple[float, list[str]]]] = {
    "subscriber": Drill.kill_subscriber,
    "grab": Drill.kill_grab,
    "develop": Drill.kill_develop,
    "main": Drill.kill_main,
    "ctrl-c": Drill.interrupt,
}


def _unbalanced(final: dict[str, Any]) -> list[str]:
    ledger = final["ledger"]
    if ledger["balanced"] and ledger["in_flight"] == 0:
        return []
    return [f"the ledger does not balance: {ledger['in_flight']} in flight, {ledger['segments']}"]


def _unquiet(pipeline: Pipeline, code: int) -> list[str]:
    """What was wrong with an interrupted end: it must be quiet, with exit code 0.

    Only before the first line of `stream()` runs does the interpreter end in its own way, with a KeyboardInterrupt.
    """
    said = "".join(pipeline.stderr)
    if code == 0 and not said:
        return []
    begun = bool(pipeline.events) or _BEGUN.search(said) is not None
    if not begun and (code == -signal.SIGINT or (code == 1 and "KeyboardInterrupt" in said)):
        return []
    return [f"Ctrl-C ended with exit code {code} and said: {said.strip()[-300:]!r}"]


_BEGUN = re.compile(r'entry\.py", line \d+, in stream')


def run_kill(settings: Settings, times: int, only: Sequence[str], seed: int, out: Path | None) -> int:
    """Plays the scenarios, prints, writes `out`, and returns 0 when nothing went wrong, else 1."""
    unknown = sorted(set(only) - set(SCENARIOS))
    if unknown:
        raise UserError(f"there is no scenario {unknown[0]!r}: use {', '.join(SCENARIOS)}")
    machine = describe()
    print(f"machine    {in_words(machine)}")
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="ispeed-") as folder:
        for name in only or SCENARIOS:
            drill = Drill(settings, folder, seed)
            outcome = outcomes[name] = drill.run(name, times, _print_turn)
            spent = outcome.seconds or [0.0]
            verdict = "no fault" if not outcome.problems else f"{len(outcome.problems)} PROBLEMS"
            print(f"{name:11s} {outcome.turns} times: {verdict}; {_MEANING[name]} ", end="")
            print(f"median {statistics.median(spent):.3f} s, longest {max(spent):.3f} s", flush=True)
            for problem in outcome.problems:
                print(f"  {problem}")
    ok = not any(outcome.problems for outcome in outcomes.values())
    report = {"command": "kill", "ok": ok, "machine": machine, "times": times, "seed": seed}
    report |= {"settings": asdict(settings), "scenarios": {name: asdict(o) for name, o in outcomes.items()}}
    write_report(report, out)
    print("target     " + ("reached" if ok else "MISSED"))
    return 0 if ok else 1


_MEANING = {
    "subscriber": "next subscriber's first frame after",
    "grab": "first frame of the new process after",
    "develop": "first frame of the new process after",
    "main": "everything gone after",
    "ctrl-c": "ended after",
}


def _print_turn(turn: int, problems: list[str]) -> None:
    for problem in problems:
        print(f"  turn {turn}: {problem}", flush=True)
