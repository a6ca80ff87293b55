"""Another engine in the middle of a run: no frame lost, and whatever goes wrong meanwhile, the camera goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from ispeed.stream import Control, ControlError, Subscriber


class Watcher:
    """Takes in every frame of a run's first camera in a thread of its own, until the stream ends."""

    def __init__(self) -> None:
        self.headers = []
        self.missed = self.lapped = 0
        self._over = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        assert self._first.wait(60)

    def _watch(self) -> None:
        with Subscriber(mode="every") as frames:
            while not self._over.is_set():
                try:
                    self.headers.append(frames.receive(timeout_ms=200).header)
                except TimeoutError:
                    continue
                self._first.set()
            self.missed, self.lapped = frames.missed, frames.lapped

    def until(self, wanted) -> None:
        """Waits for a frame whose header is `wanted`."""
        seen = 0
        while True:
            count = len(self.headers)
            if any(wanted(header) for header in self.headers[seen:count]):
                return
            seen = count
            time.sleep(0.02)

    def finish(self) -> list:
        self._over.set()
        self._thread.join()
        return self.headers


@pytest.fixture
def watch():
    watchers = []

    def start() -> Watcher:
        watchers.append(Watcher())
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.finish()


def develop_pids(main: int) -> set[int]:
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    found = set()
    for child in children:
        try:
            if b"ispeed.stream.develop\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(int(child))
        except OSError:
            continue
    return found


def second_develop(main: int, first: int) -> int:
    """The process that makes another engine ready, once it is there."""
    while not (others := develop_pids(main) - {first}):
        time.sleep(0.005)
    return others.pop()


def engines_of(headers) -> list[int]:
    """The engines in the order in which they developed."""
    return [engine for engine, _ in groupby(header.engine_id for header in headers)]


def test_two_changes_in_a_row_and_new_gains_without_a_gap(isp_stream, watch, core_file):
    run = isp_stream("--slots", "1000", "--engine", "classic")
    run.published(20)
    watcher = watch()
    with ThreadPoolExecutor(2) as pool, Control(timeout_ms=100_000) as control:

        def change(engine):
            with Control(timeout_ms=100_000) as asked:
                return asked.call("engine", engine=engine)["engine"]

        # both are asked for at once: one waits for the other
        there, back = (pool.submit(change, engine) for engine in (str(core_file), "classic"))
        assert {there.result()["name"], back.result()["name"]} == {"tiny", "classic"}
        last = run.until("engine")["engine"]
        last = run.until("engine")["engine"]
        watcher.until(lambda header: header.engine_id == last["engine_id"])
        control.call("engine", engine="classic", white_balance=[2, 1, 1.5])
        watcher.until(lambda header: (header.wb_r, header.wb_g, header.wb_b) == (2.0, 1.0, 1.5))
        control.call("stop")
    ledger = run.finish()
    headers = watcher.finish()
    assert sum(ledger["lost"].values()) == 0
    assert (watcher.missed, watcher.lapped) == (0, 0)
    assert all(after.sequence == before.sequence + 1 for before, after in pairwise(headers))
    assert all(after.frame_id == before.frame_id + 1 for before, after in pairwise(headers))
    assert len(engines_of(headers)) <= 4  # classic, tiny, classic; or, asked for the other way round, classic, tiny
    assert len(set(engines_of(headers))) == 2


