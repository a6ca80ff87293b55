"""The real `isp-stream`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.stream.camera.simcam import SERIAL_NUMBERS, producer_path
from ispeed.stream.hub import Signals

ISP_STREAM = [sys.executable, "-m", "ispeed.stream"]


class Run:
    """A running isp-stream with --json."""

    def __init__(self, *arguments: str, stderr: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [*ISP_STREAM, "--json", *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        self.messages: list[dict[str, Any]] = []

    def until(self, event: str, **wanted: Any) -> dict[str, Any]:
        """Reads messages up to the next one of that event (and those values)."""
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            self.messages.append(message)
            if message["event"] == event and all(message.get(k) == v for k, v in wanted.items()):
                return message
        raise AssertionError(f"isp-stream ended without {event!r}: {self.messages} {self.errors()}")

    def errors(self) -> str:
        """What it wrote to stderr, once it has ended."""
        return self.process.stderr.read() if self.process.stderr else ""

    def published(self, at_least: int = 1) -> dict[str, Any]:
        """The first status with so many published frames."""
        while True:
            status = self.until("status")
            if status["account"]["published"] >= at_least:
                return status

    def signal(self, number: int = signal.SIGINT) -> None:
        """Ctrl-C, or another signal, to the main process."""
        self.process.send_signal(number)

    def finish(self, code: int = 0) -> dict[str, Any]:
        """The ledger at the end; checks exit code and that the account balances."""
        final = self.until("final")
        assert self.process.wait(30) == code, self.errors()
        ledger = final["ledger"]
        assert ledger["balanced"]
        assert ledger["in_flight"] == 0
        assert ledger["seen"] + ledger["missing"] == ledger["published"] + sum(ledger["lost"].values())
        return ledger

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def signals() -> Iterator[Signals]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    made = Signals()
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.close(made.wake)


@pytest.fixture
def isp_stream(runtime_dir: Path) -> Iterator[Callable[..., Run]]:
    """Starts isp-stream with a small, quick picture, in a runtime folder of its own."""
    runs: list[Run] = []

    def start(*arguments: str, size: str = "160x120", fps: float = 200) -> Run:
        width, height = size.split("x")
        runs.append(Run("--width", width, "--height", height, "--fps", str(fps), *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture
def other_producer(tmp_path: Path) -> Callable[..., Path]:
    """Copies the producer of the simulated camera, with other serial numbers, at most seven characters each. By its
    DeviceVersion, 9.0.0, such a camera can be told from that of the shipped one."""

    def copied(*serials: str) -> Path:
        library = producer_path().read_bytes()
        for before, after in [*zip(SERIAL_NUMBERS, serials, strict=False), ("1.0.0", "9.0.0")]:
            assert library.count(before.encode()) == 1
            library = library.replace(before.encode(), after.encode().ljust(len(before), b"\0"))
        path = tmp_path.resolve() / f"producer{len(list(tmp_path.glob('*.cti')))}.cti"
        path.write_bytes(library)
        return path

    return copied


@pytest.fixture
def isp_stream_command() -> list[str]:
    """The command itself."""
    return ISP_STREAM


@pytest.fixture
def isp_replay(runtime_dir: Path) -> Iterator[Callable[..., Run]]:
    """Starts isp-stream on a recording, with the classic engine."""
    runs: list[Run] = []

    def start(file: Path | str, *arguments: str) -> Run:
        runs.append(Run("--camera", f"file:{file}", "--engine", "classic", *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture
def replug(runtime_dir: Path) -> Callable[[], None]:
    """Brings the first simulated camera back that has vanished: the moment of its return lies in its lock file."""

    def replugged() -> None:
        with (runtime_dir / f"ispeed-simcam-{os.geteuid()}-SIM0001.lock").open("r+b") as file:
            file.write(bytes(8))

    return replugged


@pytest.fixture
def isp_stream_fails(runtime_dir: Path) -> Callable[..., str]:
    """Runs isp-stream with bad input; returns its one sentence after checking exit code, tracebacks and output."""

    def fails(*arguments: str) -> str:
        done = subprocess.run([*ISP_STREAM, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("isp-stream: error: ")
        assert done.stdout == ""
        return lines[0].removeprefix("isp-stream: error: ")

    return fails


@pytest.fixture
def core_file(tmp_path: Path) -> Path:
    """tiny.onnx: a model core without any learning. Each 2x2 block shows its own R, mean G and B, times the gains."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from ispeed.engines.core import CoreInfo, write_core

    mix = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], np.float32)  # R, Gr, Gb, B to R, G, B
    weights = {
        "mix": np.repeat(mix, 4, axis=0).reshape(12, 4, 1, 1),
        "axes": np.array([2, 3]),
        "zero": np.float32(0),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("Conv", ["raw", "mix"], ["blocks"]),
        helper.make_node("DepthToSpace", ["blocks"], ["pixels"], blocksize=2, mode="CRD"),
        helper.make_node("Unsqueeze", ["params", "axes"], ["gains"]),
        helper.make_node("Mul", ["pixels", "gains"], ["balanced"]),
        helper.make_node("Clip", ["balanced", "zero", "one"], ["rgb"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["B", 4, "h", "w"]),
            helper.make_tensor_value_info("params", TensorProto.FLOAT, ["B", 3]),
        ],
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path / "tiny.onnx"
    write_core(path, model, CoreInfo("tiny", 4, "srgb", 2, ("wb_r", "wb_g", "wb_b")))
    return path
