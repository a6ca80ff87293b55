"""The real `isp-develop`, as a user runs it, and footage for it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat, pack
from ispeed.stream.record import write_recording

ISP_DEVELOP = [sys.executable, "-m", "ispeed.stream.offline"]
SIZE = (64, 48)


def samples(count: int, seed: int = 1) -> np.ndarray:
    """uint16 [count, height, width]: a picture that moves, in 12 bits, with noise."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    frames = [
        1200 + 800 * np.sin((x + 2 * k) / 9) + 500 * np.cos((y - k) / 7) + rng.normal(0, 30, (height, width))
        for k in range(count)
    ]
    return np.clip(np.stack(frames), 0, 4095).astype(np.uint16)


class Run:
    """A running isp-develop with --json."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*ISP_DEVELOP, "--json", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def until(self, event: str, **least: float) -> dict[str, Any]:
        """The next message of that event, with those values at least."""
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if message["event"] == event and all(message[name] >= value for name, value in least.items()):
                return message
        raise AssertionError(f"isp-develop ended without {event!r}: {self.errors()}")

    def errors(self) -> str:
        """What it wrote to stderr, once it has ended."""
        assert self.process.stderr
        return self.process.stderr.read()

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):  # it has ended
                continue
            if parent == self.process.pid:
                pids.append(int(folder.name))
        return pids

    def finish(self, code: int = 0) -> str:
        """Waits for its end; checks the exit code. Returns what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=90)
        assert self.process.returncode == code, errors
        return errors

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def isp_develop() -> Iterator[Callable[..., Run]]:
    """Starts isp-develop."""
    runs: list[Run] = []

    def start(*arguments: str | Path, env: dict[str, str] | None = None) -> Run:
        runs.append(Run(*arguments, env=env))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture
def develop(isp_develop: Callable[..., Run]) -> Callable[..., dict[str, Any]]:
    """Runs isp-develop to its good end; returns its last message."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        process = isp_develop(*arguments)
        final = process.until("final")
        assert process.finish() == ""
        return final

    return run


@pytest.fixture
def isp_develop_fails(isp_develop: Callable[..., Run]) -> Callable[..., str]:
    """Runs isp-develop with bad input; returns its one sentence after checking exit code, tracebacks and output."""

    def fails(*arguments: str | Path) -> str:
        done = subprocess.run([*ISP_DEVELOP, *map(str, arguments)], capture_output=True, text=True, timeout=90)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("isp-develop: error: ")
        return lines[0].removeprefix("isp-develop: error: ")

    return fails


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run.h5: a recording of 100 raw frames."""
    fmt = RawFormat(*SIZE, "BayerRG12p", 64, 4000)
    frames = [pack(each, fmt) for each in samples(100)]
    return write_recording(tmp_path_factory.mktemp("footage") / "run.h5", fmt, frames, fps=500.0)


@pytest.fixture(scope="session")
def makers() -> ModuleType:
    """tests/stream/footage/makers.py: writers of .cine and .mraw files."""
    path = Path(__file__).parents[1] / "footage" / "makers.py"
    spec = importlib.util.spec_from_file_location("ispeed_test_makers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def moving() -> Callable[..., np.ndarray]:
    """See `samples`."""
    return samples


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a folder, by name, but for what the next run would go on from."""

    def digest(folder: Path) -> dict[str, str]:
        files = {path.name: path for path in folder.iterdir() if path.name != ".isp-develop.json"}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}

    return digest


@pytest.fixture
def core_told_exposure(tmp_path: Path) -> Path:
    """told.onnx: a model core that shows nothing of the frame: red is exposure_us / 1000, green iso / 1000, blue 0."""
    from onnx import TensorProto, helper, numpy_helper

    from ispeed.engines.core import CoreInfo, write_core

    constants = {
        "mix": np.array([[0.001, 0, 0], [0, 0.001, 0]], np.float32),
        "nothing": np.zeros((12, 4, 1, 1), np.float32),
        "axes": np.array([2, 3]),
        "zero": np.float32(0),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("Conv", ["raw", "nothing"], ["blocks"]),
        helper.make_node("DepthToSpace", ["blocks"], ["pixels"], blocksize=2, mode="CRD"),
        helper.make_node("MatMul", ["params", "mix"], ["told"]),
        helper.make_node("Unsqueeze", ["told", "axes"], ["colour"]),
        helper.make_node("Add", ["pixels", "colour"], ["sum"]),
        helper.make_node("Clip", ["sum", "zero", "one"], ["rgb"]),
    ]
    graph = helper.make_graph(
        nodes,
        "told",
        [
            helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["B", 4, "h", "w"]),
            helper.make_tensor_value_info("params", TensorProto.FLOAT, ["B", 2]),
        ],
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "told.onnx"
    write_core(path, model, CoreInfo("told", 4, "srgb", 2, ("exposure_us", "iso")))
    return path