def test_one_that_comes_back_and_one_that_takes_over_do_not_both_develop(isp_stream, watch):
    """The first process dies while the second is made ready: what is started in its place is ready too late."""
    run = isp_stream("--slots", "400")
    run.published(20)
    watcher = watch()
    for gain in (1.5, 1.75, 2.0):
        (first,) = develop_pids(run.process.pid)
        with ThreadPoolExecutor(1) as pool, Control(timeout_ms=100_000) as control:
            change = pool.submit(control.call, "engine", engine="classic", white_balance=[gain, 1, 1])
            second_develop(run.process.pid, first)
            os.kill(first, signal.SIGKILL)
            change.result()
        watcher.until(lambda header, gain=gain: header.wb_r == gain)
        at = watcher.headers[-1].sequence
        watcher.until(lambda header, at=at: header.sequence > at + 200)  # longer than the one too many has to leave
    with Control() as control:
        control.call("stop")
    ledger = run.finish()
    headers = watcher.finish()
    assert ledger["balanced"]
    # nobody develops until the second is ready, which on a slow machine takes longer than the ring is
    assert {reason for reason, count in ledger["lost"].items() if count} <= {"stage_died", "superseded"}
    assert all(after.sequence == before.sequence + 1 for before, after in pairwise(headers))
    assert all(after.frame_id > before.frame_id for before, after in pairwise(headers))
    assert [gain for gain, _ in groupby(header.wb_r for header in headers)][-3:] == [1.5, 1.75, 2.0]


def test_an_engine_that_cannot_be_leaves_the_old_one(isp_stream, watch, tmp_path):
    run = isp_stream("--slots", "400")
    run.published(20)
    watcher = watch()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with Control(timeout_ms=100_000) as control:
        for engine, sentence in (("nope", "there is no engine 'nope'"), (str(broken), "broken.onnx")):
            with pytest.raises(ControlError, match=sentence):
                control.call("engine", engine=engine)
        seen = watcher.headers[-1].sequence
        watcher.until(lambda header: header.sequence > seen + 20)
        control.call("set", feature="SimVanish", value=200)  # and what was tried has left nothing behind
        run.until("outage")
        watcher.until(lambda header: header.segment == 2)
        seen = watcher.headers[-1].sequence
        watcher.until(lambda header: header.sequence > seen + 100)
        control.call("stop")
    ledger = run.finish()
    assert len(engines_of(watcher.finish())) == 1
    assert ledger["lost"]["stage_died"] == ledger["lost"]["superseded"] == 0


def test_a_change_while_the_camera_is_away(isp_stream, watch, replug, core_file):
    run = isp_stream("--engine", "classic")
    run.published(20)
    watcher = watch()
    with Control(timeout_ms=100_000) as control:
        control.call("set", feature="SimVanish", value=3_600_000)
        run.until("camera_lost")
        engine = control.call("engine", engine=str(core_file))["engine"]
        replug()
        run.until("outage")
        watcher.until(lambda header: header.engine_id == engine["engine_id"])
        control.call("stop")
    ledger = run.finish()
    headers = watcher.finish()
    assert len(engines_of(headers)) == 2
    assert all(header.engine_id == engine["engine_id"] for header in headers if header.segment == 2)
    assert len(ledger["segments"]) == 2


@pytest.mark.parametrize("victim", ["new", "old", "both"])
def test_a_develop_process_killed_during_a_change(isp_stream, watch, core_file, victim):
    run = isp_stream("--slots", "400", "--engine", "classic")
    first = run.until("started")["pids"]["develop"]
    run.published(20)
    watcher = watch()
    with ThreadPoolExecutor(1) as pool, Control(timeout_ms=100_000) as control:
        asked = pool.submit(control.call, "engine", engine=str(core_file))
        second = second_develop(run.process.pid, first)
        for pid in {"new": (second,), "old": (first,), "both": (first, second)}[victim]:
            os.kill(pid, signal.SIGKILL)
        if victim == "old":
            assert asked.result()["engine"]["name"] == "tiny"
        else:
            with pytest.raises(ControlError, match="the engine stays as it is: the develop process ended while"):
                asked.result()
        seen = watcher.headers[-1].sequence
        watcher.until(lambda header: header.sequence > seen + 20)
        control.call("stop")
    ledger = run.finish()
    headers = watcher.finish()
    assert len(engines_of(headers)) == (2 if victim == "old" else 1)
    assert all(after.sequence > before.sequence for before, after in pairwise(headers))
    if victim == "new":
        assert sum(ledger["lost"].values()) == 0
