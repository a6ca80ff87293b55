"""isp-develop on a Ray cluster: of two nodes on this machine, of which one is lost."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.bench.helper import HelperProcess
from ispeed.engines import RawFormat, pack
from ispeed.stream.offline.cli import main
from ispeed.stream.record import write_recording

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray has no wheel for this Python"),
]

FRAMES, SIZE = 80, (640, 480)  # enough that a node is lost before the other has done them all


@pytest.fixture(scope="module")
def cluster() -> Iterator[HelperProcess]:
    """Two nodes with a processor each."""
    with HelperProcess("ray_nodes", "2") as nodes:
        yield nodes
        nodes.close_input()
        nodes.wait()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames that take their time."""
    fmt = RawFormat(*SIZE, "BayerRG12p")
    samples = np.random.default_rng(3).integers(0, 4096, (FRAMES, SIZE[1], SIZE[0])).astype(np.uint16)
    return write_recording(
        tmp_path_factory.mktemp("slow") / "run.h5",
        fmt,
        [pack(each, fmt) for each in samples],
        calibration={"white_balance": [1.5, 1, 1.75]},
    )


@pytest.mark.timeout(300)  # a cluster takes its time to start on a machine that has other things to do
def test_the_same_bytes_on_a_cluster_that_loses_a_node(
    cluster: HelperProcess,
    slow: Path,
    tmp_path: Path,
    isp_develop: Callable[..., Any],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    address = str(cluster.read()["address"])
    arguments = (slow, "-o", tmp_path / "cluster", "--format", "h5", "--chunk", "4")
    listed = tmp_path / "cluster" / ".isp-develop" / "done"

    def done() -> int:
        return listed.stat().st_size // 8 if listed.is_file() else 0

    # found as a user's command finds it, and interrupted
    run = isp_develop(*arguments, "--ray", "auto", env={"RAY_ADDRESS": address})
    assert run.until("started")["there"] == 0
    _wait_for(lambda: done() >= 4)
    run.process.send_signal(signal.SIGINT)
    assert re.fullmatch(
        r"isp-develop: stopped with \d+ of 80 frames done; the same command goes on.*\n", run.finish(130)
    )
    # a node is lost while it goes on
    before = done()
    run = isp_develop(*arguments, "--ray", address)
    assert run.until("started")["there"] == before < FRAMES // 2
    _wait_for(lambda: done() >= before + 8)
    cluster.say("kill")
    assert cluster.read()["left"] == 1
    final = run.until("final")
    assert run.finish() == ""
    assert (final["died"], final["developed"]) == (1, FRAMES - before)
    # the same without a cluster
    assert main([str(slow), "-o", str(tmp_path / "here"), "--format", "h5", "--quiet"]) == 0
    assert digests(tmp_path / "cluster") == digests(tmp_path / "here")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", "use auto, local, or HOST:PORT"),
        ("here", "use auto, local, or HOST:PORT"),
    ],
)
def test_no_cluster(slow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, said: str) -> None:
    """Found out before Ray is asked, which takes minutes."""
    assert main([str(slow), "-o", str(tmp_path / "out"), "--ray", address]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
