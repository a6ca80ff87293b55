"""`isp-bench kill`: its eyes, and the drill itself, three times each."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ispeed.bench.kill import SCENARIOS, Drill, _unbalanced, _unquiet
from ispeed.bench.pipeline import Settings
from ispeed.bench.processes import (
    RUN_VARIABLE,
    end_marked,
    holders,
    marked,
    ring_memory,
    stage_pid,
    wait_gone,
    wait_released,
)

SMALL = Settings(fps=100, width=160, height=120, pixel_format="BayerRG8")


@contextmanager
def sleeper(code: str = "", *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    body = f"{code}\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"
    command = [sys.executable, "-c", body, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, text=True, env={**os.environ, **environment}, close_fds=False
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_processes_are_found_by_their_marker_and_ended():
    marker = uuid.uuid4().hex
    with sleeper(**{RUN_VARIABLE: marker}) as process, sleeper(**{RUN_VARIABLE: uuid.uuid4().hex}) as other:
        assert list(marked(marker)) == [process.pid]
        assert list(wait_gone(marker, 0.1)) == [process.pid]
        end_marked(marker)
        process.wait(5)
        assert wait_gone(marker, 5) == {}
        assert other.poll() is None


def test_a_stage_is_found_by_its_module():
    marker = uuid.uuid4().hex
    with sleeper("", "ispeed.stream.grab", "9", **{RUN_VARIABLE: marker}) as process:
        assert stage_pid(marker, "grab") == process.pid
        assert stage_pid(marker, "develop") is None


def test_whoever_holds_or_only_maps_a_ring_is_found():
    fd = os.memfd_create("ispeed-test")
    os.set_inheritable(fd, True)
    os.ftruncate(fd, 4096)
    rings = ring_memory(os.getpid())
    assert len(rings) == 1
    try:
        with sleeper(f"import mmap, os\nm = mmap.mmap({fd}, 4096)\nos.close({fd})") as maps:
            with mmap.mmap(fd, 4096) as mine:
                assert {maps.pid, os.getpid()} <= set(holders(rings))
                mine[0] = 1
            os.close(fd)
            fd = -1
            assert maps.pid in holders(rings)
            assert wait_released(rings, 0.1) == [maps.pid]
            maps.terminate()
            assert wait_released(rings, 5) == []
        assert holders(rings) == []
    finally:
        if fd >= 0:
            os.close(fd)


def test_a_ledger_out_of_balance_is_a_problem():
    good = {"ledger": {"balanced": True, "in_flight": 0, "segments": []}}
    assert _unbalanced(good) == []
    assert _unbalanced({"ledger": {**good["ledger"], "balanced": False}})
    assert _unbalanced({"ledger": {**good["ledger"], "in_flight": 2}})


def test_what_a_run_leaves_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Run:
        marker = uuid.uuid4().hex

    monkeypatch.setattr("ispeed.bench.kill.GONE_S", 0.1)
    drill = Drill(SMALL, str(tmp_path), seed=1)
    assert drill._left_behind(Run, set()) == []  # type: ignore[arg-type]
    fd = os.memfd_create("ispeed-test")
    try:
        with sleeper(**{RUN_VARIABLE: Run.marker}):
            problems = drill._left_behind(Run, ring_memory(os.getpid()))  # type: ignore[arg-type]
    finally:
        os.close(fd)
    assert ["outlived" in problems[0], "still held" in problems[1]] == [True, True]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("runtime_dir")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_three_times(scenario: str, tmp_path_factory: pytest.TempPathFactory, runtime_dir: Path):
    outcome = Drill(SMALL, str(runtime_dir), seed=7).run(scenario, 3)
    assert outcome.problems == []
    assert outcome.turns == 3


@pytest.mark.parametrize(
    ("code", "said", "events", "quiet"),
    [
        (0, "", [], True),
        (-2, "", [], True),  # before Python could even say anything
        (-2, 'isp-stream", line 2, in <module>\nKeyboardInterrupt', [], True),
        (-2, 'entry.py", line 12, in <module>\nKeyboardInterrupt', [], True),
        (1, 'entry.py", line 20, in stream\nKeyboardInterrupt', [], False),
        (0, "Traceback of a stage\nKeyboardInterrupt", [], False),
        (0, "", [{"event": "started"}], True),
        (-2, "", [{"event": "started"}], False),
        (1, "", [], False),
        (2, "isp-stream: error: camera busy", [], False),
    ],
)
def test_what_counts_as_a_quiet_end(code: int, said: str, events: list, quiet: bool):
    class Run:
        stderr = (said,)

    Run.events = events  # type: ignore[attr-defined]
    assert (_unquiet(Run, code) == []) == quiet  # type: ignore[arg-type]
