"""The faults of the soak: what can be done to a running isp-stream, and the schedule that a seed makes of it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from .soak import Soak

SILENCE_MS = 1000  # after which isp-stream gives a camera up
HANG_MS = 2000  # after which it kills a stage


@dataclass(frozen=True)
class Step:
    """One fault: once `at_frame` frames were seen, to `camera`; `amount` in [0, 1) is how bad."""

    at_frame: int
    fault: str
    camera: int
    amount: float


def schedule(seed: int, frames: int, every: int, cameras: int, names: Sequence[str]) -> list[Step]:
    """The faults of a soak: rounds in which each of `names` comes once, `every` frames apart on average.

    The same arguments give the same schedule. The last one leaves the run as many frames to come back.
    """
    chance = random.Random(seed)
    steps: list[Step] = []
    at = every
    round_: list[str] = []
    while at < frames - every:
        if not round_:
            round_ = list(names)
            chance.shuffle(round_)
        steps.append(Step(at, round_.pop(), chance.randrange(cameras), chance.random()))
        at += round(every * chance.uniform(0.5, 1.5))
    return steps


# -- the camera -------------------------------------------------------------------------------------------------------


def unplug(soak: Soak, step: Step) -> None:
    """The camera is gone for up to a second, and comes back rebooted."""
    soak.ask(step.camera, "set", feature="SimVanish", value=50 + int(step.amount * 950))


def fall_silent(soak: Soak, step: Step) -> None:
    """The camera sends nothing more, until it is given up and opened again."""
    soak.ask(step.camera, "set", feature="SimStallMs", value=3_600_000)


def pause(soak: Soak, step: Step) -> None:
    """The camera sends nothing for a while that is no fault yet."""
    soak.ask(step.camera, "set", feature="SimStallMs", value=20 + int(step.amount * SILENCE_MS * 0.5))


def incomplete(soak: Soak, step: Step) -> None:
    """Frames arrive with half their bytes."""
    soak.ask(step.camera, "set", feature="SimIncompleteCount", value=1 + int(step.amount * 60))


def drop(soak: Soak, step: Step) -> None:
    """Frames are lost on their way: their ids never come."""
    soak.ask(step.camera, "set", feature="SimSkipCount", value=1 + int(step.amount * 60))


def change_features(soak: Soak, step: Step) -> None:
    """Exposure, gain and rate change while frames come."""
    soak.ask(step.camera, "set", feature="ExposureTime", value=100 + round(step.amount * 300))
    soak.ask(step.camera, "set", feature="Gain", value=round(step.amount * 6, 2))
    soak.ask(step.camera, "set", feature="AcquisitionFrameRate", value=soak.fps * (0.8 + 0.2 * step.amount))


# -- processes --------------------------------------------------------------------------------------------------------


def kill_grab(soak: Soak, step: Step) -> None:
    """kill -9 of a grab process."""
    soak.signal("grab", signal.SIGKILL)


def kill_develop(soak: Soak, step: Step) -> None:
    """kill -9 of a develop process."""
    soak.signal("develop", signal.SIGKILL)


def kill_both(soak: Soak, step: Step) -> None:
    """Of a grab and a develop process, one shortly after the other."""
    order = ("grab", "develop") if step.amount < 0.5 else ("develop", "grab")
    soak.signal(order[0], signal.SIGKILL)
    time.sleep(step.amount * 0.2)
    soak.signal(order[1], signal.SIGKILL)


def record(soak: Soak, step: Step) -> None:
    """A recording of what came shortly before and after."""
    soak.ask(step.camera, "record", action="trigger", reason="soak")


def kill_recorder(soak: Soak, step: Step) -> None:
    """kill -9 of the record process, in a recording."""
    soak.ask(step.camera, "record", action="trigger", reason="soak")
    time.sleep(step.amount * 0.2)
    soak.signal("record", signal.SIGKILL)


def hang_grab(soak: Soak, step: Step) -> None:
    """A grab process stands still, until it is killed."""
    soak.signal("grab", signal.SIGSTOP)


def hang_develop(soak: Soak, step: Step) -> None:
    """A develop process stands still, until it is killed."""
    soak.signal("develop", signal.SIGSTOP)


def hold_up(soak: Soak, step: Step) -> None:
    """A stage or the main process stands still for less than half a second."""
    name = ("grab", "develop", "main")[int(step.amount * 3)]
    pid = soak.signal(name, signal.SIGSTOP)
    time.sleep(0.02 + step.amount * 0.4)
    if pid:
        soak.resume(pid)


def unplug_and_kill(soak: Soak, step: Step) -> None:
    """The camera goes, and a process with it."""
    unplug(soak, step)
    time.sleep(step.amount * 0.5)
    soak.signal("develop" if step.amount < 0.5 else "grab", signal.SIGKILL)


# -- the engine -------------------------------------------------------------------------------------------------------


def change_engine(soak: Soak, step: Step) -> None:
    """From the classic engine to a learned one, or back."""
    soak.change_engine(step.camera, engine=soak.other_engine(step.camera))


def change_balance(soak: Soak, step: Step) -> None:
    """The same engine with other gains of white balance, in a new process."""
    gains = [round(1 + step.amount, 2), 1.0, round(2 - step.amount, 2)]
    soak.change_engine(step.camera, white_balance=gains if step.amount < 0.7 else "auto")


def change_engine_and_kill(soak: Soak, step: Step) -> None:
    """A develop process dies while another engine is made ready, or takes over."""
    change_balance(soak, step)
    time.sleep(step.amount * 1.5)
    soak.signal("develop", signal.SIGKILL)


def change_engine_and_unplug(soak: Soak, step: Step) -> None:
    """The camera goes meanwhile."""
    change_balance(soak, step)
    time.sleep(step.amount)
    unplug(soak, step)


def refuse_engine(soak: Soak, step: Step) -> None:
    """An engine that cannot be."""
    soak.change_engine(step.camera, engine=f"no-such-engine-{step.amount:.3f}")


# -- those who listen and ask -----------------------------------------------------------------------------------------


def slow_subscriber(soak: Soak, step: Step) -> None:
    """A subscriber that dawdles over each frame."""
    soak.subscribe("slow", step.camera, pause_ms=1 + step.amount * 20)


def stopped_subscriber(soak: Soak, step: Step) -> None:
    """A subscriber that stands still for a second or two, and then goes on."""
    pid = soak.subscribe("stopped", step.camera)
    os.kill(pid, signal.SIGSTOP)
    soak.resume_later(pid, 1 + step.amount)


def killed_subscriber(soak: Soak, step: Step) -> None:
    """kill -9 of a subscriber while it reads."""
    soak.subscribe("killed", step.camera)
    time.sleep(step.amount * 0.5)
    soak.unsubscribe("killed", kill=True)


def nonsense(soak: Soak, step: Step) -> None:
    """Bytes that are no request and no subscription."""
    chance = random.Random(step.amount)
    context = zmq.Context()
    try:
        asks, listens = context.socket(zmq.DEALER), context.socket(zmq.XSUB)
        asks.connect(soak.control_endpoint)
        listens.connect(soak.endpoint)
        for size in (0, 1, 30, 400, 4000, 5000):
            asks.send(chance.randbytes(size))
            listens.send(b"\x07" + chance.randbytes(size))
        asks.send_multipart([b"{", chance.randbytes(9)])
        asks.send(b'{"id": 1, "cmd": "set", "feature": "Gain", "value": 1e99}')
        asks.poll(2000)
    finally:
        context.destroy(linger=200)


FAULTS: dict[str, Callable[[Soak, Step], None]] = {
    fault.__name__: fault
    for fault in (
        unplug,
        fall_silent,
        pause,
        incomplete,
        drop,
        change_features,
        kill_grab,
        kill_develop,
        kill_both,
        record,
        kill_recorder,
        hang_grab,
        hang_develop,
        hold_up,
        unplug_and_kill,
        change_engine,
        change_balance,
        change_engine_and_kill,
        change_engine_and_unplug,
        refuse_engine,
        slow_subscriber,
        stopped_subscriber,
        killed_subscriber,
        nonsense,
    )
}
