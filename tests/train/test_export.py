"""What is exported computes what the network computes, wherever it runs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines._openvino import openvino_core
from ispeed.engines.core import CoreInfo, read_core
from ispeed.engines.graph_reference import graft_reference
from ispeed.engines.slots import Slots
from ispeed.train import cli
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.entry import INTERRUPTED
from ispeed.train.models import NETWORKS, VARIANTS, CoreModule

Make = Callable[..., Path]
FAMILY = list(VARIANTS)
TOLERANCE = 1e-4
NOISE = {"gain_db": [0.0, 24.0], "exposure_us": 1000.0}
TOLD = {"gain_db": [0.0, 24.0]}


def exported(checkpoint: Path, suffix: str) -> Path:
    path = checkpoint.with_suffix(suffix)
    assert cli.export([str(checkpoint), "-o", str(path)]) == 0
    return path


def examples(model: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Planes and gains of two sizes and two batches."""
    rng, half = np.random.default_rng(2), NETWORKS[model].multiple // 2
    sizes = [(1, 2 * half, 3 * half), (3, 4 * half, 2 * half)]
    return [
        (
            rng.uniform(-0.02, 1, (batch, 4, height, width)).astype(np.float32),
            rng.uniform(0.5, 2, (batch, 3)).astype(np.float32),
        )
        for batch, height, width in sizes
    ]


def by_torch(checkpoint: Path, raw: np.ndarray, params: np.ndarray) -> np.ndarray:
    core = CoreModule(load_checkpoint(checkpoint).network)
    with torch.inference_mode():
        return core(torch.from_numpy(raw), torch.from_numpy(params)).numpy()


@pytest.mark.parametrize("model", FAMILY)
def test_core_in_onnx_runtime_and_openvino(make_checkpoint: Make, model: str):
    checkpoint = make_checkpoint(model)
    path = exported(checkpoint, ".onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(path, "CPU", exact)
    for raw, params in examples(model):
        expected = by_torch(checkpoint, raw, params)
        for shown in (session.run(None, {"raw": raw, "params": params})[0], compiled([raw, params])[0]):
            np.testing.assert_allclose(shown, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("model", FAMILY)
def test_core_says_what_it_is(make_checkpoint: Make, model: str):
    core = read_core(exported(make_checkpoint(model), ".onnx"))
    variant = VARIANTS[model]
    assert (core.info.model, core.info.width, core.info.multiple) == (model, variant.width, variant.multiple)
    assert (core.info.output, core.info.precision, core.info.inputs) == ("srgb", "fp32", ("wb_r", "wb_g", "wb_b"))
    assert (core.info.run, core.info.data, core.info.licence) == ("none", "chance", "Apache-2.0")
    assert [(o.domain, o.version) for o in core.model.opset_import] == [("", 17)]
    dims = {value.name: len(value.type.tensor_type.shape.dim) for value in core.model.graph.input}
    assert dims == {"raw": 4, "params": 2}
    assert {t.data_type for t in core.model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_a_core_may_have_a_name_of_its_own(make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Which engines take, while training and isp-build still know the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "named.onnx"
    assert cli.export([str(make_checkpoint()), "-o", str(path), "--name", "my-isp.2"]) == 0
    info = read_core(path).info
    assert (info.model, info.title, info.name) == ("lwisp-xs", "my-isp.2", "my-isp.2")
    engine = open_engine(str(path))
    assert engine.info.name == "my-isp.2"
    engine.close()
    assert load_checkpoint(path).model == "lwisp-xs"


@pytest.mark.parametrize("name", ["a b", "../x", "-x", "n" * 33])
def test_names_that_are_none(make_checkpoint: Make, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "a.onnx"
    assert cli.export([str(make_checkpoint()), "-o", str(path), f"--name={name}"]) == 2
    assert "is none: it has up to 32 letters" in capsys.readouterr().err
    assert not path.exists()


# ---- networks that are told the noise level ----------------------------------------------------------------


def columns(inputs: tuple[str, ...], gains: np.ndarray, exposure: float, gain: float) -> np.ndarray:
    told = {"exposure_us": exposure, "gain_db": gain}
    rest = [np.full(len(gains), told[name], np.float32) for name in inputs[3:]]
    return np.concatenate([gains, *(column[:, None] for column in rest)], 1)


@pytest.mark.parametrize(("model", "noise"), [("liteisp-s", NOISE), ("lwisp-xs", TOLD)])
def test_told_cores_in_onnx_runtime_and_openvino(make_told: Make, model: str, noise: dict[str, object]):
    checkpoint = make_told(model, noise)
    core = read_core(exported(checkpoint, ".onnx"))
    assert (core.info.model, core.info.multiple, core.info.width) == (model, 16 if "lite" in model else 8, 16)
    assert core.info.inputs[3:] == tuple(sorted(noise))
    assert [(o.domain, o.version) for o in core.model.opset_import] == [("", 17)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(core.path, options, providers=["CPUExecutionProvider"])
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(core.path, "CPU", exact)
    for raw, gains in examples(model):
        pictures = []
        for exposure, gain in ((0.0, 0.0), (500.0, 6.0), (1000.0, 21.0)):
            params = columns(core.info.inputs, gains, exposure, gain)
            expected = by_torch(checkpoint, raw, params)
            for shown in (session.run(None, {"raw": raw, "params": params})[0], compiled([raw, params])[0]):
                np.testing.assert_allclose(shown, expected, atol=TOLERANCE, rtol=0)
            pictures.append(expected)
        assert min(float(np.abs(a - b).max()) for a, b in pairwise(pictures)) > 50 * TOLERANCE


def test_program_that_is_told_the_noise_level(make_told: Make):
    checkpoint = make_told("lwisp-xs", NOISE)
    files = {"ispeed.json": ""}
    program = torch.export.load(exported(checkpoint, ".pt2"), extra_files=files)
    inputs = CoreInfo.from_json(json.loads(files["ispeed.json"])).inputs
    for raw, gains in examples("lwisp-xs"):
        params = columns(inputs, gains, 200.0, 3.0)
        with torch.inference_mode():
            shown = program.module()(torch.from_numpy(raw), torch.from_numpy(params)).numpy()
        np.testing.assert_allclose(shown, by_torch(checkpoint, raw, params), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("model", "noise"), [("liteisp-s", TOLD), ("lwisp-xs", NOISE)])
def test_the_gain_of_a_frame_changes_its_picture_as_in_training(
    make_told: Make, model: str, noise: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The grafted engine on the processor, told gain and exposure as they come with frames, against the module."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = make_told(model, noise)
    core, info = CoreModule(load_checkpoint(checkpoint).network), read_core(exported(checkpoint, ".onnx")).info
    fmt, rng = RawFormat(50, 46, "BayerGR12", 64), np.random.default_rng(3)
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, 3 * fmt.width * fmt.height)
    raw.slot(0)[:] = pack(rng.integers(40, 4096, (fmt.height, fmt.width)).astype(np.uint16), fmt)

    def run_core(planes: np.ndarray, params: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return core(torch.from_numpy(planes)[None].float(), torch.from_numpy(params)[None].float())[0].numpy()

    engine = open_engine(str(checkpoint.with_suffix(".onnx")), precision="fp32", threads=1)
    pictures = []
    try:
        assert engine.info.inputs == info.inputs
        engine.prepare(fmt, 1, raw, srgb)
        for exposure, gain in ((1000.0, 0.0), (1000.0, 18.0), (math.nan, 18.0), (math.nan, math.nan)):
            given = columns(info.inputs, np.array([[1.5, 1.0, 2.0]], np.float32), exposure, gain)
            engine.develop([0], [0], given).wait()
            shown = srgb.slot(0).reshape(fmt.height, fmt.width, 3).astype(int)
            expected = graft_reference(raw.slot(0), fmt, run_core, info, np.nan_to_num(given[0]))
            assert np.abs(shown - expected).max() <= 1
            pictures.append(shown)
    finally:
        engine.close()
    low, high, unknown_exposure, unknown = pictures
    assert np.abs(low - high).max() > 8, "more gain, another picture"
    assert np.array_equal(unknown_exposure, high), "an exposure that is not known counts as the usual one"
    assert np.array_equal(unknown, low), "a gain that is not known counts as none"


def test_core_computes_no_constants(make_checkpoint: Make):
    graph = read_core(exported(make_checkpoint("lwisp"), ".onnx")).model.graph
    known = {tensor.name for tensor in graph.initializer}
    assert [node.name for node in graph.node if known.issuperset(node.input)] == []
    assert known == known.intersection(*[{name for node in graph.node for name in node.input}])


def test_program_round_trip(make_checkpoint: Make):
    checkpoint = make_checkpoint("lwisp-s")
    files = {"ispeed.json": ""}
    program = torch.export.load(exported(checkpoint, ".pt2"), extra_files=files)
    info = CoreInfo.from_json(json.loads(files["ispeed.json"]))
    assert (info.model, info.width, info.multiple, info.inputs) == ("lwisp-s", 8, 32, ("wb_r", "wb_g", "wb_b"))
    assert len(info.sha256) == 64
    core = program.module()
    for raw, params in examples("lwisp-s"):
        with torch.inference_mode():
            shown = core(torch.from_numpy(raw), torch.from_numpy(params)).numpy()
        np.testing.assert_allclose(shown, by_torch(checkpoint, raw, params), atol=TOLERANCE, rtol=0)


def test_program_refuses_other_sizes(make_checkpoint: Make):
    core = torch.export.load(exported(make_checkpoint("lwisp-xs"), ".pt2")).module()
    with pytest.raises((AssertionError, RuntimeError)):
        core(torch.rand(1, 4, 18, 16), torch.ones(1, 3))


def test_same_weights_same_checksum(make_checkpoint: Make):
    first = read_core(exported(make_checkpoint("lwisp-xs"), ".onnx"))
    assert cli.export([str(make_checkpoint()), "-o", str(first.path), "--force"]) == 0
    assert read_core(first.path).info == first.info


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["missing.pt"], "cannot read the checkpoint missing.pt"),
        (["lwisp-xs.pt", "-o", "core.pth"], "use .onnx (a model core) or .pt2"),
        (["lwisp-xs.pt", "-o", "taken.onnx"], "taken.onnx exists already"),
        (["lwisp-xs.pt", "-o", "no/where.onnx"], "cannot write no/where.onnx"),
        (["lwisp-xs.pt", "-o", "no/where.pt2"], "cannot write no/where.pt2"),
        (["lwisp-xs.pt", "-o", "taken.onnx/x.onnx"], "cannot write taken.onnx/x.onnx"),
        (["lwisp-xs.pt", "-o", "taken.onnx/x.pt2"], "cannot write taken.onnx/x.pt2"),
        (["taken.onnx", "-o", "x.onnx"], "taken.onnx"),
        (["lwisp-xs.pt", "-o", f"{'a' * 300}.onnx"], "File name too long"),
        (["."], "cannot read the checkpoint .: Is a directory"),
    ],
)
def test_wrong_input_is_one_line(
    make_checkpoint: Make,
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(make_checkpoint().parent)
    Path("taken.onnx").write_text("mine")
    assert cli.export(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("isp-export: error: ")
    assert shown.err.count("\n") == 1
    assert problem in shown.err
    assert Path("taken.onnx").read_text() == "mine"
    assert not list(Path().rglob("*.part"))


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_ctrl_c_in_the_writing_leaves_nothing(make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, suffix: str):
    def interrupted(descriptor: int) -> None:
        raise SystemExit(INTERRUPTED)  # as `entry` makes of the signal

    checkpoint = make_checkpoint()
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(SystemExit):
        cli.export([str(checkpoint), "-o", str(checkpoint.with_suffix(suffix))])
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_ctrl_c_elsewhere_is_quiet(capsys: pytest.CaptureFixture[str]):
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert cli.run("isp-export", interrupted) == INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_console_script(make_checkpoint: Make):
    checkpoint = make_checkpoint()
    command = [sys.executable, "-c", "import sys; from ispeed.train.entry import export; sys.exit(export())"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(checkpoint)], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{checkpoint.with_suffix('.onnx')}: lwisp-xs, fp32, ")
    again = subprocess.run([*command, str(checkpoint)], capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_without_torch_it_says_what_to_install(
    make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    checkpoint = make_checkpoint()
    for name in [name for name in sys.modules if name.startswith("ispeed.train.") and name != "ispeed.train.cli"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.export([str(checkpoint)]) == 2
    assert "pip install 'ispeed[train]'" in capsys.readouterr().err
